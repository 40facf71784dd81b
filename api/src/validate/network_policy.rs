//! NetworkPolicy, as the API server checks it.

use ipnetwork::IpNetwork;

use super::Violation;
use super::label_selector::{is_dns_label, label_selector};
use crate::cidr::{self, CidrError};
use crate::slim::{IntOrString, IpBlock, NetworkPolicy, Peer, PolicyPort, PolicyType};

/// Everything that is wrong with a policy; empty when it is valid.
pub fn network_policy(policy: &NetworkPolicy) -> Vec<Violation> {
    let mut found = label_selector(&policy.spec.pod_selector, "spec.podSelector");
    for (index, rule) in policy.spec.ingress.iter().enumerate() {
        let path = format!("spec.ingress[{index}]");
        ports(&rule.ports, &path, &mut found);
        peers(&rule.from, &format!("{path}.from"), &mut found);
    }
    for (index, rule) in policy.spec.egress.iter().enumerate() {
        let path = format!("spec.egress[{index}]");
        ports(&rule.ports, &path, &mut found);
        peers(&rule.to, &format!("{path}.to"), &mut found);
    }
    let types = &policy.spec.policy_types;
    for direction in [PolicyType::Ingress, PolicyType::Egress] {
        if types.iter().filter(|t| **t == direction).count() > 1 {
            found.push(Violation::new(
                "spec.policyTypes",
                format!("{direction:?} is listed twice; list it once"),
            ));
        }
    }
    found
}

fn ports(ports: &[PolicyPort], path: &str, found: &mut Vec<Violation>) {
    for (index, port) in ports.iter().enumerate() {
        let at = format!("{path}.ports[{index}]");
        match (&port.port, port.end_port) {
            (Some(IntOrString::Int(number)), _) if !is_port(*number) => {
                found.push(Violation::new(
                    format!("{at}.port"),
                    format!("{number} must be between 1 and 65535, inclusive"),
                ));
            }
            (Some(IntOrString::Int(number)), Some(end)) if end < *number => {
                let message = format!("{end} must be greater than or equal to `port`, which is {number}");
                found.push(Violation::new(format!("{at}.endPort"), message));
            }
            (Some(IntOrString::Int(_)), Some(end)) if !is_port(end) => {
                found.push(Violation::new(
                    format!("{at}.endPort"),
                    format!("{end} must be between 1 and 65535, inclusive"),
                ));
            }
            (Some(IntOrString::String(_)), Some(_)) => {
                found.push(Violation::new(
                    format!("{at}.endPort"),
                    "may not be specified when `port` is non-numeric",
                ));
            }
            (None, Some(_)) => {
                found.push(Violation::new(
                    format!("{at}.endPort"),
                    "may not be specified when `port` is not specified",
                ));
            }
            _ => {}
        }
        if let Some(IntOrString::String(name)) = &port.port
            && !is_port_name(name)
        {
            let message = format!(
                "\"{name}\" is not a port name: up to 15 lower-case letters, digits and single '-', with at least one letter"
            );
            found.push(Violation::new(format!("{at}.port"), message));
        }
    }
}

fn is_port(number: i32) -> bool {
    (1..=65535).contains(&number)
}

fn is_port_name(name: &str) -> bool {
    is_dns_label(name) && name.len() <= 15 && name.chars().any(|c| c.is_ascii_lowercase()) && !name.contains("--")
}

fn peers(peers: &[Peer], path: &str, found: &mut Vec<Violation>) {
    for (index, peer) in peers.iter().enumerate() {
        let at = format!("{path}[{index}]");
        if let Some(selector) = &peer.pod_selector {
            found.extend(label_selector(selector, &format!("{at}.podSelector")));
        }
        if let Some(selector) = &peer.namespace_selector {
            found.extend(label_selector(selector, &format!("{at}.namespaceSelector")));
        }
        let selects = peer.pod_selector.is_some() || peer.namespace_selector.is_some();
        match &peer.ip_block {
            Some(_) if selects => {
                found.push(Violation::new(
                    at,
                    "may not specify both ipBlock and another peer; make them two peers",
                ));
            }
            Some(block) => ip_block(block, &format!("{at}.ipBlock"), found),
            None if !selects => {
                found.push(Violation::new(
                    at,
                    "must specify a peer: podSelector, namespaceSelector or ipBlock",
                ));
            }
            None => {}
        }
    }
}

fn ip_block(block: &IpBlock, path: &str, found: &mut Vec<Violation>) {
    let field = format!("{path}.cidr");
    let Some(outer) = block_cidr(&block.cidr, &field, found) else {
        return;
    };
    for (index, text) in block.except.iter().enumerate() {
        let field = format!("{path}.except[{index}]");
        let Some(hole) = block_cidr(text, &field, found) else {
            continue;
        };
        if !cidr::contains(outer, hole) || outer == hole {
            let message = format!("\"{text}\" must be a strict subset of `cidr`, which is {}", block.cidr);
            found.push(Violation::new(field, message));
        }
    }
}

