//! Routes to and from netlink messages (rtnetlink(7), `RTM_NEWROUTE`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteMetric, RouteNextHop, RouteNextHopFlags,
    RouteProtocol, RouteScope, RouteType, RouteVia,
};

use super::{Family, NextHop, Route, RouteFilter, RouteKind, Scope};
use crate::error::{Error, Result};

impl Route {
    pub(crate) fn to_message(&self) -> Result<RouteMessage> {
        self.check()?;
        if self.kind == RouteKind::Unicast && self.next_hops.is_empty() {
            return Err(Error::invalid(
                self.to_string(),
                "has no next hop; add one or make it a blackhole",
            ));
        }
        let mut message = header(self);
        if let Some(metric) = self.metric {
            message.attributes.push(RouteAttribute::Priority(metric));
        }
        if let Some(src) = self.src {
            message.attributes.push(RouteAttribute::PrefSource(src.into()));
        }
        if let Some(mtu) = self.mtu {
            message
                .attributes
                .push(RouteAttribute::Metrics(vec![RouteMetric::Mtu(mtu)]));
        }
        match self.next_hops.as_slice() {
            [] => {}
            [hop] => {
                message.attributes.extend(gateway(self.dst, hop.via));
                message.attributes.extend(hop.oif.map(RouteAttribute::Oif));
                message.header.flags.set(RouteFlags::Onlink, hop.onlink);
            }
            hops => {
                let hops = hops.iter().map(|hop| {
                    let mut next = RouteNextHop::default();
                    next.hops = u8::try_from(hop.weight - 1).unwrap_or(u8::MAX);
                    next.interface_index = hop.oif.unwrap_or(0);
                    next.flags.set(RouteNextHopFlags::Onlink, hop.onlink);
                    next.attributes.extend(gateway(self.dst, hop.via));
                    next
                });
                message.attributes.push(RouteAttribute::MultiPath(hops.collect()));
            }
        }
        Ok(message)
    }

    /// What identifies the route for deletion: its next hops are not compared.
    pub(crate) fn to_deletion(&self) -> Result<RouteMessage> {
        self.check()?;
        let mut message = header(self);
        message.header.scope = RouteScope::NoWhere;
        message.attributes.extend(self.metric.map(RouteAttribute::Priority));
        Ok(message)
    }

    /// `None` for routes that are not ours to see: cached ones, other families.
    pub(crate) fn from_message(message: RouteMessage) -> Option<Self> {
        let header = message.header;
        let unspecified = match header.address_family {
            AddressFamily::Inet => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            AddressFamily::Inet6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            _ => return None,
        };
        if header.flags.contains(RouteFlags::Cloned) {
            return None;
        }
        let mut destination = unspecified;
        let mut single = NextHop {
            via: None,
            oif: None,
            weight: 1,
            onlink: false,
            dead: false,
        };
        single.onlink = header.flags.contains(RouteFlags::Onlink);
        single.dead = header.flags.intersects(RouteFlags::Dead | RouteFlags::Linkdown);
        let mut route = Self::unicast(IpNetwork::new(unspecified, 0).ok()?);
        route.table = u32::from(header.table);
        route.protocol = header.protocol.into();
        route.kind = RouteKind::from_code(header.kind);
        route.scope = Scope::from_u8(header.scope.into());
        for attribute in message.attributes {
            match attribute {
                RouteAttribute::Destination(address) => destination = ip(&address)?,
                RouteAttribute::Table(table) => route.table = table,
                RouteAttribute::Priority(metric) => route.metric = Some(metric),
                RouteAttribute::PrefSource(address) => route.src = ip(&address),
                RouteAttribute::Gateway(address) => single.via = ip(&address),
                RouteAttribute::Via(via) => single.via = via_ip(&via),
                RouteAttribute::Oif(index) => single.oif = Some(index),
                RouteAttribute::Metrics(metrics) => {
                    for metric in metrics {
                        if let RouteMetric::Mtu(mtu) = metric {
                            route.mtu = Some(mtu);
                        }
                    }
                }
                RouteAttribute::MultiPath(hops) => route.next_hops = hops.iter().map(next_hop).collect(),
                _ => {}
            }
        }
        route.dst = IpNetwork::new(destination, header.destination_prefix_length).ok()?;
        let forwards = !matches!(
            route.kind,
            RouteKind::Blackhole | RouteKind::Unreachable | RouteKind::Prohibit | RouteKind::Throw
        );
        if forwards && route.next_hops.is_empty() && (single.via.is_some() || single.oif.is_some()) {
            route.next_hops.push(single);
        }
        Some(route)
    }

