//! What the API server knows of a cluster beside its agents: above all of nodes that have none any more.

use std::collections::{BTreeMap, BTreeSet};

use ipnetwork::IpNetwork;
use margay_api::cidr;
use margay_api::control::IpamBlock;
use margay_api::slim::{Metadata, Object};
use margay_api::v3::{IPAMBlockSpec, IPPoolSpec};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::api_server::{ApiError, ApiServer, Resource};

const NODES: Resource = Resource {
    group: "/api/v1",
    plural: "nodes",
};
const DAEMON_SETS: Resource = Resource {
    group: "/apis/apps/v1",
    plural: "daemonsets",
};
const POOLS: Resource = Resource {
    group: "/apis/projectcalico.org/v3",
    plural: "ippools",
};
const BLOCKS: Resource = Resource {
    group: "/apis/projectcalico.org/v3",
    plural: "ipamblocks",
};
/// What the agents' DaemonSet has.
const LABELS: &str = "app.kubernetes.io/name=margay-node";

/// What could be read, and of the rest why it could not.
#[derive(Debug)]
pub(crate) struct Known {
    /// The cluster's Nodes, in order of name.
    pub(crate) nodes: Result<Vec<Node>, String>,
    /// Its pools, in order of name.
    pub(crate) pools: Result<Vec<Pool>, String>,
    /// Its blocks, of the nodes that the user asked about.
    pub(crate) blocks: Result<Vec<IpamBlock>, String>,
    /// The nodes that the user asked about; all when empty.
    pub(crate) only: Vec<String>,
}

/// A Node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) name: String,
    /// Why the kubelet's condition Ready is not True, when it is not.
    pub(crate) unready: Option<String>,
    /// Whether an agent is meant to run on it, and the user asked about it.
    pub(crate) counts: bool,
}

/// An IPPool and what is cut from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pool {
    pub(crate) name: String,
    pub(crate) cidr: String,
    pub(crate) disabled: bool,
    /// Its addresses.
    pub(crate) size: u128,
    /// Blocks cut from it.
    pub(crate) blocks: u64,
    /// Blocks that may still be cut.
    pub(crate) free_blocks: u128,
    /// Addresses given out.
    pub(crate) used: u64,
}

impl Known {
    /// Asks for everything at once. `only` names the nodes that the user asked about; all when empty.
    pub(crate) async fn of(api: &ApiServer, namespace: &str, only: &[String]) -> Self {
        let (nodes, daemon_sets, pools, blocks) = tokio::join!(
            list::<NodeObject>(api, NODES, None, None),
            list::<DaemonSet>(api, DAEMON_SETS, Some(namespace), Some(LABELS)),
            list::<Object<IPPoolSpec>>(api, POOLS, None, None),
            list::<Object<IPAMBlockSpec>>(api, BLOCKS, None, None),
        );
        // Where this cannot be told, every node is meant to have an agent.
        let selector = daemon_sets.ok().and_then(|sets| sets.into_iter().next());
        let selector = selector.unwrap_or_default().spec.template.spec.node_selector;
        Self {
            nodes: nodes.map(|nodes| nodes_of(nodes, &selector, only)),
            pools: pools
                .as_ref()
                .map_err(String::clone)
                .map(|pools| pools_of(pools, blocks.as_deref().unwrap_or(&[]))),
            blocks: blocks.map(|blocks| blocks_of(&blocks, pools.as_deref().unwrap_or(&[]), only)),
            only: only.to_vec(),
        }
    }

    /// Nodes that own blocks or hold addresses although there is no such Node, with these blocks.
    pub(crate) fn gone(&self) -> BTreeMap<&str, Vec<&IpamBlock>> {
        let (Ok(nodes), Ok(blocks)) = (&self.nodes, &self.blocks) else {
            return BTreeMap::new();
        };
        let known: BTreeSet<&str> = nodes.iter().map(|node| node.name.as_str()).collect();
        let mut gone: BTreeMap<&str, Vec<&IpamBlock>> = BTreeMap::new();
        for block in blocks {
            let asked_about = |node: &&&str| is_asked_about(&self.only, node);
            for node in parties(block).difference(&known).filter(asked_about) {
                gone.entry(node).or_default().push(block);
            }
        }
        gone
    }

