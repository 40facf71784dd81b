//! The three patch types that change a given object; server-side apply is in [`apply`].

pub(crate) mod apply;
mod changes;
mod fields;
mod order;
mod owners;
mod strategic;

use serde_json::{Value, json};

use super::{
    catalog::{Origin, Resource},
    status::{ApiError, Result},
};

/// Changes `target` as the patch of this content type says.
pub(crate) fn patch(content_type: &str, resource: &Resource, target: &mut Value, body: &Value) -> Result<()> {
    let merges = matches!(
        content_type,
        "application/merge-patch+json" | "application/strategic-merge-patch+json"
    );
    if merges && !body.is_object() {
        return Err(ApiError::bad_request("error decoding patch: it is not an object"));
    }
    match content_type {
        "application/merge-patch+json" => {
            json_patch::merge(target, body);
            Ok(())
        }
        "application/strategic-merge-patch+json" if resource.origin != Origin::Custom => {
            // An error without a reason in Kubernetes.
            strategic::merge(&resource.schema, target, body).map_err(|e| ApiError::new(500, "", e))
        }
        "application/json-patch+json" => operations(target, body),
        _ => {
            let kinds = match resource.origin {
                Origin::Custom => {
                    "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml"
                }
                Origin::BuiltIn | Origin::Absent => {
                    "application/json-patch+json, application/merge-patch+json, \
                     application/strategic-merge-patch+json, application/apply-patch+yaml"
                }
            };
            let why =
                format!("the body of the request was in an unknown format - accepted media types include: {kinds}");
            let error = ApiError::new(415, "UnsupportedMediaType", why);
            // A type of patch, though not for this resource, is told of by another part of the server.
            Err(if merges { error } else { error.with_details(json!({})) })
        }
    }
}

/// A JSON patch (RFC 6902), but that a key is replaced that is not there, as the real server does it.
fn operations(target: &mut Value, body: &Value) -> Result<()> {
    let list = body.as_array();
    let list = list.ok_or_else(|| ApiError::bad_request("error decoding patch: it is not a list of operations"))?;
    let refused = |why: String| {
        let why = format!("the server rejected our request due to an error in our request: {why}");
        ApiError::new(422, "Invalid", why).with_details(json!({}))
    };
    for operation in list {
        let mut operation = operation.clone();
        let path = operation["path"].as_str().unwrap_or_default();
        let parent = path.rsplit_once('/').and_then(|(parent, _)| target.pointer(parent));
        if operation["op"] == "replace" && parent.is_some_and(Value::is_object) && target.pointer(path).is_none() {
            operation["op"] = json!("add");
        }
        let operation = serde_json::from_value(operation).map_err(|e| refused(e.to_string()))?;
        let one = json_patch::Patch(vec![operation]);
        json_patch::patch(target, &one).map_err(|e| refused(e.to_string()))?;
    }
    Ok(())
}
