//! `ipBlock.cidr` and `ipBlock.except`, as the API server reads them.

use std::net::IpAddr;

/// The first 96 bits of an IPv6 address that stands for an IPv4 one, `::ffff:0:0/96`.
const MAPPED: u128 = 0xffff;

/// An IP prefix in whatever spelling an API server stores.
///
/// Leading zeros mean nothing, bits beyond the prefix length are ignored, and IPv6 that maps IPv4 is IPv4: so the API
/// server itself decides whether an `except` is part of its `cidr`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cidr {
    is_ipv4: bool,
    /// The leading `length` bits.
    network: u128,
    length: u32,
    /// The length as written, which is 96 more where IPv6 maps IPv4.
    written: u32,
}

impl Cidr {
    /// Parses `address/length`; `None` for everything the API server would refuse.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (address, written) = text.split_once('/')?;
        let written = number(written, 10)?;
        let (width, bits) = match ipv4(address) {
            Some(bits) => (32, u128::from(bits)),
            None => (128, ipv6(address)?),
        };
        let unused = u32::checked_sub(width, written)?;
        let network = bits.checked_shr(unused).unwrap_or(0);
        Some(match written.checked_sub(96) {
            Some(length) if network >> length == MAPPED => Self {
                is_ipv4: true,
                network: network & ((1 << length) - 1),
                length,
                written,
            },
            _ => Self {
                is_ipv4: width == 32,
                network,
                length: written,
                written,
            },
        })
    }

    /// Whether `address` is of this prefix's family and inside it.
    pub(super) fn contains(self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(v4) => self.is_ipv4 && self.starts(u128::from(u32::from(v4))),
            IpAddr::V6(v6) => !self.is_ipv4 && self.starts(u128::from(v6)),
        }
    }

    /// Whether the API server takes `except` beside this prefix: its first address is inside, its length as written larger.
    pub(super) fn may_except(self, except: Self) -> bool {
        self.is_ipv4 == except.is_ipv4 && self.starts(except.first()) && self.written < except.written
    }

    /// The lowest address.
    pub(super) fn first(self) -> u128 {
        self.network.checked_shl(self.width() - self.length).unwrap_or(0)
    }

    /// The highest address.
    pub(super) fn last(self) -> u128 {
        let beyond = u128::MAX.checked_shr(128 - (self.width() - self.length)).unwrap_or(0);
        self.first() | beyond
    }

    fn starts(self, bits: u128) -> bool {
        bits.checked_shr(self.width() - self.length).unwrap_or(0) == self.network
    }

    fn width(self) -> u32 {
        if self.is_ipv4 { 32 } else { 128 }
    }
}

fn ipv4(text: &str) -> Option<u32> {
    let octets: Vec<u32> = text.split('.').map(|part| number(part, 10)).collect::<Option<_>>()?;
    let fits = octets.len() == 4 && octets.iter().all(|octet| *octet <= 255);
    fits.then(|| octets.iter().fold(0, |bits, octet| bits << 8 | octet))
}

fn ipv6(text: &str) -> Option<u128> {
    let halves: Vec<&str> = text.split("::").collect();
    let groups: Vec<Vec<u16>> = match halves.as_slice() {
        [whole] => vec![groups(whole, true)?],
        [head, tail] => vec![groups(head, false)?, groups(tail, true)?],
        _ => return None,
    };
    let given: usize = groups.iter().map(Vec::len).sum();
    let missing = match groups.len() {
        1 if given == 8 => 0,
        2 if given < 8 => 8 - given,
        _ => return None,
    };
    let zeros = vec![0; missing];
    let tail = groups.get(1).cloned().unwrap_or_default();
    let all = [groups.first().cloned().unwrap_or_default(), zeros, tail].concat();
    Some(all.iter().fold(0, |bits, group| bits << 16 | u128::from(*group)))
}

/// Groups between colons; the last of an address may be IPv4, which makes two.
fn groups(text: &str, is_end: bool) -> Option<Vec<u16>> {
    let mut found = Vec::new();
    if text.is_empty() {
        return Some(found);
    }
    let parts: Vec<&str> = text.split(':').collect();
    for (index, part) in parts.iter().enumerate() {
        match ipv4(part) {
            Some(bits) if is_end && index + 1 == parts.len() => {
                found.extend([(bits >> 16) as u16, bits as u16]);
            }
            _ => found.push(u16::try_from(number(part, 16)?).ok()?),
        }
    }
    Some(found)
}