    /// What could not be read, and why.
    pub(crate) fn faults(&self) -> Vec<String> {
        let faults = [
            self.nodes.as_ref().err(),
            self.pools.as_ref().err(),
            self.blocks.as_ref().err(),
        ];
        let mut faults: Vec<String> = faults.into_iter().flatten().cloned().collect();
        faults.dedup();
        faults
    }

    /// For programs. What could not be read is null, and `errors` say why.
    pub(crate) fn json(&self) -> Value {
        let nodes = |nodes: &Vec<Node>| -> Value {
            let node =
                |node: &Node| json!({"name": node.name, "ready": node.unready.is_none(), "reason": node.unready});
            let asked_about = nodes.iter().filter(|node| is_asked_about(&self.only, &node.name));
            asked_about.map(node).collect()
        };
        let gone = |(node, blocks): (&str, Vec<&IpamBlock>)| {
            let cidrs: Vec<&str> = blocks.iter().map(|block| block.cidr.as_str()).collect();
            json!({"name": node, "blocks": cidrs, "addresses": held_by(node, &blocks)})
        };
        json!({
            "nodes": self.nodes.as_ref().ok().map(nodes),
            "pools": self.pools.as_ref().ok().map(|pools| pools.iter().map(Pool::json).collect::<Value>()),
            "blocks": self.blocks.as_ref().ok(),
            "gone": self.gone().into_iter().map(gone).collect::<Value>(),
            "errors": self.faults(),
        })
    }
}

impl Pool {
    fn json(&self) -> Value {
        json!({
            "name": self.name,
            "cidr": self.cidr,
            "disabled": self.disabled,
            "size": number(self.size),
            "used": self.used,
            "blocks": self.blocks,
            "freeBlocks": number(self.free_blocks),
        })
    }
}

/// As JSON has it: what is too large for an integer there is rounded.
fn number(count: u128) -> Value {
    u64::try_from(count).map_or_else(|_| Value::from(count as f64), Value::from)
}

/// How many addresses of these blocks a node holds.
pub(crate) fn held_by(node: &str, blocks: &[&IpamBlock]) -> usize {
    let held = blocks.iter().flat_map(|block| &block.allocations);
    held.filter(|allocation| allocation.node.as_deref() == Some(node))
        .count()
}

/// The block's owner and those who hold addresses in it.
fn parties(block: &IpamBlock) -> BTreeSet<&str> {
    let owner = block
        .affinity
        .as_deref()
        .and_then(|affinity| affinity.strip_prefix("host:"));
    let holders = block
        .allocations
        .iter()
        .filter_map(|allocation| allocation.node.as_deref());
    owner.into_iter().chain(holders).collect()
}

fn is_asked_about(only: &[String], node: &str) -> bool {
    only.is_empty() || only.iter().any(|one| one == node)
}

async fn list<T: DeserializeOwned>(
    api: &ApiServer,
    resource: Resource,
    namespace: Option<&str>,
    labels: Option<&str>,
) -> Result<Vec<T>, String> {
    let plural = resource.plural;
    api.list(resource, namespace, labels)
        .await
        .map_err(|error| match error {
            ApiError::NotFound(_) => {
                format!("the API server has no {plural}: deploy/README.md says how the CRDs are installed")
            }
            error => format!("{plural} cannot be listed: {error}"),
        })
}