    fn check(&self) -> Result<()> {
        let refuse = |reason: String| Err(Error::invalid(self.to_string(), reason));
        if self.dst.ip() != self.dst.network() {
            return refuse(format!(
                "has host bits; use {}/{}",
                self.dst.network(),
                self.dst.prefix()
            ));
        }
        for hop in &self.next_hops {
            if hop.weight == 0 || hop.weight > 256 {
                return refuse(format!("weight {} is not in 1 to 256", hop.weight));
            }
            if self.dst.is_ipv6() && hop.via.is_some_and(|via| via.is_ipv4()) {
                return refuse("an IPv6 destination needs an IPv6 next hop".into());
            }
        }
        Ok(())
    }
}

impl RouteFilter {
    /// The dump request for one family.
    pub(crate) fn to_message(self, family: Family) -> RouteMessage {
        let mut message = RouteMessage::default();
        message.header.address_family = family.code();
        message.header.protocol = RouteProtocol::from(self.protocol.unwrap_or(0));
        message.attributes.extend(self.table.map(RouteAttribute::Table));
        message.attributes.extend(self.oif.map(RouteAttribute::Oif));
        message
    }
}

impl RouteKind {
    fn from_code(kind: RouteType) -> Self {
        match kind {
            RouteType::Unicast => Self::Unicast,
            RouteType::Local => Self::Local,
            RouteType::Broadcast => Self::Broadcast,
            RouteType::Anycast => Self::Anycast,
            RouteType::Multicast => Self::Multicast,
            RouteType::BlackHole => Self::Blackhole,
            RouteType::Unreachable => Self::Unreachable,
            RouteType::Prohibit => Self::Prohibit,
            RouteType::Throw => Self::Throw,
            other => Self::Other(other.into()),
        }
    }

    fn code(self) -> RouteType {
        match self {
            Self::Unicast => RouteType::Unicast,
            Self::Local => RouteType::Local,
            Self::Broadcast => RouteType::Broadcast,
            Self::Anycast => RouteType::Anycast,
            Self::Multicast => RouteType::Multicast,
            Self::Blackhole => RouteType::BlackHole,
            Self::Unreachable => RouteType::Unreachable,
            Self::Prohibit => RouteType::Prohibit,
            Self::Throw => RouteType::Throw,
            Self::Other(number) => number.into(),
        }
    }
}

fn header(route: &Route) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = route.family().code();
    message.header.destination_prefix_length = route.dst.prefix();
    message.header.protocol = RouteProtocol::from(route.protocol);
    message.header.scope = RouteScope::from(route.scope.to_u8());
    message.header.kind = route.kind.code();
    match u8::try_from(route.table) {
        Ok(table) => message.header.table = table,
        Err(_) => message.attributes.push(RouteAttribute::Table(route.table)),
    }
    if route.dst.prefix() > 0 {
        message
            .attributes
            .push(RouteAttribute::Destination(route.dst.ip().into()));
    }
    message
}

/// An IPv6 router of an IPv4 route has an attribute of its own.
fn gateway(dst: IpNetwork, via: Option<IpAddr>) -> Option<RouteAttribute> {
    match (dst, via?) {
        (IpNetwork::V4(_), IpAddr::V6(via)) => Some(RouteAttribute::Via(RouteVia::Inet6(via))),
        (_, via) => Some(RouteAttribute::Gateway(via.into())),
    }
}

fn next_hop(hop: &RouteNextHop) -> NextHop {
    let via = hop.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Gateway(address) => ip(address),
        RouteAttribute::Via(via) => via_ip(via),
        _ => None,
    });
    NextHop {
        via,
        oif: Some(hop.interface_index).filter(|index| *index != 0),
        weight: u16::from(hop.hops) + 1,
        onlink: hop.flags.contains(RouteNextHopFlags::Onlink),
        dead: hop
            .flags
            .intersects(RouteNextHopFlags::Dead | RouteNextHopFlags::Linkdown),
    }
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some(IpAddr::V4(*v4)),
        RouteAddress::Inet6(v6) => Some(IpAddr::V6(*v6)),
        _ => None,
    }
}

fn via_ip(via: &RouteVia) -> Option<IpAddr> {
    match via {
        RouteVia::Inet(v4) => Some(IpAddr::V4(*v4)),
        RouteVia::Inet6(v6) => Some(IpAddr::V6(*v6)),
        _ => None,
    }
}
