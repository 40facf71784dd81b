//! CustomResourceDefinitions: what they must be, and the resources they serve.

mod rules;

use std::sync::Arc;

use serde_json::{Value, json};

pub(crate) use rules::check_rules;

use super::{
    builtin::with_object_fields,
    catalog::{Origin, Resource},
    schema,
    status::{ApiError, FieldError, Result},
    time,
};

/// Fills in the names and the status that the real server's controllers would write.
pub(crate) fn prepare(definition: &mut Value, old: Option<&Value>) -> Result<()> {
    if definition["spec"]["conversion"]["strategy"] == "Webhook" {
        return Err(ApiError::not_implemented(
            "the lab's API server does not call conversion webhooks: set spec.conversion.strategy: None",
        ));
    }
    let kind = definition["spec"]["names"]["kind"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let names = &mut definition["spec"]["names"];
    if names["singular"].as_str().is_none_or(str::is_empty) {
        names["singular"] = kind.to_lowercase().into();
    }
    if names["listKind"].as_str().is_none_or(str::is_empty) {
        names["listKind"] = format!("{kind}List").into();
    }
    if definition["spec"]["conversion"].is_null() {
        definition["spec"]["conversion"] = json!({"strategy": "None"});
    }
    let storage = versions(definition)
        .find(|v| v["storage"] == true)
        .map(|v| v["name"].clone());
    let mut stored = old
        .and_then(|o| o["status"]["storedVersions"].as_array().cloned())
        .unwrap_or_default();
    if let Some(version) = storage.filter(|v| !stored.contains(v)) {
        stored.push(version);
    }
    let condition = |kind: &str, reason: &str, message: &str| json!({"type": kind, "status": "True", "reason": reason, "message": message, "lastTransitionTime": time::now()});
    let conditions = old
        .map(|o| o["status"]["conditions"].clone())
        .filter(Value::is_array)
        .unwrap_or_else(|| {
            json!([
                condition("NamesAccepted", "NoConflicts", "no conflicts found"),
                condition(
                    "Established",
                    "InitialNamesAccepted",
                    "the initial names have been accepted"
                ),
            ])
        });
    definition["status"] = json!({
        "acceptedNames": definition["spec"]["names"], "storedVersions": stored, "conditions": conditions,
    });
    Ok(())
}

/// Everything wrong with a definition.
pub(crate) fn validate(definition: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let spec = &definition["spec"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let name = text(&definition["metadata"]["name"]);
    let expected = format!("{}.{}", text(&spec["names"]["plural"]), text(&spec["group"]));
    if name != expected {
        let why = "must be spec.names.plural+\".\"+spec.group";
        errors.push(FieldError::invalid("metadata.name", &json!(name), why));
    }
    if !text(&spec["group"]).contains('.') {
        errors.push(FieldError::invalid(
            "spec.group",
            &spec["group"],
            "should be a domain with at least one dot",
        ));
    }
    for field in ["scope", "group"] {
        if old.is_some_and(|o| o["spec"][field] != spec[field]) {
            errors.push(FieldError::invalid(
                format!("spec.{field}"),
                &spec[field],
                "field is immutable",
            ));
        }
    }
    if versions(definition).filter(|v| v["storage"] == true).count() != 1 {
        let why = "must have exactly one version marked as storage version";
        errors.push(FieldError::invalid("spec.versions", &spec["versions"], why));
    }
    for (i, version) in versions(definition).enumerate() {
        let at = format!("spec.versions[{i}].schema.openAPIV3Schema");
        let root = &version["schema"]["openAPIV3Schema"];
        if !root.is_object() {
            errors.push(FieldError::required(at, "schemas are required"));
            continue;
        }
        if root["type"] != "object" {
            errors.push(FieldError::invalid(
                format!("{at}.type"),
                &root["type"],
                "must be object at the root",
            ));
        }
        structural(root, &at, &mut errors);
        for fault in compile_faults(&kube_cel::compile_schema(root)) {
            errors.push(FieldError::invalid(
                format!("{at}.x-kubernetes-validations"),
                &Value::Null,
                fault,
            ));
        }
    }
    errors
}

/// The resources that a definition serves, one for each served version.
pub(crate) fn resources(definition: &Value) -> Vec<Resource> {
    let (spec, names) = (&definition["spec"], &definition["spec"]["names"]);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let texts = |value: &Value| value.as_array().into_iter().flatten().map(text).collect::<Vec<_>>();
    let (group, plural) = (text(&spec["group"]), text(&names["plural"]));
    let resource = |version: &Value| {
        let root = &version["schema"]["openAPIV3Schema"];
        let warning = format!(
            "{group}/{} {} is deprecated",
            text(&version["name"]),
            text(&names["kind"])
        );
        let own_warning = version["deprecationWarning"].as_str().map(str::to_owned);
        Resource {
            group: group.clone(),
            version: text(&version["name"]),
            plural: plural.clone(),
            singular: text(&names["singular"]),
            kind: text(&names["kind"]),
            list_kind: text(&names["listKind"]),
            short_names: texts(&names["shortNames"]),
            categories: texts(&names["categories"]),
            namespaced: spec["scope"] == "Namespaced",
            storage: format!("{group}/{plural}").into(),
            status: version["subresources"]["status"].is_object(),
            generation: true,
            schema: with_object_fields(root.clone()).into(),
            rules: has_rules(root).then(|| Arc::new(kube_cel::compile_schema(root))),
            field_labels: version["selectableFields"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|f| text(&f["jsonPath"]).trim_start_matches('.').to_owned())
                .collect(),
            origin: Origin::Custom,
            columns: version["additionalPrinterColumns"]
                .as_array()
                .cloned()
                .unwrap_or_default(),
            deprecation: (version["deprecated"] == true).then(|| own_warning.unwrap_or(warning)),
        }
    };
    versions(definition)
        .filter(|v| v["served"] == true)
        .map(resource)
        .collect()
}

fn versions(definition: &Value) -> impl Iterator<Item = &Value> {
    definition["spec"]["versions"].as_array().into_iter().flatten()
}

fn has_rules(schema: &Value) -> bool {
    match schema {
        Value::Object(map) => map.contains_key("x-kubernetes-validations") || map.values().any(has_rules),
        Value::Array(items) => items.iter().any(has_rules),
        _ => false,
    }
}

fn compile_faults(compiled: &kube_cel::CompiledSchema) -> Vec<String> {
    let mut faults: Vec<String> = compiled
        .compilation_errors()
        .iter()
        .map(|e| format!("compilation failed: {e}"))
        .collect();
    let children = compiled
        .properties
        .values()
        .chain(compiled.items.as_deref())
        .chain(compiled.additional_properties.as_deref());
    faults.extend(children.flat_map(compile_faults));
    faults
}

/// The rules of structural schemas that an object's later handling relies on.
fn structural(node: &Value, at: &str, errors: &mut Vec<FieldError>) {
    let typed = node["type"].is_string();
    let exempt = node["x-kubernetes-int-or-string"] == true || node["x-kubernetes-preserve-unknown-fields"] == true;
    if !typed && !exempt {
        errors.push(FieldError::required(
            format!("{at}.type"),
            "must not be empty for specified object fields",
        ));
    }
    if node["properties"].is_object() && node["additionalProperties"].is_object() {
        let why = "additionalProperties and properties are mutual exclusive";
        errors.push(FieldError::forbidden(format!("{at}.additionalProperties"), why));
    }
    if let Some(source) = node["pattern"].as_str()
        && let Err(error) = schema::pattern(source)
    {
        let why = format!("must be a valid regular expression, but isn't: {error}");
        errors.push(FieldError::invalid(format!("{at}.pattern"), &node["pattern"], why));
    }
    if let Some(default) = node.get("default") {
        let mut faults = Vec::new();
        let mut filled = default.clone();
        schema::default(node, &mut filled);
        schema::validate(node, &filled, &format!("{at}.default"), &mut faults);
        errors.extend(faults);
    }
    for (name, child) in node["properties"].as_object().into_iter().flatten() {
        structural(child, &format!("{at}.properties[{name}]"), errors);
    }
    for field in ["items", "additionalProperties"]
        .into_iter()
        .filter(|f| node[*f].is_object())
    {
        structural(&node[field], &format!("{at}.{field}"), errors);
    }
}
