//! `networking.k8s.io/v1` NetworkPolicy.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ipnetwork::IpNetwork;
use margay_api::slim::{
    self, IntOrString, IpBlock, LabelSelector, NetworkPolicy, Operator, Peer, PolicyPort, PolicyType,
};

use super::{Problem, cidr, policy_id};
use crate::model::{
    Action, AddressSet, EndpointSelector, Namespaces, Policy, PortRange, Ports, Protocol, Requirement, Rule, Selector,
    Test, Update,
};

/// The most ranges that a policy's ipBlocks may come to without their excepts: on every node that it selects a pod of, each
/// is a member of a set, of which a set has room for about a million.
const MOST_PIECES: usize = 65_536;

/// A NetworkPolicy, with all that is wrong with it. A policy with any problem denies, in the directions it names,
/// everything to what it selects: no rule of it allows. Where the selector itself is wrong, its sound parts select.
pub fn network_policy(policy: &NetworkPolicy) -> (Update, Vec<Problem>) {
    let policy = policy.clone().defaulted();
    let mut reader = Reader {
        namespace: policy.metadata.namespace.as_str().into(),
        object: format!("NetworkPolicy {}", policy.metadata.full_name()),
        problems: Vec::new(),
        pieces: MOST_PIECES,
    };
    let converted = reader.policy(&policy);
    let allows_nothing = |rules: &Option<Vec<Rule>>| rules.as_ref().map(|_| Vec::new());
    let converted = if reader.problems.is_empty() {
        converted
    } else {
        Policy {
            ingress: allows_nothing(&converted.ingress),
            egress: allows_nothing(&converted.egress),
            selects: converted.selects,
        }
    };
    (
        Update::Policy(policy_id(&policy.metadata), Some(converted)),
        reader.problems,
    )
}

/// Reads one policy and gathers what is wrong with it.
struct Reader {
    namespace: Arc<str>,
    object: String,
    problems: Vec<Problem>,
    /// How many more ranges its ipBlocks may come to.
    pieces: usize,
}

/// Ports by protocol; `None` stands for every port of the protocol.
type PortsByProtocol = BTreeMap<Protocol, Option<Ports>>;

impl Reader {
    fn policy(&mut self, policy: &NetworkPolicy) -> Policy {
        let spec = &policy.spec;
        let labels = self.selector("spec.podSelector", &spec.pod_selector);
        let ingress = policy.applies_to(PolicyType::Ingress).then(|| {
            let rules = spec.ingress.iter().enumerate().flat_map(|(i, rule)| {
                let field = format!("spec.ingress[{i}]");
                let source = self.peers(&format!("{field}.from"), &rule.from);
                self.rules(&field, &rule.ports, source, None)
            });
            rules.collect()
        });
        let egress = policy.applies_to(PolicyType::Egress).then(|| {
            let rules = spec.egress.iter().enumerate().flat_map(|(i, rule)| {
                let field = format!("spec.egress[{i}]");
                let destination = self.peers(&format!("{field}.to"), &rule.to);
                self.rules(&field, &rule.ports, None, destination)
            });
            rules.collect()
        });
        Policy {
            selects: self.in_namespace(labels),
            ingress,
            egress,
        }
    }

    fn in_namespace(&self, labels: Selector) -> EndpointSelector {
        EndpointSelector {
            namespaces: Namespaces::Named(self.namespace.clone()),
            labels,
        }
    }

    fn rules(
        &mut self,
        field: &str,
        ports: &[PolicyPort],
        source: Option<AddressSet>,
        destination: Option<AddressSet>,
    ) -> Vec<Rule> {
        let rule = |protocol, destination_ports| Rule {
            action: Action::Allow,
            protocol,
            source: source.clone(),
            destination: destination.clone(),
            destination_ports,
        };
        if ports.is_empty() {
            return vec![rule(None, None)];
        }
        let mut by_protocol = PortsByProtocol::new();
        for (i, port) in ports.iter().enumerate() {
            self.port(&format!("{field}.ports[{i}]"), port, &mut by_protocol);
        }
        by_protocol
            .into_iter()
            .map(|(protocol, ports)| rule(Some(protocol), ports))
            .collect()
    }

    fn port(&mut self, field: &str, port: &PolicyPort, by_protocol: &mut PortsByProtocol) {
        let protocol = Protocol(port.protocol.unwrap_or_default().number());
        let ports = by_protocol.entry(protocol).or_insert_with(|| Some(Ports::default()));
        match (&port.port, port.end_port) {
            (None, None) => *ports = None,
            (None, Some(_)) => self.problem(format!("{field}.endPort"), "needs `port`, the first port of the range"),
            (Some(IntOrString::String(_)), Some(_)) => {
                self.problem(
                    format!("{field}.endPort"),
                    "goes with a port number, not with a port's name",
                );
            }
            (Some(IntOrString::String(name)), None) if is_port_name(name) => {
                ports
                    .iter_mut()
                    .for_each(|ports| _ = ports.names.insert(name.as_str().into()));
            }
            (Some(IntOrString::String(name)), None) => {
                let message =
                    format!("{name:?} is not a port's name: at most 15 of a-z, 0-9 and -, at least one letter");
                self.problem(format!("{field}.port"), &message);
            }
            (Some(IntOrString::Int(first)), last) => {
                let last = last.unwrap_or(*first);
                match (u16::try_from(*first), u16::try_from(last)) {
                    (Ok(first @ 1..), Ok(last)) if first <= last => {
                        ports
                            .iter_mut()
                            .for_each(|ports| ports.ranges.push(PortRange { first, last }));
                    }
                    (Ok(1..), _) => {
                        let message = format!("{last} is not a port from {first} to 65535");
                        self.problem(format!("{field}.endPort"), &message);
                    }
                    _ => self.problem(
                        format!("{field}.port"),
                        &format!("{first} is not a port from 1 to 65535"),
                    ),
                }
            }
        }
    }

