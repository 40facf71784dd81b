//! The built-in kinds: a table of resources (`kinds.txt`) and their types (`types.txt`) as structural schemas.

use std::{collections::BTreeMap, sync::LazyLock};

use serde_json::{Map, Value, json};

use super::catalog::{Origin, Resource};

/// Every built-in resource, in the order of the table.
pub(crate) fn resources() -> Vec<Resource> {
    let lines = include_str!("builtin/kinds.txt").lines();
    lines
        .filter(|l| !l.is_empty() && !l.starts_with('#'))
        .map(resource)
        .collect()
}

/// The schema of a type of `types.txt`.
pub(crate) fn schema_of(name: &str) -> &'static Value {
    static TYPES: LazyLock<BTreeMap<String, Value>> = LazyLock::new(parse_types);
    static NULL: Value = Value::Null;
    TYPES.get(name).unwrap_or(&NULL)
}

/// A schema with `apiVersion`, `kind` and `metadata` as every object has them.
pub(crate) fn with_object_fields(mut schema: Value) -> Value {
    schema["type"] = json!("object");
    schema["properties"]["apiVersion"] = json!({"type": "string"});
    schema["properties"]["kind"] = json!({"type": "string"});
    schema["properties"]["metadata"] = schema_of("ObjectMeta").clone();
    schema
}

fn resource(line: &str) -> Resource {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [group, version, plural, singular, kind, short, scope, flags] = words[..] else {
        unreachable!("kinds.txt has eight columns, checked by a test: {line}")
    };
    let group = if group == "-" { "" } else { group };
    let flag = |name: &str| flags.split(',').any(|f| f == name);
    let fields = flags.split(',').find_map(|f| f.strip_prefix("fields=")).unwrap_or("");
    let absent = flag("absent");
    let type_name = match (kind, absent) {
        (_, true) => "AnyKind",
        ("ClusterRoleBinding", _) => "RoleBinding",
        (kind, _) => kind,
    };
    // Both event APIs show the same objects, kept in the core form.
    let storage_group = if plural == "events" { "" } else { group };
    Resource {
        group: group.to_owned(),
        version: version.to_owned(),
        plural: plural.to_owned(),
        singular: singular.to_owned(),
        kind: kind.to_owned(),
        list_kind: format!("{kind}List"),
        short_names: if short == "-" {
            vec![]
        } else {
            short.split(',').map(str::to_owned).collect()
        },
        categories: if flag("all") { vec!["all".to_owned()] } else { vec![] },
        namespaced: scope == "namespaced",
        storage: format!("{storage_group}/{plural}").into(),
        status: flag("status"),
        generation: flag("generation"),
        schema: with_object_fields(schema_of(type_name).clone()).into(),
        rules: None,
        field_labels: fields.split('+').filter(|f| !f.is_empty()).map(str::to_owned).collect(),
        origin: if absent { Origin::Absent } else { Origin::BuiltIn },
        columns: Vec::new(),
        deprecation: None,
    }
}

fn parse_types() -> BTreeMap<String, Value> {
    let text = include_str!("builtin/types.txt")
        .lines()
        .filter(|l| !l.starts_with('#'));
    let mut sources: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut current = "";
    for word in text.flat_map(str::split_whitespace) {
        match word.strip_prefix('%') {
            Some(name) => {
                current = name;
                sources.entry(name).or_default();
            }
            None => sources.entry(current).or_default().push(word),
        }
    }
    sources
        .keys()
        .map(|name| name.trim_end_matches('*'))
        .map(|name| (name.to_owned(), expand(&sources, name)))
        .collect()
}

fn expand(sources: &BTreeMap<&str, Vec<&str>>, name: &str) -> Value {
    let mut properties = Map::new();
    let mut required = Vec::new();
    let words = sources.get(name).or_else(|| sources.get(format!("{name}*").as_str()));
    for word in words.into_iter().flatten() {
        let (field, spec) = word.split_once(':').unwrap_or((word, "any"));
        let (spec, default) = spec.split_once('=').map_or((spec, None), |(s, d)| (s, Some(d)));
        let mut schema = field_schema(sources, spec);
        if let Some(default) = default {
            schema["default"] = serde_json::from_str(default).unwrap_or_else(|_| json!(default));
        }
        if let Some(name) = field.strip_suffix('!') {
            required.push(name);
        }
        properties.insert(field.trim_end_matches('!').to_owned(), schema);
    }
    let mut schema = json!({"type": "object", "properties": properties});
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    if sources.contains_key(format!("{name}*").as_str()) {
        schema["x-kubernetes-map-type"] = json!("atomic");
    }
    schema
}

fn field_schema(sources: &BTreeMap<&str, Vec<&str>>, spec: &str) -> Value {
    if let Some(inner) = spec.strip_prefix('[').and_then(|s| s.strip_suffix(']')) {
        let (item, keys) = inner.split_once('@').map_or((inner, None), |(i, k)| (i, Some(k)));
        let mut schema = json!({"type": "array", "items": field_schema(sources, item)});
        match keys {
            None => {}
            Some("") => schema["x-kubernetes-list-type"] = json!("set"),
            Some(keys) => {
                schema["x-kubernetes-list-type"] = json!("map");
                schema["x-kubernetes-list-map-keys"] = keys.split(',').collect();
            }
        }
        return schema;
    }
    if let Some(values) = spec.strip_prefix("s(").and_then(|s| s.strip_suffix(')')) {
        return json!({"type": "string", "enum": values.split(',').collect::<Vec<_>>()});
    }
    match spec {
        "s" => json!({"type": "string"}),
        "i" => json!({"type": "integer"}),
        "n" => json!({"type": "number"}),
        "b" => json!({"type": "boolean"}),
        "t" => json!({"type": "string", "format": "date-time"}),
        "q" => json!({"x-kubernetes-int-or-string": true}),
        "m" => json!({"type": "object", "additionalProperties": {"type": "string"}}),
        "ma" => {
            json!({"type": "object", "additionalProperties": {"type": "string"}, "x-kubernetes-map-type": "atomic"})
        }
        "my" => json!({"type": "object", "additionalProperties": {"type": "string", "format": "byte"}}),
        "mq" => json!({"type": "object", "additionalProperties": {"x-kubernetes-int-or-string": true}}),
        "any" => json!({"x-kubernetes-preserve-unknown-fields": true}),
        name => expand(sources, name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_are_well_formed() {
        for resource in resources() {
            assert!(
                resource.schema["properties"]["metadata"]["properties"]["name"].is_object(),
                "{}",
                resource.kind
            );
            let known = resource.schema["properties"].as_object().map(serde_json::Map::len);
            assert!(
                known > Some(3) || resource.origin == Origin::Absent,
                "{} has no type in types.txt",
                resource.kind
            );
        }
        let word_count = include_str!("builtin/kinds.txt")
            .lines()
            .filter(|l| !l.is_empty() && !l.starts_with('#'));
        assert!(word_count.clone().all(|l| l.split_whitespace().count() == 8));
        let containers = &schema_of("Pod")["properties"]["spec"]["properties"]["containers"];
        assert_eq!(containers["x-kubernetes-list-map-keys"], json!(["name"]));
        let port = &containers["items"]["properties"]["ports"]["items"];
        assert_eq!(port["properties"]["protocol"]["default"], "TCP");
        assert_eq!(port["required"], json!(["containerPort"]));
    }
}
