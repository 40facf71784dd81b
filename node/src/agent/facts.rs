//! What the core knows, in the control API's terms. Pure.

use std::net::IpAddr;
use std::time::SystemTime;

use margay_api::cidr;
use margay_api::control::{self, IpamBlock, IpamStatus};
use margay_api::slim::{NetworkPolicy, Object, Pod, PolicyType};
use margay_api::v3::IPAMBlockSpec;
use margay_api::validate;

use super::blocks;
use super::cluster::Cluster;
use super::identity::Identity;
use super::policy_feed::is_incarnation;
use crate::endpoints::{EndpointRecord, EndpointStore};
use crate::kube::events::Notice;
use crate::kube::watch::ObjectKey;

/// The core's share of status, endpoints and metrics.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// This node's addresses.
    pub addresses: Vec<IpAddr>,
    /// Blocks that the node owns or has an address of.
    pub blocks: Vec<IpamBlock>,
    /// Sums over them.
    pub ipam: IpamStatus,
    /// Attachments with the policies that select them; `inForce` is the policy engine's to say.
    pub endpoints: Vec<control::Endpoint>,
    /// What users must fix, one line each, and since when if that is known.
    pub problems: Vec<(String, Option<SystemTime>)>,
}

/// The part of them that metrics show.
#[derive(Debug, Clone, Default)]
pub struct Sums {
    /// Sums over the node's blocks.
    pub ipam: IpamStatus,
    /// Nodes, pods, policies in the cluster.
    pub counts: (u64, u64, u64),
}

/// Counts, copying nothing.
pub fn sums(cluster: &Cluster, node: &str) -> Sums {
    let specs = || cluster.blocks.iter().map(|object| &object.spec);
    let owned = || specs().filter(|spec| spec.owner() == Some(node));
    Sums {
        ipam: IpamStatus {
            blocks: owned().count() as u64,
            capacity: owned().map(|spec| spec.allocations.len() as u64).sum(),
            used: owned().map(|spec| spec.held().count() as u64).sum(),
            borrowed: blocks::borrowed_by(cluster.blocks.iter(), node).len() as u64,
        },
        counts: (
            cluster.nodes.len() as u64,
            cluster.pods.len() as u64,
            cluster.policies.len() as u64,
        ),
    }
}

/// Puts them together.
pub fn facts(
    cluster: &Cluster,
    node: &str,
    endpoints: &EndpointStore,
    faults: Vec<(Notice, Option<SystemTime>)>,
    undecodable: Vec<String>,
) -> Facts {
    let line = |(fault, since): (Notice, _)| {
        let subject = &fault.subject;
        let name = ObjectKey {
            namespace: subject.namespace.clone(),
            name: subject.name.clone(),
        };
        let text = format!("{} {name}: {}", subject.resource.kind, fault.message);
        (text, since)
    };
    let shown = |block: &&Object<IPAMBlockSpec>| {
        block.spec.owner() == Some(node)
            || block
                .spec
                .held()
                .any(|(_, a)| a.secondary.get("node").is_some_and(|n| n == node))
    };
    let blocks: Vec<_> = cluster
        .blocks
        .iter()
        .filter(shown)
        .map(|object| block(cluster, &object.spec))
        .collect();
    let policies: Vec<_> = cluster.policies.iter().map(as_enforced).collect();
    Facts {
        addresses: cluster
            .nodes
            .named(node)
            .map(|me| Identity::of(me, 0).addresses().collect())
            .unwrap_or_default(),
        blocks,
        ipam: sums(cluster, node).ipam,
        endpoints: endpoints
            .iter()
            .map(|record| endpoint(cluster, &policies, record))
            .collect(),
        problems: faults
            .into_iter()
            .map(line)
            .chain(undecodable.into_iter().map(|text| (text, None)))
            .collect(),
    }
}

fn block(cluster: &Cluster, spec: &IPAMBlockSpec) -> IpamBlock {
    let pool = |network| {
        let inside = |pool: &&Object<_>| {
            let spec: &margay_api::v3::IPPoolSpec = &pool.spec;
            spec.network().is_ok_and(|pool| cidr::contains(pool, network))
        };
        cluster.pools.iter().find(inside).map(|pool| pool.metadata.name.clone())
    };
    IpamBlock::of(spec, spec.network().and_then(pool))
}

