//! Where the objects are kept: anything with compare-and-swap.

pub mod memory;

use std::collections::BTreeMap;
use std::time::SystemTime;

use ipnetwork::IpNetwork;
use margay_api::v3::{BlockAffinitySpec, IPAMBlockSpec, IPAMConfigurationSpec, IPAMHandleSpec, IPPoolSpec};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::names;

/// Objects by kind and name. Writes are linearizable. [`Store::get`] and [`Store::list`] may answer from a cache that
/// lags: what is built on them ends in a write that fails when its object has changed since it was read.
pub trait Store: Send + Sync {
    /// One object, perhaps as it was a while ago.
    fn get<R: Resource>(&self, name: &str) -> impl Future<Output = Result<Option<Stored<R>>, StoreError>> + Send;

    /// One object as it is now: it reflects every write that was answered before the call.
    fn get_latest<R: Resource>(&self, name: &str)
    -> impl Future<Output = Result<Option<Stored<R>>, StoreError>> + Send;

    /// All objects of a kind that have the label, or all, perhaps as they were a while ago.
    fn list<R: Resource>(
        &self,
        label: Option<(&str, &str)>,
    ) -> impl Future<Output = Result<Vec<Stored<R>>, StoreError>> + Send;

    /// Adds an object for a node, under the name and labels that its spec gives and with [`Resource::annotations`]; fails
    /// with `AlreadyExists`.
    fn create<R: Resource>(&self, spec: R, node: &str) -> impl Future<Output = Result<Stored<R>, StoreError>> + Send;

    /// Replaces the spec of an object that has not changed since `old` was read, and keeps its annotations; fails with
    /// `Conflict` or `NotFound`.
    fn update<R: Resource>(
        &self,
        old: &Stored<R>,
        spec: R,
    ) -> impl Future<Output = Result<Stored<R>, StoreError>> + Send;

    /// Removes an object that has not changed since `old` was read; fails with `Conflict` or `NotFound`.
    fn delete<R: Resource>(&self, old: &Stored<R>) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// What decides on pools, as it is now.
    fn settings(&self, node: &str) -> impl Future<Output = Result<Settings, StoreError>> + Send;

    /// The time.
    fn now(&self) -> SystemTime;
}

/// A spec that a [`Store`] keeps.
pub trait Resource: Clone + PartialEq + Serialize + DeserializeOwned + Send + Sync + 'static {
    /// The kind in `projectcalico.org/v3`.
    const KIND: &'static str;
    /// The plural in its URL.
    const PLURAL: &'static str;

    /// The object's name.
    fn name(&self) -> String;

    /// The object's labels.
    fn labels(&self) -> BTreeMap<String, String> {
        BTreeMap::new()
    }

    /// Annotations of an object that is made for a node: they name it where the spec does not.
    fn annotations(_node: &str) -> BTreeMap<String, String> {
        BTreeMap::new()
    }

    /// Whether a writer without a conditional delete has marked the object as gone.
    fn is_deleted(&self) -> bool;
}

impl Resource for IPAMBlockSpec {
    const KIND: &'static str = "IPAMBlock";
    const PLURAL: &'static str = "ipamblocks";

    fn name(&self) -> String {
        self.cidr.replace([':', '.', '/'], "-")
    }

    fn is_deleted(&self) -> bool {
        self.deleted
    }
}

impl Resource for BlockAffinitySpec {
    const KIND: &'static str = "BlockAffinity";
    const PLURAL: &'static str = "blockaffinities";

    fn name(&self) -> String {
        format!("{}-{}", self.node, self.cidr.replace([':', '.', '/'], "-"))
    }

    fn labels(&self) -> BTreeMap<String, String> {
        names::affinity_labels(&self.node, self.r#type.as_deref().unwrap_or("host"), &self.cidr)
    }

    fn is_deleted(&self) -> bool {
        self.deleted
    }
}

impl Resource for IPAMHandleSpec {
    const KIND: &'static str = "IPAMHandle";
    const PLURAL: &'static str = "ipamhandles";

    fn name(&self) -> String {
        names::handle_name(&self.handle_id)
    }

    fn annotations(node: &str) -> BTreeMap<String, String> {
        BTreeMap::from([(names::NODE_ANNOTATION.to_owned(), node.to_owned())])
    }

    fn is_deleted(&self) -> bool {
        self.deleted
    }
}

/// An object as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored<R> {
    /// Its name.
    pub name: String,
    /// The version that was read, opaque.
    pub revision: String,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
    /// Its spec.
    pub spec: R,
}

/// What decides on pools.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// All pools.
    pub pools: Vec<Pool>,
    /// The IPAMConfiguration `default`, or its defaults.
    pub config: IPAMConfigurationSpec,
    /// Addresses that are never given out.
    pub reserved: Vec<IpNetwork>,
    /// The node's labels, for pools' node selectors.
    pub node_labels: BTreeMap<String, String>,
}

/// An IPPool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pool {
    /// Its name.
    pub name: String,
    /// When it was created, RFC 3339.
    pub created: Option<String>,
    /// Its spec.
    pub spec: IPPoolSpec,
}

/// Why the store did not do it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The object has changed since it was read.
    #[error("{0} has changed meanwhile")]
    Conflict(String),
    /// There is such an object.
    #[error("{0} exists already")]
    AlreadyExists(String),
    /// There is no such object.
    #[error("{0} does not exist")]
    NotFound(String),
    /// The store answered that it will not, or with what makes no sense; nothing happened.
    #[error("the datastore refused: {0}")]
    Refused(String),
    /// The store gave no answer: a write may have happened or not.
    #[error("the datastore did not answer: {0}")]
    Unavailable(String),
}

impl StoreError {
    /// Whether reading again and trying again makes sense.
    pub fn is_race(&self) -> bool {
        matches!(self, Self::Conflict(_) | Self::AlreadyExists(_) | Self::NotFound(_))
    }
}
