//! The host side of a pod's link, as data.
//!
//! The pod believes in one router, which every host answers for: 169.254.1.1 by proxy ARP (and a permanent neighbour, so
//! that it works without a default route on the host, too), and the host side's link-local address, which is the same on
//! all hosts because the Ethernet address is.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnetwork::{IpNetwork, Ipv6Network};
use margay_netlink::{Addr, Mac, Route};

/// The pods' IPv4 router.
pub const GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
/// The pods' IPv6 router: the link-local address of [`HOST_MAC`].
pub const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0xecee, 0xeeff, 0xfeee, 0xeeee);
/// Ethernet address of the host side of every pod.
pub const HOST_MAC: Mac = Mac([0xee; 6]);

/// Settings of a host interface, below `/proc/sys`. Those of IPv6 are missing where the kernel has no IPv6.
pub fn settings(interface: &str) -> [(String, &'static str); 9] {
    let v4 = |key: &str| format!("net/ipv4/conf/{interface}/{key}");
    let v6 = |key: &str| format!("net/ipv6/conf/{interface}/{key}");
    [
        (v4("proxy_arp"), "1"),
        (format!("net/ipv4/neigh/{interface}/proxy_delay"), "0"),
        (v4("forwarding"), "1"),
        // A pod may send only from addresses that are routed to it.
        (v4("rp_filter"), "1"),
        (v4("accept_redirects"), "0"),
        (v6("disable_ipv6"), "0"),
        (v6("accept_dad"), "0"),
        (v6("accept_ra"), "0"),
        (v6("forwarding"), "1"),
    ]
}

/// The routes to a pod's addresses by way of link number `index`, with the agent's protocol number.
pub fn routes(addresses: &[IpNetwork], index: u32, protocol: u8) -> Vec<Route> {
    addresses
        .iter()
        .map(|network| Route::on_link(IpNetwork::from(network.ip()), index).protocol(protocol))
        .collect()
}

/// The router's IPv6 address on link number `index`, usable at once.
pub fn gateway_addr(gateway: Ipv6Addr, index: u32) -> Addr {
    let network = Ipv6Network::new(gateway, 64).expect("64 is a prefix length");
    Addr::new(index, network.into()).nodad()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_router_is_the_link_local_address_of_the_host_side() {
        assert_eq!(HOST_MAC.link_local(), GATEWAY_V6);
    }
}
