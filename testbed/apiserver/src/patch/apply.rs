//! Server-side apply and the ownership of fields (`metadata.managedFields`, FieldsV1 trees).
//!
//! Coarser than the real server: ownership is recorded only from an object's first apply on (what was there before
//! belongs to `before-first-apply`), maps and structs are always granular, and versions of one resource share one set.

use serde_json::{Map, Value, json};

use crate::{
    catalog::Resource,
    schema::{field, list_keys},
    status::{ApiError, Result},
    time,
};

/// Who writes, as `fieldManager`, and through which subresource (empty for the object itself).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Writer<'a> {
    pub(crate) manager: &'a str,
    pub(crate) subresource: &'a str,
}

/// The object that results from applying `config` to `live`.
pub(crate) fn apply(
    resource: &Resource,
    live: Option<&Value>,
    config: &Value,
    writer: Writer<'_>,
    force: bool,
) -> Result<Value> {
    let schema = &resource.schema;
    let wanted = owned_fields(schema, config, writer.subresource);
    let mut entries = live.map(entries).unwrap_or_default();
    if let Some(live) = live.filter(|_| entries.is_empty()) {
        entries.push(Entry::new(
            resource,
            Writer {
                manager: "before-first-apply",
                subresource: "",
            },
            "Update",
            owned_fields(schema, live, ""),
        ));
    }
    let mine = |e: &Entry| e.is(writer, "Apply");
    let mut conflicts = Vec::new();
    if let Some(live) = live {
        for (index, entry) in entries.iter().enumerate().filter(|(_, e)| !mine(e)) {
            for path in leaves(&wanted) {
                let differs = path.last().is_some_and(|s| s != ".") && lookup(live, &path) != lookup(config, &path);
                if differs && contains(&entry.fields, &path) {
                    conflicts.push((index, path));
                }
            }
        }
    }
    if !conflicts.is_empty() && !force {
        return Err(conflict_error(&entries, &conflicts));
    }
    for (index, path) in conflicts {
        remove_path(&mut entries[index].fields, &path);
    }
    let mut merged = live.cloned().unwrap_or_else(|| json!({}));
    overlay(schema, &mut merged, config);
    if let Some(before) = entries.iter().find(|e| mine(e)).map(|e| e.fields.clone()) {
        let held_by_others = |path: &Path| entries.iter().any(|e| !mine(e) && contains(&e.fields, path));
        let gone = leaves(&before)
            .into_iter()
            .filter(|p| !contains(&wanted, p) && !held_by_others(p));
        let (items, fields): (Vec<Path>, Vec<Path>) = gone.partition(|p| p.last().is_some_and(|s| s == "."));
        for path in fields
            .iter()
            .map(Vec::as_slice)
            .chain(items.iter().map(|p| &p[..p.len() - 1]))
        {
            remove_value(&mut merged, path);
        }
    }
    match entries.iter_mut().find(|e| mine(e)) {
        Some(entry) if entry.fields == wanted => {}
        Some(entry) => *entry = Entry::new(resource, writer, "Apply", wanted),
        None => entries.push(Entry::new(resource, writer, "Apply", wanted)),
    }
    store_entries(&mut merged, entries);
    Ok(merged)
}

/// Moves the fields that a plain write changed to its writer; does nothing to objects that nobody has applied.
pub(crate) fn record_update(resource: &Resource, old: &Value, new: &mut Value, writer: Writer<'_>) {
    let mut entries = entries(old);
    if entries.is_empty() {
        return;
    }
    let after = owned_fields(&resource.schema, new, writer.subresource);
    let changed: Vec<Path> = leaves(&after)
        .into_iter()
        .filter(|p| lookup(old, p).is_none() || lookup(old, p) != lookup(new, p))
        .collect();
    for entry in entries.iter_mut().filter(|e| !e.is(writer, "Update")) {
        changed
            .iter()
            .filter(|p| p.last().is_some_and(|s| s != "."))
            .for_each(|p| remove_path(&mut entry.fields, p));
    }
    for entry in &mut entries {
        for path in leaves(&entry.fields).into_iter().filter(|p| lookup(new, p).is_none()) {
            remove_path(&mut entry.fields, &path);
        }
    }
    if !changed.is_empty() {
        let position = entries.iter().position(|e| e.is(writer, "Update"));
        let mut fields = position.map_or_else(|| json!({}), |at| entries.remove(at).fields);
        changed.iter().for_each(|p| insert_path(&mut fields, p));
        entries.push(Entry::new(resource, writer, "Update", fields));
    }
    store_entries(new, entries);
}

type Path = Vec<String>;

/// One entry of `managedFields`.
struct Entry {
    json: Value,
    fields: Value,
}

