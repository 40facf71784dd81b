//! What the tests share: settings, a random generator, and the invariants.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use margay_api::v3::{BlockAffinitySpec, IPAMBlockSpec, IPAMHandleSpec, IPPoolSpec};
use margay_ipam::block;
use margay_ipam::store::memory::Memory;
use margay_ipam::store::{Pool, Settings};
use margay_ipam::{Attributes, Request};

pub(crate) fn pool(name: &str, cidr: &str, block_size: u8) -> Pool {
    let spec = IPPoolSpec {
        cidr: cidr.to_owned(),
        block_size: Some(block_size),
        ..IPPoolSpec::default()
    };
    Pool {
        name: name.to_owned(),
        created: None,
        spec,
    }
}

pub(crate) fn settings(pools: Vec<Pool>) -> Settings {
    Settings {
        pools,
        ..Settings::default()
    }
}

pub(crate) fn request(handle: &str, v4: usize, v6: usize) -> Request {
    let attributes = Attributes {
        pod: Some(handle.to_owned()),
        namespace: Some("ns".to_owned()),
        ..Default::default()
    };
    Request {
        handle: handle.to_owned(),
        attributes,
        v4,
        v6,
        ..Request::default()
    }
}

/// SplitMix64.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    pub(crate) fn chance(&mut self, in_a_thousand: u64) -> bool {
        self.next() % 1000 < in_a_thousand
    }
}

/// What must hold after every step, whatever happened. `held`: addresses that were given out and not asked back, with
/// their handles.
pub(crate) fn check_always(memory: &Memory, held: &BTreeMap<IpAddr, String>) -> Result<(), String> {
    let blocks = memory.snapshot::<IPAMBlockSpec>();
    let mut owners = BTreeMap::new();
    for stored in &blocks {
        let spec = &stored.spec;
        owners.insert(spec.cidr.as_str(), block::owner(spec));
        let mut listed = vec![0; spec.allocations.len()];
        let taken = spec
            .allocations
            .iter()
            .enumerate()
            .filter(|(_, index)| index.is_some())
            .map(|(n, _)| n);
        for ordinal in taken.chain(spec.unallocated.iter().map(|ordinal| *ordinal as usize)) {
            listed[ordinal] += 1;
        }
        if listed.iter().any(|times| *times != 1) {
            return Err(format!("block {} does not list each address once: {spec:?}", spec.cidr));
        }
        if spec
            .allocations
            .iter()
            .flatten()
            .any(|index| *index as usize >= spec.attributes.len())
        {
            return Err(format!(
                "block {} names attributes it does not have: {spec:?}",
                spec.cidr
            ));
        }
    }
    for (address, handle) in held {
        let holder = blocks.iter().find_map(|stored| holder(&stored.spec, *address));
        if holder != Some(handle) {
            return Err(format!("{address} was given to {handle} but its block says {holder:?}"));
        }
    }
    let mut confirmed = BTreeMap::new();
    for stored in memory.snapshot::<BlockAffinitySpec>() {
        let spec = stored.spec;
        if !spec.state.is_confirmed() {
            continue;
        }
        if owners.get(spec.cidr.as_str()) != Some(&Some(&spec.node)) {
            return Err(format!(
                "{} is confirmed but its block says {:?}",
                stored.name,
                owners.get(spec.cidr.as_str())
            ));
        }
        if let Some(other) = confirmed.insert(spec.cidr.clone(), spec.node.clone()) {
            return Err(format!(
                "block {} is confirmed for {other} and {}",
                spec.cidr, spec.node
            ));
        }
    }
    Ok(())
}

/// The handle that a block's own lists give for an address, read without the code under test.
fn holder(spec: &IPAMBlockSpec, address: IpAddr) -> Option<&String> {
    let first: IpAddr = spec.cidr.split('/').next()?.parse().ok()?;
    let ordinal = match (first, address) {
        (IpAddr::V4(first), IpAddr::V4(address)) => u128::from(u32::from(address).checked_sub(u32::from(first))?),
        (IpAddr::V6(first), IpAddr::V6(address)) => u128::from(address).checked_sub(u128::from(first))?,
        _ => return None,
    };
    let index = (*spec.allocations.get(usize::try_from(ordinal).ok()?)?)?;
    spec.attributes.get(index as usize)?.handle_id.as_ref()
}

/// What must hold once everybody has recovered: nothing leaked, every count right.
pub(crate) fn check_settled(memory: &Memory, held: &BTreeMap<IpAddr, String>) -> Result<(), String> {
    check_always(memory, held)?;
    let blocks = memory.snapshot::<IPAMBlockSpec>();
    let mut counts: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for stored in &blocks {
        for allocation in block::allocations(&stored.spec) {
            if !held.contains_key(&allocation.address) {
                return Err(format!("{} leaked: {allocation:?}", allocation.address));
            }
            counts
                .entry(allocation.handle.unwrap_or_default())
                .or_default()
                .insert(stored.spec.cidr.clone());
        }
        let confirmed = memory.snapshot::<BlockAffinitySpec>();
        let is_its = |affinity: &BlockAffinitySpec| {
            affinity.cidr == stored.spec.cidr && Some(affinity.node.as_str()) == block::owner(&stored.spec)
        };
        match &stored.spec.affinity {
            Some(owner) if !confirmed.iter().any(|affinity| is_its(&affinity.spec)) => {
                return Err(format!("{owner} has no claim to {}", stored.spec.cidr));
            }
            None if block::is_empty(&stored.spec) => return Err(format!("{} is nobody's and empty", stored.spec.cidr)),
            _ => {}
        }
    }
    let handles = memory.snapshot::<IPAMHandleSpec>();
    let named: BTreeMap<String, BTreeSet<String>> = handles
        .into_iter()
        .map(|stored| (stored.spec.handle_id, stored.spec.block.into_keys().collect()))
        .collect();
    if named.keys().ne(counts.keys()) || counts.iter().any(|(handle, blocks)| !blocks.is_subset(&named[handle])) {
        return Err(format!("handles {named:?} do not match addresses {counts:?}"));
    }
    for stored in memory.snapshot::<BlockAffinitySpec>() {
        if !stored.spec.state.is_confirmed() {
            return Err(format!("{} is left {:?}", stored.name, stored.spec.state));
        }
    }
    Ok(())
}
