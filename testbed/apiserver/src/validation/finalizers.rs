//! `metadata.finalizers` (`apimachinery/pkg/api/validation`).

use serde_json::Value;

use super::names::wrong_key;
use crate::status::FieldError;

/// Kubernetes' own, which have no domain.
const STANDARD: [&str; 3] = ["kubernetes", "foregroundDeletion", "orphan"];

/// Each is a qualified name; `old` is the metadata that these replace.
pub(super) fn validate(metadata: &Value, old: Option<&Value>, errors: &mut Vec<FieldError>) {
    let finalizers = texts(&metadata["finalizers"]);
    for (i, finalizer) in finalizers.iter().enumerate() {
        let value = Value::from(*finalizer);
        if let Some(why) = wrong_key(finalizer) {
            errors.push(FieldError::invalid("metadata.finalizers", &value, why));
        }
        if !finalizer.contains('/') && !STANDARD.contains(finalizer) {
            let why = "name is neither a standard finalizer name nor is it fully qualified";
            errors.push(FieldError::invalid(format!("metadata.finalizers[{i}]"), &value, why));
        }
    }
    let Some(old) = old.filter(|o| !o["deletionTimestamp"].is_null()) else {
        return;
    };
    let before = texts(&old["finalizers"]);
    let new: Vec<String> = finalizers
        .iter()
        .filter(|f| !before.contains(f))
        .map(|f| format!("{f:?}"))
        .collect();
    if !new.is_empty() {
        let why = format!(
            "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
            new.join(", ")
        );
        errors.push(FieldError::forbidden("metadata.finalizers", why));
    }
}

fn texts(list: &Value) -> Vec<&str> {
    list.as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect()
}