impl Entry {
    fn new(resource: &Resource, writer: Writer<'_>, operation: &str, fields: Value) -> Self {
        let mut json = json!({
            "manager": writer.manager, "operation": operation, "apiVersion": resource.api_version(),
            "time": time::now(), "fieldsType": "FieldsV1",
        });
        if !writer.subresource.is_empty() {
            json["subresource"] = writer.subresource.into();
        }
        Self { json, fields }
    }

    fn is(&self, writer: Writer<'_>, operation: &str) -> bool {
        self.json["manager"] == writer.manager
            && self.json["operation"] == operation
            && self.json["subresource"].as_str().unwrap_or("") == writer.subresource
    }
}

fn entries(object: &Value) -> Vec<Entry> {
    let list = object["metadata"]["managedFields"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    let entry = |json: &Value| Entry {
        fields: json["fieldsV1"].clone(),
        json: json.clone(),
    };
    list.iter().filter(|e| e["fieldsV1"].is_object()).map(entry).collect()
}

fn store_entries(object: &mut Value, entries: Vec<Entry>) {
    let list = entries
        .into_iter()
        .filter(|e| e.fields.as_object().is_some_and(|f| !f.is_empty()));
    object["metadata"]["managedFields"] = list
        .map(|mut e| {
            e.json["fieldsV1"] = e.fields;
            e.json
        })
        .collect();
}

fn conflict_error(entries: &[Entry], conflicts: &[(usize, Path)]) -> ApiError {
    let manager = |index: usize| {
        let entry = &entries[index].json;
        format!(
            "conflict with \"{}\" using {}",
            entry["manager"].as_str().unwrap_or(""),
            entry["apiVersion"].as_str().unwrap_or("")
        )
    };
    let place = |path: &Path| path.iter().map(|s| readable(s)).collect::<String>();
    let causes: Vec<Value> = conflicts
        .iter()
        .map(|(i, p)| json!({"reason": "FieldManagerConflict", "message": manager(*i), "field": place(p)}))
        .collect();
    let lines: Vec<String> = conflicts
        .iter()
        .map(|(i, p)| format!("{}: {}", manager(*i), place(p)))
        .collect();
    let plural = if conflicts.len() == 1 { "conflict" } else { "conflicts" };
    let message = format!("Apply failed with {} {plural}: {}", conflicts.len(), lines.join(", "));
    ApiError::new(409, "Conflict", message).with_details(json!({"causes": causes}))
}

fn readable(step: &str) -> String {
    match step.split_once(':') {
        Some(("f", name)) => format!(".{name}"),
        Some(("k", key)) => {
            let parts: Map<String, Value> = serde_json::from_str(key).unwrap_or_default();
            let pairs: Vec<String> = parts.iter().map(|(k, v)| format!("{k}={v}")).collect();
            format!("[{}]", pairs.join(","))
        }
        Some((_, value)) => format!("[={value}]"),
        None => String::new(),
    }
}

/// The fields that a writer of `subresource` can own in an object.
fn owned_fields(schema: &Value, object: &Value, subresource: &str) -> Value {
    let mut object = object.clone();
    if let Some(map) = object.as_object_mut() {
        map.retain(|k, _| match subresource {
            "" => !matches!(k.as_str(), "apiVersion" | "kind" | "status"),
            sub => k == sub,
        });
    }
    if let Some(meta) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        meta.retain(|k, _| matches!(k.as_str(), "labels" | "annotations" | "finalizers" | "ownerReferences"));
    }
    let mut tree = tree_of(schema, &object);
    if let Some(tree) = tree.as_object_mut() {
        tree.retain(|k, v| k != "f:metadata" || v.as_object().is_some_and(|m| !m.is_empty()));
    }
    tree
}

