//! Create, replace, patch, apply and bind.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{Registry, State, incoming::incoming, present, random, refuse_absent};
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
        }
    }

    fn writer(&self) -> Writer<'_> {
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
            return Err(ApiError::invalid(
                &write.resource.group,
                &write.resource.kind,
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
        let (new, warnings) = incoming(write, served)?;
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

impl State {
    pub(super) fn create(&mut self, write: &Write, body: Value) -> Result<Outcome> {
        let resource = &write.resource;
        refuse_absent(resource)?;
        let (mut object, mut warnings) = incoming(write, body)?;
        let meta = &mut object["metadata"];
        if meta["resourceVersion"].as_str().is_some_and(|v| !v.is_empty()) {
            return Err(ApiError::bad_request(
                "resourceVersion should not be set on objects to be created",
            ));
        }
        if meta["name"].as_str().is_none_or(str::is_empty)
            && let Some(prefix) = meta["generateName"].as_str().filter(|p| !p.is_empty())
        {
            meta["name"] = format!("{}{}", prefix.chars().take(248).collect::<String>(), random::suffix()).into();
        }
        for field in [
            "resourceVersion",
            "uid",
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
            "selfLink",
        ] {
            meta.as_object_mut().map(|m| m.remove(field));
        }
        meta["uid"] = random::uuid().into();
        meta["creationTimestamp"] = time::now().into();
        if resource.generation {
            meta["generation"] = json!(1);
        }
        if resource.status && !resource.is_core("Node") {
            object.as_object_mut().map(|o| o.remove("status"));
        }
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        self.admit_to_namespace(write, &name)?;
        self.defaults(resource, &mut object, None)?;
        admission::on_create(resource, &mut object)?;
        self.check(resource, &object, None, "", &mut warnings)?;
        self.check_service_account(resource, &object)?;
        if self.store.get(&resource.storage, &write.namespace, &name).is_some() {
            return Err(ApiError::already_exists(&resource.group, &resource.plural, &name));
        }
        let stored = if write.dry_run {
            Arc::new(object)
        } else {
            self.put(resource, object)?
        };
        if resource.is_core("Namespace") && !write.dry_run {
            let accounts = self.resource("ServiceAccount")?;
            let body = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
            self.create(&Write::internal(&accounts, &name, ""), body)?;
        }
        Ok(Outcome {
            object: present(resource, &stored),
            created: true,
            warnings,
        })
    }

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

    fn apply(&mut self, write: &Write, body: Value) -> Result<Outcome> {
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
            None => {
                let mut outcome = self.create(write, merged)?;
                outcome.warnings.append(&mut warnings);
                Ok(outcome)
            }
        }
    }

    /// Stores `new` in the place of `old`. A plain write (not an apply) takes ownership of what it changes.
    fn update(
        &mut self,
        write: &Write,
        old: &Arc<Value>,
        mut new: Value,
        mut warnings: Vec<String>,
        plain: bool,
    ) -> Result<Outcome> {
        let resource = &write.resource;
        preconditions(write, old, &new)?;
        keep_system_metadata(old, &mut new);
        if write.subresource == "status" {
            let status = new["status"].take();
            let metadata = new["metadata"].take();
            new = (**old).clone();
            new["status"] = status;
            if resource.origin == Origin::BuiltIn {
                new["metadata"] = metadata;
            } else {
                new["metadata"]["managedFields"] = metadata["managedFields"].clone();
            }
        } else if resource.status {
            new["status"] = old["status"].clone();
        }
        if new["metadata"]["managedFields"].as_array().is_some_and(Vec::is_empty) {
            new["metadata"]["managedFields"] = Value::Null;
        }
        new.as_object_mut()
            .into_iter()
            .for_each(|o| o.retain(|k, v| k != "status" || !v.is_null()));
        new["metadata"]
            .as_object_mut()
            .into_iter()
            .for_each(|m| m.retain(|_, v| !v.is_null()));
        self.defaults(resource, &mut new, Some(old))?;
        self.check(resource, &new, Some(old), &write.subresource, &mut warnings)?;
        if resource.generation && spec_of(resource, &new) != spec_of(resource, old) {
            let generation = old["metadata"]["generation"].as_i64().unwrap_or(1);
            new["metadata"]["generation"] = json!(generation + 1);
        }
        if plain && new != **old {
            patch::apply::record_update(resource, old, &mut new, write.writer());
        }
        if same_but_for_times(&new, old) {
            return Ok(Outcome {
                object: present(resource, old),
                created: false,
                warnings,
            });
        }
        if write.dry_run {
            return Ok(Outcome {
                object: present(resource, &new),
                created: false,
                warnings,
            });
        }
        let stored = if deletion_is_complete(resource, &new) {
            // Watchers see the last state before the removal, as they would with the real server.
            let name = write.name.clone();
            self.remove(resource, &write.namespace, &name)?;
            Arc::new(new)
        } else {
            let ends = !new["metadata"]["deletionTimestamp"].is_null();
            let stored = self.put(resource, new)?;
            if ends {
                self.empty_owner(resource, &write.name)?;
            }
            stored
        };
        Ok(Outcome {
            object: present(resource, &stored),
            created: false,
            warnings,
        })
    }

    fn defaults(&self, resource: &Resource, object: &mut Value, old: Option<&Value>) -> Result<()> {
        schema::default(&resource.schema, object);
        if resource.origin == Origin::BuiltIn {
            admission::set_defaults(resource, object);
        }
        if resource.kind == "CustomResourceDefinition" && old.is_none_or(|o| o["spec"] != object["spec"]) {
            crd::prepare(object, old)?;
        }
        Ok(())
    }

    fn check(
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
        let shaped = errors.is_empty();
        errors.extend(validation::validate(
            resource,
            new,
            old.filter(|_| subresource.is_empty()),
        ));
        if shaped {
            errors.extend(crd::check_rules(resource, new, old));
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

    fn admit_to_namespace(&self, write: &Write, name: &str) -> Result<()> {
        if !write.resource.namespaced {
            return Ok(());
        }
        let Some(namespace) = self.store.get("/namespaces", "", &write.namespace) else {
            return Err(ApiError::not_found("", "namespaces", &write.namespace));
        };
        if namespace["metadata"]["deletionTimestamp"].is_null() {
            return Ok(());
        }
        let why = format!(
            "unable to create new content in namespace {} because it is being terminated",
            write.namespace
        );
        let mut error = ApiError::forbidden(&write.resource.group, &write.resource.plural, name, &why);
        let cause = json!({"reason": "NamespaceTerminating", "message": "namespace is being terminated", "field": "metadata.namespace"});
        error.details.get_or_insert_default()["causes"] = json!([cause]);
        Err(error)
    }

    fn check_service_account(&self, resource: &Resource, object: &Value) -> Result<()> {
        if !resource.is_core("Pod") {
            return Ok(());
        }
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (namespace, name) = (
            text(&object["metadata"]["namespace"]),
            text(&object["metadata"]["name"]),
        );
        let account = text(&object["spec"]["serviceAccountName"]);
        if self.store.get("/serviceaccounts", &namespace, &account).is_some() {
            return Ok(());
        }
        let why =
            format!("error looking up service account {namespace}/{account}: serviceaccount \"{account}\" not found");
        Err(ApiError::forbidden("", "pods", &name, &why))
    }
}

fn preconditions(write: &Write, old: &Value, new: &Value) -> Result<()> {
    let (before, now) = (&old["metadata"], &new["metadata"]);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (uid, version) = (text(&now["uid"]), text(&now["resourceVersion"]));
    let conflict = |why: &str| {
        Err(ApiError::conflict(
            &write.resource.group,
            &write.resource.plural,
            &write.name,
            why,
        ))
    };
    if !uid.is_empty() && before["uid"] != uid {
        return conflict(&format!(
            "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
            text(&before["uid"])
        ));
    }
    if !version.is_empty() && version != "0" && before["resourceVersion"] != version {
        return conflict("the object has been modified; please apply your changes to the latest version and try again");
    }
    Ok(())
}

fn keep_system_metadata(old: &Value, new: &mut Value) {
    let keep = [
        "uid",
        "resourceVersion",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generation",
        "generateName",
        "selfLink",
    ];
    for field in keep {
        new["metadata"][field] = old["metadata"][field].clone();
    }
    if new["metadata"]["managedFields"].is_null() {
        new["metadata"]["managedFields"] = old["metadata"]["managedFields"].clone();
    }
}

fn spec_of(resource: &Resource, object: &Value) -> Value {
    let mut rest = object.clone();
    if let Some(map) = rest.as_object_mut() {
        map.retain(|k, _| {
            !matches!(k.as_str(), "metadata" | "apiVersion" | "kind") && (k != "status" || !resource.status)
        });
    }
    rest
}

fn same_but_for_times(new: &Value, old: &Value) -> bool {
    let without = |object: &Value| {
        let mut object = object.clone();
        for entry in object["metadata"]
            .get_mut("managedFields")
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            entry.as_object_mut().map(|e| e.remove("time"));
        }
        // A write through another version of a custom resource changes only this.
        object["apiVersion"] = Value::Null;
        object
    };
    without(new) == without(old)
}

/// Deleted, nothing holds it back: no finalizer, and no kubelet that still has to stop it.
pub(super) fn deletion_is_complete(resource: &Resource, object: &Value) -> bool {
    let meta = &object["metadata"];
    let held = meta["finalizers"].as_array().is_some_and(|f| !f.is_empty());
    let waits = resource.is_core("Pod") && meta["deletionGracePeriodSeconds"].as_i64().unwrap_or(0) > 0;
    let owns = resource.is_core("Namespace") || resource.kind == "CustomResourceDefinition";
    !meta["deletionTimestamp"].is_null() && !held && !waits && !owns
}
