//! Names, labels, annotations and label selectors (`apimachinery/pkg/util/validation`).

use serde_json::{Value, json};

use crate::{
    catalog::Resource,
    schema::{join, pattern},
    status::FieldError,
};

const LABEL: &str = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";
const SUBDOMAIN: &str = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
const QUALIFIED: &str = r"^([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]$";
const ANNOTATION_BYTES: usize = 256 * 1024;

const LABEL_WHY: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must \
    start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
    '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const SUBDOMAIN_WHY: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or \
    '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
    '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const QUALIFIED_WHY: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end \
    with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
    '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const VALUE_WHY: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', \
    and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for \
    validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";

pub(super) fn metadata(resource: &Resource, metadata: &Value, old: Option<&Value>, errors: &mut Vec<FieldError>) {
    let name = metadata["name"].as_str().unwrap_or_default();
    if name.is_empty() {
        errors.push(FieldError::required(
            "metadata.name",
            "name or generateName is required",
        ));
    } else if let Some(why) = wrong_name(resource, name) {
        errors.push(FieldError::invalid("metadata.name", &json!(name), why));
    }
    for (key, value) in metadata["labels"].as_object().into_iter().flatten() {
        if let Some(why) = wrong_key(key) {
            errors.push(FieldError::invalid("metadata.labels", &json!(key), why));
        }
        if let Some(why) = value.as_str().and_then(wrong_value) {
            errors.push(FieldError::invalid("metadata.labels", value, why));
        }
    }
    let mut bytes = 0;
    for (key, value) in metadata["annotations"].as_object().into_iter().flatten() {
        bytes += key.len() + value.as_str().map_or(0, str::len);
        if let Some(why) = wrong_key(&key.to_lowercase()) {
            errors.push(FieldError::invalid("metadata.annotations", &json!(key), why));
        }
    }
    if bytes > ANNOTATION_BYTES {
        errors.push(FieldError::too_long("metadata.annotations", ANNOTATION_BYTES as u64));
    }
    super::finalizers::validate(metadata, old, errors);
}

/// A `LabelSelector` at `path`.
pub(super) fn label_selector(selector: &Value, path: &str, errors: &mut Vec<FieldError>) {
    for (key, value) in selector["matchLabels"].as_object().into_iter().flatten() {
        let at = join(path, "matchLabels");
        if let Some(why) = wrong_key(key) {
            errors.push(FieldError::invalid(&at, &json!(key), why));
        }
        if let Some(why) = value.as_str().and_then(wrong_value) {
            errors.push(FieldError::invalid(&at, value, why));
        }
    }
    for (i, expression) in selector["matchExpressions"]
        .as_array()
        .into_iter()
        .flatten()
        .enumerate()
    {
        let at = format!("{}[{i}]", join(path, "matchExpressions"));
        let values = expression["values"].as_array().map(Vec::as_slice).unwrap_or_default();
        match expression["operator"].as_str() {
            Some("In" | "NotIn") if values.is_empty() => {
                let why = "must be specified when `operator` is 'In' or 'NotIn'";
                errors.push(FieldError::required(format!("{at}.values"), why));
            }
            Some("In" | "NotIn") => {}
            Some("Exists" | "DoesNotExist") if !values.is_empty() => {
                let why = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                errors.push(FieldError::forbidden(format!("{at}.values"), why));
            }
            Some("Exists" | "DoesNotExist") => {}
            _ => {
                let field = format!("{at}.operator");
                errors.push(FieldError::invalid(
                    field,
                    &expression["operator"],
                    "not a valid selector operator",
                ));
            }
        }
        if let Some(why) = expression["key"].as_str().and_then(wrong_key) {
            errors.push(FieldError::invalid(format!("{at}.key"), &expression["key"], why));
        }
        for (j, value) in values.iter().enumerate() {
            if let Some(why) = value.as_str().and_then(wrong_value) {
                errors.push(FieldError::invalid(format!("{at}.values[{j}]"), value, why));
            }
        }
    }
}

/// `None` when it is a DNS-1123 label.
pub(super) fn wrong_label(name: &str) -> Option<String> {
    shaped(name, 63, LABEL, LABEL_WHY)
}

fn wrong_name(resource: &Resource, name: &str) -> Option<String> {
    match resource.kind.as_str() {
        "Namespace" | "Service" => wrong_label(name),
        "Role" | "RoleBinding" | "ClusterRole" | "ClusterRoleBinding" => {
            let bad = name == "." || name == ".." || name.contains(['/', '%']);
            bad.then(|| "may not be '.', '..', or contain '/' or '%'".to_owned())
        }
        _ => shaped(name, 253, SUBDOMAIN, SUBDOMAIN_WHY),
    }
}

pub(super) fn wrong_key(key: &str) -> Option<String> {
    let (prefix, name) = key.split_once('/').map_or((None, key), |(p, n)| (Some(p), n));
    if let Some(why) = prefix.and_then(|p| shaped(p, 253, SUBDOMAIN, SUBDOMAIN_WHY)) {
        return Some(format!("prefix part {why}"));
    }
    if name.is_empty() {
        return Some("name part must be non-empty".into());
    }
    shaped(name, 63, QUALIFIED, QUALIFIED_WHY)
}

/// Why a text is no label's value; `None` when it is one.
pub(crate) fn wrong_value(value: &str) -> Option<String> {
    if value.is_empty() {
        None
    } else {
        shaped(value, 63, QUALIFIED, VALUE_WHY)
    }
}

fn shaped(text: &str, limit: usize, shape: &str, why: &str) -> Option<String> {
    if text.len() > limit {
        return Some(format!("must be no more than {limit} bytes"));
    }
    let fits = pattern(shape).is_ok_and(|p| p.is_match(text));
    (!fits).then(|| why.to_owned())
}
