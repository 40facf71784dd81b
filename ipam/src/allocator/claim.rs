//! A node's claim to a block: affinity `pending` → block → affinity `confirmed`.
//!
//! Two orders keep a block from having two owners, whoever crashes or lags where:
//! a claimer writes the affinity, then the block, then confirms the affinity *at the revision it wrote*;
//! a releaser reads the block, then writes the affinity, then removes the block *at the revision it read*.
//! So a claim that confirms has had no releaser's write in between, and a removal never hits a block that a claimer
//! wrote after it was read.

use ipnetwork::IpNetwork;
use margay_api::cidr;
use margay_api::v3::{AffinityState, BlockAffinitySpec, IPAMBlockSpec};

use super::{ATTEMPTS, Allocator, contention};
use crate::error::{Error, Family};
use crate::names::{NODE_HASH_LABEL, affinity_name, block_name, node_hash, spread};
use crate::pools::Usable;
use crate::store::{Store, Stored};
use crate::{block, time};

impl<S: Store> Allocator<S> {
    /// Mends what a crash of this node's allocator may have left: claims that were begun are finished or withdrawn, and
    /// blocks of this node without a claim are claimed. Call it when the agent starts.
    ///
    /// # Errors
    /// When the store fails; calling again goes on.
    pub async fn recover(&self) -> Result<(), Error> {
        for affinity in self.affinities(&self.node).await? {
            let Ok(network) = cidr::parse(&affinity.spec.cidr) else {
                continue;
            };
            self.settle(network, affinity.spec.state).await?;
        }
        for stored in self.store.list::<IPAMBlockSpec>(None).await? {
            let Ok(network) = block::network(&stored.spec) else {
                continue;
            };
            if block::owner(&stored.spec) == Some(&self.node) && !stored.spec.deleted {
                let affinity = self
                    .read_latest::<BlockAffinitySpec>(&affinity_name(&self.node, network))
                    .await?;
                if !affinity.is_some_and(|affinity| affinity.spec.state.is_confirmed()) {
                    self.claim(network).await?;
                }
            }
        }
        Ok(())
    }

    /// Makes sure that the node owns a block of the family with a free address, claiming one if need be.
    ///
    /// # Errors
    /// When no pool may be used or none has a free block.
    pub async fn ensure_block(&self, family: Family) -> Result<IpNetwork, Error> {
        let settings = self.store.settings(&self.node).await?;
        let pools = crate::pools::usable(&settings, &self.node, family, &[])?;
        for network in self.own_blocks(&pools).await? {
            let stored = self.read_latest::<IPAMBlockSpec>(&block_name(network)).await?;
            if stored.is_some_and(|stored| !stored.spec.unallocated.is_empty()) {
                return Ok(network);
            }
        }
        match self.claim_any(&pools, &[]).await? {
            Some(network) => Ok(network),
            None => Err(self.exhausted(&pools, family, 1, 0, "").await?),
        }
    }

    /// Confirmed blocks of the node within the pools, lowest first. Unfinished claims are finished on the way.
    pub(super) async fn own_blocks(&self, pools: &[Usable]) -> Result<Vec<IpNetwork>, Error> {
        let mut blocks = Vec::new();
        for affinity in self.affinities(&self.node).await? {
            let Ok(network) = cidr::parse(&affinity.spec.cidr) else {
                continue;
            };
            let inside = pools.iter().any(|pool| cidr::contains(pool.network, network));
            if inside && self.settle(network, affinity.spec.state).await? {
                blocks.push(network);
            }
        }
        blocks.sort_unstable();
        Ok(blocks)
    }

    pub(super) async fn affinities(&self, node: &str) -> Result<Vec<Stored<BlockAffinitySpec>>, Error> {
        let of_other = (node != self.node).then(|| node_hash(node));
        let hash = of_other.as_ref().unwrap_or(&self.node_hash);
        let found = self
            .store
            .list::<BlockAffinitySpec>(Some((NODE_HASH_LABEL, hash)))
            .await?;
        let is_ours = |affinity: &Stored<BlockAffinitySpec>| {
            affinity.spec.node == node && affinity.spec.r#type.as_deref().unwrap_or("host") == "host"
        };
        Ok(found
            .into_iter()
            .filter(is_ours)
            .filter(|affinity| !affinity.spec.deleted)
            .collect())
    }

    /// Whether the block is the node's in the end.
    async fn settle(&self, network: IpNetwork, state: AffinityState) -> Result<bool, Error> {
        match state {
            AffinityState::Confirmed | AffinityState::Unset => Ok(true),
            AffinityState::Pending => self.claim(network).await,
            // Somebody gives the block up: finish that, unless addresses of it are in use again.
            AffinityState::PendingDeletion => Ok(!self.release_block_of(&self.node, network, false).await?),
        }
    }

    /// Claims some block of the pools that nobody owns, in an order of the node's own. `passed` are those not to try.
    pub(super) async fn claim_any(&self, pools: &[Usable], passed: &[IpNetwork]) -> Result<Option<IpNetwork>, Error> {
        let existing = self.store.list::<IPAMBlockSpec>(None).await?;
        let taken: Vec<(IpNetwork, bool)> = existing
            .iter()
            .filter_map(|stored| Some((block::network(&stored.spec).ok()?, stored.spec.affinity.is_none())))
            .collect();
        let mut lost = 0;
        for pool in pools {
            for candidate in candidates(&self.node, pool) {
                if passed.contains(&candidate) || taken.iter().any(|(network, _)| cidr::overlaps(*network, candidate)) {
                    continue;
                }
                if self.claim(candidate).await? {
                    return Ok(Some(candidate));
                }
                lost += 1;
                if lost > ATTEMPTS {
                    return Err(contention(format!("free blocks of IPPool {}", pool.name)));
                }
            }
        }
        let ownerless = taken
            .iter()
            .filter(|(_, ownerless)| *ownerless)
            .map(|(network, _)| *network);
        for network in ownerless.filter(|network| !passed.contains(network)) {
            let inside = pools.iter().any(|pool| cidr::contains(pool.network, network));
            if inside && self.claim(network).await? {
                return Ok(Some(network));
            }
        }
        Ok(None)
    }

