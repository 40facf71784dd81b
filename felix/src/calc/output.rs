//! What this node must enforce.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnetwork::IpNetwork;

use crate::model::{Action, Attachment, EndpointId, PolicyId, PortRange, Protocol};

/// One difference from what was to be enforced before. Within a flush sets come before the policies that use them,
/// and those before endpoints; removals come after, the other way round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A set that was not there, with all its members.
    SetAdded(SetId, BTreeSet<Member>),
    /// A set's members have changed.
    SetChanged(SetId, SetDelta),
    /// A policy selects an endpoint of this node, or says something else than before.
    PolicyUpdated(PolicyId, Arc<ActivePolicy>),
    /// An endpoint of this node is new or has changed.
    EndpointUpdated(EndpointId, Arc<LocalEndpoint>),
    /// The pools that there are now.
    PoolsChanged(Pools),
    /// An endpoint has left this node.
    EndpointRemoved(EndpointId),
    /// No endpoint of this node is selected by the policy any more.
    PolicyRemoved(PolicyId),
    /// No policy uses the set any more.
    SetRemoved(SetId),
}

/// Members that came and went; no member is in both.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SetDelta {
    /// Members that were not there.
    pub added: BTreeSet<Member>,
    /// Members that are not there any more.
    pub removed: BTreeSet<Member>,
}

/// Names a set by what defines it: equal definitions are one set.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SetId {
    /// What its members are.
    pub kind: SetKind,
    /// A hash of the definition, 16 characters of a-z and 2-7.
    pub hash: Arc<str>,
    /// Whether it can ever have IPv4 members.
    pub v4: bool,
    /// Whether it can ever have IPv6 members.
    pub v6: bool,
}

/// What a set's members are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SetKind {
    /// Addresses and ranges of them.
    Nets,
    /// Addresses with a protocol and a port.
    AddressPorts,
}

/// A member of a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Member {
    /// Of a set of [`SetKind::Nets`].
    Net(IpNetwork),
    /// Of a set of [`SetKind::AddressPorts`].
    AddressPort(IpAddr, Protocol, u16),
}

impl Member {
    /// The family of its address.
    pub fn is_ipv4(&self) -> bool {
        match self {
            Self::Net(net) => net.is_ipv4(),
            Self::AddressPort(address, ..) => address.is_ipv4(),
        }
    }
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Net(net) => net.fmt(f),
            Self::AddressPort(address, protocol, port) => write!(f, "{address},{protocol}:{port}"),
        }
    }
}

/// A policy with its peers resolved to sets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActivePolicy {
    /// Rules for traffic into the endpoints it selects, in order.
    pub ingress: Vec<ActiveRule>,
    /// Rules for traffic out of the endpoints it selects, in order.
    pub egress: Vec<ActiveRule>,
}

impl ActivePolicy {
    /// Every set that its rules look at.
    pub fn sets(&self) -> impl Iterator<Item = &SetId> {
        self.ingress.iter().chain(&self.egress).flat_map(|rule| {
            let named = match &rule.ports {
                ActivePorts::Named(set) => Some(set),
                ActivePorts::Any | ActivePorts::Ranges(_) => None,
            };
            [&rule.source, &rule.destination].into_iter().flatten().chain(named)
        })
    }
}

/// A rule whose peers are sets. All its parts must match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActiveRule {
    /// What happens to a packet that matches.
    pub action: Action,
    /// The transport protocol; `None` is any.
    pub protocol: Option<Protocol>,
    /// Where it comes from; `None` is anywhere.
    pub source: Option<SetId>,
    /// Where it goes to; `None` is anywhere.
    pub destination: Option<SetId>,
    /// The port it goes to.
    pub ports: ActivePorts,
}

/// The destination ports of an [`ActiveRule`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ActivePorts {
    /// Any, or none where the protocol has no ports.
    Any,
    /// One of these; never empty.
    Ranges(Vec<PortRange>),
    /// The destination's address, protocol and port are in this set.
    Named(SetId),
}

/// An endpoint of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalEndpoint {
    /// Its interface and addresses.
    pub attachment: Attachment,
    /// What applies to it; `None` while its workload is not known: then everything is denied.
    pub policy: Option<EndpointPolicy>,
}

/// The tiers that apply to an endpoint, in order. A direction with no tier is not isolated.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndpointPolicy {
    /// For traffic into it.
    pub ingress: Vec<Tier>,
    /// For traffic out of it.
    pub egress: Vec<Tier>,
}

/// The policies of one tier that select an endpoint; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tier {
    /// In the order in which they are asked.
    pub policies: Vec<PolicyId>,
    /// What happens to a packet about which none of them says anything.
    pub default_action: Action,
}

/// The pools of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pools {
    /// All of them.
    pub all: BTreeSet<IpNetwork>,
    /// Those whose traffic to outside leaves with the node's address.
    pub nat_outgoing: BTreeSet<IpNetwork>,
}
