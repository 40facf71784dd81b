//! Structural schemas: pruning, defaulting and validation of JSON by an OpenAPI v3 schema. Built-in kinds and custom
//! resources go through the same three functions.

pub(crate) mod empty;

use std::collections::HashMap;

use parking_lot::Mutex;
use regex::Regex;
use serde_json::{Map, Value};

use super::status::FieldError;

/// Removes what the schema does not name; the dotted paths of what was removed go to `unknown`.
pub(crate) fn prune(schema: &Value, value: &mut Value, path: &str, unknown: &mut Vec<String>) {
    if preserves(schema) && schema.get("properties").is_none() {
        return;
    }
    match value {
        Value::Object(map) => {
            let properties = schema.get("properties").and_then(Value::as_object);
            let extra = schema.get("additionalProperties");
            if properties.is_none() && extra.is_none() && schema.get("type").and_then(Value::as_str) != Some("object") {
                return;
            }
            let mut drop = Vec::new();
            for (key, child) in map.iter_mut() {
                let at = join(path, key);
                if let Some(known) = properties.and_then(|p| p.get(key)) {
                    prune(known, child, &at, unknown);
                } else if let Some(extra) = extra.filter(|e| e.is_object()) {
                    prune(extra, child, &at, unknown);
                } else if extra != Some(&Value::Bool(true)) && !preserves(schema) {
                    drop.push(key.clone());
                    unknown.push(at);
                }
            }
            map.retain(|k, _| !drop.contains(k));
        }
        Value::Array(items) => {
            if let Some(schema) = schema.get("items") {
                for (i, item) in items.iter_mut().enumerate() {
                    prune(schema, item, &format!("{path}[{i}]"), unknown);
                }
            }
        }
        _ => {}
    }
}

/// Drops nulls where the schema does not allow them, then fills in defaults.
pub(crate) fn default(schema: &Value, value: &mut Value) {
    match value {
        Value::Object(map) => {
            let empty = Map::new();
            let properties = schema.get("properties").and_then(Value::as_object).unwrap_or(&empty);
            let extra = schema.get("additionalProperties").filter(|e| e.is_object());
            map.retain(|k, v| {
                let known = properties.get(k).or(extra);
                !(v.is_null() && known.is_some_and(|s| s["nullable"] != true && !preserves(s)))
            });
            for (key, property) in properties {
                if let Some(default) = property.get("default").filter(|_| !map.contains_key(key)) {
                    map.insert(key.clone(), default.clone());
                }
            }
            for (key, child) in map.iter_mut() {
                if let Some(schema) = properties.get(key).or(extra) {
                    default(schema, child);
                }
            }
        }
        Value::Array(items) => {
            if let Some(schema) = schema.get("items") {
                items.iter_mut().for_each(|item| default(schema, item));
            }
        }
        _ => {}
    }
}

/// Checks types, limits, patterns, enumerations, junctors and list keys. CEL rules are the caller's.
pub(crate) fn validate(schema: &Value, value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    if value.is_null() {
        if schema["nullable"] != true && !preserves(schema) && schema.get("type").is_some() {
            errors.push(FieldError::wrong_type(
                path,
                value,
                schema["type"].as_str().unwrap_or("object"),
            ));
        }
        return;
    }
    if !type_fits(schema, value) {
        let expected = if int_or_string(schema) {
            "integer,string"
        } else {
            schema["type"].as_str().unwrap_or("object")
        };
        errors.push(FieldError::wrong_type(path, value, expected));
        return;
    }
    if let Some(allowed) = schema
        .get("enum")
        .and_then(Value::as_array)
        .filter(|a| !a.contains(value))
    {
        let names: Vec<String> = allowed.iter().map(text).collect();
        errors.push(FieldError::not_supported(path, value, &names));
    }
    match value {
        Value::String(s) => string(schema, s, value, path, errors),
        Value::Number(n) => number(schema, n.as_f64().unwrap_or(0.0), value, path, errors),
        Value::Array(items) => list(schema, items, value, path, errors),
        Value::Object(map) => object(schema, map, value, path, errors),
        Value::Null | Value::Bool(_) => {}
    }
    junctors(schema, value, path, errors);
}

