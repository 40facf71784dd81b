//! Addresses of interfaces.

use std::fmt;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope};

use crate::route::Scope;

/// An address of an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addr {
    /// The interface.
    pub link: u32,
    /// The address and its prefix length.
    pub network: IpNetwork,
    /// How far it is valid.
    pub scope: Scope,
    /// IPv6: duplicate address detection has not finished (never set in requests).
    pub tentative: bool,
    /// IPv6: skip duplicate address detection, so that the address can be used at once.
    pub nodad: bool,
    /// Do not make the route to its prefix.
    pub noprefixroute: bool,
}

impl Addr {
    /// A global address on an interface.
    pub fn new(link: u32, network: IpNetwork) -> Self {
        let scope = match network.ip() {
            IpAddr::V6(ip) if ip.is_unicast_link_local() => Scope::Link,
            IpAddr::V4(_) | IpAddr::V6(_) => Scope::Universe,
        };
        Self {
            link,
            network,
            scope,
            tentative: false,
            nodad: false,
            noprefixroute: false,
        }
    }

    /// The same without duplicate address detection (IPv6; no effect on IPv4).
    pub fn nodad(mut self) -> Self {
        self.nodad = self.network.is_ipv6();
        self
    }

    pub(crate) fn from_message(message: AddressMessage) -> Option<Self> {
        let prefix = message.header.prefix_len;
        let mut flags = AddressFlags::from_bits_retain(u32::from(message.header.flags.bits()));
        let (mut address, mut local) = (None, None);
        for attribute in message.attributes {
            match attribute {
                AddressAttribute::Address(ip) => address = Some(ip),
                AddressAttribute::Local(ip) => local = Some(ip),
                AddressAttribute::Flags(all) => flags = all,
                _ => {}
            }
        }
        Some(Self {
            link: message.header.index,
            network: IpNetwork::new(local.or(address)?, prefix).ok()?,
            scope: Scope::from_u8(message.header.scope.into()),
            tentative: flags.contains(AddressFlags::Tentative),
            nodad: flags.contains(AddressFlags::Nodad),
            noprefixroute: flags.contains(AddressFlags::Noprefixroute),
        })
    }

    pub(crate) fn to_message(&self) -> AddressMessage {
        let ip = self.network.ip();
        let mut message = AddressMessage::default();
        message.header.index = self.link;
        message.header.prefix_len = self.network.prefix();
        message.header.scope = AddressScope::from(self.scope.to_u8());
        message.header.family = if ip.is_ipv4() {
            AddressFamily::Inet
        } else {
            AddressFamily::Inet6
        };
        message.attributes.push(AddressAttribute::Local(ip));
        message.attributes.push(AddressAttribute::Address(ip));
        if let IpNetwork::V4(network) = self.network
            && network.prefix() < 31
        {
            message
                .attributes
                .push(AddressAttribute::Broadcast(network.broadcast()));
        }
        let mut flags = AddressFlags::empty();
        flags.set(AddressFlags::Nodad, self.nodad);
        flags.set(AddressFlags::Noprefixroute, self.noprefixroute);
        if !flags.is_empty() {
            message.attributes.push(AddressAttribute::Flags(flags));
        }
        message
    }
}

impl fmt::Display for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "address {} on link {}", self.network, self.link)
    }
}
