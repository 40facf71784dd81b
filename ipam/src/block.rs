//! What can be done to a block, as pure changes of its spec, and what can be read from one.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use margay_api::cidr;
use margay_api::v3::{AllocationAttribute, IPAMBlockSpec};

use crate::error::Error;

/// One address that is given out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allocation {
    /// The address.
    pub address: IpAddr,
    /// The handle it is released by.
    pub handle: Option<String>,
    /// The holder: `pod`, `namespace`, `node`, `timestamp`, ….
    pub attributes: BTreeMap<String, String>,
    /// The block's sequence number when it was given.
    pub sequence: Option<u64>,
}

impl Allocation {
    /// The node that took it.
    pub fn node(&self) -> Option<&str> {
        self.attributes.get("node").map(String::as_str)
    }

    /// The pod, as `namespace/name`.
    pub fn pod(&self) -> Option<String> {
        Some(format!(
            "{}/{}",
            self.attributes.get("namespace")?,
            self.attributes.get("pod")?
        ))
    }

    /// For messages: the pod, else the handle.
    pub fn holder(&self) -> String {
        match (self.pod(), &self.handle) {
            (Some(pod), _) => format!("pod {pod}"),
            (None, Some(handle)) => format!("handle {handle}"),
            (None, None) => "an unnamed holder".to_owned(),
        }
    }
}

/// The block's CIDR.
///
/// # Errors
/// When the text is none.
pub fn network(block: &IPAMBlockSpec) -> Result<IpNetwork, Error> {
    cidr::parse(&block.cidr).map_err(|error| Error::Invalid {
        object: format!("IPAMBlock {}", block.cidr),
        message: error.to_string(),
    })
}

/// The node the block belongs to.
pub fn owner(block: &IPAMBlockSpec) -> Option<&str> {
    block.affinity.as_deref()?.strip_prefix("host:")
}

/// The node that has an address of the block: who took it or, where that is not said, the block's owner.
pub(crate) fn holder<'a>(block: &'a IPAMBlockSpec, allocation: &'a Allocation) -> Option<&'a str> {
    allocation.node().or(owner(block))
}

/// Addresses given out, in order.
pub fn allocations(block: &IPAMBlockSpec) -> Vec<Allocation> {
    let Ok(network) = network(block) else { return Vec::new() };
    let taken = block
        .allocations
        .iter()
        .enumerate()
        .filter_map(|(ordinal, index)| Some((ordinal, (*index)?)));
    taken
        .filter_map(|(ordinal, index)| {
            let attribute = block.attributes.get(index as usize).cloned().unwrap_or_default();
            Some(Allocation {
                address: cidr::offset(network.network(), ordinal as u128)?,
                handle: attribute.handle_id,
                attributes: attribute.secondary,
                sequence: block.sequence_number_for_allocation.get(&ordinal.to_string()).copied(),
            })
        })
        .collect()
}

/// Addresses of the block that `node` took although the block is not its own: they are announced one by one.
pub fn borrowed_by(block: &IPAMBlockSpec, node: &str) -> Vec<IpAddr> {
    if owner(block) == Some(node) {
        return Vec::new();
    }
    allocations(block)
        .into_iter()
        .filter(|a| a.node() == Some(node))
        .map(|a| a.address)
        .collect()
}

/// How many addresses it has.
pub fn capacity(block: &IPAMBlockSpec) -> usize {
    block.allocations.len()
}

/// How many are given out.
pub fn used(block: &IPAMBlockSpec) -> usize {
    block.allocations.iter().flatten().count()
}

/// Whether none is given out.
pub fn is_empty(block: &IPAMBlockSpec) -> bool {
    block.allocations.iter().all(Option::is_none)
}

/// A block that nobody has an address of.
pub(crate) fn new(network: IpNetwork, owner: Option<&str>, claimed: String, sequence: u64) -> IPAMBlockSpec {
    let size = cidr::count(network, cidr::width(network.ip()))
        .and_then(|size| u32::try_from(size).ok())
        .unwrap_or(0);
    IPAMBlockSpec {
        cidr: network.to_string(),
        affinity: owner.map(|node| format!("host:{node}")),
        affinity_claim_time: owner.map(|_| claimed),
        allocations: vec![None; size as usize],
        unallocated: (0..size).collect(),
        sequence_number: sequence,
        ..IPAMBlockSpec::default()
    }
}

