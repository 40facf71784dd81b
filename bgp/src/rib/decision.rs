//! The decision process of RFC 4271 section 9.1.2, with the tie breakers of RFC 4456 section 9.

use std::cmp::Reverse;
use std::net::{IpAddr, Ipv4Addr};

use smallvec::SmallVec;

use super::PeerId;
use crate::wire::{Origin, PathAttributes};

/// LOCAL_PREF of a path that carries none.
pub(super) const DEFAULT_LOCAL_PREF: u32 = 100;

/// A path whose next hop is reachable.
#[derive(Clone, Debug)]
pub(super) struct Candidate<'a> {
    pub(super) peer: PeerId,
    pub(super) attributes: &'a PathAttributes,
    /// One of our own networks: always preferred.
    pub(super) local: bool,
    pub(super) ebgp: bool,
    /// Interior cost to the next hop.
    pub(super) cost: u32,
    pub(super) router_id: Ipv4Addr,
    pub(super) address: IpAddr,
}

/// The best path's peer first, then those of equal paths to use beside it, at most `max_paths` together.
pub(super) fn select(mut paths: Vec<Candidate<'_>>, max_paths: usize, relax: bool) -> SmallVec<[PeerId; 4]> {
    keep_best(&mut paths, preference);
    // MEDs compare only between paths through the same neighbouring AS; without one counts as 0.
    let meds: Vec<_> = paths
        .iter()
        .map(|c| (c.attributes.as_path.neighbor_as(), med(c)))
        .collect();
    paths.retain(|c| {
        let neighbor = c.attributes.as_path.neighbor_as();
        !meds.iter().any(|(other, lower)| *other == neighbor && *lower < med(c))
    });
    keep_best(&mut paths, |c| Reverse(c.ebgp));
    keep_best(&mut paths, |c| c.cost);
    paths.sort_by_key(|c| {
        let originator = c.attributes.originator_id.unwrap_or(c.router_id);
        (originator, c.attributes.cluster_list.len(), c.address, c.peer)
    });
    let Some(best) = paths.first() else {
        return SmallVec::new();
    };
    let equal = |c: &&Candidate<'_>| relax || c.attributes.as_path == best.attributes.as_path;
    paths
        .iter()
        .filter(equal)
        .take(if best.local { 1 } else { max_paths.max(1) })
        .map(|c| c.peer)
        .collect()
}

/// The first steps, which look at nothing but the path itself; the least comes first.
pub(super) fn preference(candidate: &Candidate<'_>) -> (Reverse<bool>, Reverse<u32>, usize, Origin) {
    let attributes = candidate.attributes;
    let local_pref = attributes.local_pref.unwrap_or(DEFAULT_LOCAL_PREF);
    let length = attributes.as_path.length();
    (Reverse(candidate.local), Reverse(local_pref), length, attributes.origin)
}

fn med(candidate: &Candidate<'_>) -> u32 {
    candidate.attributes.med.unwrap_or(0)
}

fn keep_best<K: Ord>(paths: &mut Vec<Candidate<'_>>, key: impl Fn(&Candidate<'_>) -> K) {
    if let Some(best) = paths.iter().map(&key).min() {
        paths.retain(|c| key(c) == best);
    }
}

#[cfg(test)]
mod tests;
