//! Strategic merge patch: like a merge patch, but lists that have a merge key are merged item by item.
//!
//! Directives: `$patch: delete|replace|merge`, `$retainKeys`, `$deleteFromPrimitiveList/`, `$setElementOrder/`.

use serde_json::{Map, Value};

use super::order::arrange;
use crate::schema::{field, list_keys};

/// Applies `patch` to `target`; an error names the directive that was not understood.
pub(super) fn merge(schema: &Value, target: &mut Value, patch: &Value) -> Result<(), String> {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return Ok(());
    };
    match patch.get("$patch").and_then(Value::as_str) {
        Some("delete") => {
            *target = Value::Object(Map::new());
            return Ok(());
        }
        Some("replace") => {
            *target = without_directives(&Value::Object(patch.clone()));
            return Ok(());
        }
        None | Some("merge") => {}
        Some(other) => return Err(format!("unknown patch type found: {other}")),
    }
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    for (key, change) in patch {
        let at = field(schema, key);
        match change {
            _ if key.starts_with('$') => {}
            // A directive finds nothing to direct.
            Value::Object(inner) if target.get(key).is_none() && inner.contains_key("$patch") => {}
            Value::Null => drop(target.as_object_mut().map(|t| t.remove(key))),
            Value::Object(_) => merge(at, &mut target[key.as_str()], change)?,
            Value::Array(items) => match list_keys(at) {
                None => target[key.as_str()] = without_directives(change),
                Some(keys) if keys.is_empty() => union(&mut target[key.as_str()], items),
                Some(keys) => merge_list(&at["items"], &keys[0], &mut target[key.as_str()], items)?,
            },
            _ => target[key.as_str()] = change.clone(),
        }
    }
    directives(schema, target, patch)
}

fn directives(schema: &Value, target: &mut Value, patch: &Map<String, Value>) -> Result<(), String> {
    for (key, change) in patch.iter().filter(|(k, _)| k.starts_with('$')) {
        let items = change.as_array().map(Vec::as_slice).unwrap_or_default();
        if key == "$patch" {
            continue;
        } else if key == "$retainKeys" {
            if let Some(map) = target.as_object_mut() {
                map.retain(|k, _| items.iter().any(|i| i == k.as_str()));
            }
        } else if let Some(name) = key.strip_prefix("$deleteFromPrimitiveList/") {
            if let Some(list) = target.get_mut(name).and_then(Value::as_array_mut) {
                list.retain(|v| !items.contains(v));
            }
        } else if let Some(name) = key.strip_prefix("$setElementOrder/") {
            let keys = list_keys(field(schema, name)).unwrap_or_default();
            if let Some(list) = target.get_mut(name).and_then(Value::as_array_mut) {
                let before = list.clone();
                arrange(list, items, &before, keys.first().map(String::as_str));
            }
        } else {
            return Err(format!("unknown strategic merge patch directive {key}"));
        }
    }
    Ok(())
}

fn union(target: &mut Value, items: &[Value]) {
    let before = target.as_array().cloned().unwrap_or_default();
    let mut list = before.clone();
    for item in items {
        if !list.contains(item) {
            list.push(item.clone());
        }
    }
    arrange(&mut list, items, &before, None);
    *target = Value::Array(list);
}

fn merge_list(schema: &Value, key: &str, target: &mut Value, items: &[Value]) -> Result<(), String> {
    let is = |item: &Value, directive: &str| item["$patch"] == directive;
    let before = match items.iter().any(|i| is(i, "replace")) {
        true => Vec::new(),
        false => target.as_array().cloned().unwrap_or_default(),
    };
    let mut list = before.clone();
    for item in items.iter().filter(|i| !is(i, "replace")) {
        let Some(id) = item.get(key) else {
            return Err(format!("map: {item} does not contain declared merge key: {key}"));
        };
        let found = list.iter().position(|existing| existing.get(key) == Some(id));
        match found {
            Some(at) if is(item, "delete") => drop(list.remove(at)),
            Some(at) => merge(schema, &mut list[at], item)?,
            None if is(item, "delete") => {}
            None => list.push(without_directives(item)),
        }
    }
    arrange(&mut list, items, &before, Some(key));
    *target = Value::Array(list);
    Ok(())
}

fn without_directives(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let kept = map.iter().filter(|(k, v)| !k.starts_with('$') && !v.is_null());
            Value::Object(kept.map(|(k, v)| (k.clone(), without_directives(v))).collect())
        }
        Value::Array(items) => {
            let kept = items.iter().filter(|i| i["$patch"].is_null());
            Value::Array(kept.map(without_directives).collect())
        }
        _ => value.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::builtin::schema_of;

    #[test]
    fn lists_merge_by_key_and_obey_directives() {
        let mut pod = json!({"spec": {
            "containers": [{"name": "a", "image": "1", "args": ["x"]}, {"name": "b", "image": "1"}],
            "tolerations": [{"key": "k"}],
        }});
        let patch = json!({"spec": {
            "containers": [{"name": "a", "image": "2"}, {"name": "b", "$patch": "delete"}, {"name": "c", "image": "3"}],
            "tolerations": [{"key": "other"}],
            "$setElementOrder/containers": [{"name": "c"}, {"name": "a"}],
        }});
        merge(schema_of("Pod"), &mut pod, &patch).expect("patch");
        assert_eq!(
            pod,
            json!({"spec": {
                "containers": [{"name": "c", "image": "3"}, {"name": "a", "image": "2", "args": ["x"]}],
                "tolerations": [{"key": "other"}],
            }})
        );
        let mut volume = json!({"volumes": [{"name": "v", "emptyDir": {}}]});
        let patch = json!({"volumes": [{"name": "v", "$retainKeys": ["name", "hostPath"], "hostPath": {"path": "/"}}]});
        merge(schema_of("PodSpec"), &mut volume, &patch).expect("patch");
        assert_eq!(volume, json!({"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}));
        assert!(
            merge(
                schema_of("Pod"),
                &mut pod,
                &json!({"spec": {"containers": [{"image": "x"}]}})
            )
            .is_err()
        );
    }
}
