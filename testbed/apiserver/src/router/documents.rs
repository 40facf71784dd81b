//! The paths that describe the server.

use http::{header, request::Parts};
use serde_json::{Value, json};

use super::Answer;
use crate::{
    discovery,
    http::Shared,
    openapi,
    request::{Shape, shape},
    status::{ApiError, Result},
};

/// The answer to `kubectl auth can-i`: authorization is the token and nothing else.
pub(super) fn may_do_everything(review: &Value) -> Value {
    json!({
        "kind": "SelfSubjectAccessReview", "apiVersion": "authorization.k8s.io/v1", "metadata": {}, "spec": review["spec"],
        "status": {"allowed": true, "reason": "the lab's token may do everything"},
    })
}

/// Discovery and OpenAPI; `None` when the path is another.
pub(super) fn find(path: &str, head: &Parts, shared: &Shared) -> Result<Option<Answer>> {
    let resources = || shared.registry.resources();
    let ok = |value: Value| Ok(Some(Answer::json(200, value)));
    let aggregated = |core: bool| {
        let kind = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
        let answer = Answer::json(200, discovery::aggregated(&resources(), core));
        Ok(Some(Answer {
            content_type: kind,
            ..answer
        }))
    };
    let parts: Vec<&str> = path.split('/').skip(1).collect();
    let value = match parts.as_slice() {
        ["api"] if shape(&head.headers)? == Shape::Discovery => return aggregated(true),
        ["apis"] if shape(&head.headers)? == Shape::Discovery => return aggregated(false),
        ["api"] => return ok(discovery::core_versions()),
        ["apis"] => return ok(discovery::groups(&resources())),
        ["apis", group] => discovery::group(&resources(), group),
        ["api", version] => discovery::resource_list(&resources(), "", version),
        ["apis", group, version] => discovery::resource_list(&resources(), group, version),
        ["openapi", "v3"] => return ok(openapi::v3_index(&resources())),
        ["openapi", "v3", rest @ ..] => openapi::v3(&resources(), &rest.join("/")),
        ["openapi", "v2"] => {
            let accept = head
                .headers
                .get(header::ACCEPT)
                .and_then(|v| v.to_str().ok())
                .unwrap_or_default();
            if !accept.contains(openapi::V2_PROTOBUF) {
                return ok(openapi::v2_json());
            }
            let body = openapi::v2_protobuf(&resources()).into();
            return Ok(Some(Answer {
                content_type: openapi::V2_PROTOBUF_ANSWER,
                body,
                ..Answer::json(200, Value::Null)
            }));
        }
        _ => return Ok(None),
    };
    value
        .map(|v| Some(Answer::json(200, v)))
        .ok_or_else(ApiError::no_such_path)
}
