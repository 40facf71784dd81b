//! What Go's encoders leave out: built-in objects are structs with `omitempty`.

use serde_json::Value;

/// Removes texts, lists and maps that are empty, where the schema does not require them or keep them
/// (`x-margay-keep-empty`). Structs stay: in Kubernetes they are pointers.
pub(crate) fn omit(schema: &Value, value: &mut Value) {
    match value {
        Value::Object(map) => {
            let required = schema["required"].as_array().map(Vec::as_slice).unwrap_or_default();
            map.retain(|key, child| {
                let own = super::field(schema, key);
                omit(own, child);
                own.is_null() || keeps(own) || required.iter().any(|r| r == key.as_str()) || !is_empty(own, child)
            });
        }
        Value::Array(items) => {
            let own = &schema["items"];
            items.iter_mut().for_each(|item| omit(own, item));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn keeps(schema: &Value) -> bool {
    schema["x-margay-keep-empty"] == true || schema["x-kubernetes-preserve-unknown-fields"] == true
}

fn is_empty(schema: &Value, value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty() && schema["additionalProperties"].is_object(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::builtin::schema_of;

    #[test]
    fn empty_lists_and_maps_go_and_structs_stay() {
        let mut policy = json!({"podSelector": {"matchLabels": {}}, "ingress": [{"from": []}], "egress": []});
        omit(schema_of("NetworkPolicySpec"), &mut policy);
        assert_eq!(policy, json!({"podSelector": {}, "ingress": [{}]}));
        let mut meta = json!({"name": "a", "labels": {}, "finalizers": [], "generateName": ""});
        omit(schema_of("ObjectMeta"), &mut meta);
        assert_eq!(meta, json!({"name": "a"}));
        let mut taint = json!({"key": "k", "effect": "", "value": ""});
        omit(schema_of("Taint"), &mut taint);
        assert_eq!(taint, json!({"key": "k", "effect": ""}));
    }
}