/// Host bits pass here, as they do in Kubernetes: they are ignored.
fn block_cidr(text: &str, field: &str, found: &mut Vec<Violation>) -> Option<IpNetwork> {
    match cidr::parse(text) {
        Ok(network) => Some(network),
        Err(CidrError::HostBits { suggestion, .. }) => Some(suggestion),
        Err(error @ CidrError::Syntax(_)) => {
            found.push(Violation::new(field, error.to_string()));
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fields(spec: serde_json::Value) -> Vec<String> {
        let policy: NetworkPolicy = serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec})).unwrap();
        network_policy(&policy)
            .into_iter()
            .map(|violation| violation.field)
            .collect()
    }

    #[test]
    fn a_good_policy_has_no_violations() {
        let good = json!({"podSelector": {"matchLabels": {"app.kubernetes.io/name": "web"}}, "ingress": [{
            "from": [{"namespaceSelector": {}, "podSelector": {}},
                {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16", "10.1.1.0/24"]}},
                {"ipBlock": {"cidr": "10.1.2.3/8"}}],
            "ports": [{}, {"port": 1, "endPort": 65535}, {"port": "http-2"}, {"port": 5, "endPort": 5}]}]});
        assert_eq!(fields(good), Vec::<String>::new());
    }

    #[test]
    fn each_fault_is_named_by_its_field() {
        for (spec, field) in [
            (
                json!({"ingress": [{"ports": [{}, {"port": 90, "endPort": 80}]}]}),
                "spec.ingress[0].ports[1].endPort",
            ),
            (
                json!({"egress": [{}, {"ports": [{"endPort": 80}]}]}),
                "spec.egress[1].ports[0].endPort",
            ),
            (
                json!({"ingress": [{"ports": [{"port": "x", "endPort": 80}]}]}),
                "spec.ingress[0].ports[0].endPort",
            ),
            (
                json!({"ingress": [{"ports": [{"port": 1, "endPort": 65536}]}]}),
                "spec.ingress[0].ports[0].endPort",
            ),
            (
                json!({"ingress": [{"ports": [{"port": 0}]}]}),
                "spec.ingress[0].ports[0].port",
            ),
            (
                json!({"ingress": [{"ports": [{"port": 70000}]}]}),
                "spec.ingress[0].ports[0].port",
            ),
            (
                json!({"ingress": [{"ports": [{"port": "Not_A_Port"}]}]}),
                "spec.ingress[0].ports[0].port",
            ),
            (json!({"ingress": [{"from": [{}]}]}), "spec.ingress[0].from[0]"),
            (
                json!({"ingress": [{"from": [{"podSelector": {}, "ipBlock": {"cidr": "::/0"}}]}]}),
                "spec.ingress[0].from[0]",
            ),
            (
                json!({"egress": [{"to": [{"ipBlock": {"cidr": "10.0.0/8"}}]}]}),
                "spec.egress[0].to[0].ipBlock.cidr",
            ),
            (
                json!({"egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16", "11.0.0.0/16"]}}]}]}),
                "spec.egress[0].to[0].ipBlock.except[1]",
            ),
            (
                json!({"egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.0.0.0/8"]}}]}]}),
                "spec.egress[0].to[0].ipBlock.except[0]",
            ),
            (
                json!({"egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["fd00::/8"]}}]}]}),
                "spec.egress[0].to[0].ipBlock.except[0]",
            ),
            (
                json!({"podSelector": {"matchExpressions": [{"key": "a", "operator": "In"}]}}),
                "spec.podSelector.matchExpressions[0].values",
            ),
            (
                json!({"ingress": [{"from": [{"namespaceSelector": {"matchExpressions": [
                    {"key": "a", "operator": "Exists", "values": ["x"]}]}}]}]}),
                "spec.ingress[0].from[0].namespaceSelector.matchExpressions[0].values",
            ),
            (
                json!({"podSelector": {"matchLabels": {"a b": "x"}}}),
                "spec.podSelector.matchLabels",
            ),
            (
                json!({"podSelector": {"matchLabels": {"a": "-x"}}}),
                "spec.podSelector.matchLabels",
            ),
            (json!({"policyTypes": ["Ingress", "Ingress"]}), "spec.policyTypes"),
        ] {
            assert_eq!(fields(spec.clone()), [field], "{spec}");
        }
    }

    #[test]
    fn wrong_words_are_named_by_their_field_when_reading() {
        let value = json!({"spec": {"ingress": [{"ports": [{"protocol": "tcp"}]}]}});
        let violation = super::super::parse::<NetworkPolicy>(&value).unwrap_err();
        assert_eq!(violation.field, "spec.ingress[0].ports[0].protocol");
        assert!(violation.message.contains("TCP"), "{violation}");
    }
}
