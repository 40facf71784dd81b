//! The three patch types that change a given object; server-side apply is in [`apply`].

pub(crate) mod apply;
mod fields;
mod owners;
mod strategic;

use serde_json::Value;

use super::{
    catalog::{Origin, Resource},
    status::{ApiError, Result},
};

/// Changes `target` as the patch of this content type says.
pub(crate) fn patch(content_type: &str, resource: &Resource, target: &mut Value, body: &Value) -> Result<()> {
    match content_type {
        "application/merge-patch+json" => {
            json_patch::merge(target, body);
            Ok(())
        }
        "application/strategic-merge-patch+json" if resource.origin != Origin::Custom => {
            strategic::merge(&resource.schema, target, body).map_err(ApiError::bad_request)
        }
        "application/json-patch+json" => {
            let operations: json_patch::Patch = serde_json::from_value(body.clone())
                .map_err(|e| ApiError::bad_request(format!("error decoding patch: {e}")))?;
            json_patch::patch(target, &operations).map_err(|e| {
                let why = format!("the server rejected our request due to an error in our request: {e}");
                ApiError::new(422, "Invalid", why)
            })
        }
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
            Err(ApiError::new(415, "UnsupportedMediaType", why))
        }
    }
}
