//! New objects.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{Outcome, State, Write, incoming::incoming, present, random, refuse_absent};
use crate::{
    admission,
    catalog::Resource,
    patch,
    status::{ApiError, Result},
    time,
};

impl State {
    pub(super) fn create(&mut self, write: &Write, body: Value) -> Result<Outcome> {
        let resource = &write.resource;
        refuse_absent(resource)?;
        let (mut object, mut warnings) = incoming(write, body)?;
        let meta = &mut object["metadata"];
        if meta["resourceVersion"].as_str().is_some_and(|v| !v.is_empty()) {
            // An error of the storage below, which has no reason in Kubernetes.
            let why = "resourceVersion should not be set on objects to be created";
            return Err(ApiError::new(500, "", why));
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
        self.admit_to_definition(write, &name)?;
        self.admit_to_namespace(write, &name)?;
        self.defaults(resource, &mut object, None)?;
        if object["metadata"]["managedFields"].is_null() {
            patch::apply::record_update(resource, None, &mut object, write.writer());
        }
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
            let accounts = self.resource("", "ServiceAccount")?;
            let body = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
            self.create(&Write::internal(&accounts, &name, ""), body)?;
        }
        Ok(Outcome {
            object: present(resource, &stored),
            created: true,
            warnings,
        })
    }

    fn admit_to_definition(&self, write: &Write, name: &str) -> Result<()> {
        let resource = &write.resource;
        let definition = format!("{}.{}", resource.plural, resource.group);
        let definition = self
            .store
            .get("apiextensions.k8s.io/customresourcedefinitions", "", &definition);
        if definition.is_none_or(|d| d["metadata"]["deletionTimestamp"].is_null()) {
            return Ok(());
        }
        let why = "create not allowed while custom resource definition is terminating";
        Err(ApiError::forbidden(&resource.group, &resource.plural, name, why))
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
