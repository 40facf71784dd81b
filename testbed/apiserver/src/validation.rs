//! Checks of built-in objects beyond their schema, with the real server's fields and words.

mod finalizers;
mod names;
mod network_policy;
mod pod;

pub(crate) use names::wrong_value;
use serde_json::{Value, json};

use super::{
    catalog::{Origin, Resource},
    status::FieldError,
};

/// Everything wrong with an object that is to be stored; `old` is what it replaces.
pub(crate) fn validate(resource: &Resource, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    names::metadata(resource, &object["metadata"], old.map(|o| &o["metadata"]), &mut errors);
    if resource.origin == Origin::Custom {
        return errors;
    }
    match resource.kind.as_str() {
        "Pod" => pod::validate(object, old, &mut errors),
        "NetworkPolicy" => network_policy::validate(&object["spec"], &mut errors),
        "EndpointSlice" => endpoint_slice(object, old, &mut errors),
        "Lease" => lease(&object["spec"], &mut errors),
        "ConfigMap" | "Secret" => data_keys(object, old, &mut errors),
        "RoleBinding" | "ClusterRoleBinding" => role_ref(object, old, &mut errors),
        _ => {}
    }
    errors
}

fn endpoint_slice(object: &Value, old: Option<&Value>, errors: &mut Vec<FieldError>) {
    let kind = &object["addressType"];
    if old.is_some_and(|o| o["addressType"] != *kind) {
        errors.push(FieldError::invalid("addressType", kind, "field is immutable"));
    }
    for (i, endpoint) in object["endpoints"].as_array().into_iter().flatten().enumerate() {
        for (j, address) in endpoint["addresses"].as_array().into_iter().flatten().enumerate() {
            let text = address.as_str().unwrap_or_default();
            let wrong = match kind.as_str() {
                Some("IPv4") => text
                    .parse::<std::net::Ipv4Addr>()
                    .is_err()
                    .then_some("must be a valid IPv4 address"),
                Some("IPv6") => text
                    .parse::<std::net::Ipv6Addr>()
                    .is_err()
                    .then_some("must be a valid IPv6 address"),
                _ => None,
            };
            if let Some(why) = wrong {
                errors.push(FieldError::invalid(
                    format!("endpoints[{i}].addresses[{j}]"),
                    address,
                    why,
                ));
            }
        }
    }
}

fn lease(spec: &Value, errors: &mut Vec<FieldError>) {
    let seconds = &spec["leaseDurationSeconds"];
    if seconds.as_i64().is_some_and(|s| s <= 0) {
        errors.push(FieldError::invalid(
            "spec.leaseDurationSeconds",
            seconds,
            "must be greater than 0",
        ));
    }
}

fn data_keys(object: &Value, old: Option<&Value>, errors: &mut Vec<FieldError>) {
    for key in object["data"].as_object().into_iter().flatten().map(|(k, _)| k) {
        let fits = key.len() <= 253 && key.bytes().all(|c| c.is_ascii_alphanumeric() || b"-._".contains(&c));
        if !fits || key == "." || key == ".." {
            let why = "a valid config key must consist of alphanumeric characters, '-', '_' or '.'";
            errors.push(FieldError::invalid(format!("data[{key}]"), &json!(key), why));
        }
    }
    let Some(old) = old else { return };
    let mut keep = |field: &str, why: &str| {
        if object[field] != old[field] {
            errors.push(FieldError::forbidden(field, why));
        }
    };
    if old["immutable"] == true {
        let why = "field is immutable when `immutable` is set";
        ["data", "binaryData", "immutable"]
            .into_iter()
            .for_each(|field| keep(field, why));
    }
    if object["type"] != old["type"] {
        errors.push(FieldError::invalid("type", &object["type"], "field is immutable"));
    }
}

fn role_ref(object: &Value, old: Option<&Value>, errors: &mut Vec<FieldError>) {
    if old.is_some_and(|o| o["roleRef"] != object["roleRef"]) {
        errors.push(FieldError::invalid(
            "roleRef",
            &object["roleRef"],
            "cannot change roleRef",
        ));
    }
}
