//! From what the derive makes to what Kubernetes takes.

use serde_json::{Value, json};

/// Longest text in a list or map where the type names no bound.
const ITEM_LENGTH: u64 = 1024;

/// Makes a derived schema fit: `null` is left to the API server, which drops it; integer formats are those of OpenAPI;
/// bounds are whole numbers; lists' and maps' texts have a length.
pub(super) fn normalize(schema: &mut Value) {
    walk(schema, false);
}

fn walk(schema: &mut Value, is_item: bool) {
    let Some(map) = schema.as_object_mut() else { return };
    map.remove("title");
    // A list's null items carry meaning (a free address); a field's null is the same as leaving it out.
    if !is_item {
        map.remove("nullable");
    }
    if let Some(words) = map.get_mut("enum").and_then(Value::as_array_mut) {
        words.retain(|word| !word.is_null());
    }
    // An empty text is the same as none, and as a default it would have to fit the field's own format and pattern.
    if map.get("default").is_some_and(|d| d.is_null() || d == "") {
        map.remove("default");
    }
    if map.get("x-kubernetes-int-or-string") == Some(&json!(true)) {
        map.insert("anyOf".to_owned(), json!([{"type": "integer"}, {"type": "string"}]));
    }
    if let Some(format) = map.get("format").and_then(Value::as_str) {
        let fitting = match format {
            "uint8" | "int8" | "uint16" | "int16" => Some("int32"),
            "uint32" | "uint64" => Some("int64"),
            _ => None,
        };
        if let Some(fitting) = fitting {
            map.insert("format".to_owned(), json!(fitting));
        }
    }
    for bound in ["minimum", "maximum"] {
        if let Some(number) = map.get(bound).and_then(Value::as_f64) {
            map.insert(bound.to_owned(), json!(number as i64));
        }
    }
    let bounded = ["maxLength", "enum", "format"].iter().any(|key| map.contains_key(*key));
    if is_item && map.get("type") == Some(&json!("string")) && !bounded {
        map.insert("maxLength".to_owned(), json!(ITEM_LENGTH));
    }
    for property in map
        .get_mut("properties")
        .and_then(Value::as_object_mut)
        .into_iter()
        .flatten()
    {
        walk(property.1, false);
    }
    for key in ["items", "additionalProperties"] {
        if let Some(item) = map.get_mut(key) {
            walk(item, true);
        }
    }
}
