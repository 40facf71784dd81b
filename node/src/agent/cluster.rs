//! The part of the cluster's state that a node acts on, and its snapshot on disk.

use std::collections::BTreeSet;

use margay_api::slim::{Namespace, NetworkPolicy, Node, Object, Pod};
use margay_api::v3::{
    BGPConfigurationSpec, BGPPeerSpec, ClusterInformationSpec, FelixConfigurationSpec, IPAMBlockSpec,
    IPAMConfigurationSpec, IPPoolSpec,
};
use serde::{Deserialize, Serialize};

use super::saving::Unsaved;
use super::table::Table;
use crate::kube::watch::{Change, ObjectKey};
use crate::persist::Format;

/// How the snapshot file is marked.
pub const SNAPSHOT: Format = Format {
    kind: "cluster-snapshot",
    version: 1,
};

/// A change of any watched resource type.
#[derive(Debug, Clone, PartialEq)]
pub enum ClusterChange {
    /// Pods.
    Pod(Change<Pod>),
    /// Namespaces.
    Namespace(Change<Namespace>),
    /// Nodes.
    Node(Change<Node>),
    /// Kubernetes NetworkPolicies.
    NetworkPolicy(Change<NetworkPolicy>),
    /// IPPools.
    IpPool(Change<Object<IPPoolSpec>>),
    /// IPAMBlocks.
    IpamBlock(Change<Object<IPAMBlockSpec>>),
    /// IPAMConfigurations.
    IpamConfiguration(Change<Object<IPAMConfigurationSpec>>),
    /// BGPConfigurations.
    BgpConfiguration(Change<Object<BGPConfigurationSpec>>),
    /// BGPPeers.
    BgpPeer(Change<Object<BGPPeerSpec>>),
    /// FelixConfigurations.
    FelixConfiguration(Box<Change<Object<FelixConfigurationSpec>>>),
    /// ClusterInformations.
    ClusterInformation(Change<Object<ClusterInformationSpec>>),
}

/// Everything watched.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Cluster {
    /// Pods of all nodes: policies select any of them.
    pub pods: Table<Pod>,
    /// Namespaces.
    pub namespaces: Table<Namespace>,
    /// Nodes: the mesh, and our own addresses.
    pub nodes: Table<Node>,
    /// NetworkPolicies.
    pub policies: Table<NetworkPolicy>,
    /// IP pools.
    pub pools: Table<Object<IPPoolSpec>>,
    /// Blocks of all nodes.
    pub blocks: Table<Object<IPAMBlockSpec>>,
    /// IPAM configurations; `default` counts.
    pub ipam_configurations: Table<Object<IPAMConfigurationSpec>>,
    /// BGP configurations: `default` and `node.<name>`.
    pub bgp_configurations: Table<Object<BGPConfigurationSpec>>,
    /// BGP peers.
    pub bgp_peers: Table<Object<BGPPeerSpec>>,
    /// Felix configurations: `default` and `node.<name>`.
    pub felix_configurations: Table<Object<FelixConfigurationSpec>>,
    /// Cluster information; `default` counts.
    pub cluster_informations: Table<Object<ClusterInformationSpec>>,
}

/// Which objects a change altered. The consumers look at current state only; this says where to look.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Altered {
    /// Pods.
    pub pods: BTreeSet<ObjectKey>,
    /// Namespaces.
    pub namespaces: BTreeSet<ObjectKey>,
    /// NetworkPolicies.
    pub policies: BTreeSet<ObjectKey>,
    /// IPAM blocks.
    pub blocks: BTreeSet<ObjectKey>,
    /// Whether anything differs that decides on giving out addresses.
    pub pools: bool,
    /// Whether anything differs that sessions or routes are made from, other than blocks.
    pub routing: bool,
    /// Whether any FelixConfiguration differs.
    pub felix: bool,
}

impl Altered {
    /// Nothing to do.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// How much a snapshot from before lacks.
    pub fn unsaved(&self) -> Unsaved {
        if self.is_empty() {
            Unsaved::Nothing
        } else if !self.policies.is_empty() || !self.namespaces.is_empty() {
            Unsaved::Urgent
        } else {
            Unsaved::Something
        }
    }

    /// Everything there is: for a consumer that starts from nothing.
    pub fn everything(cluster: &Cluster) -> Self {
        Self {
            pods: cluster.pods.keys().cloned().collect(),
            namespaces: cluster.namespaces.keys().cloned().collect(),
            policies: cluster.policies.keys().cloned().collect(),
            blocks: cluster.blocks.keys().cloned().collect(),
            pools: true,
            routing: true,
            felix: true,
        }
    }

    /// Adds what `other` altered.
    pub fn merge(&mut self, other: Self) {
        self.pods.extend(other.pods);
        self.namespaces.extend(other.namespaces);
        self.policies.extend(other.policies);
        self.blocks.extend(other.blocks);
        self.pools |= other.pools;
        self.routing |= other.routing;
        self.felix |= other.felix;
    }
}

impl ClusterChange {
    /// Number of resource types.
    pub const KINDS: usize = 11;

    /// Which resource type, as an index below [`Self::KINDS`].
    pub fn kind(&self) -> usize {
        match self {
            Self::Pod(_) => 0,
            Self::Namespace(_) => 1,
            Self::Node(_) => 2,
            Self::NetworkPolicy(_) => 3,
            Self::IpPool(_) => 4,
            Self::IpamBlock(_) => 5,
            Self::IpamConfiguration(_) => 6,
            Self::BgpConfiguration(_) => 7,
            Self::BgpPeer(_) => 8,
            Self::FelixConfiguration(_) => 9,
            Self::ClusterInformation(_) => 10,
        }
    }
}