    /// Claims the block for the node; false when it is another's, or overlaps one of another size.
    pub(super) async fn claim(&self, network: IpNetwork) -> Result<bool, Error> {
        for _ in 0..ATTEMPTS {
            let Some(pending) = self.write_affinity(&self.node, network, AffinityState::Pending).await? else {
                continue;
            };
            let ours = match self.take_block(network).await? {
                Some(ours) => ours,
                None => continue,
            };
            let last = if ours {
                let spec = BlockAffinitySpec {
                    state: AffinityState::Confirmed,
                    ..pending.spec.clone()
                };
                self.store.update(&pending, spec).await.map(drop)
            } else {
                self.store.delete(&pending).await
            };
            match last {
                Ok(()) => return Ok(ours),
                Err(error) if error.is_race() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(contention(format!(
            "BlockAffinity {}",
            affinity_name(&self.node, network)
        )))
    }

    /// Writes the affinity's state whatever it was, so that no other step that began before can end. None: raced.
    pub(super) async fn write_affinity(
        &self,
        node: &str,
        network: IpNetwork,
        state: AffinityState,
    ) -> Result<Option<Stored<BlockAffinitySpec>>, Error> {
        let spec = BlockAffinitySpec {
            cidr: network.to_string(),
            node: node.to_owned(),
            state,
            r#type: Some("host".to_owned()),
            deleted: false,
        };
        let written = match self
            .read_latest::<BlockAffinitySpec>(&affinity_name(node, network))
            .await?
        {
            Some(stored) => self.store.update(&stored, spec).await,
            None => self.store.create(spec, node).await,
        };
        match written {
            Ok(stored) => Ok(Some(stored)),
            Err(error) if error.is_race() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes the block as the node's own: a new one, one of nobody, or one it has already. Whether it is; None: raced. A
    /// new one must not overlap those that a pool of another blockSize has left: their addresses may be in use.
    async fn take_block(&self, network: IpNetwork) -> Result<Option<bool>, Error> {
        let now = self.store.now();
        let written = match self.read_latest::<IPAMBlockSpec>(&block_name(network)).await? {
            None => {
                let blocks = self.store.list::<IPAMBlockSpec>(None).await?;
                let others = blocks.iter().filter_map(|stored| block::network(&stored.spec).ok());
                if others
                    .filter(|other| *other != network)
                    .any(|other| cidr::overlaps(other, network))
                {
                    return Ok(Some(false));
                }
                let fresh = block::new(network, Some(&self.node), time::rfc3339(now), time::nanoseconds(now));
                self.store.create(fresh, &self.node).await
            }
            Some(stored) if stored.spec.affinity.is_some() && block::owner(&stored.spec) != Some(&self.node) => {
                return Ok(Some(false));
            }
            // Written also when it is ours already: a releaser that has read it must not remove it any more.
            Some(stored) => {
                let mut spec = stored.spec.clone();
                if spec.affinity.is_none() {
                    spec.affinity = Some(format!("host:{}", self.node));
                    spec.affinity_claim_time = Some(time::rfc3339(now));
                }
                spec.sequence_number += 1;
                self.store.update(&stored, spec).await
            }
        };
        match written {
            Ok(_) => Ok(Some(true)),
            Err(error) if error.is_race() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// Every block of the pool once, from a start and by a stride of the node's own: nodes rarely meet.
fn candidates(node: &str, pool: &Usable) -> impl Iterator<Item = IpNetwork> {
    let total = cidr::count(pool.network, pool.block_prefix).unwrap_or(0);
    let seed = spread(&format!("{node} {}", pool.network));
    // The total is a power of two, so that any odd stride visits every block.
    let (mut index, stride) = (seed & total.saturating_sub(1), (seed >> 64) | 1);
    let (network, prefix) = (pool.network, pool.block_prefix);
    (0..total).filter_map(move |_| {
        let found = cidr::nth(network, prefix, index);
        index = index.wrapping_add(stride) & (total - 1);
        found
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn candidates_visit_every_block_once_in_an_order_of_the_nodes_own() {
        let pool = Usable {
            name: "p".into(),
            network: cidr::parse("10.0.0.0/20").unwrap(),
            block_prefix: 26,
        };
        let of = |node: &str| candidates(node, &pool).collect::<Vec<_>>();
        assert_eq!(of("a").len(), 64);
        assert_eq!(of("a").iter().collect::<BTreeSet<_>>().len(), 64);
        assert_ne!(of("a")[..4], of("b")[..4]);
        let firsts: BTreeSet<IpNetwork> = (0..64)
            .filter_map(|n| candidates(&format!("node{n}"), &pool).next())
            .collect();
        assert!(firsts.len() > 32, "only {} first choices", firsts.len());
        let wide = Usable {
            name: "w".into(),
            network: cidr::parse("fd00::/64").unwrap(),
            block_prefix: 122,
        };
        assert_eq!(candidates("a", &wide).take(100).collect::<BTreeSet<_>>().len(), 100);
    }
}
