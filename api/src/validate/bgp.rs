//! What no router can have.

use std::net::{IpAddr, Ipv4Addr};

/// Whether a router can have this AS number: 0, 23456 and 4294967295 are reserved (RFC 7607, 6793 and 7300).
pub fn is_as_number(number: u32) -> bool {
    !matches!(number, 0 | 23456 | u32::MAX)
}

/// Whether a session can be had with this address: that of one router, and no link-local one of IPv6, which would need an
/// interface.
pub fn is_router_address(address: IpAddr) -> bool {
    let link_local = matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
    !(address.is_unspecified() || address.is_multicast() || address == Ipv4Addr::BROADCAST || link_local)
}
