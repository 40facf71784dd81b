//! Addresses for attachments, from the allocator over the cluster's blocks.

use std::sync::Arc;

use arc_swap::ArcSwap;
use margay_ipam::block::Allocation;
use margay_ipam::store::{Settings, Store};
use margay_ipam::{Allocator, Attributes, Error, Request};

use super::cluster::Cluster;
use super::pools::Pools;
use crate::cni_server::{Addresses, AssignError, Assignment};
use crate::health::Condition;
use crate::kube::ipam_store;

/// What an assignment goes by; kept current by the core.
#[derive(Debug, Clone, Default)]
pub struct IpamBoard {
    /// Pools and configuration, shared with the store.
    pub settings: Arc<Settings>,
    /// Addresses for each pod: at most one of each family, of those that there are pools of.
    pub v4: bool,
    /// As `v4`.
    pub v6: bool,
    /// Why nothing may be assigned, if so.
    pub locked: Option<String>,
}

impl IpamBoard {
    /// The board for `node` from the cluster's state.
    pub fn new(cluster: &Cluster, pools: &Pools<'_>, node: &str, ipv6: bool) -> Self {
        let config = cluster.ipam_configurations.named("default");
        let settings = ipam_store::settings(
            pools.valid.iter().map(|(_, pool)| *pool),
            config,
            cluster.nodes.named(node),
        );
        let has = |v4: bool| {
            pools
                .valid
                .iter()
                .any(|(network, pool)| network.is_ipv4() == v4 && !pool.spec.is_disabled())
        };
        let locked = (!cluster.datastore_ready()).then(|| {
            "ClusterInformation default has datastoreReady: false; set it to true once the maintenance is over"
                .to_owned()
        });
        Self {
            settings: Arc::new(settings),
            v4: has(true),
            v6: ipv6 && has(false),
            locked,
        }
    }

    /// Why no pod can get an address now, if so.
    pub fn blocker(&self) -> Option<String> {
        let no_pool = || "no IPPool can be used; create one (deploy/examples shows how)".to_owned();
        self.locked.clone().or_else(|| (!self.v4 && !self.v6).then(no_pool))
    }

    /// For readiness. An agent without pools is not at fault: nobody has asked for pods with addresses yet.
    pub fn condition(&self) -> Condition {
        self.blocker()
            .map_or_else(|| Condition::Ready(String::new()), Condition::Degraded)
    }
}

/// [`Addresses`] over an [`Allocator`].
#[derive(Debug)]
pub struct Ipam<S> {
    allocator: Allocator<S>,
    board: Arc<ArcSwap<IpamBoard>>,
    /// One at a time: two assignments of this node would only make each other's write of the block fail.
    turn: tokio::sync::Mutex<()>,
}

impl<S: Store> Ipam<S> {
    /// Assigns for `node` out of `store`.
    pub fn new(store: S, node: &str, board: Arc<ArcSwap<IpamBoard>>) -> Self {
        Self {
            allocator: Allocator::new(store, node),
            board,
            turn: tokio::sync::Mutex::default(),
        }
    }

    async fn assign_now(&self, wish: &Assignment) -> Result<Vec<std::net::IpAddr>, Error> {
        let board = self.board.load_full();
        let mut others = wish.attributes.clone();
        let attributes = Attributes {
            pod: others.remove("pod"),
            namespace: others.remove("namespace"),
            others,
        };
        if !wish.addresses.is_empty() {
            let mut assigned = Vec::new();
            for address in &wish.addresses {
                assigned.push(
                    self.allocator
                        .assign_ip(*address, &wish.handle, &attributes)
                        .await?
                        .address,
                );
            }
            return Ok(assigned);
        }
        let request = Request {
            handle: wish.handle.clone(),
            attributes,
            // With pools of no family the allocator's own words say what is missing.
            v4: usize::from(board.v4 || !board.v6),
            v6: usize::from(board.v6),
            ..Request::default()
        };
        let assigned = self.allocator.auto_assign(request).await?;
        Ok(assigned
            .addresses
            .into_iter()
            .map(|assignment| assignment.address)
            .collect())
    }
}

impl<S: Store + 'static> Addresses for Ipam<S> {
    async fn assign(&self, wish: &Assignment) -> Result<Vec<std::net::IpAddr>, AssignError> {
        if let Some(reason) = &self.board.load().locked {
            return Err(AssignError::TryLater(reason.clone()));
        }
        let _turn = self.turn.lock().await;
        match self.assign_now(wish).await {
            Ok(addresses) => Ok(addresses),
            Err(error) => {
                // Of two addresses the first may have been had, and of a write that was not answered nobody knows.
                if let Err(error) = self.allocator.release_by_handle(&wish.handle).await {
                    tracing::warn!(handle = %wish.handle, %error, "half an assignment not released yet; the DEL will do it");
                }
                Err(match &error {
                    Error::Taken { .. } | Error::Refused { .. } | Error::PoolRefused { .. } => {
                        AssignError::Refused(error.to_string())
                    }
                    _ => AssignError::TryLater(error.to_string()),
                })
            }
        }
    }

    fn blocker(&self) -> Option<String> {
        self.board.load().blocker()
    }

    async fn recover(&self) -> Result<Vec<Allocation>, String> {
        let _turn = self.turn.lock().await;
        let mended = self.allocator.recover().await;
        mended.map_err(|error| error.to_string())?;
        let held = self.allocator.allocations_of(self.allocator.node()).await;
        held.map_err(|error| error.to_string())
    }

    async fn release_one(&self, held: &Allocation) -> Result<(), String> {
        let _turn = self.turn.lock().await;
        let handle = held.handle.as_deref();
        let released = self.allocator.release_ip(held.address, handle, held.sequence).await;
        released.map(|_| ()).map_err(|error| error.to_string())
    }

    async fn release(&self, handle: &str) -> Result<(), String> {
        let _turn = self.turn.lock().await;
        let released = self.allocator.release_by_handle(handle).await;
        released.map(|_| ()).map_err(|error| error.to_string())
    }
}
