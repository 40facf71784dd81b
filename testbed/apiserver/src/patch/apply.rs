//! Server-side apply and the ownership of fields (`metadata.managedFields`, FieldsV1 trees).
//!
//! Coarser than the real server: what `builtin/types.txt` types `any` is granular, and versions of one resource share one
//! set.

use serde_json::{Map, Value, json};

pub(crate) use super::owners::Writer;
use super::{
    changes::{changes, empty_struct},
    fields::{
        Path, contains, insert_path, is_atomic, item_key, leaves, lookup, ownable, owned_fields, remove_path,
        remove_value,
    },
    owners::{Entry, entries, store_entries},
};
use crate::{
    catalog::{Origin, Resource},
    schema::{field, list_keys},
    status::{ApiError, Result},
};

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
    let mut entry = Entry::new(resource, writer, "Apply", wanted);
    let earlier = entries.iter().position(mine).map(|at| entries.remove(at));
    if live.is_some_and(|l| same_but_for_owners(l, &merged)) {
        // The time is that of the last change.
        entry.set_time(earlier.as_ref());
    }
    entries.push(entry);
    store_entries(&mut merged, entries);
    Ok(merged)
}

/// Gives the fields that a plain write changed to its writer. `old` is `None` for a new object.
pub(crate) fn record_update(resource: &Resource, old: Option<&Value>, new: &mut Value, writer: Writer<'_>) {
    let empty = match resource.origin {
        Origin::Custom => json!({"metadata": {}}),
        Origin::BuiltIn | Origin::Absent => empty_struct(&resource.schema),
    };
    let old = old.unwrap_or(&empty);
    let mut entries = entries(old);
    let part = |object: &Value| ownable(object, writer.subresource);
    let changed = changes(&resource.schema, &part(old), &part(new));
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

fn same_but_for_owners(a: &Value, b: &Value) -> bool {
    let without = |object: &Value| {
        let mut object = object.clone();
        object["metadata"].as_object_mut().map(|m| m.remove("managedFields"));
        object
    };
    without(a) == without(b)
}

fn conflict_error(entries: &[Entry], conflicts: &[(usize, Path)]) -> ApiError {
    let manager = |index: usize| {
        let entry = &entries[index].json;
        let text = |field: &str| entry[field].as_str().unwrap_or_default();
        let through = match text("subresource") {
            "" => String::new(),
            subresource => format!(" with subresource {subresource:?}"),
        };
        let using = match text("operation") {
            "Update" => format!(" using {}", text("apiVersion")),
            _ => String::new(),
        };
        format!("conflict with {:?}{through}{using}", text("manager"))
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

/// Writes what `config` says into `target`; lists with keys item by item, others as a whole.
fn overlay(schema: &Value, target: &mut Value, config: &Value) {
    match config {
        Value::Object(map) if !is_atomic(schema) => {
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
            "Apply failed with 1 conflict: conflict with \"alice\": .spec.containers[name=\"c\"].image"
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
            Some(&live),
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
