//! Addresses for attachments, from the allocator over the cluster's blocks.

use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use margay_ipam::block::Allocation;
use margay_ipam::store::{Settings, Store};
use margay_ipam::{Allocator, Attributes, Error, Family, Request};
use parking_lot::Mutex;

use super::cluster::Cluster;
use super::overlay;
use super::pools::Pools;
use crate::cni_server::{Addresses, AssignError, Assignment};
use crate::endpoints::{EndpointRecord, EndpointStore};
use crate::health::Condition;
use crate::kube::events::Notice;
use crate::kube::ipam_store;
use crate::kube::resource::IPAM_CONFIGURATION;

/// What an assignment goes by; kept current by the core.
#[derive(Debug, Clone)]
pub struct IpamBoard {
    /// Pools and configuration, shared with the store.
    pub settings: Arc<Settings>,
    /// Addresses for each pod: at most one of each family, of those that some pool gives to pods that name none.
    pub v4: bool,
    /// As `v4`.
    pub v6: bool,
    /// Why nothing may be assigned, if so.
    pub locked: Option<String>,
    /// Why no pool gives addresses to pods that name none, if so.
    pub no_pool: Option<String>,
}

impl Default for IpamBoard {
    fn default() -> Self {
        Self {
            settings: Arc::default(),
            v4: false,
            v6: false,
            locked: Some("the cluster's IPPools are not known yet: the agent waits for the API server".to_owned()),
            no_pool: None,
        }
    }
}

impl IpamBoard {
    /// The board for `node` from the cluster's state, and what users must fix. Without `ipv6` no IPv6 addresses are given.
    pub fn new(cluster: &Cluster, pools: &Pools<'_>, node: &str, ipv6: bool) -> (Self, Vec<Notice>) {
        let config = cluster.ipam_configurations.named("default");
        let (config, faults) = config.map_or_else(Default::default, |config| {
            overlay::checked(config, IPAM_CONFIGURATION, |_| Vec::new())
        });
        let settings = ipam_store::settings(
            pools.valid.iter().map(|(_, pool)| *pool),
            config,
            cluster.nodes.named(node),
        );
        let given = |family| margay_ipam::automatic(&settings, node, family).map_err(|error| error.to_string());
        let no_ipv6 = || "IPv6 is off here, by the kernel or by ipv6Support in FelixConfiguration".to_owned();
        let (v4, v6) = (given(Family::V4), if ipv6 { given(Family::V6) } else { Err(no_ipv6()) });
        let (has_v4, has_v6) = (v4.is_ok(), v6.is_ok());
        let left_out = pools
            .faults
            .iter()
            .map(|fault| format!("IPPool {}: {}", fault.subject.name, fault.message));
        let reasons: Vec<_> = v4.err().into_iter().chain(v6.err()).chain(left_out).collect();
        let locked = (!cluster.datastore_ready()).then(|| {
            "ClusterInformation default has datastoreReady: false; set it to true once the maintenance is over"
                .to_owned()
        });
        let board = Self {
            settings: Arc::new(settings),
            v4: has_v4,
            v6: has_v6,
            locked,
            no_pool: (!has_v4 && !has_v6).then(|| reasons.join("; ")),
        };
        (board, faults)
    }

