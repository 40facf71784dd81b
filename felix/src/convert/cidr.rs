//! CIDRs as policies write them.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnetwork::IpNetwork;

/// Reads `address/length`; host bits are cleared, as every Kubernetes network does.
pub(super) fn parse(text: &str) -> Result<IpNetwork, String> {
    let wrong = || format!("{text:?} is not a CIDR; write an address and a prefix length, such as 10.0.0.0/8");
    let (address, length) = text.split_once('/').ok_or_else(wrong)?;
    let address: IpAddr = address.parse().map_err(|_| wrong())?;
    let length = length.parse().map_err(|_| wrong())?;
    let net = IpNetwork::new(address, length).map_err(|_| wrong())?;
    Ok(network(net.network(), length))
}

/// Whether `inner` lies within `outer`; the two may be equal.
pub(super) fn contains(outer: IpNetwork, inner: IpNetwork) -> bool {
    outer.is_ipv4() == inner.is_ipv4() && outer.prefix() <= inner.prefix() && outer.contains(inner.ip())
}

/// What is left of `net` without `holes`, as the fewest CIDRs.
pub(super) fn subtract(net: IpNetwork, holes: &[IpNetwork]) -> BTreeSet<IpNetwork> {
    let mut left = BTreeSet::new();
    subtract_into(net, holes, &mut left);
    left
}

fn subtract_into(net: IpNetwork, holes: &[IpNetwork], left: &mut BTreeSet<IpNetwork>) {
    if holes.iter().any(|&hole| contains(hole, net)) {
        return;
    }
    let inside: Vec<_> = holes.iter().copied().filter(|&hole| contains(net, hole)).collect();
    if inside.is_empty() {
        left.insert(net);
        return;
    }
    for half in halves(net) {
        subtract_into(half, &inside, left);
    }
}

/// The two halves of a CIDR that is longer than one address.
fn halves(net: IpNetwork) -> [IpNetwork; 2] {
    let length = net.prefix() + 1;
    let upper = match net.network() {
        IpAddr::V4(low) => IpAddr::from((u32::from(low) | 1 << (32 - u32::from(length))).to_be_bytes()),
        IpAddr::V6(low) => IpAddr::from((u128::from(low) | 1 << (128 - u32::from(length))).to_be_bytes()),
    };
    [network(net.network(), length), network(upper, length)]
}

fn network(address: IpAddr, length: u8) -> IpNetwork {
    IpNetwork::new(address, length).expect("the length fits the family")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNetwork {
        parse(text).unwrap()
    }

    fn left(of: &str, holes: &[&str]) -> Vec<String> {
        let holes: Vec<_> = holes.iter().map(|hole| net(hole)).collect();
        subtract(net(of), &holes).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn parses_as_kubernetes_does() {
        assert_eq!(net("10.1.2.3/8").to_string(), "10.0.0.0/8");
        assert_eq!(net("fd00::1/64").to_string(), "fd00::/64");
        for wrong in [
            "10.0.0.0",
            "10.0.0.0/33",
            "10.0.0.0/255.0.0.0",
            "10.0.0/8",
            "",
            "/",
            "10.0.0.0/-1",
            "a/8",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn subtracts_nested_overlapping_and_whole() {
        assert_eq!(left("10.0.0.0/30", &["10.0.0.1/32"]), ["10.0.0.0/32", "10.0.0.2/31"]);
        assert_eq!(left("10.0.0.0/24", &["10.0.0.0/25", "10.0.0.64/26"]), ["10.0.0.128/25"]);
        assert_eq!(left("10.0.0.0/24", &["10.0.0.0/25", "10.0.0.128/25"]), [""; 0]);
        assert_eq!(left("10.0.0.0/24", &["10.0.0.0/8"]), [""; 0]);
        assert_eq!(left("10.0.0.0/24", &["10.0.1.0/24"]), ["10.0.0.0/24"]);
        assert_eq!(left("0.0.0.0/0", &["128.0.0.0/1"]), ["0.0.0.0/1"]);
        assert_eq!(left("0.0.0.0/0", &["10.0.0.7/32"]).len(), 32);
        assert_eq!(left("::/0", &["fd00::1/128"]).len(), 128);
    }
}
