//! Deletion: preconditions, grace, finalizers, and the contents of namespaces and definitions.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{Filter, Registry, State, Write, present, refuse_absent, update::deletion_is_complete};
use crate::{
    catalog::{Origin, Resource},
    status::{ApiError, Result},
    time,
};

/// The parts of `meta/v1` DeleteOptions that count here; `router::options` reads them.
#[derive(Debug, Clone, Default)]
pub(crate) struct DeleteOptions {
    pub(crate) grace_seconds: Option<i64>,
    pub(crate) uid: Option<String>,
    pub(crate) resource_version: Option<String>,
}

/// Namespaces that no cluster can be without.
const IMMORTAL: [&str; 3] = ["default", "kube-public", "kube-system"];

impl Registry {
    /// Answers the object and whether it is gone.
    pub(crate) fn delete(&self, write: &Write, options: &DeleteOptions) -> Result<(Value, bool)> {
        let mut state = self.lock();
        state.delete(write, options)
    }

    pub(crate) fn delete_collection(
        &self,
        write: &Write,
        filter: &Filter,
        options: &DeleteOptions,
    ) -> Result<Vec<Value>> {
        refuse_absent(&write.resource)?;
        let mut state = self.lock();
        let objects = state.store.list(&write.resource.storage);
        let chosen = objects
            .iter()
            .map(|o| present(&write.resource, o))
            .filter(|o| filter.matches(o));
        let delete = |object: Value| {
            let part = |name: &str| object["metadata"][name].as_str().unwrap_or_default().to_owned();
            let one = Write {
                namespace: part("namespace"),
                name: part("name"),
                ..write.clone()
            };
            state.delete(&one, options).map(|(object, _)| object)
        };
        chosen.map(delete).collect()
    }
}

impl State {
    pub(super) fn delete(&mut self, write: &Write, options: &DeleteOptions) -> Result<(Value, bool)> {
        let resource = &write.resource;
        if resource.is_core("Namespace") && IMMORTAL.contains(&write.name.as_str()) {
            return Err(ApiError::forbidden(
                "",
                "namespaces",
                &write.name,
                "this namespace may not be deleted",
            ));
        }
        let old = self.existing(write)?;
        check_preconditions(write, &old, options)?;
        let meta = &old["metadata"];
        let already = !meta["deletionTimestamp"].is_null();
        let grace = grace_period(resource, &old, options);
        let earlier = meta["deletionGracePeriodSeconds"].as_i64().unwrap_or(0);
        if already && grace >= earlier && !deletion_is_complete(resource, &old) {
            return Ok((present(resource, &old), false));
        }
        let mut marked = (*old).clone();
        let from = if already { 0 } else { time::unix_now() };
        if !already {
            marked["metadata"]["deletionTimestamp"] = time::format(from + grace).into();
        }
        if !resource.owns() {
            marked["metadata"]["deletionGracePeriodSeconds"] = json!(grace);
        }
        if resource.is_core("Namespace") {
            marked["status"]["phase"] = json!("Terminating");
        }
        if write.dry_run {
            return Ok((present(resource, &marked), deletion_is_complete(resource, &marked)));
        }
        if deletion_is_complete(resource, &marked) {
            self.remove(resource, &write.namespace, &write.name)?;
            // What is not given time is shown as it was.
            let last = if resource.is_core("Pod") { &marked } else { &*old };
            return Ok((present(resource, last), true));
        }
        let stored = self.put(resource, marked)?;
        self.empty_owner(resource, &write.name)?;
        let gone = self
            .store
            .get(&resource.storage, &write.namespace, &write.name)
            .is_none();
        Ok((present(resource, &stored), gone))
    }

    /// Takes an object out, and with it whatever waited only for it.
    pub(super) fn remove(&mut self, resource: &Resource, namespace: &str, name: &str) -> Result<Option<Arc<Value>>> {
        let wrong = |e: std::io::Error| ApiError::internal(format!("cannot write the state file: {e}"));
        let gone = self.store.remove(&resource.storage, namespace, name).map_err(wrong)?;
        if resource.kind == "CustomResourceDefinition" {
            self.catalog.remove_custom(name);
        }
        if resource.namespaced {
            self.finish_namespace(namespace)?;
        }
        if resource.origin == Origin::Custom {
            self.finish_definition(&format!("{}.{}", resource.plural, resource.group))?;
        }
        Ok(gone)
    }