/// Takes up to `count` addresses, the longest free first, except those that `refused` names.
pub(crate) fn take(
    block: &mut IPAMBlockSpec,
    count: usize,
    holder: &AllocationAttribute,
    refused: impl Fn(IpAddr) -> bool,
) -> Result<Vec<IpAddr>, Error> {
    let first = network(block)?.network();
    // An entry that is not free after all must not keep the others from being given out.
    let mut seen = BTreeSet::new();
    let free = |ordinal: &u32| block.allocations.get(*ordinal as usize) == Some(&None) && seen.insert(*ordinal);
    block.unallocated.retain(free);
    let free = block
        .unallocated
        .iter()
        .filter_map(|ordinal| Some((*ordinal, cidr::offset(first, (*ordinal).into())?)));
    let chosen: Vec<(u32, IpAddr)> = free.filter(|(_, address)| !refused(*address)).take(count).collect();
    for (ordinal, _) in &chosen {
        mark(block, *ordinal, holder)?;
    }
    Ok(chosen.into_iter().map(|(_, address)| address).collect())
}

/// Takes one address.
pub(crate) fn take_one(block: &mut IPAMBlockSpec, address: IpAddr, holder: &AllocationAttribute) -> Result<(), Error> {
    let ordinal = ordinal(block, address)?;
    if !block.unallocated.contains(&ordinal) {
        let current = allocations(block).into_iter().find(|a| a.address == address);
        let holder = current.map_or_else(|| "an unnamed holder".to_owned(), |a| a.holder());
        return Err(Error::Taken { address, holder });
    }
    mark(block, ordinal, holder)
}

fn mark(block: &mut IPAMBlockSpec, ordinal: u32, holder: &AllocationAttribute) -> Result<(), Error> {
    let index = match block.attributes.iter().position(|attribute| attribute == holder) {
        Some(index) => index,
        None => {
            block.attributes.push(holder.clone());
            block.attributes.len() - 1
        }
    };
    let slot = block
        .allocations
        .get_mut(ordinal as usize)
        .filter(|slot| slot.is_none());
    let slot = slot.ok_or_else(|| Error::Invalid {
        object: format!("IPAMBlock {}", block.cidr),
        message: format!("ordinal {ordinal} is listed as unallocated but is not free"),
    })?;
    *slot = Some(index as u32);
    block.unallocated.retain(|free| *free != ordinal);
    block
        .sequence_number_for_allocation
        .insert(ordinal.to_string(), block.sequence_number);
    Ok(())
}

/// Frees every address that `chosen` holds for; returns them. They go to the end of the queue.
pub(crate) fn free(block: &mut IPAMBlockSpec, chosen: impl Fn(&Allocation) -> bool) -> Vec<Allocation> {
    let freed: Vec<Allocation> = allocations(block)
        .into_iter()
        .filter(|allocation| chosen(allocation))
        .collect();
    for allocation in &freed {
        let Ok(ordinal) = ordinal(block, allocation.address) else {
            continue;
        };
        block.allocations[ordinal as usize] = None;
        block.unallocated.push(ordinal);
        block.sequence_number_for_allocation.remove(&ordinal.to_string());
    }
    drop_unused_attributes(block);
    freed
}

fn drop_unused_attributes(block: &mut IPAMBlockSpec) {
    let mut renumbered = vec![None; block.attributes.len()];
    for index in block.allocations.iter().flatten() {
        if let Some(slot) = renumbered.get_mut(*index as usize) {
            *slot = Some(0);
        }
    }
    for (next, slot) in (0..).zip(renumbered.iter_mut().flatten()) {
        *slot = next;
    }
    let mut index = 0;
    block.attributes.retain(|_| {
        index += 1;
        renumbered[index - 1].is_some()
    });
    for slot in block.allocations.iter_mut().flatten() {
        *slot = renumbered.get(*slot as usize).copied().flatten().unwrap_or(*slot);
    }
}

