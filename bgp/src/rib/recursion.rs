//! Routes that lead to each other's next hops (RFC 4271 section 9.1.2.1).
//!
//! What leads where is judged by what routes could use, not by what they use now: were a next hop given up because of
//! the route in use and taken again once that is gone, the two would swing for ever. Of routes that could lead to each
//! other in a circle, each may only use those before it in [`Rib::order`]. So no circle is ever closed, and the same
//! routes always give the same answer, in whatever order they came.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use rustc_hash::FxHashSet;
use smallvec::SmallVec;

use super::resolver::HopKey;
use super::{Path, Rib, decision};

/// Routes looked at in search of a circle; whatever leads through more is taken for one.
const MAX_SEARCH: usize = 64;

/// How a route may depend on others of ours.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(super) struct Leads {
    /// It has a path that depends on none.
    direct: bool,
    /// Next hops behind others, of paths that are not worse than that one.
    hops: SmallVec<[HopKey; 1]>,
}

impl Leads {
    /// Whether it may depend on others at all.
    pub(super) fn any(&self) -> bool {
        !self.hops.is_empty()
    }
}

impl Rib {
    /// Looks up the next hops of a prefix's paths and notes what they may depend on; true when that changed.
    pub(super) fn find_leads(&mut self, prefix: IpNetwork, paths: &[Path]) -> bool {
        for path in paths {
            let key = self.hop_key(path);
            self.resolver.learn(key, &self.desired);
        }
        let preferences = paths.iter().filter_map(|path| {
            let key = self.hop_key(path);
            let direct = path.next_hop.is_none() || self.resolver.is_direct(&key);
            Some((decision::preference(&self.candidate(path)?), direct, key))
        });
        let preferences: Vec<_> = preferences.collect();
        let certain = preferences.iter().filter(|p| p.1).map(|p| p.0).min();
        let not_worse = |p: &_| certain.is_none_or(|c| *p <= c);
        let behind = preferences.iter().filter(|p| !p.1 && not_worse(&p.0)).map(|p| p.2);
        let leads = Leads {
            direct: certain.is_some(),
            hops: behind.collect(),
        };
        let Some(entry) = self.table.get_mut(&prefix) else {
            return false;
        };
        std::mem::replace(&mut entry.leads, leads) != entry.leads
    }

    /// Whether a path to `prefix` may use this next hop now.
    pub(super) fn is_reachable(&self, prefix: &IpNetwork, key: &HopKey) -> bool {
        self.resolver.resolve(key, prefix).is_some() && !self.is_mutual(prefix, key)
    }

    /// Whether routes to this next hop could lead through `prefix`, and it is not for them to give way.
    fn is_mutual(&self, prefix: &IpNetwork, key: &HopKey) -> bool {
        let ways = self.resolver.ways(key, prefix);
        ways.filter(|way| self.table.contains_key(way))
            .any(|way| self.order(&way) >= self.order(prefix) && self.leads_to(way, prefix))
    }

    /// Routes that can do without others come first, then the wider ones.
    fn order(&self, prefix: &IpNetwork) -> (bool, u8, IpAddr) {
        let direct = self.table.get(prefix).is_some_and(|e| e.leads.direct);
        (!direct, prefix.prefix(), prefix.ip())
    }

    fn leads_to(&self, from: IpNetwork, prefix: &IpNetwork) -> bool {
        let (mut seen, mut next) = (FxHashSet::from_iter([from]), vec![from]);
        while let Some(at) = next.pop() {
            if at == *prefix || seen.len() > MAX_SEARCH {
                return true;
            }
            let Some(entry) = self.table.get(&at) else { continue };
            let ways = entry.leads.hops.iter().flat_map(|key| self.resolver.ways(key, &at));
            next.extend(ways.filter(|way| self.table.contains_key(way) && seen.insert(*way)));
        }
        false
    }
}
