//! The CRDs of `deploy/crds`, made from the types of [`crate::v3`].
//!
//! Each is the derived schema, made fit for structural schemas, plus `x-kubernetes-validations`: those that
//! [`crate::support`] implies, and those that belong to the API itself. Every rule keeps to the CEL
//! libraries of Kubernetes 1.31 and later; strings and lists that a rule reads are bounded, so that its cost is.

mod rules;
mod schema;

use kube::CustomResourceExt;
use serde_json::{Value, json};

use crate::support;
use crate::v3;

/// A CRD and the file it is kept in.
#[derive(Clone, Debug)]
pub struct Crd {
    /// The resource's kind.
    pub kind: &'static str,
    /// File name within `deploy/crds`.
    pub file: String,
    /// The CustomResourceDefinition.
    pub value: Value,
}

impl Crd {
    /// The file's text.
    ///
    /// # Errors
    /// When the value cannot be written as YAML.
    pub fn yaml(&self) -> Result<String, serde_saphyr::SerializeError> {
        let body = serde_saphyr::to_string(&self.value)?;
        Ok(format!(
            "# Generated from api/ by `cargo run -p margay-api --features kube --bin margay-crds`; do not edit.\n{body}"
        ))
    }
}

/// All CRDs, by kind.
pub fn all() -> Vec<Crd> {
    vec![
        make::<v3::BGPConfiguration>("BGPConfiguration"),
        make::<v3::BGPPeer>("BGPPeer"),
        make::<v3::BlockAffinity>("BlockAffinity"),
        make::<v3::ClusterInformation>("ClusterInformation"),
        make::<v3::FelixConfiguration>("FelixConfiguration"),
        make::<v3::IPAMBlock>("IPAMBlock"),
        make::<v3::IPAMConfiguration>("IPAMConfiguration"),
        make::<v3::IPAMHandle>("IPAMHandle"),
        make::<v3::IPPool>("IPPool"),
    ]
}

fn make<R: CustomResourceExt>(kind: &'static str) -> Crd {
    let mut crd = serde_json::to_value(R::crd()).expect("a CRD is plain data");
    crd["spec"]["names"]["listKind"] = json!(format!("{kind}List"));
    let root = &mut crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    schema::normalize(root);
    add(root, rules::object(kind));
    let spec = &mut root["properties"]["spec"];
    add(spec, rules::spec(kind));
    for (field, property) in spec["properties"].as_object_mut().into_iter().flatten() {
        add(property, rules::field(kind, field));
        let entry = support::entries(kind).find(|entry| entry.field == field);
        if let Some((rule, message)) = entry.and_then(support::Entry::rule) {
            add(property, vec![json!({"rule": rule, "message": message})]);
        }
    }
    let plural = crd["spec"]["names"]["plural"].as_str().unwrap_or_default();
    Crd {
        kind,
        file: format!("{}_{plural}.yaml", v3::GROUP),
        value: crd,
    }
}

fn add(schema: &mut Value, rules: Vec<Value>) {
    if rules.is_empty() {
        return;
    }
    match schema.get_mut("x-kubernetes-validations").and_then(Value::as_array_mut) {
        Some(present) => present.extend(rules),
        None => schema["x-kubernetes-validations"] = Value::Array(rules),
    }
}
