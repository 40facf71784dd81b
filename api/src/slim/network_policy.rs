//! `networking.k8s.io/v1` NetworkPolicy, in full.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{LabelSelector, Metadata, Protocol};
use crate::nullable::or_default;

/// A NetworkPolicy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NetworkPolicy {
    /// Standard metadata.
    pub metadata: Metadata,
    /// What it selects and allows.
    #[serde(deserialize_with = "or_default")]
    pub spec: NetworkPolicySpec,
}

impl NetworkPolicy {
    /// The policy as an API server would have stored it: with `policyTypes` filled in where it is missing (Ingress
    /// always, Egress when there is an egress rule) and TCP where a port names no protocol.
    #[must_use]
    pub fn defaulted(mut self) -> Self {
        let spec = &mut self.spec;
        if spec.policy_types.is_empty() {
            spec.policy_types.push(PolicyType::Ingress);
            if !spec.egress.is_empty() {
                spec.policy_types.push(PolicyType::Egress);
            }
        }
        let ingress = spec.ingress.iter_mut().flat_map(|rule| &mut rule.ports);
        let egress = spec.egress.iter_mut().flat_map(|rule| &mut rule.ports);
        for port in ingress.chain(egress) {
            port.protocol.get_or_insert_default();
        }
        self
    }

    /// Whether the (defaulted) policy isolates what it selects in this direction.
    pub fn applies_to(&self, direction: PolicyType) -> bool {
        self.spec.policy_types.contains(&direction)
    }
}

/// `spec` of a NetworkPolicy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NetworkPolicySpec {
    /// The pods of the policy's own namespace it applies to; empty selects all.
    #[serde(deserialize_with = "or_default")]
    pub pod_selector: LabelSelector,
    /// Directions it isolates; empty only before [`NetworkPolicy::defaulted`].
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub policy_types: Vec<PolicyType>,
    /// Traffic allowed in: the union of the rules.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub ingress: Vec<IngressRule>,
    /// Traffic allowed out: the union of the rules.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub egress: Vec<EgressRule>,
}

/// A direction, seen from the selected pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum PolicyType {
    /// Into the pod.
    Ingress,
    /// Out of the pod.
    Egress,
}

/// Allows traffic from any of `from` (empty: from everywhere) to any of `ports` (empty: all).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct IngressRule {
    /// Sources; missing and empty both mean all.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub from: Vec<Peer>,
    /// Ports on the selected pod; missing and empty both mean all, of every protocol.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<PolicyPort>,
}

/// Allows traffic to any of `to` (empty: to everywhere) on any of `ports` (empty: all).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EgressRule {
    /// Destinations; missing and empty both mean all.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub to: Vec<Peer>,
    /// Ports on the destination; missing and empty both mean all, of every protocol.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<PolicyPort>,
}

/// The other side: pods by selectors, or addresses; never both.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Peer {
    /// Pods by label; alone, in the policy's own namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_selector: Option<LabelSelector>,
    /// Namespaces by label; alone, all their pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace_selector: Option<LabelSelector>,
    /// Addresses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip_block: Option<IpBlock>,
}

/// A CIDR without some of its parts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IpBlock {
    /// The CIDR, as written.
    pub cidr: String,
    /// CIDRs inside it that do not match.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub except: Vec<String>,
}

/// A port, a range or a name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PolicyPort {
    /// The protocol; TCP when missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    /// A number or a container port's name; missing means every port of the protocol.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<IntOrString>,
    /// The last port of the range that starts at `port`, inclusive.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end_port: Option<i32>,
}

/// `intstr.IntOrString`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(untagged)]
pub enum IntOrString {
    /// A number, not yet checked to be a port.
    Int(i32),
    /// A name.
    String(String),
}

impl fmt::Display for IntOrString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Int(number) => number.fmt(f),
            Self::String(name) => name.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(spec: serde_json::Value) -> NetworkPolicy {
        serde_json::from_value(
            serde_json::json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"name": "p", "namespace": "n", "creationTimestamp": null}, "spec": spec}),
        )
        .unwrap()
    }

    #[test]
    fn policy_types_default_as_the_api_server_sets_them() {
        use PolicyType::{Egress, Ingress};
        let types = |spec| policy(spec).defaulted().spec.policy_types;
        assert_eq!(types(serde_json::json!({"podSelector": {}})), [Ingress]);
        assert_eq!(types(serde_json::json!({"podSelector": {}, "egress": []})), [Ingress]);
        assert_eq!(
            types(serde_json::json!({"podSelector": {}, "egress": [{}]})),
            [Ingress, Egress]
        );
        assert_eq!(
            types(serde_json::json!({"policyTypes": ["Egress"], "ingress": [{}]})),
            [Egress]
        );
    }

    #[test]
    fn ports_are_numbers_or_names_and_default_to_tcp() {
        let p = policy(serde_json::json!({"ingress": [{"from": null, "ports": [
            {"port": 80, "endPort": 90}, {"port": "http", "protocol": "UDP"}, {}]}]}));
        let p = p.defaulted();
        let ports = &p.spec.ingress[0].ports;
        assert_eq!(ports[0].port, Some(IntOrString::Int(80)));
        assert_eq!(ports[0].end_port, Some(90));
        assert_eq!(ports[1].port, Some(IntOrString::String("http".into())));
        assert_eq!(ports[1].protocol, Some(Protocol::Udp));
        assert_eq!((&ports[2].port, ports[2].protocol), (&None, Some(Protocol::Tcp)));
    }

    #[test]
    fn an_unknown_protocol_is_an_error() {
        assert!(serde_json::from_str::<PolicyPort>(r#"{"protocol":"tcp"}"#).is_err());
    }
}
