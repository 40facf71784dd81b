//! Sets of fields as trees (FieldsV1): `f:name` below an object, `k:{keys}` or `v:value` below a list, `.` for the place
//! itself.

use serde_json::{Map, Value, json};

use crate::schema::{field, list_keys};

/// The steps from the root to a field.
pub(super) type Path = Vec<String>;

/// The fields that a writer of `subresource` can own in an object.
pub(super) fn owned_fields(schema: &Value, object: &Value, subresource: &str) -> Value {
    let mut tree = tree_of(schema, &ownable(object, subresource));
    if let Some(tree) = tree.as_object_mut() {
        tree.retain(|k, v| k != "f:metadata" || v.as_object().is_some_and(|m| !m.is_empty()));
    }
    tree
}

/// What of an object a writer of `subresource` can own.
pub(super) fn ownable(object: &Value, subresource: &str) -> Value {
    let mut object = object.clone();
    if let Some(map) = object.as_object_mut() {
        map.retain(|k, _| match subresource {
            "" => !matches!(k.as_str(), "apiVersion" | "kind" | "status"),
            sub => k == sub,
        });
    }
    if let Some(meta) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        meta.retain(|k, _| {
            matches!(
                k.as_str(),
                "labels" | "annotations" | "finalizers" | "ownerReferences" | "generateName"
            )
        });
    }
    object
}

fn tree_of(schema: &Value, value: &Value) -> Value {
    match value {
        Value::Object(_) if is_atomic(schema) => json!({}),
        Value::Object(map) => map
            .iter()
            .map(|(k, v)| (format!("f:{k}"), tree_of(field(schema, k), v)))
            .collect(),
        Value::Array(items) => match list_keys(schema) {
            None => json!({}),
            Some(keys) => items
                .iter()
                .map(|item| item_tree(&schema["items"], &keys, item))
                .collect::<Map<_, _>>()
                .into(),
        },
        _ => json!({}),
    }
}

/// One manager owns the map or struct as a whole.
pub(super) fn is_atomic(schema: &Value) -> bool {
    schema["x-kubernetes-map-type"] == "atomic"
}

pub(super) fn item_tree(schema: &Value, keys: &[String], item: &Value) -> (String, Value) {
    if keys.is_empty() {
        return (format!("v:{item}"), json!({}));
    }
    let mut tree = tree_of(schema, item);
    tree["."] = json!({});
    (format!("k:{}", item_key(schema, keys, item)), tree)
}

pub(super) fn item_key(schema: &Value, keys: &[String], item: &Value) -> Value {
    let part = |k: &String| match item.get(k) {
        Some(v) => v.clone(),
        None => schema["properties"][k.as_str()]["default"].clone(),
    };
    let present = keys.iter().map(|k| (k.clone(), part(k))).filter(|(_, v)| !v.is_null());
    Value::Object(present.collect())
}

pub(super) fn leaves(tree: &Value) -> Vec<Path> {
    let mut found = Vec::new();
    collect_leaves(tree, &mut Vec::new(), &mut found);
    found
}

pub(super) fn collect_leaves(tree: &Value, at: &mut Path, found: &mut Vec<Path>) {
    match tree.as_object().filter(|m| !m.is_empty()) {
        None => found.push(at.clone()),
        Some(map) => {
            for (step, child) in map {
                at.push(step.clone());
                collect_leaves(child, at, found);
                at.pop();
            }
        }
    }
}

pub(super) fn contains(tree: &Value, path: &[String]) -> bool {
    path.iter().try_fold(tree, |at, step| at.get(step)).is_some()
}

pub(super) fn insert_path(tree: &mut Value, path: &[String]) {
    let mut at = tree;
    for step in path {
        if !at[step.as_str()].is_object() {
            at[step.as_str()] = json!({});
        }
        at = &mut at[step.as_str()];
    }
}

pub(super) fn remove_path(tree: &mut Value, path: &[String]) {
    let [first, rest @ ..] = path else { return };
    let Some(map) = tree.as_object_mut() else { return };
    if let Some(child) = map.get_mut(first) {
        remove_path(child, rest);
        if rest.is_empty() || child.as_object().is_some_and(Map::is_empty) {
            map.remove(first);
        }
    }
}

pub(super) fn lookup<'a>(value: &'a Value, path: &[String]) -> Option<&'a Value> {
    path.iter().try_fold(value, |at, step| match step.split_once(':') {
        Some(("f", name)) => at.get(name),
        Some((kind, key)) => at.as_array()?.iter().find(|item| is_item(kind, key, item)),
        None => Some(at),
    })
}

pub(super) fn is_item(kind: &str, key: &str, item: &Value) -> bool {
    let Ok(key) = serde_json::from_str::<Value>(key) else {
        return false;
    };
    match (kind, &key) {
        // A key that the item leaves out has its default there.
        ("k", Value::Object(parts)) => parts.iter().all(|(k, v)| item.get(k).is_none_or(|own| own == v)),
        _ => *item == key,
    }
}

/// Removes a value, and the objects and lists that become empty by it.
pub(super) fn remove_value(value: &mut Value, path: &[String]) {
    let [first, rest @ ..] = path else { return };
    match first.split_once(':') {
        Some(("f", name)) => {
            let Some(map) = value.as_object_mut() else { return };
            if let Some(child) = map.get_mut(name) {
                remove_value(child, rest);
                let empty = child.as_object().is_some_and(Map::is_empty) || child.as_array().is_some_and(Vec::is_empty);
                if rest.is_empty() || empty {
                    map.remove(name);
                }
            }
        }
        Some((kind, key)) => {
            let Some(list) = value.as_array_mut() else { return };
            match rest.is_empty() {
                true => list.retain(|item| !is_item(kind, key, item)),
                false => list
                    .iter_mut()
                    .filter(|i| is_item(kind, key, i))
                    .for_each(|i| remove_value(i, rest)),
            }
        }
        None => {}
    }
}
