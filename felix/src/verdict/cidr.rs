//! Containment of addresses in `ipBlock`s.

use std::net::IpAddr;

/// An IP prefix as `ipBlock.cidr` and `ipBlock.except` write it.
///
/// Bits beyond the prefix length are ignored, as the API server accepts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cidr {
    base: IpAddr,
    length: u32,
}

impl Cidr {
    /// Parses `address/length`; `None` for everything the API server would refuse.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (address, length) = text.split_once('/')?;
        let base: IpAddr = address.parse().ok()?;
        let padded = length.len() > 1 && length.starts_with('0');
        if padded || length.is_empty() || !length.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let length: u32 = length.parse().ok()?;
        (length <= width(base)).then_some(Self { base, length })
    }

    /// Whether `address` is of this prefix's family and inside it.
    pub(super) fn contains(self, address: IpAddr) -> bool {
        width(address) == width(self.base) && self.network(address) == self.network(self.base)
    }

    /// The leading `length` bits of `address`.
    fn network(self, address: IpAddr) -> u128 {
        let bits = match address {
            IpAddr::V4(v4) => u128::from(u32::from(v4)),
            IpAddr::V6(v6) => u128::from(v6),
        };
        bits.checked_shr(width(address) - self.length).unwrap_or(0)
    }
}

fn width(address: IpAddr) -> u32 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

#[cfg(test)]
mod tests {
    use super::Cidr;

    fn contains(cidr: &str, address: &str) -> bool {
        Cidr::parse(cidr)
            .expect("valid cidr")
            .contains(address.parse().expect("valid address"))
    }

    #[test]
    fn prefixes_hold_their_own_addresses_only() {
        for (cidr, address, expected) in [
            ("10.0.0.0/8", "10.255.255.255", true),
            ("10.0.0.0/8", "11.0.0.0", false),
            ("10.0.0.1/8", "10.9.9.9", true),
            ("192.0.2.7/32", "192.0.2.7", true),
            ("192.0.2.7/32", "192.0.2.6", false),
            ("192.0.2.0/31", "192.0.2.1", true),
            ("0.0.0.0/0", "203.0.113.9", true),
            ("0.0.0.0/0", "fd00::1", false),
            ("::/0", "203.0.113.9", false),
            ("::/0", "fd00::1", true),
            ("fd00:10::/32", "fd00:10:ffff::1", true),
            ("fd00:10::/32", "fd00:11::1", false),
            ("fd00::1/128", "fd00::1", true),
            ("fd00::1/128", "fd00::2", false),
        ] {
            assert_eq!(contains(cidr, address), expected, "{address} in {cidr}");
        }
    }

    #[test]
    fn what_the_api_server_refuses_does_not_parse() {
        for text in [
            "",
            "10.0.0.0",
            "10.0.0.0/",
            "10.0.0.0/33",
            "10.0.0.0/-1",
            "10.0.0.0/+8",
            "10.0.0.0/08",
            "10.0.0/8",
            "fd00::/129",
            "x/8",
            "10.0.0.0/8/8",
        ] {
            assert_eq!(Cidr::parse(text), None, "{text:?}");
        }
    }
}