impl Cluster {
    /// Applies a change and says what it altered.
    pub fn apply(&mut self, change: ClusterChange) -> Altered {
        let mut altered = Altered::default();
        match change {
            ClusterChange::Pod(change) => altered.pods = self.pods.apply(change),
            ClusterChange::Namespace(change) => altered.namespaces = self.namespaces.apply(change),
            ClusterChange::NetworkPolicy(change) => altered.policies = self.policies.apply(change),
            ClusterChange::IpamBlock(change) => altered.blocks = self.blocks.apply(change),
            ClusterChange::IpPool(change) => altered.pools = !self.pools.apply(change).is_empty(),
            ClusterChange::IpamConfiguration(change) => {
                altered.pools = !self.ipam_configurations.apply(change).is_empty();
            }
            ClusterChange::Node(change) => altered.routing = !self.nodes.apply(change).is_empty(),
            ClusterChange::BgpConfiguration(change) => {
                altered.routing = !self.bgp_configurations.apply(change).is_empty();
            }
            ClusterChange::BgpPeer(change) => altered.routing = !self.bgp_peers.apply(change).is_empty(),
            ClusterChange::FelixConfiguration(change) => {
                altered.felix = !self.felix_configurations.apply(*change).is_empty();
            }
            ClusterChange::ClusterInformation(change) => {
                altered.pools = !self.cluster_informations.apply(change).is_empty();
            }
        }
        altered
    }

    /// Whether addresses may be given out: an operator says otherwise while the datastore is moved or upgraded.
    pub fn datastore_ready(&self) -> bool {
        self.cluster_informations
            .named("default")
            .and_then(|object| object.spec.datastore_ready)
            .unwrap_or(true)
    }

    /// The state as it is written to disk.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            pods: self.pods.iter().cloned().collect(),
            namespaces: self.namespaces.iter().cloned().collect(),
            nodes: self.nodes.iter().cloned().collect(),
            policies: self.policies.iter().cloned().collect(),
            pools: self.pools.iter().cloned().collect(),
            blocks: self.blocks.iter().cloned().collect(),
            ipam_configurations: self.ipam_configurations.iter().cloned().collect(),
            bgp_configurations: self.bgp_configurations.iter().cloned().collect(),
            bgp_peers: self.bgp_peers.iter().cloned().collect(),
            felix_configurations: self.felix_configurations.iter().cloned().collect(),
            cluster_informations: self.cluster_informations.iter().cloned().collect(),
        }
    }
}

/// A [`Cluster`] as lists.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Snapshot {
    pods: Vec<Pod>,
    namespaces: Vec<Namespace>,
    nodes: Vec<Node>,
    policies: Vec<NetworkPolicy>,
    pools: Vec<Object<IPPoolSpec>>,
    blocks: Vec<Object<IPAMBlockSpec>>,
    ipam_configurations: Vec<Object<IPAMConfigurationSpec>>,
    bgp_configurations: Vec<Object<BGPConfigurationSpec>>,
    bgp_peers: Vec<Object<BGPPeerSpec>>,
    felix_configurations: Vec<Object<FelixConfigurationSpec>>,
    cluster_informations: Vec<Object<ClusterInformationSpec>>,
}

impl Snapshot {
    /// The changes that bring any [`Cluster`] to this state: what a fresh list of every resource type would say.
    pub fn into_changes(self) -> Vec<ClusterChange> {
        vec![
            ClusterChange::Node(Change::Reset(self.nodes)),
            ClusterChange::Namespace(Change::Reset(self.namespaces)),
            ClusterChange::IpPool(Change::Reset(self.pools)),
            ClusterChange::IpamBlock(Change::Reset(self.blocks)),
            ClusterChange::IpamConfiguration(Change::Reset(self.ipam_configurations)),
            ClusterChange::BgpConfiguration(Change::Reset(self.bgp_configurations)),
            ClusterChange::BgpPeer(Change::Reset(self.bgp_peers)),
            ClusterChange::FelixConfiguration(Box::new(Change::Reset(self.felix_configurations))),
            ClusterChange::ClusterInformation(Change::Reset(self.cluster_informations)),
            ClusterChange::NetworkPolicy(Change::Reset(self.policies)),
            ClusterChange::Pod(Change::Reset(self.pods)),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str) -> Pod {
        let mut pod = Pod::default();
        pod.metadata.namespace = "shop".into();
        pod.metadata.name = name.into();
        pod
    }

    #[test]
    fn a_snapshot_brings_back_the_same_cluster() {
        let mut cluster = Cluster::default();
        cluster.apply(ClusterChange::Pod(Change::Reset(vec![pod("a"), pod("b")])));
        cluster.apply(ClusterChange::Namespace(Change::Put(Namespace::default())));
        let text = serde_json::to_string(&cluster.snapshot()).unwrap();
        let snapshot: Snapshot = serde_json::from_str(&text).unwrap();
        let mut again = Cluster::default();
        again.apply(ClusterChange::Pod(Change::Put(pod("stale"))));
        for change in snapshot.into_changes() {
            again.apply(change);
        }
        assert_eq!(again, cluster);
    }

    #[test]
    fn alterations_name_the_place() {
        let mut cluster = Cluster::default();
        let altered = cluster.apply(ClusterChange::Pod(Change::Put(pod("a"))));
        assert_eq!(altered.pods.len(), 1);
        assert!(!altered.routing && !altered.pools);
        assert_eq!(altered.unsaved(), Unsaved::Something);
        let again = cluster.apply(ClusterChange::Pod(Change::Put(pod("a"))));
        assert!(again.is_empty());
        assert_eq!(
            again.unsaved(),
            Unsaved::Nothing,
            "else the whole cluster is written time and again"
        );
        assert!(cluster.apply(ClusterChange::Node(Change::Put(Node::default()))).routing);
    }
}
