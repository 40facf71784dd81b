//! Rules of a policy.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use ipnetwork::IpNetwork;

use super::EndpointSelector;

/// All its parts must match; a part that is `None` always does. The first rule that matches decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// What happens to a packet that matches.
    pub action: Action,
    /// The transport protocol.
    pub protocol: Option<Protocol>,
    /// Where it comes from.
    pub source: Option<AddressSet>,
    /// Where it goes to.
    pub destination: Option<AddressSet>,
    /// The port it goes to; only where `protocol` has ports.
    pub destination_ports: Option<Ports>,
}

/// What a rule, or the end of a tier, does with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Let it through this endpoint.
    Allow,
    /// Drop it.
    Deny,
}

/// An IP protocol number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Protocol(pub u8);

impl Protocol {
    /// TCP.
    pub const TCP: Self = Self(6);
    /// UDP.
    pub const UDP: Self = Self(17);
    /// ICMP for IPv6.
    pub const ICMPV6: Self = Self(58);
    /// SCTP.
    pub const SCTP: Self = Self(132);
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::TCP => f.write_str("tcp"),
            Self::UDP => f.write_str("udp"),
            Self::ICMPV6 => f.write_str("ipv6-icmp"),
            Self::SCTP => f.write_str("sctp"),
            Self(number) => number.fmt(f),
        }
    }
}

/// A union of endpoints and ranges of addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AddressSet {
    /// Endpoints, whatever their addresses are.
    pub endpoints: BTreeSet<EndpointSelector>,
    /// Ranges of addresses.
    pub nets: BTreeSet<IpNetwork>,
}

/// Ports: any of the ranges or of the names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ports {
    /// Numbers.
    pub ranges: Vec<PortRange>,
    /// Names, which every destination endpoint resolves for itself.
    pub names: BTreeSet<Arc<str>>,
}

/// Ports from `first` to `last`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortRange {
    /// The lowest port.
    pub first: u16,
    /// The highest port, not below `first`.
    pub last: u16,
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            self.first.fmt(f)
        } else {
            write!(f, "{}:{}", self.first, self.last)
        }
    }
}

/// A port that a workload has a name for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NamedPort {
    /// The name; unique among the workload's ports of one protocol.
    pub name: Arc<str>,
    /// Its protocol.
    pub protocol: Protocol,
    /// Its number.
    pub port: u16,
}
