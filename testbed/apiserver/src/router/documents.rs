//! The paths that describe the server.

use http::{header, request::Parts};
use serde_json::{Value, json};

use super::Answer;
use crate::{
    access, discovery,
    http::Shared,
    identity::Identity,
    openapi,
    request::{Shape, shape},
    status::{ApiError, FieldError, Result},
};

/// The answer to `kubectl auth can-i`.
pub(super) fn access_review(review: &Value, who: &Identity, shared: &Shared) -> Result<Answer> {
    let spec = &review["spec"];
    let given = ["resourceAttributes", "nonResourceAttributes"].map(|part| spec[part].is_object());
    let why = match given {
        [true, true] => "cannot be specified in combination with resourceAttributes",
        [false, false] => "exactly one of nonResourceAttributes or resourceAttributes must be specified",
        _ => "",
    };
    if !why.is_empty() {
        let place = if given[0] {
            "spec.nonResourceAttributes"
        } else {
            "spec.resourceAttributes"
        };
        let error = FieldError::invalid(place, &spec["resourceAttributes"], why);
        return Err(ApiError::invalid(
            "authorization.k8s.io",
            "SelfSubjectAccessReview",
            "",
            &[error],
        ));
    }
    let decision = access::decide(&shared.registry, who, &access::asked(review));
    let mut status = json!({"allowed": decision.allowed});
    if !decision.reason.is_empty() {
        status["reason"] = decision.reason.into();
    }
    Ok(Answer::json(
        201,
        json!({
            "kind": "SelfSubjectAccessReview", "apiVersion": "authorization.k8s.io/v1", "metadata": {}, "spec": spec,
            "status": status,
        }),
    ))
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
        ["healthz" | "livez" | "readyz"] => {
            return Ok(Some(Answer {
                content_type: "text/plain; charset=utf-8",
                body: "ok".into(),
                ..Answer::json(200, Value::Null)
            }));
        }
        ["version"] => return ok(discovery::version()),
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