fn ordinal(block: &IPAMBlockSpec, address: IpAddr) -> Result<u32, Error> {
    let ordinal = cidr::ordinal(network(block)?, address).and_then(|ordinal| u32::try_from(ordinal).ok());
    ordinal
        .filter(|ordinal| (*ordinal as usize) < block.allocations.len())
        .ok_or_else(|| Error::Invalid {
            object: format!("IPAMBlock {}", block.cidr),
            message: format!("{address} is not in it"),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holder(name: &str) -> AllocationAttribute {
        let secondary = BTreeMap::from([
            ("node".to_owned(), "n1".to_owned()),
            ("pod".to_owned(), name.to_owned()),
        ]);
        AllocationAttribute {
            handle_id: Some(name.to_owned()),
            secondary,
            ..Default::default()
        }
    }

    fn block() -> IPAMBlockSpec {
        new(
            cidr::parse("10.0.0.8/29").unwrap(),
            Some("n1"),
            "2026-01-01T00:00:00Z".into(),
            100,
        )
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn addresses_rest_before_they_are_used_again() {
        let mut block = block();
        assert_eq!(
            take(&mut block, 2, &holder("a"), |_| false).unwrap(),
            [ip("10.0.0.8"), ip("10.0.0.9")]
        );
        block.sequence_number += 1;
        assert_eq!(take(&mut block, 1, &holder("b"), |_| false).unwrap(), [ip("10.0.0.10")]);
        assert_eq!(block.attributes, [holder("a"), holder("b")]);
        assert_eq!(block.sequence_number_for_allocation["1"], 100);
        assert_eq!(block.sequence_number_for_allocation["2"], 101);
        let freed = free(&mut block, |allocation| allocation.handle.as_deref() == Some("a"));
        assert_eq!(freed.len(), 2);
        assert_eq!(block.unallocated, [3, 4, 5, 6, 7, 0, 1]);
        assert_eq!(block.attributes, [holder("b")]);
        assert_eq!(block.allocations[2], Some(0));
        assert_eq!(block.sequence_number_for_allocation.len(), 1);
        assert_eq!(
            take(&mut block, 9, &holder("c"), |a| a == ip("10.0.0.12"))
                .unwrap()
                .len(),
            6
        );
        assert_eq!(
            take(&mut block, 1, &holder("c"), |a| a == ip("10.0.0.12")).unwrap(),
            Vec::<IpAddr>::new()
        );
    }

    #[test]
    fn an_entry_that_is_not_free_is_struck_off() {
        let mut block = block();
        take_one(&mut block, ip("10.0.0.9"), &holder("a")).unwrap();
        block.unallocated = vec![1, 99, 2, 2, 3];
        let taken = take(&mut block, 2, &holder("b"), |_| false).unwrap();
        assert_eq!(taken, [ip("10.0.0.10"), ip("10.0.0.11")]);
        assert_eq!(block.unallocated, Vec::<u32>::new());
        block.unallocated = vec![1];
        assert!(take(&mut block, 1, &holder("b"), |_| false).unwrap().is_empty());
    }

    #[test]
    fn a_taken_address_names_its_holder() {
        let mut block = block();
        take_one(&mut block, ip("10.0.0.9"), &holder("a")).unwrap();
        let error = take_one(&mut block, ip("10.0.0.9"), &holder("b")).unwrap_err();
        assert_eq!(error.to_string(), "10.0.0.9 is in use by handle a");
        assert!(take_one(&mut block, ip("10.0.0.7"), &holder("b")).is_err());
        assert_eq!((used(&block), capacity(&block), is_empty(&block)), (1, 8, false));
        assert_eq!(borrowed_by(&block, "n1"), Vec::<IpAddr>::new());
        block.affinity = Some("host:n2".into());
        assert_eq!(borrowed_by(&block, "n1"), [ip("10.0.0.9")]);
    }
}
