//! What Kubernetes' NetworkPolicy says about a connection: a deliberately simple evaluator.
//!
//! It reads the API's semantics straight from [`margay_api::slim`], without an index or a cache, and shares no code with
//! the crate's other modules, so that the tests can hold the rules in the kernel against it. It also powers
//! `margayctl policy`.
//!
//! A [`Connection`] is a new one, seen from its first packet. Replies and RELATED ICMP errors of an allowed connection
//! pass, and IPv6 neighbour discovery is no connection at all: neither is asked about here.
//!
//! What the API leaves open is decided so:
//!
//! - **Which family.** Between pods that have several addresses the connection uses the first of the source's addresses
//!   whose family the destination has too. Ask with addresses instead of names to choose another.
//! - **Pods without an address** (manifests without status) are judged by their labels: an `ipBlock` never matches them.
//! - **Host-network pods** have the node's addresses and no policy of their own. As a peer only an `ipBlock` matches them.
//! - **A node** reaches the pods that it runs, whatever their policies say. The way back, a pod that opens a connection to
//!   its node, is subject to the pod's egress policies.
//! - **ICMP** is allowed only by rules without `ports`.
//! - **An address of no pod and no node** is outside the cluster: only an `ipBlock` and rules without peers match it.
//! - **Finished pods** (phase Succeeded or Failed) have given their addresses back; terminating pods have not.
//! - **A faulty policy** ([`is_faulty`]: one that the API server would refuse, or with more address ranges than a node has
//!   room for) isolates what it selects, in the directions it names, and none of its rules allows. Where its `podSelector`
//!   is at fault, its sound parts select.
//! - **Spellings that API servers store** although newer ones refuse them in new objects mean what the API server takes
//!   them for: leading zeros are none, bits beyond a prefix length are cleared, `::ffff:10.0.0.0/104` is `10.0.0.0/8`.

mod cidr;
mod decision;
mod endpoint;
mod fault;
mod rule;
mod selector;

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use margay_api::slim;

pub use decision::{Decision, Direction, Exemption, PolicyRef, RuleRef, Verdict};
pub use endpoint::EvaluateError;
pub use fault::is_faulty;

use endpoint::Endpoint;

/// The objects that decide, as an API server would have stored them.
///
/// Names are unique per kind and namespace, no two live pods share an address, every namespaced object names its
/// namespace. A pod whose Namespace is missing is matched by no `namespaceSelector`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cluster {
    /// Namespaces, with the label `kubernetes.io/metadata.name`.
    pub namespaces: Vec<slim::Namespace>,
    /// Pods in every phase.
    pub pods: Vec<slim::Pod>,
    /// Nodes; without them only host-network pods are known to be on a node.
    pub nodes: Vec<slim::Node>,
    /// Policies; a missing `policyTypes` or `protocol` takes the API server's default.
    pub policies: Vec<slim::NetworkPolicy>,
}

/// A connection that somebody might open.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Connection {
    /// Who opens it.
    pub from: Peer,
    /// Who answers it, after any Service has been translated.
    pub to: Peer,
    /// What it speaks, with the destination port.
    pub protocol: Protocol,
}

/// One end of a connection.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Peer {
    /// A pod by name.
    Pod {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// An address: the pod's that has it, else the node's, else one outside the cluster.
    Address(IpAddr),
}

/// A connection's protocol and destination port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP to this port.
    Tcp(u16),
    /// UDP to this port.
    Udp(u16),
    /// SCTP to this port.
    Sctp(u16),
    /// ICMP or ICMPv6 echo.
    Icmp,
}