    /// Why no pod can get an address now, if so.
    pub fn blocker(&self) -> Option<String> {
        self.locked.clone().or_else(|| self.no_pool.clone())
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

    /// Has the books say that `address` is the attachment's, unless it is gone meanwhile.
    ///
    /// # Errors
    /// As [`Allocator::assign_ip`].
    pub async fn claim(
        &self,
        record: &EndpointRecord,
        address: IpAddr,
        endpoints: &Mutex<EndpointStore>,
    ) -> Result<(), Error> {
        // A DEL removes the record first and then waits for its turn: what is claimed here it releases.
        let _turn = self.turn.lock().await;
        let is_known = || endpoints.lock().iter().any(|known| known == record);
        if self.board.load().locked.is_some() || !is_known() {
            return Ok(());
        }
        let attributes = Attributes {
            pod: Some(record.pod.clone()),
            namespace: Some(record.namespace.clone()),
            ..Attributes::default()
        };
        self.allocator.assign_ip(address, &record.handle, &attributes).await?;
        tracing::warn!(pod = %format!("{}/{}", record.namespace, record.pod), %address, "address put back into IPAM's books");
        Ok(())
    }

    async fn assign_now(&self, wish: &Assignment) -> Result<Vec<IpAddr>, Error> {
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

impl<S: Store + 'static> Addresses for Arc<Ipam<S>> {
    async fn assign(&self, wish: &Assignment) -> Result<Vec<IpAddr>, AssignError> {
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

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::{Value, json};

    use margay_ipam::store::memory::Memory;

    use super::super::cluster::ClusterChange;
    use super::super::pools;
    use super::*;
    use crate::endpoints::tests::record;
    use crate::kube::watch::Change;

    fn board(pools: Value, configuration: Value, ipv6: bool) -> (IpamBoard, Vec<Notice>) {
        let mut cluster = Cluster::default();
        let node = json!({"metadata": {"name": "n1", "labels": {"rack": "a"}}});
        let configuration = json!({"metadata": {"name": "default"}, "spec": configuration});
        for change in [
            ClusterChange::Node(Change::Put(serde_json::from_value(node).unwrap())),
            ClusterChange::IpPool(Change::Reset(serde_json::from_value(pools).unwrap())),
            ClusterChange::IpamConfiguration(Change::Put(serde_json::from_value(configuration).unwrap())),
        ] {
            cluster.apply(change);
        }
        IpamBoard::new(&cluster, &pools::sort(&cluster.pools), "n1", ipv6)
    }

    fn v4() -> Value {
        json!({"metadata": {"name": "four"}, "spec": {"cidr": "10.244.0.0/16"}})
    }

    #[rstest]
    #[case::plain(json!({"cidr": "fd00::/64"}), true, true)]
    #[case::by_name_only(json!({"cidr": "fd00::/64", "assignmentMode": "Manual"}), true, false)]
    #[case::not_for_pods(json!({"cidr": "fd00::/64", "allowedUses": ["Tunnel"]}), true, false)]
    #[case::for_other_nodes(json!({"cidr": "fd00::/64", "nodeSelector": "rack == 'b'"}), true, false)]
    #[case::for_this_node(json!({"cidr": "fd00::/64", "nodeSelector": "rack == 'a'"}), true, true)]
    #[case::disabled(json!({"cidr": "fd00::/64", "disabled": true}), true, false)]
    #[case::kernel_without_ipv6(json!({"cidr": "fd00::/64"}), false, false)]
    fn a_family_is_wanted_if_a_pool_gives_it_unasked(#[case] spec: Value, #[case] ipv6: bool, #[case] wanted: bool) {
        let pools = json!([v4(), {"metadata": {"name": "six"}, "spec": spec}]);
        let (board, _) = board(pools, json!({}), ipv6);
        assert_eq!((board.v4, board.v6, board.blocker()), (true, wanted, None));
    }

    #[test]
    fn a_node_without_any_family_says_why() {
        let pools = json!([
            {"metadata": {"name": "four"}, "spec": {"cidr": "10.244.0.0/16", "disabled": true}},
            {"metadata": {"name": "six"}, "spec": {"cidr": "fd00::/64", "assignmentMode": "Manual"}},
            {"metadata": {"name": "odd"}, "spec": {"cidr": "10.8.0.0/16", "vxlanMode": "Always"}},
        ]);
        let why = board(pools, json!({}), true).0.blocker().unwrap();
        for part in [
            "four is disabled",
            "six is only for pods that name it",
            "IPPool odd: spec.vxlanMode",
        ] {
            assert!(why.contains(part), "{why}");
        }
        let before = IpamBoard::default().blocker().unwrap();
        assert!(before.contains("not known yet"), "{before}");
    }

    #[tokio::test]
    async fn a_living_pods_address_is_claimed_and_a_gone_ones_is_not() {
        let (board, _) = board(json!([v4()]), json!({}), true);
        let store = Memory::new(board.settings.as_ref().clone());
        let ipam = Ipam::new(store, "n1", Arc::new(ArcSwap::from_pointee(board)));
        let dir = tempfile::tempdir().unwrap();
        let endpoints = Mutex::new(EndpointStore::open(dir.path()).unwrap().0);
        let record = record("c1");
        let address = record.addresses[0];
        ipam.claim(&record, address, &endpoints).await.unwrap();
        assert!(ipam.allocator.addresses_of("margay.c1").await.unwrap().is_empty());
        endpoints.lock().remember(record.clone());
        ipam.claim(&record, address, &endpoints).await.unwrap();
        assert_eq!(ipam.allocator.addresses_of("margay.c1").await.unwrap(), [address]);
    }

    #[test]
    fn a_configuration_field_that_cannot_be_used_is_left_out_and_named() {
        let (board, faults) = board(
            json!([v4()]),
            json!({"strictAffinity": true, "ipCooldownSeconds": 60}),
            true,
        );
        assert!(board.settings.config.strict_affinity);
        assert_eq!(board.settings.config.ip_cooldown_seconds, None);
        assert_eq!((faults.len(), faults[0].reason), (1, "FieldIgnored"));
        assert!(faults[0].message.contains("ipCooldownSeconds"), "{}", faults[0].message);
    }
}
