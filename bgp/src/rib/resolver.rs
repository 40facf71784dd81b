//! Next hops: through connected networks and routes of others, or recursively through the Loc-RIB.

use std::net::{IpAddr, Ipv6Addr};

use ipnetwork::IpNetwork;
use rustc_hash::{FxHashMap, FxHashSet};
use smallvec::SmallVec;

use super::Desired;
use crate::fib::{FibHop, FibRoute, Topology};
use crate::prefix::{Family, covers, host, truncate};
use crate::wire::NextHop;

/// Routes that lead to each other's next hops keep each other alive; the count of steps shows it.
const MAX_DEPTH: u8 = 8;

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
    cache: FxHashMap<HopKey, Option<Resolved>>,
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

    /// Resolves a next hop for a route to `prefix`.
    ///
    /// A route cannot lead to its own next hop (RFC 4271 section 9.1.2.1): when the prefix contains the next hop, only
    /// a more specific route can. Asking for that whether the route is in use or not keeps the answer from swinging.
    pub(super) fn resolve(
        &mut self,
        key: HopKey,
        prefix: &IpNetwork,
        routes: &FxHashMap<IpNetwork, Desired>,
    ) -> Option<&Resolved> {
        if !self.cache.contains_key(&key) {
            let resolved = self.look_up(&key, routes);
            self.cache.insert(key, resolved);
        }
        let inside = key.addr.is_some_and(|addr| covers(prefix, &host(addr)));
        self.cached(&key)
            .filter(|r| r.kind == Kind::Connected || !inside || r.matched.prefix() > prefix.prefix())
    }

    pub(super) fn cached(&self, key: &HopKey) -> Option<&Resolved> {
        self.cache.get(key)?.as_ref()
    }

    /// Resolves again what the changed routes may concern; the next hops that moved.
    pub(super) fn invalidate(
        &mut self,
        changed: &[IpNetwork],
        routes: &FxHashMap<IpNetwork, Desired>,
    ) -> FxHashSet<HopKey> {
        let concerned = |key: &HopKey, resolved: &Option<Resolved>| {
            let Some(addr) = key.addr else { return false };
            let matched = resolved.as_ref().map_or(0, |r| r.matched.prefix());
            let fixed = resolved.as_ref().is_some_and(|r| r.kind == Kind::Connected);
            !fixed && changed.iter().any(|p| p.prefix() >= matched && covers(p, &host(addr)))
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

    fn look_up(&self, key: &HopKey, routes: &FxHashMap<IpNetwork, Desired>) -> Option<Resolved> {
        let addr = key.addr?;
        if self.topology.addresses.iter().any(|a| a.addr == addr) {
            return None;
        }
        let on_link = |via: Ipv6Addr| {
            let hop = FibHop {
                via: via.into(),
                oif: key.oif?,
            };
            Some(Resolved {
                hops: SmallVec::from_slice(&[hop]),
                cost: 0,
                depth: 0,
                matched: host(addr),
                kind: Kind::Connected,
            })
        };
        if matches!(addr, IpAddr::V6(v6) if v6.is_unicast_link_local()) {
            return on_link(key.link_local?);
        }
        let underlay = self
            .topology
            .routes
            .iter()
            .filter(|r| covers(&r.prefix, &host(addr)))
            .max_by_key(|r| r.prefix.prefix());
        if let Some(route) = underlay.filter(|r| r.via.is_none()) {
            let hop = FibHop {
                via: addr,
                oif: route.oif,
            };
            let (hops, kind) = (SmallVec::from_slice(&[hop]), Kind::Connected);
            return Some(Resolved {
                hops,
                cost: 0,
                depth: 0,
                matched: route.prefix,
                kind,
            });
        }
        let floor = underlay.map_or(0, |r| r.prefix.prefix() + 1);
        // A default route of ours resolves nothing: it would hide that a next hop is gone.
        let recursive = (floor.max(1)..=Family::of_addr(&addr).bits())
            .rev()
            .map(|len| truncate(addr, len))
            .find_map(|p| routes.get(&p).map(|route| (p, route)));
        match (recursive, underlay) {
            (Some((matched, desired)), _) => match &desired.route {
                FibRoute::Unicast(hops) if desired.depth < MAX_DEPTH => {
                    let (cost, depth) = (10 + u32::from(desired.depth), desired.depth + 1);
                    Some(Resolved {
                        hops: hops.clone(),
                        cost,
                        depth,
                        matched,
                        kind: Kind::Recursive,
                    })
                }
                FibRoute::Unicast(_) | FibRoute::Blackhole => None,
            },
            (None, Some(route)) => {
                let hop = FibHop {
                    via: route.via.unwrap_or(addr),
                    oif: route.oif,
                };
                let (hops, kind) = (SmallVec::from_slice(&[hop]), Kind::Foreign);
                Some(Resolved {
                    hops,
                    cost: 1,
                    depth: 0,
                    matched: route.prefix,
                    kind,
                })
            }
            (None, None) => key.link_local.and_then(on_link),
        }
    }
}
