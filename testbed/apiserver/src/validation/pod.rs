//! `v1` Pod: what the schema cannot say, and what an update may change.

use serde_json::{Value, json};

use super::{names::wrong_label, network_policy::wrong_port_name};
use crate::status::FieldError;

pub(super) fn validate(pod: &Value, old: Option<&Value>, errors: &mut Vec<FieldError>) {
    if let Some(old) = old {
        immutable(pod, old, errors);
        return;
    }
    let spec = &pod["spec"];
    if list(&spec["containers"]).is_empty() {
        errors.push(FieldError::required("spec.containers", ""));
    }
    let volumes: Vec<&str> = list(&spec["volumes"])
        .iter()
        .filter_map(|v| v["name"].as_str())
        .collect();
    let mut seen = Vec::new();
    for field in ["initContainers", "containers"] {
        for (i, container) in list(&spec[field]).iter().enumerate() {
            let at = format!("spec.{field}[{i}]");
            let name = container["name"].as_str().unwrap_or_default();
            if seen.contains(&name) {
                errors.push(FieldError::duplicate(format!("{at}.name"), &json!(name)));
            }
            seen.push(name);
            self::container(container, &volumes, &at, errors);
        }
    }
    let grace = &spec["terminationGracePeriodSeconds"];
    if grace.as_i64().is_some_and(|g| g < 0) {
        let why = "must be greater than or equal to 0";
        errors.push(FieldError::invalid("spec.terminationGracePeriodSeconds", grace, why));
    }
}

fn container(container: &Value, volumes: &[&str], at: &str, errors: &mut Vec<FieldError>) {
    if let Some(why) = container["name"]
        .as_str()
        .filter(|n| !n.is_empty())
        .and_then(wrong_label)
    {
        errors.push(FieldError::invalid(format!("{at}.name"), &container["name"], why));
    }
    if container["image"].as_str().is_none_or(str::is_empty) {
        errors.push(FieldError::required(format!("{at}.image"), ""));
    }
    let mut names = Vec::new();
    for (i, port) in list(&container["ports"]).iter().enumerate() {
        for field in ["containerPort", "hostPort"] {
            let number = &port[field];
            if number.as_i64().is_some_and(|n| !(1..=65_535).contains(&n)) {
                let why = "must be between 1 and 65535, inclusive";
                errors.push(FieldError::invalid(format!("{at}.ports[{i}].{field}"), number, why));
            }
        }
        let Some(name) = port["name"].as_str() else { continue };
        if let Some(why) = wrong_port_name(name) {
            errors.push(FieldError::invalid(format!("{at}.ports[{i}].name"), &port["name"], why));
        }
        if names.contains(&name) {
            errors.push(FieldError::duplicate(format!("{at}.ports[{i}].name"), &port["name"]));
        }
        names.push(name);
    }
    for (i, mount) in list(&container["volumeMounts"]).iter().enumerate() {
        if !mount["name"].as_str().is_some_and(|n| volumes.contains(&n)) {
            let message = format!("Not found: {}", mount["name"]);
            let field = format!("{at}.volumeMounts[{i}].name");
            errors.push(FieldError {
                reason: "FieldValueNotFound",
                field,
                message,
            });
        }
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let handlers = ["exec", "httpGet", "tcpSocket", "grpc"];
        let given = handlers.iter().filter(|h| container[probe][**h].is_object()).count();
        if container[probe].is_object() && given != 1 {
            let why = if given == 0 {
                "must specify a handler type"
            } else {
                "may not specify more than 1 handler type"
            };
            errors.push(FieldError::required(format!("{at}.{probe}"), why));
        }
    }
}

fn immutable(pod: &Value, old: &Value, errors: &mut Vec<FieldError>) {
    for field in ["containers", "initContainers"] {
        if list(&pod["spec"][field]).len() != list(&old["spec"][field]).len() {
            let why = "pod updates may not add or remove containers";
            errors.push(FieldError::forbidden(format!("spec.{field}"), why));
            return;
        }
    }
    let frozen = |pod: &Value| {
        let mut spec = pod["spec"].clone();
        for field in ["containers", "initContainers", "ephemeralContainers"] {
            for container in spec.get_mut(field).and_then(Value::as_array_mut).into_iter().flatten() {
                container["image"] = Value::Null;
                container["imagePullPolicy"] = Value::Null;
            }
        }
        for field in [
            "activeDeadlineSeconds",
            "tolerations",
            "terminationGracePeriodSeconds",
            "schedulingGates",
        ] {
            spec[field] = Value::Null;
        }
        spec
    };
    let tolerations_kept = list(&old["spec"]["tolerations"])
        .iter()
        .all(|t| list(&pod["spec"]["tolerations"]).contains(t));
    if frozen(pod) != frozen(old) || !tolerations_kept {
        let why = "pod updates may not change fields other than `spec.containers[*].image`,\
            `spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing \
            tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";
        errors.push(FieldError::forbidden("spec", why));
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}
