//! A request's body, brought into the form that is stored.

use serde_json::{Value, json};

use super::write::{Validation, Write};
use crate::{
    catalog::{Origin, Resource},
    events, schema,
    status::{ApiError, FieldError, Result},
};

/// A body in the stored form: of the right kind, namespace and name, nulls and unknown fields dropped.
pub(super) fn incoming(write: &Write, body: Value) -> Result<(Value, Vec<String>)> {
    let (mut body, warnings) = decoded(write, body)?;
    match_the_path(write, &mut body)?;
    Ok((body, warnings))
}

/// The same of what a patch made of a stored object: the patch is what is wrong then.
pub(super) fn patched(write: &Write, body: Value) -> Result<(Value, Vec<String>)> {
    let (mut body, warnings) = decoded(write, body.clone()).map_err(|error| {
        let fault = FieldError::invalid("patch", &json!(body.to_string()), error.message);
        ApiError::invalid("", "", "", &[fault])
    })?;
    match_the_path(write, &mut body)?;
    Ok((body, warnings))
}

fn decoded(write: &Write, mut body: Value) -> Result<(Value, Vec<String>)> {
    let resource = &write.resource;
    if !body.is_object() {
        return Err(ApiError::bad_request("the body of the request is not an object"));
    }
    for (field, expected) in [("apiVersion", resource.api_version()), ("kind", resource.kind.clone())] {
        match body[field].as_str() {
            None | Some("") if write.resource.origin == Origin::Custom => {
                return Err(ApiError::bad_request(format!(
                    "Object '{field}' is missing in the request's body"
                )));
            }
            None | Some("") => body[field] = expected.into(),
            Some(given) if given != expected => {
                let what = if field == "kind" { "kind" } else { "API version" };
                return Err(ApiError::bad_request(format!(
                    "the {what} in the data ({given}) does not match the expected {what} ({expected})"
                )));
            }
            Some(_) => {}
        }
    }
    events::to_stored(resource, &mut body);
    if !body["metadata"].is_object() {
        body["metadata"] = json!({});
    }
    let mut warnings = Vec::new();
    let mut unknown = Vec::new();
    schema::prune(&resource.schema, &mut body, "", &mut unknown);
    // As API servers tell them; the order of the body's fields is the JSON library's.
    unknown.sort();
    if write.validation != Validation::Ignore {
        warnings.extend(unknown.iter().map(|path| format!("unknown field \"{path}\"")));
    }
    if write.validation == Validation::Strict && !warnings.is_empty() {
        let what = format!(
            "{} in version \"{}\" cannot be handled as a {}",
            resource.kind, resource.version, resource.kind
        );
        return Err(ApiError::bad_request(format!(
            "{what}: strict decoding error: {}",
            warnings.join(", ")
        )));
    }
    if resource.origin == Origin::BuiltIn {
        refuse_wrong_types(resource, &body)?;
    }
    Ok((body, warnings))
}

/// The real server decodes built-in kinds into typed structs: a wrong type is a bad request, not an invalid object.
fn refuse_wrong_types(resource: &Resource, body: &Value) -> Result<()> {
    let mut typed = body.clone();
    schema::default(&resource.schema, &mut typed);
    let mut errors = Vec::new();
    schema::validate(&resource.schema, &typed, "", &mut errors);
    let Some(error) = errors.iter().find(|e| e.reason == "FieldValueTypeInvalid") else {
        return Ok(());
    };
    let kind = &resource.kind;
    let what = format!(
        "{kind} in version \"{}\" cannot be handled as a {kind}",
        resource.version
    );
    Err(ApiError::bad_request(format!(
        "{what}: {}: {}",
        error.field, error.message
    )))
}

fn match_the_path(write: &Write, body: &mut Value) -> Result<()> {
    let meta = &mut body["metadata"];
    let given = |field: &str, meta: &Value| meta[field].as_str().unwrap_or_default().to_owned();
    let (namespace, name) = (given("namespace", meta), given("name", meta));
    if write.resource.namespaced {
        if !namespace.is_empty() && namespace != write.namespace {
            return Err(ApiError::bad_request(format!(
                "the namespace of the provided object does not match the namespace sent on the request ({namespace}, {})",
                write.namespace
            )));
        }
        meta["namespace"] = write.namespace.clone().into();
    } else if let Some(meta) = meta.as_object_mut() {
        meta.remove("namespace");
    }
    if !write.name.is_empty() {
        if name != write.name {
            return Err(ApiError::bad_request(format!(
                "the name of the object ({name}) does not match the name on the URL ({})",
                write.name
            )));
        }
        meta["name"] = write.name.clone().into();
    }
    Ok(())
}
