//! Changes, as data: what a batch is made of.

use std::fmt;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::LinkAttribute;

use crate::addr::Addr;
use crate::error::Result;
use crate::link::{self, Mac};
use crate::neigh::Neigh;
use crate::route::Route;

/// One change to the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Op {
    /// Sets a link up or down.
    SetUp(u32, bool),
    /// Sets a link's MTU in bytes.
    SetMtu(u32, u32),
    /// Sets a link's Ethernet address.
    SetMac(u32, Mac),
    /// Makes a link a port of a bridge, or of none.
    SetMaster(u32, Option<u32>),
    /// Renames a link (it must be down).
    Rename(u32, String),
    /// Deletes a link; of a veth both ends go.
    DeleteLink(u32),
    /// Adds an address; an error if it is there.
    AddAddr(Addr),
    /// Adds an address or changes the one that is there.
    ReplaceAddr(Addr),
    /// Removes an address.
    DeleteAddr(Addr),
    /// Adds a route; an error if one with this table, destination and metric is there.
    AddRoute(Route),
    /// Adds a route in place of the one with this table, destination and metric; traffic is not interrupted.
    ReplaceRoute(Route),
    /// Removes the route with this table, destination, metric, kind and protocol; next hops are not compared.
    DeleteRoute(Route),
    /// Adds a neighbour or changes the one that is there.
    ReplaceNeigh(Neigh),
    /// Removes a neighbour.
    DeleteNeigh(Neigh),
}

impl Op {
    /// The message and the flags that go with it.
    pub(crate) fn to_message(&self) -> Result<(RouteNetlinkMessage, u16)> {
        use RouteNetlinkMessage as M;
        let set_link = |index: u32, attribute: LinkAttribute| {
            let mut message = link::numbered(index);
            message.attributes.push(attribute);
            (M::SetLink(message), 0)
        };
        Ok(match self {
            Self::SetUp(index, up) => {
                let mut message = link::numbered(*index);
                link::set_up(&mut message, *up);
                (M::SetLink(message), 0)
            }
            Self::SetMtu(index, mtu) => set_link(*index, LinkAttribute::Mtu(*mtu)),
            Self::SetMac(index, mac) => set_link(*index, LinkAttribute::Address(mac.0.to_vec())),
            Self::SetMaster(index, master) => set_link(*index, LinkAttribute::Controller(master.unwrap_or(0))),
            Self::Rename(index, name) => {
                link::check_name(name)?;
                set_link(*index, LinkAttribute::IfName(name.clone()))
            }
            Self::DeleteLink(index) => (M::DelLink(link::numbered(*index)), 0),
            Self::AddAddr(addr) => (M::NewAddress(addr.to_message()), NLM_F_CREATE | NLM_F_EXCL),
            Self::ReplaceAddr(addr) => (M::NewAddress(addr.to_message()), NLM_F_CREATE | NLM_F_REPLACE),
            Self::DeleteAddr(addr) => (M::DelAddress(addr.to_message()), 0),
            Self::AddRoute(route) => (M::NewRoute(route.to_message()?), NLM_F_CREATE | NLM_F_EXCL),
            Self::ReplaceRoute(route) => (M::NewRoute(route.to_message()?), NLM_F_CREATE | NLM_F_REPLACE),
            Self::DeleteRoute(route) => (M::DelRoute(route.to_deletion()?), 0),
            Self::ReplaceNeigh(neigh) => (M::NewNeighbour(neigh.to_message()), NLM_F_CREATE | NLM_F_REPLACE),
            Self::DeleteNeigh(neigh) => (M::DelNeighbour(neigh.to_message()), 0),
        })
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SetUp(index, up) => write!(f, "set link {index} {}", if *up { "up" } else { "down" }),
            Self::SetMtu(index, mtu) => write!(f, "set MTU {mtu} on link {index}"),
            Self::SetMac(index, mac) => write!(f, "set Ethernet address {mac} on link {index}"),
            Self::SetMaster(index, Some(master)) => write!(f, "make link {index} a port of link {master}"),
            Self::SetMaster(index, None) => write!(f, "make link {index} a port of nothing"),
            Self::Rename(index, name) => write!(f, "rename link {index} to {name}"),
            Self::DeleteLink(index) => write!(f, "delete link {index}"),
            Self::AddAddr(addr) => write!(f, "add {addr}"),
            Self::ReplaceAddr(addr) => write!(f, "set {addr}"),
            Self::DeleteAddr(addr) => write!(f, "delete {addr}"),
            Self::AddRoute(route) => write!(f, "add {route}"),
            Self::ReplaceRoute(route) => write!(f, "set {route}"),
            Self::DeleteRoute(route) => write!(f, "delete {route}"),
            Self::ReplaceNeigh(neigh) => write!(f, "set {neigh}"),
            Self::DeleteNeigh(neigh) => write!(f, "delete {neigh}"),
        }
    }
}