/// `parent.child`, or `child` at the root; keys with dots are bracketed as the real server does.
pub(crate) fn join(path: &str, key: &str) -> String {
    match (path.is_empty(), key.contains('.')) {
        (true, _) => key.to_owned(),
        (false, false) => format!("{path}.{key}"),
        (false, true) => format!("{path}[{key}]"),
    }
}

/// The keys by which the items of a list are merged: `Some([])` for a set, `None` for a list replaced as a whole.
pub(crate) fn list_keys(schema: &Value) -> Option<Vec<String>> {
    match schema["x-kubernetes-list-type"].as_str() {
        Some("map") => {
            let keys = schema["x-kubernetes-list-map-keys"].as_array()?;
            Some(keys.iter().filter_map(|k| k.as_str().map(str::to_owned)).collect())
        }
        Some("set") => Some(Vec::new()),
        _ => None,
    }
}

/// The schema of an object's field, or `Null` (which every other function here takes for "anything").
pub(crate) fn field<'a>(schema: &'a Value, key: &str) -> &'a Value {
    match schema["properties"].get(key) {
        Some(known) => known,
        None => &schema["additionalProperties"],
    }
}

/// A compiled pattern, kept for the life of the process. `Err` names the fault.
pub(crate) fn pattern(source: &str) -> Result<Regex, regex::Error> {
    static CACHE: Mutex<Option<HashMap<String, Regex>>> = Mutex::new(None);
    let mut cache = CACHE.lock();
    let cache = cache.get_or_insert_default();
    if let Some(found) = cache.get(source) {
        return Ok(found.clone());
    }
    let compiled = Regex::new(source)?;
    cache.insert(source.to_owned(), compiled.clone());
    Ok(compiled)
}

fn preserves(schema: &Value) -> bool {
    schema["x-kubernetes-preserve-unknown-fields"] == true
}

fn int_or_string(schema: &Value) -> bool {
    schema["x-kubernetes-int-or-string"] == true
}

fn type_fits(schema: &Value, value: &Value) -> bool {
    if int_or_string(schema) {
        return value.is_string() || value.is_i64() || value.is_u64();
    }
    match schema["type"].as_str() {
        None => true,
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("boolean") => value.is_boolean(),
        Some("number") => value.is_number(),
        Some("integer") => value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|f| f.fract() == 0.0),
        Some(_) => false,
    }
}

fn string(schema: &Value, s: &str, value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let length = s.chars().count() as u64;
    if let Some(max) = schema["maxLength"].as_u64().filter(|max| length > *max) {
        errors.push(FieldError::too_long(path, max));
    }
    if let Some(min) = schema["minLength"].as_u64().filter(|min| length < *min) {
        errors.push(FieldError::invalid(
            path,
            value,
            format!("{path} in body should be at least {min} chars long"),
        ));
    }
    if let Some(source) = schema["pattern"].as_str()
        && !pattern(source).is_ok_and(|p| p.is_match(s))
    {
        errors.push(FieldError::invalid(
            path,
            value,
            format!("{path} in body should match '{source}'"),
        ));
    }
    if let Some(format) = schema["format"].as_str()
        && !format_fits(format, s)
    {
        errors.push(FieldError {
            reason: "FieldValueTypeInvalid",
            ..FieldError::invalid(path, value, format!("{path} in body must be of type {format}: {value}"))
        });
    }
}

fn format_fits(format: &str, s: &str) -> bool {
    match format {
        "date-time" => super::time::parse(s).is_some(),
        "ipv4" => s.parse::<std::net::Ipv4Addr>().is_ok(),
        "ipv6" => s.parse::<std::net::Ipv6Addr>().is_ok(),
        "cidr" => s.contains('/') && s.parse::<ipnetwork::IpNetwork>().is_ok(),
        "byte" => base64::Engine::decode(&base64::engine::general_purpose::STANDARD, s).is_ok(),
        _ => true,
    }
}

