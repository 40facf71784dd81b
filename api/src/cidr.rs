//! Arithmetic on CIDRs.

mod sloppy;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;

pub use sloppy::Sloppy;

/// Text that is no usable CIDR.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CidrError {
    /// Not `address/prefix` at all.
    #[error("\"{0}\" is not a CIDR such as 10.0.0.0/16 or fd00::/64")]
    Syntax(String),
    /// Bits are set beyond the prefix.
    #[error("\"{given}\" has host bits set; write {suggestion}")]
    HostBits {
        /// The text.
        given: String,
        /// The network that was probably meant.
        suggestion: IpNetwork,
    },
}

/// Reads `address/prefix` strictly: the prefix is there, in plain digits, and no bit beyond it is set.
///
/// # Errors
/// Tells which, with what was probably meant.
pub fn parse(text: &str) -> Result<IpNetwork, CidrError> {
    let network = with_host_bits(text).ok_or_else(|| CidrError::Syntax(text.to_owned()))?;
    let masked = masked(network);
    if masked == network {
        Ok(network)
    } else {
        Err(CidrError::HostBits {
            given: text.to_owned(),
            suggestion: masked,
        })
    }
}

fn with_host_bits(text: &str) -> Option<IpNetwork> {
    let (address, prefix) = text.split_once('/')?;
    let digits = !prefix.is_empty() && prefix.bytes().all(|b| b.is_ascii_digit());
    let canonical = digits && (prefix.len() == 1 || !prefix.starts_with('0'));
    let prefix = prefix.parse().ok().filter(|_| canonical)?;
    IpNetwork::new(address.parse().ok()?, prefix).ok()
}

/// The network without bits beyond its prefix.
pub fn masked(network: IpNetwork) -> IpNetwork {
    make(network.network(), network.prefix())
}

/// The single address as a network: /32 or /128.
pub fn host(address: IpAddr) -> IpNetwork {
    IpNetwork::from(address)
}

/// Bits of an address of this family.
pub fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// Whether `inner` lies wholly in `outer`. Never across families.
pub fn contains(outer: IpNetwork, inner: IpNetwork) -> bool {
    outer.prefix() <= inner.prefix() && outer.contains(inner.network())
}

/// Whether two networks share an address: then one lies in the other.
pub fn overlaps(a: IpNetwork, b: IpNetwork) -> bool {
    contains(a, b) || contains(b, a)
}

/// The two halves, lower first; None for a single address.
pub fn split(network: IpNetwork) -> Option<(IpNetwork, IpNetwork)> {
    let prefix = network.prefix() + 1;
    if prefix > width(network.ip()) {
        return None;
    }
    let step = 1u128 << (width(network.ip()) - prefix);
    let first = network.network();
    Some((make(first, prefix), make(offset(first, step)?, prefix)))
}

/// `from` without `minus`: the fewest networks, in order of address.
pub fn subtract(from: IpNetwork, minus: IpNetwork) -> Vec<IpNetwork> {
    let from = masked(from);
    if contains(minus, from) {
        return Vec::new();
    }
    if !contains(from, minus) {
        return vec![from];
    }
    let Some((low, high)) = split(from) else {
        return Vec::new();
    };
    let mut parts = subtract(low, minus);
    parts.extend(subtract(high, minus));
    parts
}

/// `from` without all of `minus`, which may nest and overlap.
pub fn subtract_all<'a>(from: IpNetwork, minus: impl IntoIterator<Item = &'a IpNetwork>) -> Vec<IpNetwork> {
    minus.into_iter().fold(vec![masked(from)], |parts, hole| {
        parts.into_iter().flat_map(|part| subtract(part, *hole)).collect()
    })
}

/// How many networks of this prefix length fit; None when `prefix` is shorter than the network's or too long.
pub fn count(network: IpNetwork, prefix: u8) -> Option<u128> {
    let bits = prefix
        .checked_sub(network.prefix())
        .filter(|_| prefix <= width(network.ip()))?;
    Some(1u128.checked_shl(u32::from(bits)).unwrap_or(u128::MAX))
}

/// The `index`-th network of this prefix length, from the lowest.
pub fn nth(network: IpNetwork, prefix: u8, index: u128) -> Option<IpNetwork> {
    if index >= count(network, prefix)? {
        return None;
    }
    let step = u32::from(width(network.ip()) - prefix);
    let distance = index.checked_shl(step).unwrap_or(0);
    Some(make(offset(network.network(), distance)?, prefix))
}

/// The network of this prefix length that the address is in; None when the prefix is too long for its family.
pub fn enclosing(address: IpAddr, prefix: u8) -> Option<IpNetwork> {
    IpNetwork::new(address, prefix).ok().map(masked)
}

/// The address that many above.
pub fn offset(address: IpAddr, distance: u128) -> Option<IpAddr> {
    match address {
        IpAddr::V4(v4) => {
            let sum = u32::from(v4).checked_add(u32::try_from(distance).ok()?)?;
            Some(Ipv4Addr::from(sum).into())
        }
        IpAddr::V6(v6) => Some(Ipv6Addr::from(u128::from(v6).checked_add(distance)?).into()),
    }
}

