//! What is served: the built-in resources and those of stored CustomResourceDefinitions.

use std::{collections::BTreeMap, sync::Arc};

use kube_cel::CompiledSchema;
use serde_json::Value;

use super::builtin;

/// One served resource in one version, with all that the generic code needs to know of it.
#[derive(Debug, Clone)]
pub(crate) struct Resource {
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) plural: String,
    pub(crate) singular: String,
    pub(crate) kind: String,
    pub(crate) list_kind: String,
    pub(crate) short_names: Vec<String>,
    pub(crate) categories: Vec<String>,
    pub(crate) namespaced: bool,
    /// The key of its objects in the store, `group/plural`: versions of one resource share it.
    pub(crate) storage: Arc<str>,
    /// Has the status subresource, so that a plain write leaves `status` alone.
    pub(crate) status: bool,
    /// Counts changes of the spec in `metadata.generation`.
    pub(crate) generation: bool,
    pub(crate) schema: Arc<Value>,
    /// The compiled `x-kubernetes-validations` of a custom resource.
    pub(crate) rules: Option<Arc<CompiledSchema>>,
    pub(crate) field_labels: Vec<String>,
    pub(crate) origin: Origin,
    /// `additionalPrinterColumns` of a custom resource; built-in kinds have theirs in [`super::table`].
    pub(crate) columns: Vec<Value>,
    /// The warning that a deprecated version of a custom resource answers with.
    pub(crate) deprecation: Option<String>,
}

/// Where a resource comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    BuiltIn,
    /// Part of Kubernetes, but nothing in the lab would act on it: lists are empty, writes are refused.
    Absent,
    Custom,
}

impl Resource {
    /// `v1`, or `group/version`.
    pub(crate) fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.clone()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    pub(crate) fn is_core(&self, kind: &str) -> bool {
        self.group.is_empty() && self.kind == kind
    }

    /// Objects hold other objects, and go when those have gone.
    pub(crate) fn owns(&self) -> bool {
        self.is_core("Namespace") || self.kind == "CustomResourceDefinition"
    }

    pub(crate) fn verbs(&self) -> &'static [&'static str] {
        &[
            "create",
            "delete",
            "deletecollection",
            "get",
            "list",
            "patch",
            "update",
            "watch",
        ]
    }

    pub(crate) fn subresources(&self) -> Vec<&'static str> {
        let status = if self.status { vec!["status"] } else { vec![] };
        if self.is_core("Pod") {
            vec!["binding", "status"]
        } else if self.is_core("ServiceAccount") {
            vec!["token"]
        } else {
            status
        }
    }
}

/// All served resources.
#[derive(Debug)]
pub(crate) struct Catalog {
    builtin: Vec<Arc<Resource>>,
    custom: BTreeMap<String, Vec<Arc<Resource>>>,
}

impl Catalog {
    pub(crate) fn new() -> Self {
        Self {
            builtin: builtin::resources().into_iter().map(Arc::new).collect(),
            custom: BTreeMap::new(),
        }
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.builtin.iter().chain(self.custom.values().flatten())
    }

    pub(crate) fn find(&self, group: &str, version: &str, plural: &str) -> Option<Arc<Resource>> {
        self.all()
            .find(|r| r.group == group && r.version == version && r.plural == plural)
            .cloned()
    }

    pub(crate) fn find_kind(&self, group: &str, kind: &str) -> Option<Arc<Resource>> {
        self.all().find(|r| r.group == group && r.kind == kind).cloned()
    }

    /// One resource of each stored kind: what a namespace's deletion must empty.
    pub(crate) fn stored(&self) -> Vec<Arc<Resource>> {
        let mut seen = BTreeMap::new();
        for resource in self.all().filter(|r| r.origin != Origin::Absent) {
            seen.entry(resource.storage.clone()).or_insert_with(|| resource.clone());
        }
        seen.into_values().collect()
    }

    /// Replaces what the definition `name` serves.
    pub(crate) fn set_custom(&mut self, name: &str, resources: Vec<Resource>) {
        self.custom
            .insert(name.to_owned(), resources.into_iter().map(Arc::new).collect());
    }

    pub(crate) fn remove_custom(&mut self, name: &str) {
        self.custom.remove(name);
    }
}