fn tree_of(schema: &Value, value: &Value) -> Value {
    match value {
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

fn item_tree(schema: &Value, keys: &[String], item: &Value) -> (String, Value) {
    if keys.is_empty() {
        return (format!("v:{item}"), json!({}));
    }
    let mut tree = tree_of(schema, item);
    tree["."] = json!({});
    (format!("k:{}", item_key(schema, keys, item)), tree)
}

fn item_key(schema: &Value, keys: &[String], item: &Value) -> Value {
    let part = |k: &String| match item.get(k) {
        Some(v) => v.clone(),
        None => schema["properties"][k.as_str()]["default"].clone(),
    };
    let present = keys.iter().map(|k| (k.clone(), part(k))).filter(|(_, v)| !v.is_null());
    Value::Object(present.collect())
}

/// Writes what `config` says into `target`; lists with keys item by item, others as a whole.
fn overlay(schema: &Value, target: &mut Value, config: &Value) {
    match config {
        Value::Object(map) => {
            if !target.is_object() {
                *target = json!({});
            }
            for (key, value) in map {
                overlay(field(schema, key), &mut target[key.as_str()], value);
            }
        }
        Value::Array(items) => {
            let Some(keys) = list_keys(schema) else {
                *target = config.clone();
                return;
            };
            let items_schema = &schema["items"];
            let mut list = target.as_array().cloned().unwrap_or_default();
            let id = |v: &Value| {
                if keys.is_empty() {
                    v.clone()
                } else {
                    item_key(items_schema, &keys, v)
                }
            };
            for item in items {
                match list.iter().position(|existing| id(existing) == id(item)) {
                    Some(at) => overlay(items_schema, &mut list[at], item),
                    None => list.push(item.clone()),
                }
            }
            *target = Value::Array(list);
        }
        _ => *target = config.clone(),
    }
}

fn leaves(tree: &Value) -> Vec<Path> {
    let mut found = Vec::new();
    collect_leaves(tree, &mut Vec::new(), &mut found);
    found
}

fn collect_leaves(tree: &Value, at: &mut Path, found: &mut Vec<Path>) {
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

fn contains(tree: &Value, path: &[String]) -> bool {
    path.iter().try_fold(tree, |at, step| at.get(step)).is_some()
}

fn insert_path(tree: &mut Value, path: &[String]) {
    let mut at = tree;
    for step in path {
        if !at[step.as_str()].is_object() {
            at[step.as_str()] = json!({});
        }
        at = &mut at[step.as_str()];
    }
}

fn remove_path(tree: &mut Value, path: &[String]) {
    let [first, rest @ ..] = path else { return };
    let Some(map) = tree.as_object_mut() else { return };
    if let Some(child) = map.get_mut(first) {
        remove_path(child, rest);
        if rest.is_empty() || child.as_object().is_some_and(Map::is_empty) {
            map.remove(first);
        }
    }
}

fn lookup<'a>(value: &'a Value, path: &[String]) -> Option<&'a Value> {
    path.iter().try_fold(value, |at, step| match step.split_once(':') {
        Some(("f", name)) => at.get(name),
        Some((kind, key)) => at.as_array()?.iter().find(|item| is_item(kind, key, item)),
        None => Some(at),
    })
}

fn is_item(kind: &str, key: &str, item: &Value) -> bool {
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
fn remove_value(value: &mut Value, path: &[String]) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::Catalog;

    const ALICE: Writer<'_> = Writer {
        manager: "alice",
        subresource: "",
    };
    const BOB: Writer<'_> = Writer {
        manager: "bob",
        subresource: "",
    };

    #[test]
    fn managers_share_an_object_conflict_on_a_field_and_give_up_what_they_drop() {
        let catalog = Catalog::new();
        let pods = catalog.find("", "v1", "pods").expect("pods");
        let first =
            json!({"metadata": {"labels": {"a": "1"}}, "spec": {"containers": [{"name": "c", "image": "one"}]}});
        let live = apply(&pods, None, &first, ALICE, false).expect("create");
        let other =
            json!({"metadata": {"labels": {"b": "1"}}, "spec": {"containers": [{"name": "d", "image": "two"}]}});
        let live = apply(&pods, Some(&live), &other, BOB, false).expect("disjoint");
        let names: Vec<_> = live["spec"]["containers"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|c| &c["name"])
            .collect();
        assert_eq!(names, ["c", "d"]);

        let clash = json!({"spec": {"containers": [{"name": "c", "image": "three"}]}});
        let refused = apply(&pods, Some(&live), &clash, BOB, false).expect_err("conflict");
        assert_eq!(
            refused.message,
            "Apply failed with 1 conflict: conflict with \"alice\" using v1: .spec.containers[name=\"c\"].image"
        );
        let live = apply(&pods, Some(&live), &clash, BOB, true).expect("forced");
        assert_eq!(
            live["spec"]["containers"],
            json!([{"name": "c", "image": "three"}]),
            "bob dropped d, took c"
        );
        assert_eq!(live["metadata"]["labels"], json!({"a": "1"}), "bob dropped b");

        let live = apply(
            &pods,
            Some(&live),
            &json!({"metadata": {"labels": {"a": "1"}}}),
            ALICE,
            false,
        )
        .expect("drop");
        assert_eq!(
            live["spec"]["containers"],
            json!([{"name": "c", "image": "three"}]),
            "bob still owns c's image"
        );
    }

    #[test]
    fn plain_writes_take_ownership_once_an_object_was_applied() {
        let catalog = Catalog::new();
        let maps = catalog.find("", "v1", "configmaps").expect("configmaps");
        let live = apply(&maps, None, &json!({"data": {"k": "1", "l": "1"}}), ALICE, false).expect("create");
        let mut edited = live.clone();
        edited["data"]["k"] = json!("2");
        record_update(
            &maps,
            &live,
            &mut edited,
            Writer {
                manager: "edit",
                subresource: "",
            },
        );
        let refused = apply(
            &maps,
            Some(&edited),
            &json!({"data": {"k": "1", "l": "1"}}),
            ALICE,
            false,
        );
        assert_eq!(
            refused.expect_err("edited by hand").message,
            "Apply failed with 1 conflict: conflict with \"edit\" using v1: .data.k"
        );
    }
}
