//! `spec.ingress` and `spec.egress`, rule by rule.

use std::net::IpAddr;

use margay_api::slim;

use super::cidr::Cidr;
use super::decision::Direction;
use super::endpoint::Endpoint;
use super::{Cluster, Protocol, selector};

/// A rule of either direction.
pub(super) struct Rule<'a> {
    pub(super) peers: &'a [slim::Peer],
    ports: &'a [slim::PolicyPort],
}

/// Whether the policy isolates the pods it selects in this direction.
///
/// A missing `policyTypes` means Ingress always, and Egress when there is an egress rule.
pub(super) fn isolates(policy: &slim::NetworkPolicy, direction: Direction) -> bool {
    let types = &policy.spec.policy_types;
    match direction {
        Direction::Ingress => types.is_empty() || types.contains(&slim::PolicyType::Ingress),
        Direction::Egress if types.is_empty() => !policy.spec.egress.is_empty(),
        Direction::Egress => types.contains(&slim::PolicyType::Egress),
    }
}

/// The policy's rules for one direction, in the order written.
pub(super) fn rules(policy: &slim::NetworkPolicy, direction: Direction) -> Vec<Rule<'_>> {
    match direction {
        Direction::Ingress => policy
            .spec
            .ingress
            .iter()
            .map(|rule| Rule {
                peers: &rule.from,
                ports: &rule.ports,
            })
            .collect(),
        Direction::Egress => policy
            .spec
            .egress
            .iter()
            .map(|rule| Rule {
                peers: &rule.to,
                ports: &rule.ports,
            })
            .collect(),
    }
}

impl Rule<'_> {
    /// Whether `other` is one of the rule's peers; no peers mean everybody.
    pub(super) fn matches_peer(&self, cluster: &Cluster, policy_namespace: &str, other: &Endpoint<'_>) -> bool {
        self.peers.is_empty()
            || self
                .peers
                .iter()
                .any(|peer| peer_matches(cluster, policy_namespace, peer, other))
    }

    /// Whether the destination port, which `served` serves, is one of the rule's; no ports mean all of every protocol.
    pub(super) fn matches_port(&self, served: &Endpoint<'_>, protocol: Protocol) -> bool {
        self.ports.is_empty() || self.ports.iter().any(|port| port_matches(port, served, protocol))
    }
}

fn peer_matches(cluster: &Cluster, policy_namespace: &str, peer: &slim::Peer, other: &Endpoint<'_>) -> bool {
    if let Some(block) = &peer.ip_block {
        let exclusive = peer.pod_selector.is_none() && peer.namespace_selector.is_none();
        return exclusive && other.address.is_some_and(|address| block_contains(block, address));
    }
    let Some(pod) = other.pod() else {
        return false;
    };
    let pod_namespace = pod.metadata.namespace.as_str();
    let in_namespace = match &peer.namespace_selector {
        Some(wanted) => cluster
            .namespaces
            .iter()
            .find(|namespace| namespace.metadata.name == pod_namespace)
            .is_some_and(|namespace| selector::matches(wanted, &namespace.metadata.labels)),
        None => peer.pod_selector.is_some() && pod_namespace == policy_namespace,
    };
    let is_pod = match &peer.pod_selector {
        Some(wanted) => selector::matches(wanted, &pod.metadata.labels),
        None => true,
    };
    in_namespace && is_pod
}

fn block_contains(block: &slim::IpBlock, address: IpAddr) -> bool {
    let inside = Cidr::parse(&block.cidr).is_some_and(|cidr| cidr.contains(address));
    let excepted = |text: &String| Cidr::parse(text).is_none_or(|cidr| cidr.contains(address));
    inside && !block.except.iter().any(excepted)
}

fn port_matches(port: &slim::PolicyPort, served: &Endpoint<'_>, protocol: Protocol) -> bool {
    let wanted = port.protocol.unwrap_or(slim::Protocol::Tcp);
    let number = match (protocol, wanted) {
        (Protocol::Tcp(number), slim::Protocol::Tcp)
        | (Protocol::Udp(number), slim::Protocol::Udp)
        | (Protocol::Sctp(number), slim::Protocol::Sctp) => number,
        _ => return false,
    };
    match (&port.port, port.end_port) {
        (None, None) => true,
        (Some(slim::IntOrString::Int(first)), None) => i32::from(number) == *first,
        (Some(slim::IntOrString::Int(first)), Some(last)) => (*first..=last).contains(&i32::from(number)),
        (Some(slim::IntOrString::String(name)), None) => serves(served, name, wanted, number),
        (None | Some(slim::IntOrString::String(_)), Some(_)) => false,
    }
}

/// Whether the pod declares this port under this name; whoever is not a pod declares none.
///
/// Init containers count only when they keep running (`restartPolicy: Always`).
fn serves(endpoint: &Endpoint<'_>, name: &str, protocol: slim::Protocol, number: u16) -> bool {
    let Some(pod) = endpoint.pod() else {
        return false;
    };
    let sidecars = pod
        .spec
        .init_containers
        .iter()
        .filter(|container| container.restart_policy.as_deref() == Some("Always"));
    sidecars
        .chain(&pod.spec.containers)
        .flat_map(|container| &container.ports)
        .any(|port| port.name == name && port.protocol == protocol && port.container_port == number)
}