fn endpoint(cluster: &Cluster, policies: &[NetworkPolicy], record: &EndpointRecord) -> control::Endpoint {
    let key = ObjectKey {
        namespace: record.namespace.clone(),
        name: record.pod.clone(),
    };
    let pod = cluster
        .pods
        .get(&key)
        .filter(|pod| is_incarnation(pod, &record.runtime_uid));
    let selecting = |direction: PolicyType| -> Vec<String> {
        let Some(pod) = pod else { return Vec::new() };
        selecting_policies(policies, pod, direction)
    };
    control::Endpoint {
        namespace: record.namespace.clone(),
        pod: record.pod.clone(),
        container_id: record.key.container.clone(),
        ifname: record.key.ifname.clone(),
        host_interface: record.interface.clone(),
        addresses: record.addresses.clone(),
        policy: control::PolicyStatus {
            reason: pod.is_none().then(|| "its Pod object is not known".to_owned()),
            ingress: selecting(PolicyType::Ingress),
            egress: selecting(PolicyType::Egress),
            ..control::PolicyStatus::default()
        },
    }
}

/// With its defaults, and a faulty selector as the policy engine takes it.
fn as_enforced(policy: &NetworkPolicy) -> NetworkPolicy {
    let mut policy = policy.clone().defaulted();
    policy.spec.pod_selector = validate::sound_selector(&policy.spec.pod_selector);
    policy
}

fn selecting_policies(policies: &[NetworkPolicy], pod: &Pod, direction: PolicyType) -> Vec<String> {
    let of_namespace = policies
        .iter()
        .filter(|p| p.metadata.namespace == pod.metadata.namespace);
    of_namespace
        .filter(|policy| policy.applies_to(direction) && policy.spec.pod_selector.matches(&pod.metadata.labels))
        .map(|policy| policy.metadata.full_name())
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::blocks::tests::block as ipam_block;
    use super::super::cluster::ClusterChange;
    use super::*;
    use crate::endpoints::tests::record;
    use crate::kube::watch::Change;

    #[test]
    fn blocks_endpoints_and_sums() {
        let mut cluster = Cluster::default();
        for block in [
            ipam_block(
                "10.244.0.0/26",
                "node1",
                &[(1, "shop", "a", "node1"), (2, "shop", "b", "node2")],
            ),
            ipam_block("10.244.0.64/26", "node2", &[(3, "shop", "c", "node1")]),
            ipam_block("10.244.0.128/26", "node2", &[(3, "shop", "d", "node2")]),
        ] {
            cluster.apply(ClusterChange::IpamBlock(Change::Put(block)));
        }
        let pool = json!({"metadata": {"name": "pods"}, "spec": {"cidr": "10.244.0.0/16"}});
        cluster.apply(ClusterChange::IpPool(Change::Put(
            serde_json::from_value(pool).unwrap(),
        )));
        let pod = json!({"metadata": {"name": "a", "namespace": "shop", "uid": "u", "labels": {"app": "a"}}});
        cluster.apply(ClusterChange::Pod(Change::Put(serde_json::from_value(pod).unwrap())));
        for policy in [
            json!({"metadata": {"name": "deny", "namespace": "shop"}, "spec": {"podSelector": {}}}),
            json!({"metadata": {"name": "other", "namespace": "shop"}, "spec": {"podSelector": {"matchLabels": {"app": "z"}}}}),
            json!({"metadata": {"name": "away", "namespace": "data"}, "spec": {"podSelector": {}}}),
            json!({"metadata": {"name": "faulty", "namespace": "shop"}, "spec": {"podSelector": {
                "matchExpressions": [{"key": "app", "operator": "In", "values": []}]}}}),
        ] {
            cluster.apply(ClusterChange::NetworkPolicy(Change::Put(
                serde_json::from_value(policy).unwrap(),
            )));
        }
        let dir = tempfile::tempdir().unwrap();
        let (mut store, _) = EndpointStore::open(dir.path()).unwrap();
        store.remember(EndpointRecord {
            pod: "a".into(),
            ..record("c1")
        });
        let facts = facts(&cluster, "node1", &store, Vec::new(), Vec::new());
        assert_eq!(
            facts.ipam,
            IpamStatus {
                blocks: 1,
                capacity: 64,
                used: 2,
                borrowed: 1
            }
        );
        let shown: Vec<_> = facts
            .blocks
            .iter()
            .map(|b| (b.cidr.as_str(), b.used, b.borrowed))
            .collect();
        assert_eq!(shown, [("10.244.0.0/26", 2, 1), ("10.244.0.64/26", 1, 1)]);
        assert_eq!(facts.blocks[0].pool.as_deref(), Some("pods"));
        assert_eq!(facts.blocks[0].allocations[0].pod.as_deref(), Some("shop/a"));
        assert_eq!(facts.endpoints[0].policy.ingress, ["shop/deny", "shop/faulty"]);
        assert!(facts.endpoints[0].policy.egress.is_empty());
    }
}
