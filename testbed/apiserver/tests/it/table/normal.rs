//! The normal form of answers: what differs from run to run gets names, in the order in which it first appears.

use std::collections::HashMap;

use serde_json::Value;

/// What one subject's answers have shown so far.
pub(super) struct Names {
    owners: bool,
    versions: HashMap<String, String>,
    uids: HashMap<String, String>,
}

impl Names {
    /// `owners`: `metadata.managedFields` are kept.
    pub(super) fn new(owners: bool) -> Self {
        Self {
            owners,
            versions: HashMap::new(),
            uids: HashMap::new(),
        }
    }

    /// An answer with `<uid1>` for the first uid seen, `<rv1>` for the first version, `<now>` for the version of a list,
    /// `<time>` for times that the server sets.
    pub(super) fn normal(&mut self, mut answer: Value) -> Value {
        self.value(&mut answer);
        answer
    }

    fn value(&mut self, value: &mut Value) {
        if let Some(items) = value.as_array_mut() {
            items.iter_mut().for_each(|item| self.value(item));
            return;
        }
        if let Value::String(text) = value {
            for (uid, name) in &self.uids {
                if text.contains(uid.as_str()) {
                    *text = text.replace(uid.as_str(), name);
                }
            }
            return;
        }
        if value["kind"] == "Status" {
            status(value);
        }
        let moment = value["items"].is_array() || value["rows"].is_array() || is_bookmark(value);
        if moment && value["metadata"]["resourceVersion"].is_string() {
            value["metadata"]["resourceVersion"] = "<now>".into();
        }
        if value["rows"].is_array() {
            table(value);
        }
        if value["kind"] == "APIResourceList" {
            discovery(value);
        }
        let Some(map) = value.as_object_mut() else { return };
        if !self.owners {
            map.remove("managedFields");
        } else if let Some(Value::Array(entries)) = map.get_mut("managedFields") {
            // Times come first in their order, and differ between runs.
            entries.sort_by_key(|e| ["operation", "manager", "subresource"].map(|part| e[part].to_string()));
        }
        if let Some(prefix) = map.get("generateName").and_then(Value::as_str).map(str::to_owned)
            && let Some(name) = map
                .get_mut("name")
                .filter(|n| n.as_str().is_some_and(|n| n.len() == prefix.len() + 5))
        {
            *name = format!("{prefix}<five>").into();
        }
        for (key, child) in map.iter_mut() {
            match (key.as_str(), child.as_str()) {
                ("uid", Some(uid)) if !uid.starts_with('<') => *child = name(&mut self.uids, "uid", uid),
                ("resourceVersion", Some(version)) if version.parse::<u64>().is_ok_and(|v| v > 0) => {
                    *child = name(&mut self.versions, "rv", version);
                }
                ("continue", Some(token)) if !token.is_empty() => *child = "<more>".into(),
                ("token", Some(_)) => *child = "<token>".into(),
                (
                    "creationTimestamp" | "expirationTimestamp" | "deletionTimestamp" | "lastTransitionTime" | "time",
                    Some(_),
                ) => {
                    *child = "<time>".into();
                }
                _ => self.value(child),
            }
        }
    }
}

fn name(names: &mut HashMap<String, String>, kind: &str, found: &str) -> Value {
    let next = format!("<{kind}{}>", names.len() + 1);
    names.entry(found.to_owned()).or_insert(next).clone().into()
}

fn is_bookmark(value: &Value) -> bool {
    !value["metadata"]["annotations"]["k8s.io/initial-events-end"].is_null()
}

/// The order of causes says nothing.
fn status(value: &mut Value) {
    if let Some(causes) = value.pointer_mut("/details/causes").and_then(Value::as_array_mut) {
        causes.sort_by_key(|c| ["field", "reason", "message"].map(|part| c[part].to_string()));
    }
}

/// Ages are those of this run; descriptions of columns are for people.
fn table(value: &mut Value) {
    let columns = value.get_mut("columnDefinitions").and_then(Value::as_array_mut);
    for column in columns.into_iter().flatten() {
        column.as_object_mut().map(|c| c.remove("description"));
    }
    for row in value["rows"].as_array_mut().into_iter().flatten() {
        let cells = row["cells"].as_array_mut().into_iter().flatten();
        cells.filter(|c| is_age(c)).for_each(|c| *c = "<age>".into());
    }
}

/// Neither resources nor their verbs stand in an order.
fn discovery(value: &mut Value) {
    let Some(resources) = value["resources"].as_array_mut() else {
        return;
    };
    for resource in resources.iter_mut() {
        resource.as_object_mut().map(|r| r.remove("storageVersionHash"));
        let verbs = resource["verbs"].as_array_mut();
        verbs.into_iter().for_each(|v| v.sort_by_key(Value::to_string));
    }
    resources.sort_by_key(|r| r["name"].to_string());
}

fn is_age(cell: &Value) -> bool {
    let seconds = cell.as_str().and_then(|c| c.strip_suffix('s'));
    seconds.is_some_and(|s| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit()))
}