/// Decides one connection.
///
/// # Errors
///
/// When the connection cannot exist: a pod that is not there or has finished, two ends without a common family.
///
/// ```
/// use margay_felix::verdict::{Cluster, Connection, Decision, Protocol, evaluate};
///
/// let cluster = Cluster {
///     pods: vec![serde_json::from_value(serde_json::json!({
///         "metadata": {"namespace": "shop", "name": "web", "labels": {"app": "web"}}, "spec": {"containers": []},
///     }))?],
///     policies: vec![serde_json::from_value(serde_json::json!({
///         "metadata": {"namespace": "shop", "name": "https-only"},
///         "spec": {"podSelector": {}, "ingress": [{"ports": [{"port": 443}]}]},
///     }))?],
///     ..Cluster::default()
/// };
/// let connection = |port| Connection {
///     from: "192.0.2.1".parse().unwrap(), to: "shop/web".parse().unwrap(), protocol: Protocol::Tcp(port),
/// };
/// assert_eq!(evaluate(&cluster, &connection(443))?.ingress.to_string(), "allowed by shop/https-only ingress[0]");
/// assert!(!evaluate(&cluster, &connection(80))?.allow);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn evaluate(cluster: &Cluster, connection: &Connection) -> Result<Verdict, EvaluateError> {
    let (source, destination) = endpoint::resolve(cluster, connection)?;
    let egress = match source.exemption(&destination) {
        Some(exemption) => Decision::Exempt(exemption),
        None => decide(cluster, Direction::Egress, &source, &destination, connection.protocol),
    };
    let ingress = match destination.exemption(&source) {
        Some(exemption) => Decision::Exempt(exemption),
        None if destination.runs_on(&source) => Decision::Exempt(Exemption::OwnNode),
        None => decide(cluster, Direction::Ingress, &destination, &source, connection.protocol),
    };
    Ok(Verdict {
        allow: egress.allows() && ingress.allows(),
        egress,
        ingress,
    })
}

/// What the policies that select `subject` say about its traffic with `other`.
fn decide(
    cluster: &Cluster,
    direction: Direction,
    subject: &Endpoint<'_>,
    other: &Endpoint<'_>,
    protocol: Protocol,
) -> Decision {
    let mut isolating: Vec<&slim::NetworkPolicy> = cluster
        .policies
        .iter()
        .filter(|policy| rule::isolates(policy, direction) && subject.is_selected_by(policy))
        .collect();
    if isolating.is_empty() {
        return Decision::NotIsolated;
    }
    isolating.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
    let served = match direction {
        Direction::Ingress => subject,
        Direction::Egress => other,
    };
    for policy in &isolating {
        let rules = rule::rules(policy, direction);
        let allowing = rules.iter().position(|rule| {
            rule.matches_peer(cluster, &policy.metadata.namespace, other) && rule.matches_port(served, protocol)
        });
        if let Some(index) = allowing.filter(|_| !is_faulty(policy)) {
            return Decision::Allowed(RuleRef {
                policy: reference(policy),
                direction,
                index,
            });
        }
    }
    Decision::Denied(isolating.into_iter().map(reference).collect())
}

fn reference(policy: &slim::NetworkPolicy) -> PolicyRef {
    PolicyRef {
        namespace: policy.metadata.namespace.clone(),
        name: policy.metadata.name.clone(),
    }
}

impl Peer {
    /// The pod `namespace/name`.
    pub fn pod(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self::Pod {
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

/// A text that is neither `namespace/pod` nor an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither namespace/pod nor an IP address")]
pub struct PeerSyntaxError(String);

impl FromStr for Peer {
    type Err = PeerSyntaxError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(address) = text.parse() {
            return Ok(Self::Address(address));
        }
        match text.split_once('/') {
            Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
                Ok(Self::pod(namespace, name))
            }
            Some(_) | None => Err(PeerSyntaxError(text.to_owned())),
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod { namespace, name } => write!(f, "{namespace}/{name}"),
            Self::Address(address) => address.fmt(f),
        }
    }
}

impl Protocol {
    /// The destination port; ICMP has none.
    pub fn port(self) -> Option<u16> {
        match self {
            Self::Tcp(port) | Self::Udp(port) | Self::Sctp(port) => Some(port),
            Self::Icmp => None,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(port) => write!(f, "TCP {port}"),
            Self::Udp(port) => write!(f, "UDP {port}"),
            Self::Sctp(port) => write!(f, "SCTP {port}"),
            Self::Icmp => f.write_str("ICMP"),
        }
    }
}
