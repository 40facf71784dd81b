//! Next hops: through connected networks and routes of others, or recursively through the Loc-RIB.

use std::net::{IpAddr, Ipv6Addr};

use ipnetwork::IpNetwork;
use rustc_hash::{FxHashMap, FxHashSet};
use smallvec::SmallVec;

use super::Desired;
use crate::fib::{FibHop, FibRoute, Topology};
use crate::prefix::{Family, covers, host, truncate};
use crate::wire::NextHop;

/// Longest chain of routes that each lead to the next one's next hop.
const MAX_DEPTH: u8 = 8;

/// Below this many next hops it is not worth asking which are in use.
const FIRST_SWEEP: usize = 1024;

/// A next hop as the resolver tells them apart: link-local addresses mean something on one interface only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct HopKey {
    addr: Option<IpAddr>,
    link_local: Option<Ipv6Addr>,
    oif: Option<u32>,
}

impl HopKey {
    pub(super) fn new(next_hop: Option<NextHop>, oif: Option<u32>) -> Self {
        let link_local = next_hop.and_then(|n| n.link_local);
        let addr = next_hop.map(|n| n.addr);
        HopKey {
            addr,
            link_local,
            oif: oif.filter(|_| link_local.is_some()),
        }
    }
}

/// How a next hop is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Resolved {
    pub(super) hops: SmallVec<[FibHop; 2]>,
    /// 0 when connected, growing with each step away.
    pub(super) cost: u32,
    /// Routes of ours on the way.
    pub(super) depth: u8,
    /// The network it was found in.
    matched: IpNetwork,
    /// What kind of route that network is.
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// On an interface's network; no route of ours, however specific, comes before that.
    Connected,
    /// Behind a route that somebody else has put there.
    Foreign,
    /// Behind a route of ours.
    Recursive,
}

#[derive(Debug, Default)]
pub(super) struct Resolver {
    topology: Topology,
    connected: FxHashSet<IpNetwork>,
    cache: FxHashMap<HopKey, Known>,
    /// Next hops in use at the last sweep.
    swept: usize,
}

/// What is known of a next hop.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
struct Known {
    resolved: Option<Resolved>,
    /// Routes of ours may lead there if their prefixes are at least so long; `None` when no route of ours matters.
    recursive_from: Option<u8>,
}

impl Known {
    fn fixed(resolved: Option<Resolved>) -> Self {
        Known {
            resolved,
            recursive_from: None,
        }
    }
}

impl Resolver {
    /// Takes a new topology; false when nothing in it differs.
    pub(super) fn set_topology(&mut self, topology: Topology) -> bool {
        if self.topology == topology {
            return false;
        }
        self.connected = topology
            .routes
            .iter()
            .filter(|r| r.via.is_none())
            .map(|r| r.prefix)
            .collect();
        self.topology = topology;
        self.cache.clear();
        true
    }

    pub(super) fn is_connected(&self, prefix: &IpNetwork) -> bool {
        self.connected.contains(prefix)
    }

    pub(super) fn interface_of(&self, local: IpAddr) -> Option<u32> {
        self.topology.addresses.iter().find(|a| a.addr == local).map(|a| a.oif)
    }

    /// A global address of `family` on the interface that has `local`.
    pub(super) fn sibling(&self, local: IpAddr, family: Family) -> Option<IpAddr> {
        let oif = self.interface_of(local)?;
        let global = |addr: &IpAddr| match addr {
            IpAddr::V4(v4) => !v4.is_link_local() && !v4.is_loopback(),
            IpAddr::V6(v6) => !v6.is_unicast_link_local() && !v6.is_loopback(),
        };
        let on_it = self.topology.addresses.iter().filter(|a| a.oif == oif).map(|a| a.addr);
        on_it.filter(|a| Family::of_addr(a) == family && global(a)).min()
    }

    /// Looks a next hop up, unless it is known.
    pub(super) fn learn(&mut self, key: HopKey, routes: &FxHashMap<IpNetwork, Desired>) {
        if !self.cache.contains_key(&key) {
            let known = self.look_up(&key, routes);
            self.cache.insert(key, known);
        }
    }

    /// How a route to `prefix` reaches a next hop that was learnt.
    ///
    /// A route cannot lead to its own next hop (RFC 4271 section 9.1.2.1): when the prefix contains the next hop, only
    /// a more specific route can. Asking for that whether the route is in use or not keeps the answer from swinging.
    pub(super) fn resolve(&self, key: &HopKey, prefix: &IpNetwork) -> Option<&Resolved> {
        let inside = key.addr.is_some_and(|addr| covers(prefix, &host(addr)));
        self.cached(key)
            .filter(|r| r.kind == Kind::Connected || !inside || r.matched.prefix() > prefix.prefix())
    }

    #[cfg(test)]
    pub(super) fn known(&self) -> usize {
        self.cache.len()
    }

    /// Whether the next hops have doubled since the last sweep.
    pub(super) fn wants_sweep(&self) -> bool {
        self.cache.len() >= FIRST_SWEEP.max(2 * self.swept)
    }

    /// Forgets the next hops nobody uses any more.
    pub(super) fn sweep(&mut self, used: &FxHashSet<HopKey>) {
        self.cache.retain(|key, _| used.contains(key));
        self.swept = self.cache.len();
    }

