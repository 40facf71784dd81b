//! Looking without touching.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use margay_api::cidr;
use margay_api::v3::{IPAMBlockSpec, IPAMHandleSpec};

use super::Allocator;
use crate::block::{self, Allocation};
use crate::error::Error;
use crate::names::{block_name, handle_name};
use crate::store::Store;

/// What a node announces: its blocks whole, and what it borrowed one by one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeBlocks {
    /// Its blocks, those whose claim is confirmed.
    pub owned: Vec<IPAMBlockSpec>,
    /// Addresses it took of other blocks.
    pub borrowed: Vec<IpAddr>,
}

/// How full a pool is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolUse {
    /// Its name.
    pub pool: String,
    /// Its CIDR.
    pub cidr: IpNetwork,
    /// Its addresses.
    pub capacity: u128,
    /// Its blocks that exist.
    pub blocks: usize,
    /// Its addresses in use.
    pub used: usize,
    /// Its addresses in use on another node than the block's owner.
    pub borrowed: usize,
    /// The same by node.
    pub nodes: BTreeMap<String, NodeUse>,
}

/// A node's share of a pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeUse {
    /// Blocks it owns.
    pub blocks: usize,
    /// Addresses it uses, borrowed ones included.
    pub used: usize,
    /// Addresses it uses of others' blocks.
    pub borrowed: usize,
}

impl<S: Store> Allocator<S> {
    /// What `node` owns and has borrowed.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn blocks_of(&self, node: &str) -> Result<NodeBlocks, Error> {
        let confirmed: Vec<String> = self
            .affinities(node)
            .await?
            .into_iter()
            .filter(|affinity| affinity.spec.state.is_confirmed())
            .map(|affinity| affinity.spec.cidr)
            .collect();
        let mut found = NodeBlocks::default();
        for stored in self.store.list::<IPAMBlockSpec>(None).await? {
            found.borrowed.extend(block::borrowed_by(&stored.spec, node));
            if block::owner(&stored.spec) == Some(node) && confirmed.contains(&stored.spec.cidr) {
                found.owned.push(stored.spec);
            }
        }
        Ok(found)
    }

    /// Addresses that were taken in `node`'s name, of its own blocks and of others.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn allocations_of(&self, node: &str) -> Result<Vec<Allocation>, Error> {
        let blocks = self.store.list::<IPAMBlockSpec>(None).await?;
        let all = blocks.iter().flat_map(|stored| block::allocations(&stored.spec));
        Ok(all.filter(|allocation| allocation.node() == Some(node)).collect())
    }

    /// Addresses of a handle.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn addresses_of(&self, handle: &str) -> Result<Vec<IpAddr>, Error> {
        let Some(stored) = self.read_latest::<IPAMHandleSpec>(&handle_name(handle)).await? else {
            return Ok(Vec::new());
        };
        let mut addresses = Vec::new();
        for network in stored.spec.block.keys().filter_map(|text| cidr::parse(text).ok()) {
            let Some(stored) = self.read_latest::<IPAMBlockSpec>(&block_name(network)).await? else {
                continue;
            };
            let its = block::allocations(&stored.spec)
                .into_iter()
                .filter(|a| a.handle.as_deref() == Some(handle));
            addresses.extend(its.map(|allocation| allocation.address));
        }
        Ok(addresses)
    }

    /// How full the pools are, by name.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn utilization(&self) -> Result<Vec<PoolUse>, Error> {
        let settings = self.store.settings(&self.node).await?;
        let blocks = self.store.list::<IPAMBlockSpec>(None).await?;
        let mut uses: Vec<PoolUse> = Vec::new();
        for pool in &settings.pools {
            let Ok(network) = pool.spec.network() else { continue };
            let capacity = cidr::count(network, cidr::width(network.ip())).unwrap_or(u128::MAX);
            let mut usage = PoolUse {
                pool: pool.name.clone(),
                cidr: network,
                capacity,
                blocks: 0,
                used: 0,
                borrowed: 0,
                nodes: BTreeMap::new(),
            };
            let specs = blocks.iter().map(|stored| &stored.spec);
            for spec in specs.filter(|spec| block::network(spec).is_ok_and(|inner| cidr::contains(network, inner))) {
                usage.add(spec);
            }
            uses.push(usage);
        }
        uses.sort_by(|a, b| a.pool.cmp(&b.pool));
        Ok(uses)
    }
}

impl PoolUse {
    fn add(&mut self, spec: &IPAMBlockSpec) {
        self.blocks += 1;
        let owner = block::owner(spec);
        if let Some(owner) = owner {
            self.nodes.entry(owner.to_owned()).or_default().blocks += 1;
        }
        for allocation in block::allocations(spec) {
            let node = allocation.node().or(owner);
            let borrowed = usize::from(node != owner);
            self.used += 1;
            self.borrowed += borrowed;
            if let Some(node) = node {
                let share = self.nodes.entry(node.to_owned()).or_default();
                share.used += 1;
                share.borrowed += borrowed;
            }
        }
    }
}
