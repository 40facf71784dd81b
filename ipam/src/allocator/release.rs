//! Releasing: by handle, by address, by block, by node.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use margay_api::cidr;
use margay_api::v3::{AffinityState, BlockAffinitySpec, IPAMBlockSpec, IPAMHandleSpec};

use super::{ATTEMPTS, Allocator, contention};
use crate::block::{self, Allocation};
use crate::error::Error;
use crate::names::{affinity_name, block_name, handle_name};
use crate::store::{Store, StoreError, Stored};

/// An address that was released, and whose it was.
pub type Released = Allocation;

/// What releasing a node gave back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReleasedNode {
    /// Its addresses.
    pub addresses: Vec<Released>,
    /// Its blocks.
    pub blocks: Vec<IpNetwork>,
}

impl<S: Store> Allocator<S> {
    /// Releases every address of the handle. A handle that does not exist has none: that is no error.
    ///
    /// # Errors
    /// When the store fails; calling again goes on.
    pub async fn release_by_handle(&self, handle: &str) -> Result<Vec<Released>, Error> {
        let name = handle_name(handle);
        let mut released = Vec::new();
        for attempt in 0..ATTEMPTS {
            let Some(stored) = self.read::<IPAMHandleSpec>(&name, attempt).await? else {
                return Ok(released);
            };
            for (cidr, count) in &stored.spec.block {
                let is_its = |allocation: &Allocation| allocation.handle.as_deref() == Some(handle);
                released.extend(self.free(cidr, *count as usize, is_its).await?);
            }
            match self.store.delete(&stored).await {
                Ok(()) => return Ok(released),
                Err(error) if error.is_race() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(contention(format!("IPAMHandle {name}")))
    }

    /// Releases one address, if it is still the handle's and was given at that sequence number, where these are named.
    /// None: it is not, or is free already.
    ///
    /// # Errors
    /// When the address is in no pool or the store fails; calling again goes on.
    pub async fn release_ip(
        &self,
        address: IpAddr,
        handle: Option<&str>,
        sequence: Option<u64>,
    ) -> Result<Option<Released>, Error> {
        let Some(cidr) = self.block_of(address).await? else {
            return Ok(None);
        };
        let is_it = |allocation: &Allocation| {
            allocation.address == address
                && handle.is_none_or(|handle| allocation.handle.as_deref() == Some(handle))
                && sequence.is_none_or(|sequence| allocation.sequence == Some(sequence))
        };
        let released = self.free(&cidr, 1, is_it).await?;
        self.uncount(&cidr, &released).await?;
        Ok(released.into_iter().next())
    }

    /// Releases everything of a node that is gone: addresses it took anywhere, its blocks and its claims. Blocks of which
    /// others have borrowed stay, without owner, until these go.
    ///
    /// Only for a node that will not come back: its pods' addresses are free afterwards. `gone` is asked before each block
    /// whether it still is, and ends the release when not. What the node takes after such an answer is not released.
    ///
    /// # Errors
    /// When the store fails; calling again goes on.
    pub async fn release_node(&self, node: &str, gone: impl AsyncFn() -> bool) -> Result<ReleasedNode, Error> {
        let mut released = ReleasedNode::default();
        // All is listed before the first question: a node that is back has taken nothing of it anew.
        let mut left = Vec::new();
        let mut networks = BTreeSet::new();
        for stored in self.store.list::<IPAMBlockSpec>(None).await? {
            let mut seen = block::allocations(&stored.spec);
            seen.retain(|allocation| block::holder(&stored.spec, allocation) == Some(node));
            if block::owner(&stored.spec) == Some(node) {
                networks.extend(block::network(&stored.spec));
            }
            left.push((stored.spec.cidr, seen));
        }
        let affinities = self.affinities(node).await?;
        networks.extend(
            affinities
                .iter()
                .filter_map(|affinity| cidr::parse(&affinity.spec.cidr).ok()),
        );
        for (cidr, seen) in left.iter().filter(|(_, seen)| !seen.is_empty()) {
            if !gone().await {
                return Ok(released);
            }
            let freed = self
                .free(cidr, seen.len(), |allocation| seen.contains(allocation))
                .await?;
            self.uncount(cidr, &freed).await?;
            released.addresses.extend(freed);
        }
        for network in networks {
            if !gone().await {
                break;
            }
            if self.release_block_of(node, network, true).await? {
                released.blocks.push(network);
            }
        }
        Ok(released)
    }

    /// Gives up a block of this node if nobody has an address of it. Whether it is given up.
    ///
    /// # Errors
    /// When the store fails; calling again goes on.
    pub async fn release_block(&self, network: IpNetwork) -> Result<bool, Error> {
        self.release_block_of(&self.node, network, false).await
    }

    /// Gives up `node`'s block if it is empty; with `borrowed` also if only others have addresses of it, and then it is left
    /// without owner. Whether it is given up. See [`super::claim`] for the order of the steps.
    pub(super) async fn release_block_of(&self, node: &str, network: IpNetwork, borrowed: bool) -> Result<bool, Error> {
        for _ in 0..ATTEMPTS {
            let stored = self.read_latest::<IPAMBlockSpec>(&block_name(network)).await?;
            let ours = stored.filter(|stored| block::owner(&stored.spec) == Some(node));
            let affinity = self
                .read_latest::<BlockAffinitySpec>(&affinity_name(node, network))
                .await?;
            let holds = |allocation: &Allocation, spec| !borrowed || block::holder(spec, allocation) == Some(node);
            if let Some(stored) = &ours
                && block::allocations(&stored.spec).iter().any(|a| holds(a, &stored.spec))
            {
                // An earlier attempt may have left the claim half withdrawn.
                let half = affinity.is_some_and(|stored| stored.spec.state == AffinityState::PendingDeletion);
                if half && node == self.node {
                    self.claim(network).await?;
                }
                return Ok(false);
            }
            let affinity = match affinity {
                None => None,
                Some(_) => match self
                    .write_affinity(node, network, AffinityState::PendingDeletion)
                    .await?
                {
                    Some(written) => Some(written),
                    None => continue,
                },
            };
            let removed = match &ours {
                None => Ok(()),
                Some(stored) if block::is_empty(&stored.spec) => self.store.delete(stored).await,
                Some(stored) => self.disown(stored).await,
            };
            match removed {
                Ok(()) => {}
                Err(error) if error.is_race() => continue,
                Err(error) => return Err(error.into()),
            }
            let Some(affinity) = affinity else { return Ok(true) };
            match self.store.delete(&affinity).await {
                Ok(()) => return Ok(true),
                Err(error) if error.is_race() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(contention(format!("IPAMBlock {}", block_name(network))))
    }

    async fn disown(&self, stored: &Stored<IPAMBlockSpec>) -> Result<(), StoreError> {
        let mut spec = stored.spec.clone();
        spec.affinity = None;
        spec.affinity_claim_time = None;
        spec.sequence_number += 1;
        self.store.update(stored, spec).await.map(drop)
    }

    /// Frees what `chosen` holds for in a block; `expected` or more is proof enough that a read was recent. With fewer, a
    /// write that nobody waits for any more may still be on its way: the block is written in any case, so that it fails.
    /// A block without owner goes with its last address.
    async fn free(
        &self,
        cidr: &str,
        expected: usize,
        chosen: impl Fn(&Allocation) -> bool,
    ) -> Result<Vec<Released>, Error> {
        let Ok(network) = cidr::parse(cidr) else {
            return Ok(Vec::new());
        };
        let name = block_name(network);
        for attempt in 0..ATTEMPTS {
            let Some(stored) = self.read::<IPAMBlockSpec>(&name, attempt).await? else {
                return Ok(Vec::new());
            };
            let mut spec = stored.spec.clone();
            let freed = block::free(&mut spec, &chosen);
            if freed.len() < expected && attempt == 0 {
                continue;
            }
            spec.sequence_number += 1;
            let written = if spec.affinity.is_none() && block::is_empty(&spec) {
                self.store.delete(&stored).await
            } else {
                self.store.update(&stored, spec).await.map(drop)
            };
            match written {
                Ok(()) => return Ok(freed),
                Err(error) if error.is_race() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(contention(format!("IPAMBlock {name}")))
    }

    /// Takes freed addresses of a block off their handles.
    async fn uncount(&self, cidr: &str, freed: &[Released]) -> Result<(), Error> {
        let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
        for handle in freed.iter().filter_map(|released| released.handle.as_deref()) {
            *counts.entry(handle).or_default() += 1;
        }
        for (handle, count) in counts {
            self.count_down(handle, cidr, count).await?;
        }
        Ok(())
    }

    /// CIDR of the block that has the address.
    pub(super) async fn block_of(&self, address: IpAddr) -> Result<Option<String>, Error> {
        let settings = self.store.settings(&self.node).await?;
        let networks = settings
            .pools
            .iter()
            .filter_map(|pool| Some((pool, pool.spec.network().ok()?)));
        let mut holding = networks.filter(|(_, network)| network.contains(address));
        if let Some(network) = holding
            .next()
            .and_then(|(pool, _)| cidr::enclosing(address, pool.spec.block_prefix()))
            && self.read::<IPAMBlockSpec>(&block_name(network), 1).await?.is_some()
        {
            return Ok(Some(network.to_string()));
        }
        // The pool is gone, or was made anew with other blocks.
        let blocks = self.store.list::<IPAMBlockSpec>(None).await?;
        let has = |stored: &Stored<IPAMBlockSpec>| block::network(&stored.spec).is_ok_and(|n| n.contains(address));
        Ok(blocks.into_iter().find(has).map(|stored| stored.spec.cidr))
    }
}
