//! Address families and small prefix arithmetic over [`IpNetwork`].

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

/// An address family that the speaker carries; always the unicast SAFI (RFC 4760).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// AFI 1, SAFI 1.
    Ipv4,
    /// AFI 2, SAFI 1.
    Ipv6,
}

impl Family {
    /// Both families, in AFI order.
    pub const ALL: [Family; 2] = [Family::Ipv4, Family::Ipv6];

    /// The family of an address.
    pub fn of_addr(addr: &IpAddr) -> Self {
        match addr {
            IpAddr::V4(_) => Family::Ipv4,
            IpAddr::V6(_) => Family::Ipv6,
        }
    }

    /// The family of a prefix.
    pub fn of(prefix: &IpNetwork) -> Self {
        match prefix {
            IpNetwork::V4(_) => Family::Ipv4,
            IpNetwork::V6(_) => Family::Ipv6,
        }
    }

    /// The address family identifier on the wire.
    pub fn afi(self) -> u16 {
        match self {
            Family::Ipv4 => 1,
            Family::Ipv6 => 2,
        }
    }

    /// The family of an AFI and SAFI, if it is one the speaker carries.
    pub fn from_wire(afi: u16, safi: u8) -> Option<Self> {
        match (afi, safi) {
            (1, 1) => Some(Family::Ipv4),
            (2, 1) => Some(Family::Ipv6),
            _ => None,
        }
    }

    /// Bits of an address: 32 or 128.
    pub fn bits(self) -> u8 {
        match self {
            Family::Ipv4 => 32,
            Family::Ipv6 => 128,
        }
    }
}

/// The same prefix with the host bits cleared.
pub fn canonical(prefix: IpNetwork) -> IpNetwork {
    truncate(prefix.ip(), prefix.prefix())
}

/// The prefix of `len` bits that contains `addr`; `len` is capped at the address size.
pub fn truncate(addr: IpAddr, len: u8) -> IpNetwork {
    match addr {
        IpAddr::V4(a) => {
            let len = len.min(32);
            let mask = u32::MAX.checked_shl(32 - u32::from(len)).unwrap_or(0);
            let net = ipnetwork::Ipv4Network::new((u32::from(a) & mask).into(), len).expect("length is at most 32");
            IpNetwork::V4(net)
        }
        IpAddr::V6(a) => {
            let len = len.min(128);
            let mask = u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0);
            let net = ipnetwork::Ipv6Network::new((u128::from(a) & mask).into(), len).expect("length is at most 128");
            IpNetwork::V6(net)
        }
    }
}

/// Whether `outer` contains the whole of `inner` (equal prefixes included, families never mix).
pub fn covers(outer: &IpNetwork, inner: &IpNetwork) -> bool {
    Family::of(outer) == Family::of(inner)
        && outer.prefix() <= inner.prefix()
        && truncate(inner.ip(), outer.prefix()) == canonical(*outer)
}

/// The prefix that holds one address only: /32 or /128.
pub fn host(addr: IpAddr) -> IpNetwork {
    truncate(addr, 128)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(s: &str) -> IpNetwork {
        s.parse().unwrap()
    }

    #[test]
    fn host_bits_are_cleared() {
        assert_eq!(canonical(net("10.1.2.3/8")), net("10.0.0.0/8"));
        assert_eq!(canonical(net("fd00::1/64")), net("fd00::/64"));
        assert_eq!(canonical(net("1.2.3.4/0")), net("0.0.0.0/0"));
    }

    #[test]
    fn covering_is_by_family_and_length() {
        assert!(covers(&net("10.0.0.0/8"), &net("10.1.0.0/16")));
        assert!(covers(&net("0.0.0.0/0"), &net("10.1.0.0/16")));
        assert!(!covers(&net("10.1.0.0/16"), &net("10.0.0.0/8")));
        assert!(!covers(&net("::/0"), &net("10.0.0.0/8")));
        assert_eq!(host("fd00::7".parse().unwrap()), net("fd00::7/128"));
    }
}