/// How far `address` is above the network's first; None outside it.
pub fn ordinal(network: IpNetwork, address: IpAddr) -> Option<u128> {
    if !network.contains(address) {
        return None;
    }
    Some(number(address) - number(network.network()))
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(u32::from(v4)),
        IpAddr::V6(v6) => u128::from(v6),
    }
}

fn make(address: IpAddr, prefix: u8) -> IpNetwork {
    IpNetwork::new(address, prefix).expect("callers keep the prefix within the family's width")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn net(text: &str) -> IpNetwork {
        parse(text).unwrap()
    }

    #[test]
    fn parses_strictly() {
        for text in ["10.0.0.0/8", "0.0.0.0/0", "::/0", "fd00::/64", "192.0.2.1/32"] {
            assert_eq!(parse(text).unwrap().to_string(), text);
        }
        for text in [
            "10.0.0.0",
            "10.0.0.0/",
            "10.0.0.0/33",
            "10.0.0/8",
            "::/129",
            "a/8",
            "10.0.0.0/08",
            "010.0.0.0/8",
            "10.0.0.0/+8",
            "",
        ] {
            assert_eq!(parse(text), Err(CidrError::Syntax(text.into())), "{text}");
        }
        assert_eq!(
            parse("10.1.2.3/16").unwrap_err().to_string(),
            "\"10.1.2.3/16\" has host bits set; write 10.1.0.0/16"
        );
    }

    #[test]
    fn subtracts_nested_and_overlapping_holes() {
        let parts = subtract_all(net("10.0.0.0/30"), &[net("10.0.0.0/31"), net("10.0.0.1/32")]);
        assert_eq!(parts, [net("10.0.0.2/31")]);
        assert_eq!(
            subtract(net("10.0.0.0/30"), net("10.0.0.2/32")),
            [net("10.0.0.0/31"), net("10.0.0.3/32")]
        );
        assert_eq!(subtract(net("10.0.0.0/8"), net("::/0")), [net("10.0.0.0/8")]);
        assert!(subtract(net("::/0"), net("::/0")).is_empty());
    }

    #[test]
    fn the_whole_of_ipv6_splits_and_counts() {
        assert_eq!(split(net("::/0")), Some((net("::/1"), net("8000::/1"))));
        assert_eq!(split(net("::1/128")), None);
        assert_eq!(count(net("::/0"), 128), Some(u128::MAX));
        assert_eq!(nth(net("10.0.0.0/16"), 26, 1023), Some(net("10.0.255.192/26")));
        assert_eq!(nth(net("10.0.0.0/16"), 26, 1024), None);
        assert_eq!(nth(net("0.0.0.0/0"), 0, 0), Some(net("0.0.0.0/0")));
        assert_eq!(nth(net("::/0"), 0, 0), Some(net("::/0")));
    }

    fn any_net() -> impl Strategy<Value = IpNetwork> {
        // Few distinct addresses, so that networks often nest.
        let v4 = (0u32..64, 24u8..=32).prop_map(|(n, p)| enclosing(Ipv4Addr::from(0x0a00_0000 | n << 2).into(), p));
        let v6 =
            (0u128..64, 118u8..=128).prop_map(|(n, p)| enclosing(Ipv6Addr::from(0xfd00 << 112 | n << 2).into(), p));
        prop_oneof![v4, v6].prop_map(|network| network.expect("prefixes fit"))
    }

    fn any_address() -> impl Strategy<Value = IpAddr> {
        prop_oneof![
            (0u32..256).prop_map(|n| IpAddr::from(Ipv4Addr::from(0x0a00_0000 | n))),
            (0u128..256).prop_map(|n| IpAddr::from(Ipv6Addr::from(0xfd00 << 112 | n)))
        ]
    }

    proptest! {
        #[test]
        fn subtraction_keeps_exactly_the_rest(from in any_net(), holes in prop::collection::vec(any_net(), 0..5), address in any_address()) {
            let parts = subtract_all(from, &holes);
            let expected = from.contains(address) && !holes.iter().any(|hole| hole.contains(address));
            let hits = parts.iter().filter(|part| part.contains(address)).count();
            prop_assert_eq!(hits, usize::from(expected));
            prop_assert!(parts.is_sorted_by_key(|part| part.network()));
        }

        #[test]
        fn overlap_is_shared_addresses(a in any_net(), b in any_net()) {
            let first_of_either = b.contains(a.network()) || a.contains(b.network());
            prop_assert_eq!(overlaps(a, b), first_of_either);
            prop_assert_eq!(overlaps(a, b), overlaps(b, a));
            prop_assert_eq!(contains(a, b), subtract(b, a).is_empty());
        }

        #[test]
        fn halves_make_the_whole(network in any_net(), address in any_address()) {
            if let Some((low, high)) = split(network) {
                prop_assert_eq!(low.contains(address) || high.contains(address), network.contains(address));
                prop_assert!(!overlaps(low, high));
            }
        }

        #[test]
        fn ordinals_invert_offsets(network in any_net(), address in any_address()) {
            match ordinal(network, address) {
                Some(n) => prop_assert_eq!(offset(network.network(), n), Some(address)),
                None => prop_assert!(!network.contains(address)),
            }
        }

        #[test]
        fn text_round_trips(network in any_net()) {
            prop_assert_eq!(parse(&network.to_string()), Ok(network));
        }
    }
}
