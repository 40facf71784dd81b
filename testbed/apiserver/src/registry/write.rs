//! Create, replace, patch, apply and bind.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{
    Registry, State,
    incoming::{incoming, patched},
    present, refuse_absent,
};
use crate::{
    admission,
    catalog::{Origin, Resource},
    crd,
    patch::{self, apply::Writer},
    schema,
    status::{ApiError, FieldError, Result},
    time, validation,
};

/// What a writing request says beside its body.
#[derive(Debug, Clone)]
pub(crate) struct Write {
    pub(crate) resource: Arc<Resource>,
    /// Empty for cluster-scoped resources.
    pub(crate) namespace: String,
    /// Empty when creating.
    pub(crate) name: String,
    /// Empty, or `status`.
    pub(crate) subresource: String,
    pub(crate) dry_run: bool,
    pub(crate) manager: String,
    pub(crate) force: bool,
    pub(crate) validation: Validation,
    /// Why its writer may not create what is not there, where something is applied.
    pub(crate) no_creation: Option<ApiError>,
}

/// What happens to fields that a schema does not know (`fieldValidation`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Validation {
    Ignore,
    Warn,
    Strict,
}

/// The result of a write.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) object: Value,
    pub(crate) created: bool,
    pub(crate) warnings: Vec<String>,
}

impl Write {
    pub(super) fn internal(resource: &Arc<Resource>, namespace: &str, name: &str) -> Self {
        Self {
            resource: resource.clone(),
            namespace: namespace.into(),
            name: name.into(),
            subresource: String::new(),
            dry_run: false,
            manager: "margay-lab".into(),
            force: false,
            validation: Validation::Ignore,
            no_creation: None,
        }
    }

    pub(super) fn writer(&self) -> Writer<'_> {
        Writer {
            manager: &self.manager,
            subresource: &self.subresource,
        }
    }

    fn not_found(&self) -> ApiError {
        ApiError::not_found(&self.resource.group, &self.resource.plural, &self.name)
    }
}

impl Registry {
    pub(crate) fn create(&self, write: &Write, body: Value) -> Result<Outcome> {
        self.lock().create(write, body)
    }

    pub(crate) fn replace(&self, write: &Write, body: Value) -> Result<Outcome> {
        refuse_absent(&write.resource)?;
        let mut state = self.lock();
        let (body, warnings) = incoming(write, body)?;
        let old = state.existing(write)?;
        if write.resource.origin == Origin::Custom
            && body["metadata"]["resourceVersion"].as_str().is_none_or(str::is_empty)
        {
            let error = FieldError::invalid("metadata.resourceVersion", &json!(0), "must be specified for an update");
            // The resource's name where its kind is meant.
            return Err(ApiError::invalid(
                &write.resource.group,
                &write.resource.plural,
                &write.name,
                &[error],
            ));
        }
        state.update(write, &old, body, warnings, true)
    }

    pub(crate) fn patch(&self, write: &Write, content_type: &str, body: &Value) -> Result<Outcome> {
        refuse_absent(&write.resource)?;
        let mut state = self.lock();
        if content_type.starts_with("application/apply-patch") {
            return state.apply(write, body.clone());
        }
        let old = state.existing(write)?;
        let mut served = present(&write.resource, &old);
        patch::patch(content_type, &write.resource, &mut served, body)?;
        let (new, warnings) = patched(write, served)?;
        if let Some(error) = changed_identity(&old, &new) {
            let resource = &write.resource;
            return Err(ApiError::invalid(
                &resource.group,
                &resource.kind,
                &write.name,
                &[error],
            ));
        }
        state.update(write, &old, new, warnings, true)
    }

    /// `pods/binding`: puts a pod on a node, once.
    pub(crate) fn bind(&self, write: &Write, body: &Value) -> Result<()> {
        let mut state = self.lock();
        let old = state.existing(write)?;
        let node = body["target"]["name"].as_str().filter(|n| !n.is_empty());
        let node = node
            .ok_or_else(|| ApiError::invalid("", "Binding", &write.name, &[FieldError::required("target.name", "")]))?;
        let refuse = |why: String| ApiError::conflict("", "pods/binding", &write.name, &why);
        if !old["metadata"]["deletionTimestamp"].is_null() {
            return Err(refuse(format!(
                "pod {} is being deleted, cannot be assigned to a host",
                write.name
            )));
        }
        if let Some(taken) = old["spec"]["nodeName"].as_str().filter(|n| !n.is_empty()) {
            return Err(refuse(format!(
                "pod {} is already assigned to node \"{taken}\"",
                write.name
            )));
        }
        if write.dry_run {
            return Ok(());
        }
        let mut new = (*old).clone();
        new["spec"]["nodeName"] = node.into();
        let mut conditions = new["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.retain(|c| c["type"] != "PodScheduled");
        conditions.push(json!({"type": "PodScheduled", "status": "True", "lastTransitionTime": time::now()}));
        new["status"]["conditions"] = conditions.into();
        state.put(&write.resource, new).map(drop)
    }
}

/// A patch cannot make another object of this one.
fn changed_identity(old: &Value, new: &Value) -> Option<FieldError> {
    let (before, now) = (&old["metadata"], &new["metadata"]);
    let changed = |field: &&str| !now[*field].is_null() && now[*field] != before[*field];
    let field = ["uid", "creationTimestamp"].into_iter().find(changed)?;
    let path = format!("metadata.{field}");
    Some(FieldError::invalid(path, &now[field], "field is immutable"))
}

impl State {
    pub(super) fn existing(&self, write: &Write) -> Result<Arc<Value>> {
        self.store
            .get(&write.resource.storage, &write.namespace, &write.name)
            .ok_or_else(|| write.not_found())
    }

