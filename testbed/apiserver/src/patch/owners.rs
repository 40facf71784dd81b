//! The entries of `metadata.managedFields`.

use serde_json::{Value, json};

use crate::{catalog::Resource, time};

/// Who writes, as `fieldManager`, and through which subresource (empty for the object itself).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Writer<'a> {
    pub(crate) manager: &'a str,
    pub(crate) subresource: &'a str,
}

/// One entry of `managedFields`.
pub(super) struct Entry {
    pub(super) json: Value,
    pub(super) fields: Value,
}

impl Entry {
    pub(super) fn new(resource: &Resource, writer: Writer<'_>, operation: &str, fields: Value) -> Self {
        let mut json = json!({
            "manager": writer.manager, "operation": operation, "apiVersion": resource.api_version(),
            "time": time::now(), "fieldsType": "FieldsV1",
        });
        if !writer.subresource.is_empty() {
            json["subresource"] = writer.subresource.into();
        }
        Self { json, fields }
    }

    /// The time of an earlier entry, or none.
    pub(super) fn set_time(&mut self, earlier: Option<&Entry>) {
        match earlier.and_then(|e| e.json.get("time")) {
            Some(time) => self.json["time"] = time.clone(),
            None => drop(self.json.as_object_mut().map(|e| e.remove("time"))),
        }
    }

    pub(super) fn is(&self, writer: Writer<'_>, operation: &str) -> bool {
        self.json["manager"] == writer.manager
            && self.json["operation"] == operation
            && self.json["subresource"].as_str().unwrap_or("") == writer.subresource
    }
}

pub(super) fn entries(object: &Value) -> Vec<Entry> {
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

pub(super) fn store_entries(object: &mut Value, entries: Vec<Entry>) {
    let mut list: Vec<Entry> = entries
        .into_iter()
        .filter(|e| e.fields.as_object().is_some_and(|f| !f.is_empty()))
        .collect();
    let order =
        |e: &Entry| ["operation", "time", "manager", "subresource"].map(|k| e.json[k].as_str().map(str::to_owned));
    list.sort_by_key(order);
    object["metadata"]["managedFields"] = list
        .into_iter()
        .map(|mut e| {
            e.json["fieldsV1"] = e.fields;
            e.json
        })
        .collect();
}
