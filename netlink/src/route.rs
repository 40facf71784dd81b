//! Routes.

use std::fmt;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use netlink_packet_route::AddressFamily;

mod message;

/// Well-known routing tables.
pub mod table {
    /// Where routes go by default.
    pub const MAIN: u32 = 254;
    /// Addresses of the host itself.
    pub const LOCAL: u32 = 255;
}

/// A route. Two routes are the same object for the kernel if table, destination and metric are.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Route {
    /// Where it leads: the network's base address and prefix length.
    pub dst: IpNetwork,
    /// Its table, [`table::MAIN`] by default.
    pub table: u32,
    /// Who made it (`/etc/iproute2/rt_protos`): 2 kernel, 3 boot, 4 static, …
    pub protocol: u8,
    /// What happens to its packets.
    pub kind: RouteKind,
    /// How far away the destination is.
    pub scope: Scope,
    /// Less wins. `None`: the kernel's default, which is 0 for IPv4 and 1024 for IPv6 (and then reads as `Some(1024)`).
    pub metric: Option<u32>,
    /// The source address of packets that the host itself sends.
    pub src: Option<IpAddr>,
    /// MTU of the path, in bytes.
    pub mtu: Option<u32>,
    /// The ways; several share the load (ECMP). Empty for kinds that forward nothing.
    pub next_hops: Vec<NextHop>,
}

/// One way of a route.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NextHop {
    /// The router; `None`: the destination is on the link itself. May be IPv6 for an IPv4 route (RFC 8950).
    pub via: Option<IpAddr>,
    /// The interface; the kernel finds it from `via` if `None`.
    pub oif: Option<u32>,
    /// Its share among several, 1 to 256.
    pub weight: u16,
    /// Believe that `via` is on the link although no route says so.
    pub onlink: bool,
    /// The kernel does not use it: the link is down or has no carrier (never set in requests).
    pub dead: bool,
}

/// What happens to a route's packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RouteKind {
    /// Forwarded to a next hop.
    Unicast,
    /// Delivered to the host.
    Local,
    /// Delivered to the host and sent as broadcast.
    Broadcast,
    /// Like local, for an anycast address.
    Anycast,
    /// Multicast.
    Multicast,
    /// Dropped in silence.
    Blackhole,
    /// Dropped, ICMP unreachable.
    Unreachable,
    /// Dropped, ICMP administratively prohibited.
    Prohibit,
    /// As if this table had no route.
    Throw,
    /// Anything else, by number.
    Other(u8),
}

/// How far away something is. IPv6 routes know only [`Scope::Universe`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Beyond a router.
    Universe,
    /// On the link.
    Link,
    /// On this host.
    Host,
    /// Anything else, by number.
    Other(u8),
}

/// An address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// Which routes to list; the default is all of both families. The kernel does the filtering.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RouteFilter {
    /// Only this family.
    pub family: Option<Family>,
    /// Only this table.
    pub table: Option<u32>,
    /// Only this protocol number.
    pub protocol: Option<u8>,
    /// Only routes with a next hop on this interface.
    pub oif: Option<u32>,
}

impl Route {
    /// A route in the main table, protocol 4 (static), without next hops yet.
    pub fn unicast(dst: IpNetwork) -> Self {
        Self {
            dst,
            table: table::MAIN,
            protocol: 4,
            kind: RouteKind::Unicast,
            scope: Scope::Universe,
            metric: None,
            src: None,
            mtu: None,
            next_hops: Vec::new(),
        }
    }

    /// A route that drops in silence.
    pub fn blackhole(dst: IpNetwork) -> Self {
        Self {
            kind: RouteKind::Blackhole,
            ..Self::unicast(dst)
        }
    }

    /// A route to a destination on the link `oif` itself.
    pub fn on_link(dst: IpNetwork, oif: u32) -> Self {
        let scope = if dst.is_ipv4() { Scope::Link } else { Scope::Universe };
        Self {
            scope,
            ..Self::unicast(dst).hop(NextHop::dev(oif))
        }
    }

    /// The same with one more next hop.
    pub fn hop(mut self, hop: NextHop) -> Self {
        self.next_hops.push(hop);
        self
    }

    /// The same with another protocol number.
    pub fn protocol(mut self, protocol: u8) -> Self {
        self.protocol = protocol;
        self
    }

    /// The same in another table.
    pub fn table(mut self, table: u32) -> Self {
        self.table = table;
        self
    }

    /// The same with a metric.
    pub fn metric(mut self, metric: u32) -> Self {
        self.metric = Some(metric);
        self
    }

    /// The family of its destination.
    pub fn family(&self) -> Family {
        if self.dst.is_ipv4() { Family::V4 } else { Family::V6 }
    }
}

impl NextHop {
    /// By way of a router; the kernel finds the interface.
    pub fn via(ip: IpAddr) -> Self {
        Self {
            via: Some(ip),
            oif: None,
            weight: 1,
            onlink: false,
            dead: false,
        }
    }

    /// By way of a router on an interface.
    pub fn via_dev(ip: IpAddr, oif: u32) -> Self {
        Self {
            oif: Some(oif),
            ..Self::via(ip)
        }
    }

    /// On the link itself.
    pub fn dev(oif: u32) -> Self {
        Self {
            via: None,
            oif: Some(oif),
            weight: 1,
            onlink: false,
            dead: false,
        }
    }

    /// The same, believing that the router is on the link.
    pub fn onlink(mut self) -> Self {
        self.onlink = true;
        self
    }

    /// The same with a weight of 1 to 256.
    pub fn weight(mut self, weight: u16) -> Self {
        self.weight = weight;
        self
    }
}

impl RouteFilter {
    pub(crate) fn matches(&self, route: &Route) -> bool {
        self.family.is_none_or(|family| family == route.family())
            && self.table.is_none_or(|table| table == route.table)
            && self.protocol.is_none_or(|protocol| protocol == route.protocol)
            && self
                .oif
                .is_none_or(|oif| route.next_hops.iter().any(|hop| hop.oif == Some(oif)))
    }
}

impl Scope {
    pub(crate) fn from_u8(number: u8) -> Self {
        match number {
            0 => Self::Universe,
            253 => Self::Link,
            254 => Self::Host,
            other => Self::Other(other),
        }
    }

    pub(crate) fn to_u8(self) -> u8 {
        match self {
            Self::Universe => 0,
            Self::Link => 253,
            Self::Host => 254,
            Self::Other(other) => other,
        }
    }
}

impl Family {
    pub(crate) fn code(self) -> AddressFamily {
        match self {
            Self::V4 => AddressFamily::Inet,
            Self::V6 => AddressFamily::Inet6,
        }
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            RouteKind::Unicast => {}
            kind => write!(f, "{} ", format!("{kind:?}").to_lowercase())?,
        }
        write!(f, "route {}", self.dst)?;
        for hop in &self.next_hops {
            write!(f, "{hop}")?;
        }
        if self.table != table::MAIN {
            write!(f, " table {}", self.table)?;
        }
        if let Some(metric) = self.metric {
            write!(f, " metric {metric}")?;
        }
        Ok(())
    }
}

impl fmt::Display for NextHop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(via) = self.via {
            write!(f, " via {via}")?;
        }
        if let Some(oif) = self.oif {
            write!(f, " dev #{oif}")?;
        }
        if self.weight != 1 {
            write!(f, " weight {}", self.weight)?;
        }
        if self.onlink { f.write_str(" onlink") } else { Ok(()) }
    }
}
