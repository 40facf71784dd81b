//! What was decided, and by which policy and rule.

use std::fmt;

/// The answer for one connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Whether the connection's packets pass: both directions allow.
    pub allow: bool,
    /// What the source pod's egress policies decided.
    pub egress: Decision,
    /// What the destination pod's ingress policies decided.
    pub ingress: Decision,
}

/// What one end's policies decided.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Decision {
    /// No policy is asked: allowed.
    Exempt(Exemption),
    /// No policy selects the pod in this direction: allowed.
    NotIsolated,
    /// Allowed by this rule, the first in order of policy name and position; others may allow it too.
    Allowed(RuleRef),
    /// Isolated by these policies (in order of name), and none of their rules matches: denied.
    Denied(Vec<PolicyRef>),
}

impl Decision {
    /// Whether this end lets the connection through.
    pub fn allows(&self) -> bool {
        !matches!(self, Self::Denied(_))
    }

    /// The policy that decided: the allowing one, or the first of the isolating ones.
    pub fn policy(&self) -> Option<&PolicyRef> {
        match self {
            Self::Allowed(rule) => Some(&rule.policy),
            Self::Denied(policies) => policies.first(),
            Self::Exempt(_) | Self::NotIsolated => None,
        }
    }

    /// The rule that allowed it.
    pub fn rule(&self) -> Option<&RuleRef> {
        match self {
            Self::Allowed(rule) => Some(rule),
            Self::Exempt(_) | Self::NotIsolated | Self::Denied(_) => None,
        }
    }
}

/// Why NetworkPolicy has no say at one end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Exemption {
    /// The end is an address of no pod.
    External,
    /// The end is a node, or a pod with `hostNetwork: true`, which shares the node's addresses.
    Host,
    /// A pod talks to its own address.
    SameEndpoint,
    /// The node (kubelet's probes, host-network pods) talks to a pod that it runs.
    OwnNode,
}

/// A NetworkPolicy's name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PolicyRef {
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
}

/// A rule of a NetworkPolicy.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RuleRef {
    /// The policy that holds it.
    pub policy: PolicyRef,
    /// The list that holds it: `spec.ingress` or `spec.egress`.
    pub direction: Direction,
    /// Its position in that list, from 0.
    pub index: usize,
}

/// A direction of traffic, seen from the pod that a policy selects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    /// Into the pod.
    Ingress,
    /// Out of the pod.
    Egress,
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exempt(exemption) => exemption.fmt(f),
            Self::NotIsolated => f.write_str("no policy selects the pod"),
            Self::Allowed(rule) => write!(f, "allowed by {rule}"),
            Self::Denied(policies) => {
                f.write_str("isolated by ")?;
                for (position, policy) in policies.iter().enumerate() {
                    let separator = if position == 0 { "" } else { ", " };
                    write!(f, "{separator}{policy}")?;
                }
                f.write_str(", no rule matched")
            }
        }
    }
}

impl fmt::Display for Exemption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::External => "not a pod",
            Self::Host => "a host: NetworkPolicy does not apply",
            Self::SameEndpoint => "the pod itself",
            Self::OwnNode => "from the pod's own node",
        })
    }
}

impl fmt::Display for PolicyRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl fmt::Display for RuleRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}[{}]", self.policy, self.direction, self.index)
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        })
    }
}
