//! `as=Table`: what `kubectl get` prints.

mod builtin;
mod jsonpath;

use serde_json::{Value, json};

use super::{
    catalog::{Origin, Resource},
    time,
};

/// One column; priority 0 is always shown, others with `-o wide`.
#[derive(Debug, Clone)]
struct Column {
    name: String,
    kind: String,
    description: String,
    priority: i64,
}

/// What stands beside the cells of a row (`includeObject`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Include {
    None,
    Metadata,
    Object,
}

/// A `Table` of these objects; `metadata` is that of the list.
pub(crate) fn table(resource: &Resource, objects: &[Value], metadata: Value, include: Include, beta: bool) -> Value {
    let definitions: Vec<Value> = columns(resource)
        .iter()
        .map(|c| {
            let format = if c.name == "Name" { "name" } else { "" };
            json!({"name": c.name, "type": c.kind, "format": format, "description": c.description, "priority": c.priority})
        })
        .collect();
    let row = |object: &Value| {
        let beside = match include {
            Include::None => Value::Null,
            Include::Metadata => partial(object, beta),
            Include::Object => object.clone(),
        };
        json!({"cells": cells(resource, object), "object": beside})
    };
    json!({
        "kind": "Table", "apiVersion": meta_version(beta), "metadata": metadata,
        "columnDefinitions": definitions, "rows": objects.iter().map(row).collect::<Vec<_>>(),
    })
}

/// `PartialObjectMetadata`.
pub(crate) fn partial(object: &Value, beta: bool) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": meta_version(beta), "metadata": object["metadata"]})
}

fn meta_version(beta: bool) -> &'static str {
    if beta { "meta.k8s.io/v1beta1" } else { "meta.k8s.io/v1" }
}

fn columns(resource: &Resource) -> Vec<Column> {
    if resource.origin != Origin::Custom {
        return builtin::columns(&resource.kind).map(builtin_column).collect();
    }
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let custom = resource.columns.iter().map(|c| Column {
        name: text(&c["name"]),
        kind: text(&c["type"]),
        description: text(&c["description"]),
        priority: c["priority"].as_i64().unwrap_or(0),
    });
    let mut all = vec![builtin_column(("Name", 0))];
    all.extend(custom);
    if resource.columns.is_empty() {
        all.push(Column {
            kind: "date".into(),
            ..builtin_column(("Age", 0))
        });
    }
    all
}

fn builtin_column((name, priority): (&str, i64)) -> Column {
    Column {
        name: name.into(),
        kind: "string".into(),
        description: String::new(),
        priority,
    }
}

fn cells(resource: &Resource, object: &Value) -> Vec<Value> {
    if resource.origin != Origin::Custom {
        return builtin::cells(&resource.kind, object);
    }
    let mut cells = vec![object["metadata"]["name"].clone()];
    cells.extend(resource.columns.iter().map(|column| {
        let found = column["jsonPath"].as_str().and_then(|p| jsonpath::find(object, p));
        match (column["type"].as_str(), found) {
            (_, None) => Value::Null,
            (Some("date"), Some(value)) => time::age(value.as_str()).into(),
            (Some("string"), Some(value)) if !value.is_string() => value.to_string().into(),
            (_, Some(value)) => value,
        }
    }));
    if resource.columns.is_empty() {
        cells.push(time::age(object["metadata"]["creationTimestamp"].as_str()).into());
    }
    cells
}
