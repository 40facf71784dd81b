//! `networking.k8s.io/v1` NetworkPolicy.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ipnetwork::IpNetwork;
use margay_api::cidr::Sloppy;
use margay_api::slim::{
    self, IntOrString, IpBlock, LabelSelector, NetworkPolicy, Operator, Peer, PolicyPort, PolicyType,
};
use margay_api::validate::{self, Violation};

use super::{Problem, cidr, policy_id};
use crate::model::{
    Action, AddressSet, EndpointSelector, Namespaces, Policy, PortRange, Ports, Protocol, Requirement, Rule, Selector,
    Test, Update,
};

/// The most ranges that a policy's ipBlocks may come to without their excepts: on every node that it selects a pod of, each
/// is a member of a set, of which a set has room for about a million.
const MOST_PIECES: usize = 65_536;

const TOO_MANY: &str = "brings the policy's ipBlocks to more than 65536 ranges, too many for a node: except fewer and \
                        larger ranges, or make it several policies";

/// A NetworkPolicy, with all that is wrong with it.
///
/// What is wrong is what no API server would have stored ([`validate::network_policy`]), and ipBlocks of more ranges than
/// a node has room for. A policy with any fault denies, in the directions it names, everything to what it selects: no
/// rule of it allows. Where the selector itself is wrong, its sound parts select ([`validate::sound_selector`]).
pub fn network_policy(policy: &NetworkPolicy) -> (Update, Vec<Problem>) {
    let policy = policy.clone().defaulted();
    let mut violations = validate::network_policy(&policy);
    let read = violations.is_empty().then(|| Reader::new(&policy).policy(&policy));
    let converted = match read {
        Some(Ok(converted)) => converted,
        Some(Err(TooManyPieces { field })) => {
            violations.push(Violation::new(field, TOO_MANY));
            allows_nothing(&policy)
        }
        None => allows_nothing(&policy),
    };
    let object = format!("NetworkPolicy {}", policy.metadata.full_name());
    let problem = |Violation { field, message }| Problem {
        object: object.clone(),
        field,
        message,
    };
    (
        Update::Policy(policy_id(&policy.metadata), Some(converted)),
        violations.into_iter().map(problem).collect(),
    )
}

fn allows_nothing(policy: &NetworkPolicy) -> Policy {
    let nothing = |direction| policy.applies_to(direction).then(Vec::new);
    let labels = validate::sound_selector(&policy.spec.pod_selector);
    Policy {
        selects: in_namespace(policy.metadata.namespace.as_str().into(), selector(&labels)),
        ingress: nothing(PolicyType::Ingress),
        egress: nothing(PolicyType::Egress),
    }
}

/// Reads one valid policy.
struct Reader {
    namespace: Arc<str>,
    /// How many more ranges its ipBlocks may come to.
    pieces: usize,
}

/// An ipBlock with which the policy has more than [`MOST_PIECES`].
struct TooManyPieces {
    field: String,
}

/// Ports by protocol; `None` stands for every port of the protocol.
type PortsByProtocol = BTreeMap<Protocol, Option<Ports>>;

impl Reader {
    fn new(policy: &NetworkPolicy) -> Self {
        Self {
            namespace: policy.metadata.namespace.as_str().into(),
            pieces: MOST_PIECES,
        }
    }

    fn policy(&mut self, policy: &NetworkPolicy) -> Result<Policy, TooManyPieces> {
        let spec = &policy.spec;
        let mut ingress = Vec::new();
        if policy.applies_to(PolicyType::Ingress) {
            for (i, rule) in spec.ingress.iter().enumerate() {
                let source = self.peers(&format!("spec.ingress[{i}].from"), &rule.from)?;
                ingress.extend(rules(&rule.ports, source, None));
            }
        }
        let mut egress = Vec::new();
        if policy.applies_to(PolicyType::Egress) {
            for (i, rule) in spec.egress.iter().enumerate() {
                let destination = self.peers(&format!("spec.egress[{i}].to"), &rule.to)?;
                egress.extend(rules(&rule.ports, None, destination));
            }
        }
        Ok(Policy {
            selects: in_namespace(self.namespace.clone(), selector(&spec.pod_selector)),
            ingress: policy.applies_to(PolicyType::Ingress).then_some(ingress),
            egress: policy.applies_to(PolicyType::Egress).then_some(egress),
        })
    }

