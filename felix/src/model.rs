//! What the policy engine knows of the cluster, free of any datastore's shapes.
//!
//! The input is a stream of [`Update`]s: a [`Key`] and its value, or none once it is gone. Every update stands for the
//! whole value, so their order across keys never matters and only the last one of a key counts. Other kinds of policy
//! convert into the same [`Policy`]; a host endpoint will be one more kind of key beside [`Workload`].

mod rule;
mod selector;

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnetwork::IpNetwork;

pub use rule::{Action, AddressSet, NamedPort, PortRange, Ports, Protocol, Rule};
pub use selector::{EndpointSelector, Labels, Namespaces, Requirement, Selector, Test};

/// What an [`Update`] is about. One value per key.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Key {
    /// A namespace, by name.
    Namespace(Arc<str>),
    /// A workload anywhere in the cluster.
    Workload(EndpointId),
    /// A workload's interface on this node.
    Attachment(EndpointId),
    /// A policy.
    Policy(PolicyId),
    /// An IP pool, by CIDR.
    Pool(IpNetwork),
}

/// One key's new value; `None` when the object is gone.
#[derive(Clone, Debug, PartialEq)]
pub enum Update {
    /// A namespace, by name.
    Namespace(Arc<str>, Option<Namespace>),
    /// A workload anywhere in the cluster.
    Workload(EndpointId, Option<Workload>),
    /// A workload's interface on this node.
    Attachment(EndpointId, Option<Attachment>),
    /// A policy.
    Policy(PolicyId, Option<Policy>),
    /// An IP pool, by CIDR.
    Pool(IpNetwork, Option<Pool>),
}

impl Update {
    /// What the update is about.
    pub fn key(&self) -> Key {
        match self {
            Self::Namespace(name, _) => Key::Namespace(name.clone()),
            Self::Workload(id, _) => Key::Workload(id.clone()),
            Self::Attachment(id, _) => Key::Attachment(id.clone()),
            Self::Policy(id, _) => Key::Policy(id.clone()),
            Self::Pool(cidr, _) => Key::Pool(*cidr),
        }
    }
}

/// Names a workload endpoint: its namespace and the pod's name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EndpointId {
    /// The pod's namespace.
    pub namespace: Arc<str>,
    /// The pod's name.
    pub name: Arc<str>,
}

impl EndpointId {
    /// The endpoint of the pod `namespace/name`.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl fmt::Display for EndpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Names a policy.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PolicyId {
    /// The policy's namespace.
    pub namespace: Arc<str>,
    /// The policy's name.
    pub name: Arc<str>,
}

impl PolicyId {
    /// The policy `namespace/name`.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl fmt::Display for PolicyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A namespace: what selectors see of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namespace {
    /// Its labels.
    pub labels: Labels,
}

/// A workload, wherever it runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Workload {
    /// Tells this incarnation from another one of the same name.
    pub uid: Arc<str>,
    /// Its own labels.
    pub labels: Labels,
    /// The addresses the cluster knows it by; an [`Attachment`] of the same uid goes before them.
    pub addresses: Vec<IpAddr>,
    /// Ports that policies may name.
    pub ports: Vec<NamedPort>,
    /// It has run to its end: none of its addresses count any more, for they may be another's by now.
    pub finished: bool,
}

/// A workload's interface on this node. Until a [`Workload`] of the same uid is known it passes nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// The incarnation of the workload it was made for.
    pub uid: Arc<str>,
    /// The node's end of its link.
    pub interface: Arc<str>,
    /// The addresses it was given: the only ones it may send from.
    pub addresses: Vec<IpAddr>,
}

/// Which endpoints a policy applies to, and what it allows them. A direction it applies to denies what no rule of any
/// policy allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The endpoints it applies to.
    pub selects: EndpointSelector,
    /// Rules for traffic into those, in order; `None` when the policy does not apply to that direction.
    pub ingress: Option<Vec<Rule>>,
    /// Rules for traffic out of those, in order; `None` when the policy does not apply to that direction.
    pub egress: Option<Vec<Rule>>,
}

/// A range that workloads' addresses come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pool {
    /// Traffic from it to outside every pool leaves with the node's address.
    pub nat_outgoing: bool,
}
