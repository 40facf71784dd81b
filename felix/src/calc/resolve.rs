//! A policy's rules into rules over sets.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use ipnetwork::IpNetwork;
use sha2::{Digest, Sha256};

use super::output::{ActivePolicy, ActivePorts, ActiveRule, SetId, SetKind};
use crate::model::{AddressSet, EndpointSelector, Policy, Protocol, Rule};

/// What defines a set's members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum SetSpec {
    /// Addresses of endpoints, and ranges.
    Nets(AddressSet),
    /// Where endpoints have a port of this name and protocol.
    NamedPort {
        name: Arc<str>,
        protocol: Protocol,
        endpoints: BTreeSet<EndpointSelector>,
    },
}

impl SetSpec {
    pub(super) fn id(&self) -> SetId {
        let (kind, v4, v6) = match self {
            Self::Nets(set) => {
                let any = |family: fn(&IpNetwork) -> bool| !set.endpoints.is_empty() || set.nets.iter().any(family);
                (SetKind::Nets, any(IpNetwork::is_ipv4), any(IpNetwork::is_ipv6))
            }
            Self::NamedPort { .. } => (SetKind::AddressPorts, true, true),
        };
        SetId {
            kind,
            hash: hash(&self.to_string()).into(),
            v4,
            v6,
        }
    }

    pub(super) fn endpoints(&self) -> &BTreeSet<EndpointSelector> {
        match self {
            Self::Nets(set) => &set.endpoints,
            Self::NamedPort { endpoints, .. } => endpoints,
        }
    }
}

impl fmt::Display for SetSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nets(set) => {
                f.write_str("nets")?;
                set.nets.iter().try_for_each(|net| write!(f, " {net}"))?;
            }
            Self::NamedPort { name, protocol, .. } => write!(f, "port {name} {protocol}")?,
        }
        self.endpoints()
            .iter()
            .try_for_each(|selector| write!(f, " {selector}"))
    }
}

/// The policy over sets, and what those sets are.
pub(super) fn resolve(policy: &Policy) -> (ActivePolicy, Vec<SetSpec>) {
    let mut specs = Vec::new();
    let ingress = policy.ingress.iter().flatten().flat_map(|rule| {
        let own = [policy.selects.clone()].into();
        resolve_rule(rule, Some(own), &mut specs)
    });
    let ingress = ingress.collect();
    let egress = policy
        .egress
        .iter()
        .flatten()
        .flat_map(|rule| resolve_rule(rule, None, &mut specs));
    let egress = egress.collect();
    (ActivePolicy { ingress, egress }, specs)
}

/// `destinations`: the endpoints that traffic can be for, where the direction tells.
fn resolve_rule(
    rule: &Rule,
    destinations: Option<BTreeSet<EndpointSelector>>,
    specs: &mut Vec<SetSpec>,
) -> Vec<ActiveRule> {
    let mut use_set = |spec: SetSpec| {
        let id = spec.id();
        if !specs.contains(&spec) {
            specs.push(spec);
        }
        id
    };
    let source = rule.source.clone().map(|set| use_set(SetSpec::Nets(set)));
    let Some(ports) = &rule.destination_ports else {
        let destination = rule.destination.clone().map(|set| use_set(SetSpec::Nets(set)));
        let (action, protocol) = (rule.action, rule.protocol);
        return vec![ActiveRule {
            action,
            protocol,
            source,
            destination,
            ports: ActivePorts::Any,
        }];
    };
    let mut rules = Vec::new();
    if !ports.ranges.is_empty() {
        let destination = rule.destination.clone().map(|set| use_set(SetSpec::Nets(set)));
        let ports = ActivePorts::Ranges(ports.ranges.clone());
        let source = source.clone();
        rules.push(ActiveRule {
            action: rule.action,
            protocol: rule.protocol,
            source,
            destination,
            ports,
        });
    }
    for name in &ports.names {
        // Where only selectors name the destinations, the set of their ports says it all.
        let only_endpoints = rule.destination.as_ref().filter(|set| set.nets.is_empty());
        let endpoints = only_endpoints
            .map(|set| set.endpoints.clone())
            .or_else(|| destinations.clone());
        let destination = rule.destination.clone().filter(|_| only_endpoints.is_none());
        let destination = destination.map(|set| use_set(SetSpec::Nets(set)));
        let ports = ActivePorts::Named(use_set(SetSpec::NamedPort {
            name: name.clone(),
            protocol: rule.protocol.unwrap_or(Protocol::TCP),
            endpoints: endpoints.unwrap_or_else(|| [EndpointSelector::all()].into()),
        }));
        let source = source.clone();
        rules.push(ActiveRule {
            action: rule.action,
            protocol: rule.protocol,
            source,
            destination,
            ports,
        });
    }
    rules
}

/// 80 bits of the text's SHA-256 in base32.
fn hash(text: &str) -> String {
    const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let digest = Sha256::digest(text.as_bytes());
    let mut hash = String::new();
    for chunk in digest[..10].chunks(5) {
        let bits = chunk.iter().fold(0u64, |bits, &byte| bits << 8 | u64::from(byte));
        for i in (0..8).rev() {
            let symbol = ALPHABET[(bits >> (5 * i) & 31) as usize];
            hash.push(char::from(symbol));
        }
    }
    hash
}
