//! Kubernetes' ObjectMeta, reduced.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::nullable::{is_default, or_default};

/// `metadata` of any object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Metadata {
    /// The object's name.
    #[serde(deserialize_with = "or_default")]
    pub name: String,
    /// Its namespace; empty for cluster-scoped objects, and in a manifest that leaves it to the context.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub namespace: String,
    /// The API server's identity for this incarnation of the name.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub uid: String,
    /// Opaque version for compare-and-swap.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub resource_version: String,
    /// Counts changes of the spec.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub generation: i64,
    /// When it was created, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub creation_timestamp: Option<String>,
    /// Set once graceful deletion has begun, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deletion_timestamp: Option<String>,
    /// Labels.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Owners; at most one is the controller.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub owner_references: Vec<OwnerReference>,
}

impl Metadata {
    /// `namespace/name`, or `name` when there is no namespace: how messages call an object.
    pub fn full_name(&self) -> String {
        if self.namespace.is_empty() {
            self.name.clone()
        } else {
            format!("{}/{}", self.namespace, self.name)
        }
    }

    /// Whether graceful deletion has begun.
    pub fn is_terminating(&self) -> bool {
        self.deletion_timestamp.is_some()
    }

    /// The owner that controls the object, if any.
    pub fn controller(&self) -> Option<&OwnerReference> {
        self.owner_references.iter().find(|owner| owner.controller)
    }
}

/// One of an object's owners.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct OwnerReference {
    /// The owner's `group/version`.
    pub api_version: String,
    /// The owner's kind.
    pub kind: String,
    /// The owner's name.
    pub name: String,
    /// The owner's UID.
    pub uid: String,
    /// Whether it is the managing controller.
    #[serde(deserialize_with = "or_default")]
    pub controller: bool,
}
