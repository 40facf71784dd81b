//! Neighbours: which Ethernet address has an IP address on an interface.

use std::fmt;
use std::net::IpAddr;

use netlink_packet_route::AddressFamily;
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};

use crate::link::Mac;

/// A neighbour.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Neigh {
    /// The interface.
    pub link: u32,
    /// The neighbour's IP address.
    pub ip: IpAddr,
    /// Its Ethernet address; `None` while unknown, and for proxies.
    pub mac: Option<Mac>,
    /// It was set by somebody and does not age.
    pub permanent: bool,
    /// This host answers for the address (`proxy_ndp`, `proxy_arp` entries).
    pub proxy: bool,
}

impl Neigh {
    /// A neighbour that does not age.
    pub fn permanent(link: u32, ip: IpAddr, mac: Mac) -> Self {
        Self {
            link,
            ip,
            mac: Some(mac),
            permanent: true,
            proxy: false,
        }
    }

    pub(crate) fn from_message(message: NeighbourMessage) -> Option<Self> {
        let (mut ip, mut mac) = (None, None);
        for attribute in message.attributes {
            match attribute {
                NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => ip = Some(IpAddr::V4(v4)),
                NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => ip = Some(IpAddr::V6(v6)),
                NeighbourAttribute::LinkLayerAddress(bytes) => mac = <[u8; 6]>::try_from(bytes).ok().map(Mac),
                _ => {}
            }
        }
        Some(Self {
            link: message.header.ifindex,
            ip: ip?,
            mac,
            permanent: message.header.state == NeighbourState::Permanent,
            proxy: message.header.flags.contains(NeighbourFlags::Proxy),
        })
    }

    pub(crate) fn to_message(&self) -> NeighbourMessage {
        let mut message = NeighbourMessage::default();
        message.header.family = if self.ip.is_ipv4() {
            AddressFamily::Inet
        } else {
            AddressFamily::Inet6
        };
        message.header.ifindex = self.link;
        message.header.state = if self.permanent {
            NeighbourState::Permanent
        } else {
            NeighbourState::Reachable
        };
        if self.proxy {
            message.header.flags |= NeighbourFlags::Proxy;
        }
        message.attributes.push(NeighbourAttribute::Destination(self.ip.into()));
        message
            .attributes
            .extend(self.mac.map(|mac| NeighbourAttribute::LinkLayerAddress(mac.0.to_vec())));
        message
    }
}

impl fmt::Display for Neigh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "neighbour {} on link {}", self.ip, self.link)
    }
}