    /// The union of the peers; `None`, which is everything, when there are none.
    fn peers(&mut self, field: &str, peers: &[Peer]) -> Result<Option<AddressSet>, TooManyPieces> {
        if peers.is_empty() {
            return Ok(None);
        }
        let mut union = AddressSet::default();
        for (i, peer) in peers.iter().enumerate() {
            if let Some(block) = &peer.ip_block {
                let field = format!("{field}[{i}].ipBlock.except");
                let ranges = self.ip_block(block).ok_or(TooManyPieces { field })?;
                union.nets.extend(ranges);
                continue;
            }
            let pods = peer.pod_selector.as_ref().map(selector);
            let endpoints = match &peer.namespace_selector {
                Some(namespaces) => EndpointSelector {
                    namespaces: Namespaces::Matching(selector(namespaces)),
                    labels: pods.unwrap_or_default(),
                },
                None => match pods {
                    Some(pods) => in_namespace(self.namespace.clone(), pods),
                    None => continue,
                },
            };
            union.endpoints.insert(endpoints);
        }
        Ok(Some(union))
    }

    /// What a block leaves of its CIDR; `None` when that is too much.
    fn ip_block(&mut self, block: &IpBlock) -> Option<BTreeSet<IpNetwork>> {
        let network = |text: &String| Sloppy::parse(text).map(Sloppy::network);
        let mut left = BTreeSet::new();
        let holes: Result<Vec<_>, _> = block.except.iter().map(network).collect();
        if let (Ok(whole), Ok(holes)) = (network(&block.cidr), holes) {
            cidr::subtract(whole, &holes, &mut left, self.pieces).then_some(())?;
        }
        self.pieces -= left.len();
        Some(left)
    }
}

fn in_namespace(namespace: Arc<str>, labels: Selector) -> EndpointSelector {
    EndpointSelector {
        namespaces: Namespaces::Named(namespace),
        labels,
    }
}

fn rules(ports: &[PolicyPort], source: Option<AddressSet>, destination: Option<AddressSet>) -> Vec<Rule> {
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
    for port in ports {
        add_port(port, &mut by_protocol);
    }
    by_protocol
        .into_iter()
        .map(|(protocol, ports)| rule(Some(protocol), ports))
        .collect()
}

fn add_port(port: &PolicyPort, by_protocol: &mut PortsByProtocol) {
    let protocol = Protocol(port.protocol.unwrap_or_default().number());
    let all = by_protocol.entry(protocol).or_insert_with(|| Some(Ports::default()));
    let Some(ports) = all else { return };
    match &port.port {
        None => *all = None,
        Some(IntOrString::String(name)) => _ = ports.names.insert(name.as_str().into()),
        Some(IntOrString::Int(first)) => {
            let last = port.end_port.unwrap_or(*first);
            if let (Ok(first), Ok(last)) = (u16::try_from(*first), u16::try_from(last)) {
                ports.ranges.push(PortRange { first, last });
            }
        }
    }
}

fn selector(selector: &LabelSelector) -> Selector {
    let labels = selector.match_labels.iter().map(|(key, value)| Requirement {
        key: key.clone(),
        test: Test::In([value.clone()].into()),
    });
    labels
        .chain(selector.match_expressions.iter().map(requirement))
        .collect()
}

fn requirement(expression: &slim::Requirement) -> Requirement {
    let values = expression.values.iter().cloned().collect();
    Requirement {
        key: expression.key.clone(),
        test: match expression.operator {
            Operator::In => Test::In(values),
            Operator::NotIn => Test::NotIn(values),
            Operator::Exists => Test::Exists,
            Operator::DoesNotExist => Test::Missing,
        },
    }
}
