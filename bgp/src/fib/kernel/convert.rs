//! Between the RIB's view of routes and the kernel's.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use margay_netlink::{Addr, NextHop, Route, RouteKind};

use super::KernelConfig;
use crate::fib::{FibHop, FibRoute, LocalAddress, Sources, Topology, UnderlayRoute};

/// How a route of ours is written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Style {
    pub(super) config: KernelConfig,
    pub(super) sources: Sources,
}

pub(super) fn to_kernel(prefix: &IpNetwork, route: &FibRoute, style: &Style) -> Route {
    let mut base = match route {
        FibRoute::Blackhole => Route::blackhole(*prefix),
        FibRoute::Unicast(hops) => hops.iter().fold(Route::unicast(*prefix), |r, hop| {
            r.hop(NextHop::via_dev(hop.via, hop.oif))
        }),
    };
    base.src = style.source(prefix, route);
    let config = &style.config;
    base.protocol(config.protocol).table(config.table).metric(config.metric)
}

/// `None` when we would never write it like that.
pub(super) fn from_kernel(route: &Route, style: &Style) -> Option<FibRoute> {
    if route.metric != Some(style.config.metric) {
        return None;
    }
    let found = read(route)?;
    (style.source(&route.dst, &found) == route.src).then_some(found)
}

impl Style {
    fn source(&self, prefix: &IpNetwork, route: &FibRoute) -> Option<IpAddr> {
        match route {
            FibRoute::Unicast(_) => self.sources.towards(prefix),
            FibRoute::Blackhole => None,
        }
    }
}

fn read(route: &Route) -> Option<FibRoute> {
    match route.kind {
        RouteKind::Blackhole => Some(FibRoute::Blackhole),
        RouteKind::Unicast => {
            let hop = |h: &NextHop| {
                Some(FibHop {
                    via: h.via?,
                    oif: h.oif?,
                })
            };
            let mut hops = route
                .next_hops
                .iter()
                .map(hop)
                .collect::<Option<smallvec::SmallVec<_>>>()?;
            hops.sort_unstable();
            Some(FibRoute::Unicast(hops))
        }
        _ => None,
    }
}

pub(super) fn topology(addrs: &[Addr], routes: &[Route], own_protocol: u8) -> Topology {
    let addresses = addrs.iter().filter(|a| !a.tentative).map(|a| LocalAddress {
        addr: a.network.ip(),
        oif: a.link,
    });
    let underlay = routes.iter().filter_map(|r| {
        let usable = r.protocol != own_protocol && r.kind == RouteKind::Unicast && r.dst.prefix() > 0;
        let hop = r.next_hops.iter().find(|h| !h.dead)?;
        let link_local = matches!(r.dst.ip(), IpAddr::V6(v6) if v6.is_unicast_link_local());
        (usable && !link_local).then_some(UnderlayRoute {
            prefix: r.dst,
            via: hop.via,
            oif: hop.oif?,
        })
    });
    let mut topology = Topology {
        routes: underlay.collect(),
        addresses: addresses.collect(),
    };
    topology.routes.sort_unstable();
    topology.routes.dedup();
    topology.addresses.sort_unstable();
    topology
}