fn number(schema: &Value, n: f64, value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let mut refuse = |why: String| {
        errors.push(FieldError::invalid(
            path,
            value,
            format!("{path} in body should be {why}"),
        ))
    };
    if let Some(max) = schema["maximum"].as_f64() {
        match schema["exclusiveMaximum"] == true {
            true if n >= max => refuse(format!("less than {max}")),
            false if n > max => refuse(format!("less than or equal to {max}")),
            _ => {}
        }
    }
    if let Some(min) = schema["minimum"].as_f64() {
        match schema["exclusiveMinimum"] == true {
            true if n <= min => refuse(format!("greater than {min}")),
            false if n < min => refuse(format!("greater than or equal to {min}")),
            _ => {}
        }
    }
    if let Some(step) = schema["multipleOf"]
        .as_f64()
        .filter(|step| *step > 0.0 && (n / step).fract() != 0.0)
    {
        refuse(format!("a multiple of {step}"));
    }
    let limits = match schema["format"].as_str() {
        Some("int32") => Some((f64::from(i32::MIN), f64::from(i32::MAX))),
        Some("uint32") => Some((0.0, f64::from(u32::MAX))),
        _ => None,
    };
    if limits.is_some_and(|(low, high)| n < low || n > high) {
        refuse(format!("within the range of {}", text(&schema["format"])));
    }
}

fn list(schema: &Value, items: &[Value], value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    if let Some(max) = schema["maxItems"].as_u64().filter(|max| items.len() as u64 > *max) {
        let message = format!("Too many: {}: must have at most {max} items", items.len());
        errors.push(FieldError {
            reason: "FieldValueTooMany",
            field: path.into(),
            message,
        });
    }
    if let Some(min) = schema["minItems"].as_u64().filter(|min| (items.len() as u64) < *min) {
        errors.push(FieldError::invalid(
            path,
            value,
            format!("{path} in body should have at least {min} items"),
        ));
    }
    let keys = list_keys(schema);
    let unique = schema["uniqueItems"] == true || keys.is_some();
    for (i, item) in items.iter().enumerate() {
        let at = format!("{path}[{i}]");
        validate(&schema["items"], item, &at, errors);
        if unique && items[..i].iter().any(|other| same_key(keys.as_deref(), other, item)) {
            let shown = match keys.as_deref() {
                Some(keys) if !keys.is_empty() => keys.iter().map(|k| (k.clone(), item[k].clone())).collect(),
                _ => item.clone(),
            };
            errors.push(FieldError::duplicate(&at, &shown));
        }
    }
}

fn same_key(keys: Option<&[String]>, a: &Value, b: &Value) -> bool {
    match keys {
        Some(keys) if !keys.is_empty() => keys.iter().all(|k| a.get(k) == b.get(k)),
        _ => a == b,
    }
}

