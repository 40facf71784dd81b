//! Releases what nodes leave behind when they are deleted.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::Context;
use margay_api::slim::{Node, Object};
use margay_api::v3::{BlockAffinitySpec, IPAMBlockSpec};
use margay_ipam::Allocator;

use super::Reign;
use crate::kube::ipam_store::KubeStore;
use crate::kube::resource::{BLOCK_AFFINITY, IPAM_BLOCK, NODE};
use crate::kube::{Api, ApiError};

/// Nodes that hold addresses or blocks and have no Node object, since when.
#[derive(Debug)]
pub(super) struct DeletedNodes {
    grace: Duration,
    missing: BTreeMap<String, Instant>,
}

impl DeletedNodes {
    pub(super) fn new(grace: Duration) -> Self {
        Self {
            grace,
            missing: BTreeMap::new(),
        }
    }

    /// Looks at the cluster once; releases those that have been gone for the grace period. One that cannot be released does
    /// not hold up the others.
    pub(super) async fn round(
        &mut self,
        api: &Api,
        allocator: &Allocator<KubeStore>,
        reign: &Reign,
    ) -> anyhow::Result<()> {
        // Holders first: a node that registers in between is in the later list.
        let blocks: Vec<Object<IPAMBlockSpec>> = api.list(&IPAM_BLOCK, None).await.context("list blocks")?;
        let affinities: Vec<Object<BlockAffinitySpec>> =
            api.list(&BLOCK_AFFINITY, None).await.context("list affinities")?;
        let nodes: Vec<Node> = api.list(&NODE, None).await.context("list nodes")?;
        let holders = holders(&blocks, &affinities);
        let nodes: BTreeSet<_> = nodes.into_iter().map(|node| node.metadata.name).collect();
        let mut failed = Vec::new();
        for node in self.due(&holders, &nodes, Instant::now()) {
            match release(api, allocator, &node, reign).await {
                Ok(()) => drop(self.missing.remove(&node)),
                Err(error) => failed.push(format!("release node {node}: {error:#}")),
            }
        }
        anyhow::ensure!(failed.is_empty(), failed.join("; "));
        Ok(())
    }

    /// Holders without a Node object for the whole grace period.
    fn due(&mut self, holders: &BTreeSet<String>, nodes: &BTreeSet<String>, now: Instant) -> Vec<String> {
        self.missing.retain(|node, _| {
            let back = nodes.contains(node);
            if back {
                tracing::info!(%node, "node is back: its addresses stay");
            }
            !back && holders.contains(node)
        });
        for node in holders.difference(nodes) {
            self.missing.entry(node.clone()).or_insert_with(|| {
                tracing::info!(%node, grace = ?self.grace, "node is gone and holds addresses: they are released after the grace period");
                now
            });
        }
        let due = self
            .missing
            .iter()
            .filter(|(_, since)| now.duration_since(**since) >= self.grace);
        due.map(|(node, _)| node.clone()).collect()
    }
}

async fn release(api: &Api, allocator: &Allocator<KubeStore>, node: &str, reign: &Reign) -> anyhow::Result<()> {
    let gone = async || {
        reign.alive();
        // The list may have come from a stale cache; only the object itself decides.
        match api.get::<Node>(&NODE, None, node).await {
            Err(ApiError::NotFound(_)) => reign.leads(),
            Ok(_) => {
                tracing::info!(%node, "node exists after all: nothing more is released");
                false
            }
            Err(error) => {
                tracing::warn!(%node, %error, "whether the node exists is not known: nothing more is released");
                false
            }
        }
    };
    let released = allocator.release_node(node, gone).await?;
    for address in &released.addresses {
        let pod = address.pod().unwrap_or_default();
        let handle = address.handle.as_deref().unwrap_or_default();
        tracing::info!(%node, address = %address.address, %pod, %handle, "address released: its node is deleted");
    }
    for block in &released.blocks {
        tracing::info!(%node, %block, "block released: its node is deleted");
    }
    Ok(())
}

/// Every node that owns a block, claims one or holds an address.
fn holders(blocks: &[Object<IPAMBlockSpec>], affinities: &[Object<BlockAffinitySpec>]) -> BTreeSet<String> {
    let owners = blocks.iter().filter_map(|block| block.spec.owner()).map(str::to_owned);
    let users = blocks.iter().flat_map(|block| {
        block
            .spec
            .held()
            .filter_map(|(_, attribute)| attribute.secondary.get("node").cloned())
    });
    let claims = affinities.iter().map(|affinity| affinity.spec.node.clone());
    owners
        .chain(users)
        .chain(claims)
        .filter(|node| !node.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::blocks::tests::block;

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn owners_borrowers_and_claimants_hold_addresses() {
        let blocks = [
            block(
                "10.244.0.0/26",
                "node1",
                &[(1, "shop", "a", "node1"), (2, "shop", "b", "node2")],
            ),
            block("10.244.0.64/26", "", &[]),
        ];
        let mut claim = Object::<BlockAffinitySpec>::default();
        claim.spec.node = "node3".into();
        assert_eq!(holders(&blocks, &[claim]), names(&["node1", "node2", "node3"]));
    }

    #[test]
    fn only_a_node_gone_for_the_whole_grace_is_due() {
        let mut deleted = DeletedNodes::new(Duration::from_secs(60));
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let holders = names(&["node1", "node2"]);
        assert!(deleted.due(&holders, &names(&["node1", "node2"]), at(0)).is_empty());
        assert!(deleted.due(&holders, &names(&["node1"]), at(10)).is_empty());
        assert!(deleted.due(&holders, &names(&["node1"]), at(69)).is_empty());
        assert_eq!(deleted.due(&holders, &names(&["node1"]), at(70)), ["node2"]);
        assert!(
            deleted.due(&holders, &names(&["node1", "node2"]), at(71)).is_empty(),
            "it came back"
        );
        assert!(
            deleted.due(&holders, &names(&["node1"]), at(72)).is_empty(),
            "and the clock starts anew"
        );
    }
}
