//! The allocator of one node.

mod assign;
mod claim;
mod handles;
mod inspect;
mod release;

pub use inspect::{NodeBlocks, NodeUse, PoolUse};
pub use release::{Released, ReleasedNode};

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnetwork::IpNetwork;

use crate::error::Error;
use crate::names::node_hash;
use crate::store::{Resource, Store, StoreError, Stored};

/// How often an operation starts over when others write the same object.
const ATTEMPTS: usize = 100;

/// Most blocks of a family that a node claims when the configuration names no limit.
const MAX_BLOCKS: usize = 20;

/// Assigns and releases addresses in the name of one node.
///
/// Cheap to make; any number may work on one store at once, also for the same node. An operation that is dropped half
/// way has done nothing, or left what the next call, [`Allocator::recover`] or [`crate::gc::Collector`] mends.
#[derive(Clone, Debug)]
pub struct Allocator<S> {
    store: S,
    node: String,
    /// Value of the label that finds the node's claims.
    node_hash: String,
}

/// What to assign.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// Handle to release it by, for CNI `<network>.<containerID>`.
    pub handle: String,
    /// Who holds it.
    pub attributes: Attributes,
    /// How many IPv4 addresses.
    pub v4: usize,
    /// How many IPv6 addresses.
    pub v6: usize,
    /// Names of the IPv4 pools to use, in this order; empty: those meant for all.
    pub v4_pools: Vec<String>,
    /// Names of the IPv6 pools to use, in this order; empty: those meant for all.
    pub v6_pools: Vec<String>,
}

/// Who holds an address. The allocator adds the node and the time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// The pod's name.
    pub pod: Option<String>,
    /// The pod's namespace.
    pub namespace: Option<String>,
    /// Anything else.
    pub others: BTreeMap<String, String>,
}

/// What was assigned: as much as was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Assigned {
    /// IPv4 first, each family in the order it was found.
    pub addresses: Vec<Assignment>,
}

/// One address that was assigned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// The address.
    pub address: IpAddr,
    /// The block it is of.
    pub block: IpNetwork,
    /// The pool the block is of.
    pub pool: String,
    /// Whether the block is another node's, or nobody's.
    pub borrowed: bool,
}

impl<S: Store> Allocator<S> {
    /// An allocator for `node`.
    pub fn new(store: S, node: impl Into<String>) -> Self {
        let node = node.into();
        Self {
            store,
            node_hash: node_hash(&node),
            node,
        }
    }

    /// The node it works for.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// The store it works on.
    pub fn store(&self) -> &S {
        &self.store
    }

    /// An object as it may have been a while ago; as it is now when that says it is missing.
    async fn read<R: Resource>(&self, name: &str, attempt: usize) -> Result<Option<Stored<R>>, StoreError> {
        if attempt == 0
            && let Some(stored) = self.store.get::<R>(name).await?
            && !stored.spec.is_deleted()
        {
            return Ok(Some(stored));
        }
        self.read_latest(name).await
    }

    /// An object as it is now. One that another writer has marked as deleted is swept away.
    async fn read_latest<R: Resource>(&self, name: &str) -> Result<Option<Stored<R>>, StoreError> {
        match self.store.get_latest::<R>(name).await? {
            Some(stored) if stored.spec.is_deleted() => match self.store.delete(&stored).await {
                Err(error) if !error.is_race() => Err(error),
                _ => Ok(None),
            },
            other => Ok(other),
        }
    }
}

fn contention(object: String) -> Error {
    Error::Contention {
        object,
        attempts: ATTEMPTS,
    }
}
