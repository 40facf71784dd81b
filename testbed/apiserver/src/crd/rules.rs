//! Rules of custom resources (`x-kubernetes-validations`), and their failures as the real server words them.

use serde_json::Value;

use crate::{catalog::Resource, schema::field, status::FieldError};

/// Evaluates the rules of a resource; `old` makes transition rules count.
pub(crate) fn check_rules(resource: &Resource, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let Some(rules) = &resource.rules else {
        return Vec::new();
    };
    let Err(found) = kube_cel::validate_compiled(rules, object, old) else {
        return Vec::new();
    };
    found.iter().map(|e| rule_error(&resource.schema, object, e)).collect()
}

fn rule_error(schema: &Value, object: &Value, error: &kube_cel::ValidationError) -> FieldError {
    let path = error.field_path.as_str();
    let place = if path.is_empty() { "<nil>" } else { path };
    let reason = match error.reason.as_deref() {
        Some("FieldValueForbidden") => return FieldError::forbidden(place, &error.message),
        Some("FieldValueRequired") => return FieldError::required(place, &error.message),
        Some("FieldValueDuplicate") => "FieldValueDuplicate",
        _ => "FieldValueInvalid",
    };
    let (own, value) = descend(schema, object, path);
    let rules = own["x-kubernetes-validations"].as_array().into_iter().flatten();
    // A rule that stands above the field it names has judged an object: only what fits into a line is repeated.
    let judged_here = rules
        .clone()
        .any(|r| r["rule"] == error.rule && r["fieldPath"].is_null());
    let message = match value {
        Some(value) if judged_here && !value.is_object() && !value.is_array() => {
            format!("Invalid value: {value}: {}", error.message)
        }
        _ => format!("Invalid value: {}", error.message),
    };
    FieldError {
        reason,
        field: place.to_owned(),
        message,
    }
}

/// The schema and the value at a path such as `spec.peers[0].address`.
fn descend<'a>(schema: &'a Value, object: &'a Value, path: &str) -> (&'a Value, Option<&'a Value>) {
    let steps = path.split(['.', '[', ']']).filter(|s| !s.is_empty());
    steps.fold((schema, Some(object)), |(schema, value), step| match value {
        Some(Value::Array(items)) => {
            let item = step.parse::<usize>().ok().and_then(|i| items.get(i));
            (&schema["items"], item)
        }
        _ => (field(schema, step), value.and_then(|v| v.get(step))),
    })
}