    /// Stores an object and lets the catalog follow its definitions.
    pub(super) fn put(&mut self, resource: &Resource, object: Value) -> Result<Arc<Value>> {
        let stored = self
            .store
            .put(&resource.storage, object)
            .map_err(|e| ApiError::internal(format!("cannot write the state file: {e}")))?;
        if resource.kind == "CustomResourceDefinition" {
            let name = stored["metadata"]["name"].as_str().unwrap_or_default();
            self.catalog.set_custom(name, crd::resources(&stored));
        }
        Ok(stored)
    }

    fn apply(&mut self, write: &Write, mut body: Value) -> Result<Outcome> {
        for field in ["apiVersion", "kind"] {
            if body[field].as_str().is_none_or(str::is_empty) {
                return Err(ApiError::bad_request(format!(
                    "invalid object type: {field} is missing"
                )));
            }
        }
        let there = self.existing(write).is_ok();
        if there && body["metadata"]["name"].as_str().is_none_or(str::is_empty) {
            body["metadata"]["name"] = write.name.clone().into();
        }
        let (config, mut warnings) = incoming(write, body)?;
        if config["metadata"]["managedFields"]
            .as_array()
            .is_some_and(|m| !m.is_empty())
        {
            return Err(ApiError::bad_request("metadata.managedFields must be nil"));
        }
        let resource = &write.resource;
        let live = self.store.get(&resource.storage, &write.namespace, &write.name);
        let merged = patch::apply::apply(resource, live.as_deref(), &config, write.writer(), write.force)?;
        match live {
            Some(old) => {
                let mut merged = merged;
                if let Some(version) = config["metadata"].get("resourceVersion") {
                    merged["metadata"]["resourceVersion"] = version.clone();
                }
                self.update(write, &old, merged, warnings, false)
            }
            None if !write.subresource.is_empty() => Err(write.not_found()),
            None if write.no_creation.is_some() => Err(write.no_creation.clone().unwrap_or_else(|| write.not_found())),
            None => {
                let mut outcome = self.create(write, merged)?;
                outcome.warnings.append(&mut warnings);
                Ok(outcome)
            }
        }
    }

    pub(super) fn defaults(&self, resource: &Resource, object: &mut Value, old: Option<&Value>) -> Result<()> {
        schema::default(&resource.schema, object);
        if resource.origin == Origin::BuiltIn {
            admission::set_defaults(resource, object);
        }
        if resource.kind == "CustomResourceDefinition" && old.is_none_or(|o| o["spec"] != object["spec"]) {
            crd::prepare(object, old)?;
        }
        match resource.origin {
            Origin::Custom => schema::empty::omit(&resource.schema["properties"]["metadata"], &mut object["metadata"]),
            Origin::BuiltIn | Origin::Absent => schema::empty::omit(&resource.schema, object),
        }
        Ok(())
    }

    pub(super) fn check(
        &self,
        resource: &Resource,
        new: &Value,
        old: Option<&Value>,
        subresource: &str,
        warnings: &mut Vec<String>,
    ) -> Result<()> {
        let name = new["metadata"]["name"].as_str().unwrap_or_default();
        let mut errors = Vec::new();
        schema::validate(&resource.schema, new, "", &mut errors);
        // Rules may assume what the schema guarantees.
        let shaped = !errors.iter().any(FieldError::hides_rules);
        errors.extend(validation::validate(
            resource,
            new,
            old.filter(|_| subresource.is_empty()),
        ));
        if shaped {
            errors.extend(crd::check_rules(resource, new, old));
        } else if resource.rules.is_some() {
            let why = "some validation rules were not checked because the object was invalid; correct the existing errors to \
                       complete validation";
            errors.push(FieldError::invalid("<nil>", &Value::Null, why));
        }
        if resource.kind == "CustomResourceDefinition" {
            errors.extend(crd::validate(new, old));
            let group = new["spec"]["group"].as_str().unwrap_or_default();
            if self
                .catalog
                .all()
                .any(|r| r.group == group && r.origin != Origin::Custom)
            {
                errors.push(FieldError::invalid(
                    "spec.group",
                    &new["spec"]["group"],
                    "is a group of Kubernetes itself",
                ));
            }
        }
        if errors.is_empty() {
            warnings.extend(resource.deprecation.clone());
            return Ok(());
        }
        Err(ApiError::invalid(&resource.group, &resource.kind, name, &errors))
    }
}