    pub(super) fn resume_deletions(&mut self) -> Result<()> {
        for kind in ["Namespace", "CustomResourceDefinition"] {
            let found = self.catalog.stored().into_iter().find(|r| r.kind == kind);
            let Some(resource) = found else { continue };
            for object in self.store.list(&resource.storage) {
                if !object["metadata"]["deletionTimestamp"].is_null() {
                    self.empty_owner(&resource, object["metadata"]["name"].as_str().unwrap_or_default())?;
                }
            }
        }
        Ok(())
    }

    /// Deletes what a namespace or definition holds, then itself when nothing is left.
    pub(super) fn empty_owner(&mut self, resource: &Resource, name: &str) -> Result<()> {
        if resource.is_core("Namespace") {
            for held in self.catalog.stored().into_iter().filter(|r| r.namespaced) {
                self.delete_all(&held, Some(name))?;
            }
            self.finish_namespace(name)
        } else if resource.kind == "CustomResourceDefinition" {
            if let Some(held) = self.custom_resource(name) {
                self.delete_all(&held, None)?;
            }
            self.finish_definition(name)
        } else {
            Ok(())
        }
    }

    fn delete_all(&mut self, resource: &Arc<Resource>, namespace: Option<&str>) -> Result<()> {
        for object in self.store.list(&resource.storage) {
            let part = |name: &str| object["metadata"][name].as_str().unwrap_or_default();
            if namespace.is_none_or(|n| n == part("namespace")) {
                let write = Write::internal(resource, part("namespace"), part("name"));
                self.delete(&write, &DeleteOptions::default())?;
            }
        }
        Ok(())
    }

    fn finish_namespace(&mut self, name: &str) -> Result<()> {
        let Some(namespace) = self.store.get("/namespaces", "", name) else {
            return Ok(());
        };
        if !ready_to_go(&namespace) {
            return Ok(());
        }
        let held = self.catalog.stored().into_iter().filter(|r| r.namespaced);
        let is_here = |o: &Arc<Value>| o["metadata"]["namespace"] == name;
        if held.flat_map(|r| self.store.list(&r.storage)).any(|o| is_here(&o)) {
            return Ok(());
        }
        let resource = self.resource("", "Namespace")?;
        self.remove(&resource, "", name).map(drop)
    }

    fn finish_definition(&mut self, name: &str) -> Result<()> {
        let Some(resource) = self
            .catalog
            .find_kind("apiextensions.k8s.io", "CustomResourceDefinition")
        else {
            return Ok(());
        };
        let Some(definition) = self.store.get(&resource.storage, "", name) else {
            return Ok(());
        };
        let empty = self
            .custom_resource(name)
            .is_none_or(|held| self.store.list(&held.storage).is_empty());
        if ready_to_go(&definition) && empty {
            self.remove(&resource, "", name)?;
        }
        Ok(())
    }

    fn custom_resource(&self, definition: &str) -> Option<Arc<Resource>> {
        let named =
            |r: &&Arc<Resource>| r.origin == Origin::Custom && format!("{}.{}", r.plural, r.group) == definition;
        self.catalog.all().find(named).cloned()
    }
}

fn ready_to_go(owner: &Value) -> bool {
    let meta = &owner["metadata"];
    !meta["deletionTimestamp"].is_null() && meta["finalizers"].as_array().is_none_or(Vec::is_empty)
}

/// Only a pod that runs on a node is given time: its kubelet ends the deletion with a grace period of 0.
fn grace_period(resource: &Resource, object: &Value, options: &DeleteOptions) -> i64 {
    let placed = object["spec"]["nodeName"].as_str().is_some_and(|n| !n.is_empty());
    let ended = matches!(object["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
    if !resource.is_core("Pod") || !placed || ended {
        return 0;
    }
    let own = object["spec"]["terminationGracePeriodSeconds"].as_i64().unwrap_or(30);
    options.grace_seconds.unwrap_or(own).max(0)
}

fn check_preconditions(write: &Write, old: &Value, options: &DeleteOptions) -> Result<()> {
    let meta = &old["metadata"];
    let checks = [
        ("UID", "uid", &options.uid, "deleted and then recreated"),
        (
            "ResourceVersion",
            "resourceVersion",
            &options.resource_version,
            "modified",
        ),
    ];
    for (label, field, wanted, what) in checks {
        if let Some(wanted) = wanted.as_deref().filter(|w| meta[field] != **w) {
            let have = meta[field].as_str().unwrap_or_default();
            let why = format!(
                "the {label} in the precondition ({wanted}) does not match the {label} in record ({have}). The object might \
                 have been {what}"
            );
            return Err(ApiError::conflict(
                &write.resource.group,
                &write.resource.kind,
                &write.name,
                &why,
            ));
        }
    }
    Ok(())
}
