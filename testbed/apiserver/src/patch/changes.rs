//! What a plain write changed, as paths of a set of fields.

use serde_json::{Map, Value, json};

use super::fields::{Path, is_atomic, item_key};
use crate::schema::{field, list_keys};

/// The fields of `new` that are not so in `old`; with a map, list or item that `old` has not at all comes the place itself.
pub(super) fn changes(schema: &Value, old: &Value, new: &Value) -> Vec<Path> {
    let mut found = Vec::new();
    collect(schema, Some(old), new, &mut Vec::new(), &mut found);
    found
}

/// What is there before an object of a built-in kind is created: Go's structs have their parts.
pub(super) fn empty_struct(schema: &Value) -> Value {
    let mut object = json!({"metadata": {}});
    for part in ["spec", "status"] {
        let own = &schema["properties"][part];
        if own["properties"].is_object() {
            let required = own["required"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_str);
            let lists = required.filter(|name| field(own, name)["type"] == "array");
            object[part] = lists
                .map(|name| (name.to_owned(), json!([])))
                .collect::<Map<_, _>>()
                .into();
        }
    }
    object
}

fn collect(schema: &Value, old: Option<&Value>, new: &Value, at: &mut Path, found: &mut Vec<Path>) {
    let keys = list_keys(schema);
    match new {
        Value::Object(map) if !map.is_empty() && !is_atomic(schema) => {
            note_place(old, at, found);
            for (name, child) in map {
                let before = old.and_then(|o| o.get(name));
                below(format!("f:{name}"), field(schema, name), before, child, at, found);
            }
        }
        Value::Array(items) if !items.is_empty() && keys.is_some() => {
            note_place(old, at, found);
            let (keys, own) = (keys.unwrap_or_default(), &schema["items"]);
            let before = old.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
            for item in items {
                if keys.is_empty() {
                    let same = before.iter().find(|b| *b == item);
                    below(format!("v:{item}"), own, same, item, at, found);
                } else {
                    let key = item_key(own, &keys, item);
                    let same = before.iter().find(|b| item_key(own, &keys, b) == key);
                    below(format!("k:{key}"), own, same, item, at, found);
                }
            }
        }
        Value::Object(map) if old.is_some_and(Value::is_object) && map.is_empty() => {}
        _ if old == Some(new) => {}
        _ => found.push(at.clone()),
    }
}

fn below(step: String, schema: &Value, old: Option<&Value>, new: &Value, at: &mut Path, found: &mut Vec<Path>) {
    at.push(step);
    collect(schema, old, new, at, found);
    at.pop();
}

fn note_place(old: Option<&Value>, at: &Path, found: &mut Vec<Path>) {
    if old.is_none_or(Value::is_null) {
        found.push(at.iter().cloned().chain([".".to_owned()]).collect());
    }
}