    pub(super) fn cached(&self, key: &HopKey) -> Option<&Resolved> {
        self.cache.get(key)?.resolved.as_ref()
    }

    /// Whether the next hop is on a connected network, so that it depends on no route of ours.
    pub(super) fn is_direct(&self, key: &HopKey) -> bool {
        self.cached(key).is_some_and(|r| r.kind == Kind::Connected)
    }

    /// Every prefix that a route of ours to this next hop could have, for a route to `prefix`.
    pub(super) fn ways(&self, key: &HopKey, prefix: &IpNetwork) -> impl Iterator<Item = IpNetwork> + use<> {
        let known = key.addr.zip(self.cache.get(key).and_then(|k| k.recursive_from));
        let inside = key.addr.is_some_and(|addr| covers(prefix, &host(addr)));
        let longer = if inside { prefix.prefix() + 1 } else { 0 };
        known.into_iter().flat_map(move |(addr, from)| {
            let lengths = from.max(longer)..=Family::of_addr(&addr).bits();
            lengths.map(move |len| truncate(addr, len))
        })
    }

    /// Whether a route to one of these prefixes may lead to a next hop in use.
    pub(super) fn any_leads_through(&self, prefixes: &[IpNetwork]) -> bool {
        let through = |addr: IpAddr, from: u8| {
            let on_the_way = |p: &IpNetwork| p.prefix() >= from && covers(p, &host(addr));
            prefixes.iter().any(on_the_way)
        };
        let mut known = self.cache.iter();
        !prefixes.is_empty()
            && known.any(|(k, r)| k.addr.zip(r.recursive_from).is_some_and(|(a, from)| through(a, from)))
    }

    /// Resolves again what the changed routes may concern; the next hops that moved.
    pub(super) fn invalidate(
        &mut self,
        changed: &[IpNetwork],
        routes: &FxHashMap<IpNetwork, Desired>,
    ) -> FxHashSet<HopKey> {
        let concerned = |key: &HopKey, known: &Known| {
            let (Some(addr), Some(_)) = (key.addr, known.recursive_from) else {
                return false;
            };
            let matched = known.resolved.as_ref().map_or(0, |r| r.matched.prefix());
            changed.iter().any(|p| p.prefix() >= matched && covers(p, &host(addr)))
        };
        let keys: Vec<HopKey> = self
            .cache
            .iter()
            .filter(|(k, r)| concerned(k, r))
            .map(|(k, _)| *k)
            .collect();
        let mut moved = FxHashSet::default();
        for key in keys {
            let now = self.look_up(&key, routes);
            if self.cache.get(&key) != Some(&now) {
                self.cache.insert(key, now);
                moved.insert(key);
            }
        }
        moved
    }

    fn look_up(&self, key: &HopKey, routes: &FxHashMap<IpNetwork, Desired>) -> Known {
        let Some(addr) = key
            .addr
            .filter(|a| self.topology.addresses.iter().all(|own| own.addr != *a))
        else {
            return Known::fixed(None);
        };
        let connected = |via: IpAddr, oif, matched| {
            Known::fixed(Some(Resolved {
                hops: SmallVec::from_slice(&[FibHop { via, oif }]),
                cost: 0,
                depth: 0,
                matched,
                kind: Kind::Connected,
            }))
        };
        let underlay = self
            .topology
            .routes
            .iter()
            .filter(|r| covers(&r.prefix, &host(addr)))
            .max_by_key(|r| r.prefix.prefix());
        let only_local = matches!(addr, IpAddr::V6(v6) if v6.is_unicast_link_local());
        if let Some(route) = underlay.filter(|r| r.via.is_none() && !only_local) {
            return connected(addr, route.oif, route.prefix);
        }
        // RFC 2545 section 3: a link-local address is only told on the network that it is on.
        if let (Some(local), Some(oif)) = (key.link_local, key.oif) {
            return connected(local.into(), oif, host(addr));
        }
        if only_local {
            return Known::fixed(None);
        }
        // A default route of ours resolves nothing: it would hide that a next hop is gone.
        let from = underlay.map_or(1, |r| r.prefix.prefix() + 1);
        let recursive = (from..=Family::of_addr(&addr).bits())
            .rev()
            .map(|len| truncate(addr, len))
            .find_map(|p| routes.get(&p).map(|route| (p, route)));
        let resolved = match (recursive, underlay) {
            (Some((matched, desired)), _) => match &desired.route {
                FibRoute::Unicast(hops) if desired.depth < MAX_DEPTH => Some(Resolved {
                    hops: hops.clone(),
                    cost: 10 + u32::from(desired.depth),
                    depth: desired.depth + 1,
                    matched,
                    kind: Kind::Recursive,
                }),
                FibRoute::Unicast(_) | FibRoute::Blackhole => None,
            },
            (None, Some(route)) => Some(Resolved {
                hops: SmallVec::from_slice(&[FibHop {
                    via: route.via.unwrap_or(addr),
                    oif: route.oif,
                }]),
                cost: 1,
                depth: 0,
                matched: route.prefix,
                kind: Kind::Foreign,
            }),
            (None, None) => None,
        };
        Known {
            resolved,
            recursive_from: Some(from),
        }
    }
}