    /// The union of the peers; `None`, which is everything, when there are none.
    fn peers(&mut self, field: &str, peers: &[Peer]) -> Option<AddressSet> {
        if peers.is_empty() {
            return None;
        }
        let mut union = AddressSet::default();
        for (i, peer) in peers.iter().enumerate() {
            let field = format!("{field}[{i}]");
            match (&peer.ip_block, &peer.namespace_selector, &peer.pod_selector) {
                (Some(block), None, None) => union.nets.extend(self.ip_block(&format!("{field}.ipBlock"), block)),
                (None, None, Some(pods)) => {
                    let labels = self.selector(&format!("{field}.podSelector"), pods);
                    union.endpoints.insert(self.in_namespace(labels));
                }
                (None, Some(namespaces), pods) => {
                    let namespaces = self.selector(&format!("{field}.namespaceSelector"), namespaces);
                    let labels = pods
                        .as_ref()
                        .map(|pods| self.selector(&format!("{field}.podSelector"), pods));
                    let labels = labels.unwrap_or_default();
                    union.endpoints.insert(EndpointSelector {
                        namespaces: Namespaces::Matching(namespaces),
                        labels,
                    });
                }
                (None, None, None) => {
                    self.problem(
                        field,
                        "is empty: give it a podSelector, a namespaceSelector or an ipBlock",
                    );
                }
                (Some(_), ..) => {
                    self.problem(field, "has an ipBlock and a selector: write them as two peers");
                }
            }
        }
        Some(union)
    }

    fn ip_block(&mut self, field: &str, block: &IpBlock) -> BTreeSet<IpNetwork> {
        let whole = match cidr::parse(&block.cidr) {
            Ok(net) => net,
            Err(message) => {
                self.problem(format!("{field}.cidr"), &message);
                return BTreeSet::new();
            }
        };
        let mut holes = Vec::new();
        for (i, except) in block.except.iter().enumerate() {
            match cidr::parse(except) {
                Ok(hole) if hole != whole && margay_api::cidr::contains(whole, hole) => holes.push(hole),
                Ok(hole) => {
                    self.problem(
                        format!("{field}.except[{i}]"),
                        &format!("{hole} is not a part of {whole}"),
                    );
                }
                Err(message) => self.problem(format!("{field}.except[{i}]"), &message),
            }
        }
        let mut left = BTreeSet::new();
        if !cidr::subtract(whole, &holes, &mut left, self.pieces) {
            let message = format!(
                "brings the policy's ipBlocks to more than {MOST_PIECES} ranges, too many for a node: except fewer and larger \
                 ranges, or make it several policies"
            );
            self.problem(format!("{field}.except"), &message);
            return BTreeSet::new();
        }
        self.pieces -= left.len();
        left
    }

    fn selector(&mut self, field: &str, selector: &LabelSelector) -> Selector {
        let labels = selector.match_labels.iter().map(|(key, value)| Requirement {
            key: key.clone(),
            test: Test::In([value.clone()].into()),
        });
        let mut requirements: Vec<_> = labels.collect();
        for (i, expression) in selector.match_expressions.iter().enumerate() {
            requirements.extend(self.requirement(&format!("{field}.matchExpressions[{i}]"), expression));
        }
        requirements.into_iter().collect()
    }

    fn requirement(&mut self, field: &str, expression: &slim::Requirement) -> Option<Requirement> {
        let needs_values = matches!(expression.operator, Operator::In | Operator::NotIn);
        if expression.key.is_empty() {
            self.problem(format!("{field}.key"), "is empty: name a label");
            return None;
        }
        if needs_values == expression.values.is_empty() {
            let message = if needs_values {
                "needs at least one value"
            } else {
                "must be empty for this operator"
            };
            self.problem(format!("{field}.values"), message);
            return None;
        }
        let values = expression.values.iter().cloned().collect();
        let test = match expression.operator {
            Operator::In => Test::In(values),
            Operator::NotIn => Test::NotIn(values),
            Operator::Exists => Test::Exists,
            Operator::DoesNotExist => Test::Missing,
        };
        Some(Requirement {
            key: expression.key.clone(),
            test,
        })
    }

    fn problem(&mut self, field: String, message: &str) {
        self.problems.push(Problem {
            object: self.object.clone(),
            field,
            message: message.to_owned(),
        });
    }
}

/// IANA's syntax of a service's name, which is that of a container port's.
fn is_port_name(name: &str) -> bool {
    (1..=15).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && name.bytes().any(|b| b.is_ascii_lowercase())
        && !name.starts_with('-')
        && !name.ends_with('-')
        && !name.contains("--")
}