/// Digits and nothing else; as many leading zeros as there are.
fn number(text: &str, radix: u32) -> Option<u32> {
    let digits = !text.is_empty() && text.chars().all(|c| c.is_digit(radix));
    let significant = text.trim_start_matches('0');
    match significant.len() {
        0 if digits => Some(0),
        1..=7 if digits => u32::from_str_radix(significant, radix).ok(),
        _ => None,
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
            ("10.0.0.0/0", "203.0.113.9", true),
            ("0.0.0.0/0", "fd00::1", false),
            ("::/0", "203.0.113.9", false),
            ("::/0", "fd00::1", true),
            ("::/0", "::ffff:10.0.0.1", true),
            ("fd00:10::/32", "fd00:10:ffff::1", true),
            ("fd00:10::/32", "fd00:11::1", false),
            ("fd00::1/128", "fd00::1", true),
            ("fd00::1/128", "fd00::2", false),
        ] {
            assert_eq!(contains(cidr, address), expected, "{address} in {cidr}");
        }
    }

    #[test]
    fn spellings_that_are_stored() {
        for (cidr, address, expected) in [
            ("010.020.030.000/24", "10.20.30.7", true),
            ("010.020.030.000/24", "8.16.24.7", false),
            ("192.0.2.0/024", "192.0.2.7", true),
            ("192.0.2.0/024", "192.0.0.7", false),
            ("10.0.0.0/08", "10.9.9.9", true),
            ("FD00:0:0:7::1/64", "fd00:0:0:7::9", true),
            ("fd00:00000007::/0032", "fd00:7::9", true),
            ("1:2:3:4:5:6:7:8/128", "1:2:3:4:5:6:7:8", true),
            ("64:ff9b::010.1.2.3/128", "64:ff9b::a01:203", true),
            ("::ffff:10.40.0.0/112", "10.40.0.9", true),
            ("::ffff:10.40.0.0/112", "10.41.0.9", false),
            ("::ffff:a28:0/112", "10.40.0.9", true),
            ("::ffff:10.40.0.0/112", "::ffff:10.40.0.9", false),
            ("::ffff:10.40.0.0/96", "203.0.113.9", true),
            ("::ffff:10.40.0.0/95", "203.0.113.9", false),
            ("::ffff:10.40.0.0/95", "::ffff:10.40.0.9", true),
        ] {
            assert_eq!(contains(cidr, address), expected, "{address} in {cidr}");
        }
    }

    #[test]
    fn what_the_api_server_refuses_does_not_parse() {
        for text in [
            "",
            "/",
            "10.0.0.0",
            "10.0.0.0/",
            "10.0.0.0/33",
            "10.0.0.0/-1",
            "10.0.0.0/+8",
            "10.0.0.0/8 ",
            "10.0.0/8",
            "10.0.0.0.0/8",
            "10..0.0/8",
            "10.0.0.256/8",
            "10.0.0.0/4294967304",
            "fd00::/129",
            "fd00::10000/64",
            "fd00::1%eth0/64",
            "fd00:10.0.0.1::/64",
            "fd00::10.0.0/64",
            "1::2::3/64",
            ":::/8",
            ":/8",
            ":1::/64",
            "1:2:3:4:5:6:7/64",
            "1:2:3:4::5:6:7:8/64",
            "x/8",
            "10.0.0.0/8/8",
        ] {
            assert_eq!(Cidr::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn the_ends_of_a_prefix() {
        let ends = |cidr: &str| {
            let cidr = Cidr::parse(cidr).expect("valid cidr");
            (cidr.first(), cidr.last())
        };
        assert_eq!(ends("10.1.2.3/8"), (0x0a00_0000, 0x0aff_ffff));
        assert_eq!(ends("0.0.0.0/0"), (0, 0xffff_ffff));
        assert_eq!(ends("192.0.2.1/32"), (0xc000_0201, 0xc000_0201));
        assert_eq!(ends("::/0"), (0, u128::MAX));
        assert_eq!(ends("::1/128"), (1, 1));
        assert_eq!(ends("::ffff:10.0.0.0/104"), (0x0a00_0000, 0x0aff_ffff));
    }
}