fn object(schema: &Value, map: &Map<String, Value>, value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    for name in schema["required"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
    {
        if !map.contains_key(name) {
            errors.push(FieldError::required(join(path, name), ""));
        }
    }
    let count = map.len() as u64;
    if let Some(max) = schema["maxProperties"].as_u64().filter(|max| count > *max) {
        errors.push(FieldError::invalid(
            path,
            value,
            format!("{path} in body should have at most {max} properties"),
        ));
    }
    if let Some(min) = schema["minProperties"].as_u64().filter(|min| count < *min) {
        errors.push(FieldError::invalid(
            path,
            value,
            format!("{path} in body should have at least {min} properties"),
        ));
    }
    for (key, child) in map {
        let known = field(schema, key);
        if known.is_object() {
            validate(known, child, &join(path, key), errors);
        }
    }
}

fn junctors(schema: &Value, value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let branches = |key: &str| schema[key].as_array().cloned().unwrap_or_default();
    let fits = |branch: &Value| {
        let mut found = Vec::new();
        validate(branch, value, path, &mut found);
        found.is_empty()
    };
    for branch in branches("allOf") {
        validate(&branch, value, path, errors);
    }
    let (any, one) = (branches("anyOf"), branches("oneOf"));
    // Structural schemas spell int-or-string as an anyOf of the two types, which the type check has covered.
    if !any.is_empty() && !any.iter().any(fits) {
        errors.push(FieldError::invalid(
            path,
            value,
            format!("{path} in body must validate at least one schema (anyOf)"),
        ));
    }
    if !one.is_empty() && one.iter().filter(|b| fits(b)).count() != 1 {
        errors.push(FieldError::invalid(
            path,
            value,
            format!("{path} in body must validate one and only one schema (oneOf)"),
        ));
    }
    if schema["not"].is_object() && fits(&schema["not"]) {
        errors.push(FieldError::invalid(
            path,
            value,
            format!("{path} in body must not validate the schema (not)"),
        ));
    }
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn complaints(schema: &Value, value: &Value) -> Vec<String> {
        let mut errors = Vec::new();
        validate(schema, value, "spec", &mut errors);
        errors
            .into_iter()
            .map(|e| format!("{}: {}", e.field, e.message))
            .collect()
    }

    #[test]
    fn each_keyword_refuses_what_it_should_and_nothing_else() {
        let cases = [
            (
                json!({"type": "string"}),
                json!("a"),
                json!(1),
                "must be of type string",
            ),
            (
                json!({"type": "integer", "maximum": 3}),
                json!(3),
                json!(4),
                "less than or equal to 3",
            ),
            (
                json!({"type": "string", "pattern": "^a+$"}),
                json!("aa"),
                json!("b"),
                "should match '^a+$'",
            ),
            (
                json!({"type": "string", "enum": ["A", "B"]}),
                json!("A"),
                json!("C"),
                "supported values: \"A\", \"B\"",
            ),
            (
                json!({"type": "string", "maxLength": 2}),
                json!("ab"),
                json!("abc"),
                "may not be more than 2 bytes",
            ),
            (
                json!({"type": "array", "maxItems": 1}),
                json!([1]),
                json!([1, 2]),
                "must have at most 1 items",
            ),
            (
                json!({"type": "object", "required": ["a"]}),
                json!({"a": 1}),
                json!({}),
                "spec.a: Required value",
            ),
            (
                json!({"x-kubernetes-int-or-string": true}),
                json!("50%"),
                json!(true),
                "integer,string",
            ),
            (
                json!({"type": "string", "format": "cidr"}),
                json!("10.0.0.0/8"),
                json!("ten"),
                "must be of type cidr",
            ),
            (
                json!({"oneOf": [{"required": ["a"]}, {"required": ["b"]}]}),
                json!({"a": 1}),
                json!({"a": 1, "b": 1}),
                "oneOf",
            ),
            (
                json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["n"]}),
                json!([{"n": 1}, {"n": 2}]),
                json!([{"n": 1}, {"n": 1}]),
                "Duplicate value: {\"n\":1}",
            ),
        ];
        for (schema, good, bad, message) in cases {
            assert_eq!(complaints(&schema, &good), Vec::<String>::new(), "{schema}");
            let found = complaints(&schema, &bad);
            assert!(
                found.iter().any(|f| f.contains(message)),
                "{schema} said {found:?}, not {message}"
            );
        }
    }

    #[test]
    fn prunes_unknown_fields_and_names_them() {
        let schema = json!({"type": "object", "properties": {
            "a": {"type": "array", "items": {"type": "object", "properties": {"x": {"type": "string"}}}},
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
            "m": {"type": "object", "additionalProperties": {"type": "string"}},
        }});
        let mut value = json!({"a": [{"x": "1", "y": 2}], "free": {"z": 1}, "m": {"k": "v"}, "b": 1});
        let mut unknown = Vec::new();
        prune(&schema, &mut value, "", &mut unknown);
        unknown.sort();
        assert_eq!(value, json!({"a": [{"x": "1"}], "free": {"z": 1}, "m": {"k": "v"}}));
        assert_eq!(unknown, ["a[0].y", "b"]);
    }

    #[test]
    fn defaults_fill_gaps_and_replace_nulls() {
        let schema = json!({"type": "object", "properties": {
            "size": {"type": "integer", "default": 26},
            "inner": {"type": "object", "default": {}, "properties": {"on": {"type": "boolean", "default": true}}},
            "maybe": {"type": "string", "nullable": true, "default": "x"},
            "gone": {"type": "string"},
        }});
        let mut value = json!({"size": null, "maybe": null, "gone": null});
        default(&schema, &mut value);
        assert_eq!(value, json!({"size": 26, "inner": {"on": true}, "maybe": null}));
    }
}