/// What counts of a Node.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct NodeObject {
    metadata: Metadata,
    status: NodeStatus,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct NodeStatus {
    conditions: Vec<Condition>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Condition {
    r#type: String,
    status: String,
    message: String,
}

/// What counts of the agents' DaemonSet.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct DaemonSet {
    spec: DaemonSetSpec,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct DaemonSetSpec {
    template: PodTemplate,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct PodTemplate {
    spec: PodTemplateSpec,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PodTemplateSpec {
    node_selector: BTreeMap<String, String>,
}

fn nodes_of(nodes: Vec<NodeObject>, selector: &BTreeMap<String, String>, only: &[String]) -> Vec<Node> {
    let mut nodes: Vec<Node> = nodes
        .into_iter()
        .map(|node| {
            let labels = &node.metadata.labels;
            let meant = selector.iter().all(|(key, value)| labels.get(key) == Some(value));
            let name = node.metadata.name;
            Node {
                counts: meant && is_asked_about(only, &name),
                unready: unready(&node.status),
                name,
            }
        })
        .collect();
    nodes.sort_by(|one, other| one.name.cmp(&other.name));
    nodes
}

fn unready(status: &NodeStatus) -> Option<String> {
    match status.conditions.iter().find(|condition| condition.r#type == "Ready") {
        Some(ready) if ready.status == "True" => None,
        Some(ready) if ready.message.is_empty() => Some("its kubelet says no reason".to_owned()),
        Some(ready) => Some(ready.message.clone()),
        None => Some("its kubelet has said nothing yet".to_owned()),
    }
}

fn pools_of(pools: &[Object<IPPoolSpec>], blocks: &[Object<IPAMBlockSpec>]) -> Vec<Pool> {
    let blocks: Vec<(IpNetwork, u64)> = blocks
        .iter()
        .filter_map(|block| Some((block.spec.network()?, block.spec.held().count() as u64)))
        .collect();
    let mut pools: Vec<Pool> = pools
        .iter()
        .map(|pool| {
            let (spec, network) = (&pool.spec, pool.spec.network().ok());
            let inside = |(block, _): &&(IpNetwork, u64)| network.is_some_and(|pool| cidr::contains(pool, *block));
            let cut: Vec<&(IpNetwork, u64)> = blocks.iter().filter(inside).collect();
            let count = |prefix| network.and_then(|network| cidr::count(network, prefix)).unwrap_or(0);
            let width = if spec.cidr.contains(':') { 128 } else { 32 };
            Pool {
                name: pool.metadata.name.clone(),
                cidr: spec.cidr.clone(),
                disabled: spec.is_disabled(),
                size: count(width),
                blocks: cut.len() as u64,
                free_blocks: count(spec.block_prefix()).saturating_sub(cut.len() as u128),
                used: cut.iter().map(|(_, used)| used).sum(),
            }
        })
        .collect();
    pools.sort_by(|one, other| one.name.cmp(&other.name));
    pools
}

fn blocks_of(blocks: &[Object<IPAMBlockSpec>], pools: &[Object<IPPoolSpec>], only: &[String]) -> Vec<IpamBlock> {
    let pools: Vec<(IpNetwork, &str)> = pools
        .iter()
        .filter_map(|pool| Some((pool.spec.network().ok()?, pool.metadata.name.as_str())))
        .collect();
    let pool_of = |network| {
        let pool = pools.iter().find(|(pool, _)| cidr::contains(*pool, network));
        pool.map(|(_, name)| (*name).to_owned())
    };
    let block = |block: &Object<IPAMBlockSpec>| IpamBlock::of(&block.spec, block.spec.network().and_then(pool_of));
    let asked_about =
        |block: &IpamBlock| only.is_empty() || parties(block).iter().any(|node| is_asked_about(only, node));
    blocks.iter().map(block).filter(asked_about).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of<T: DeserializeOwned>(value: Value) -> T {
        serde_json::from_value(value).expect("objects")
    }

    /// A block of four addresses, of which these are held by these nodes.
    fn block(cidr: &str, owner: &str, holders: &[&str]) -> Value {
        let allocations: Vec<Option<usize>> = (0..4).map(|n| (n < holders.len()).then_some(n)).collect();
        let attributes: Vec<Value> = holders
            .iter()
            .map(|node| json!({"secondary": {"node": node}}))
            .collect();
        json!({"metadata": {"name": "b"}, "spec": {"cidr": cidr, "affinity": format!("host:{owner}"),
            "allocations": allocations, "unallocated": [], "attributes": attributes}})
    }

    #[test]
    fn pools_are_as_full_as_their_blocks_say() {
        let pools = of::<Vec<Object<IPPoolSpec>>>(json!([
            {"metadata": {"name": "v6"}, "spec": {"cidr": "fd00::/64", "disabled": true}},
            {"metadata": {"name": "small"}, "spec": {"cidr": "10.0.0.0/29", "blockSize": 30}},
        ]));
        let blocks = of::<Vec<Object<IPAMBlockSpec>>>(json!([
            block("10.0.0.0/30", "a", &["a", "b"]),
            block("10.9.0.0/30", "a", &["a"]),
            block("fd00::/122", "a", &["a"]),
        ]));
        let small = Pool {
            name: "small".to_owned(),
            cidr: "10.0.0.0/29".to_owned(),
            disabled: false,
            size: 8,
            blocks: 1,
            free_blocks: 1,
            used: 2,
        };
        let pools_now = pools_of(&pools, &blocks);
        assert_eq!(pools_now[0], small);
        let v6 = &pools_now[1];
        assert_eq!((v6.size, v6.blocks, v6.used, v6.disabled), (1 << 64, 1, 1, true));
        assert_eq!(v6.free_blocks, (1 << 58) - 1);
        let named: Vec<Option<String>> = blocks_of(&blocks, &pools, &[])
            .into_iter()
            .map(|block| block.pool)
            .collect();
        assert_eq!(named, [Some("small".to_owned()), None, Some("v6".to_owned())]);
    }

    #[test]
    fn nodes_that_left_something_behind() {
        let node = |name: &str| Node {
            name: name.to_owned(),
            unready: None,
            counts: true,
        };
        let blocks = of::<Vec<Object<IPAMBlockSpec>>>(json!([
            block("10.0.0.0/30", "a", &["a", "dead"]),
            block("10.0.0.4/30", "dead", &[]),
            block("10.0.0.8/30", "a", &["a"]),
        ]));
        let known = |nodes, only: &[&str]| {
            let only: Vec<String> = only.iter().map(|node| (*node).to_owned()).collect();
            Known {
                nodes,
                pools: Ok(Vec::new()),
                blocks: Ok(blocks_of(&blocks, &[], &only)),
                only,
            }
        };
        let all = known(Ok(vec![node("a")]), &[]);
        let gone = all.gone();
        let cidrs: Vec<&str> = gone["dead"].iter().map(|block| block.cidr.as_str()).collect();
        assert_eq!((gone.len(), cidrs), (1, vec!["10.0.0.0/30", "10.0.0.4/30"]));
        assert_eq!(known(Ok(vec![node("a")]), &["dead"]).gone()["dead"].len(), 2);
        let of_a = known(Ok(vec![node("a")]), &["a"]);
        assert_eq!((of_a.gone().len(), of_a.blocks.expect("blocks").len()), (0, 2));
        assert!(
            known(Err("forbidden".to_owned()), &[]).gone().is_empty(),
            "nobody knows"
        );
    }

    #[test]
    fn nodes_say_whether_they_count_and_why_they_are_not_ready() {
        let nodes: Vec<NodeObject> = of(json!([
            {"metadata": {"name": "b", "labels": {"net": "margay"}},
             "status": {"conditions": [{"type": "Ready", "status": "Unknown", "message": "Kubelet stopped posting node status."}]}},
            {"metadata": {"name": "a", "labels": {"net": "margay"}}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}},
            {"metadata": {"name": "other"}},
        ]));
        let selector = BTreeMap::from([("net".to_owned(), "margay".to_owned())]);
        let nodes = nodes_of(nodes, &selector, &["b".to_owned(), "other".to_owned()]);
        let told: Vec<_> = nodes
            .iter()
            .map(|node| (node.name.as_str(), node.counts, node.unready.as_deref()))
            .collect();
        assert_eq!(
            told,
            [
                ("a", false, None),
                ("b", true, Some("Kubelet stopped posting node status.")),
                ("other", false, Some("its kubelet has said nothing yet")),
            ]
        );
    }
}
