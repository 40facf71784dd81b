//! NetworkPolicy, as the API server checks it.

use super::Violation;
use super::label_selector::{is_dns_label, label_selector, label_selector_warnings};
use crate::cidr::Sloppy;
use crate::slim::{IntOrString, IpBlock, NetworkPolicy, Peer, PolicyPort, PolicyType};

/// Everything that is wrong with a policy; empty when it is one that an API server stores.
///
/// So spellings that only newer servers refuse, and only in new objects, are not wrong: [`network_policy_warnings`] tells
/// of them.
pub fn network_policy(policy: &NetworkPolicy) -> Vec<Violation> {
    let spec = &policy.spec;
    let mut found = label_selector(&spec.pod_selector, "spec.podSelector");
    for (index, rule) in spec.ingress.iter().enumerate() {
        ports(&rule.ports, &format!("spec.ingress[{index}]"), &mut found);
    }
    for (index, rule) in spec.egress.iter().enumerate() {
        ports(&rule.ports, &format!("spec.egress[{index}]"), &mut found);
    }
    for (path, peer) in peers(policy) {
        check_peer(peer, path, &mut found);
    }
    if spec.policy_types.len() > 2 {
        found.push(Violation::new(
            "spec.policyTypes",
            "may not specify more than two policyTypes",
        ));
    }
    found
}

/// What a policy says in a way that its author should change although API servers store it.
pub fn network_policy_warnings(policy: &NetworkPolicy) -> Vec<Violation> {
    let mut found = label_selector_warnings(&policy.spec.pod_selector, "spec.podSelector");
    for (path, peer) in peers(policy) {
        for (name, selector) in [
            ("podSelector", &peer.pod_selector),
            ("namespaceSelector", &peer.namespace_selector),
        ] {
            let warnings = selector
                .iter()
                .map(|s| label_selector_warnings(s, &format!("{path}.{name}")));
            found.extend(warnings.flatten());
        }
        for (field, text) in peer.ip_block.iter().flat_map(|block| cidrs(block, &path)) {
            let advice = Sloppy::parse(text).ok().and_then(|cidr| cidr.advice(text));
            found.extend(advice.map(|advice| Violation::new(field, advice)));
        }
    }
    let types = &policy.spec.policy_types;
    for direction in [PolicyType::Ingress, PolicyType::Egress] {
        if types.iter().filter(|t| **t == direction).count() > 1 {
            let message = format!("{direction:?} is listed twice: list it once");
            found.push(Violation::new("spec.policyTypes", message));
        }
    }
    found
}

/// Every peer of every rule, with its path.
fn peers(policy: &NetworkPolicy) -> impl Iterator<Item = (String, &Peer)> {
    let ingress = policy.spec.ingress.iter().map(|rule| &rule.from).enumerate();
    let egress = policy.spec.egress.iter().map(|rule| &rule.to).enumerate();
    let ingress = ingress.map(|(index, peers)| (format!("spec.ingress[{index}].from"), peers));
    let egress = egress.map(|(index, peers)| (format!("spec.egress[{index}].to"), peers));
    ingress.chain(egress).flat_map(|(path, peers)| {
        let numbered = peers.iter().enumerate();
        numbered.map(move |(index, peer)| (format!("{path}[{index}]"), peer))
    })
}

/// The CIDRs of a peer's block, each with its path.
fn cidrs<'a>(block: &'a IpBlock, peer: &str) -> Vec<(String, &'a str)> {
    let mut all = vec![(format!("{peer}.ipBlock.cidr"), block.cidr.as_str())];
    for (index, except) in block.except.iter().enumerate() {
        all.push((format!("{peer}.ipBlock.except[{index}]"), except.as_str()));
    }
    all
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

fn check_peer(peer: &Peer, at: String, found: &mut Vec<Violation>) {
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
        Some(block) => ip_block(block, &at, found),
        None if !selects => {
            found.push(Violation::new(
                at,
                "must specify a peer: podSelector, namespaceSelector or ipBlock",
            ));
        }
        None => {}
    }
}

fn ip_block(block: &IpBlock, peer: &str, found: &mut Vec<Violation>) {
    let whole = match Sloppy::parse(&block.cidr) {
        Ok(whole) => whole,
        Err(error) => {
            found.push(Violation::new(format!("{peer}.ipBlock.cidr"), error.to_string()));
            return;
        }
    };
    for (index, text) in block.except.iter().enumerate() {
        let message = match Sloppy::parse(text) {
            Ok(except) if whole.may_except(except) => continue,
            Ok(_) => format!("\"{text}\" must be a strict subset of `cidr`, which is {}", block.cidr),
            Err(error) => error.to_string(),
        };
        found.push(Violation::new(format!("{peer}.ipBlock.except[{index}]"), message));
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
            (
                json!({"policyTypes": ["Ingress", "Egress", "Ingress"]}),
                "spec.policyTypes",
            ),
        ] {
            assert_eq!(fields(spec.clone()), [field], "{spec}");
        }
    }

    #[test]
    fn spellings_that_are_stored_are_warnings() {
        let policy = |spec| -> NetworkPolicy {
            serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec})).unwrap()
        };
        let odd = policy(json!({"policyTypes": ["Ingress", "Ingress"],
            "podSelector": {"matchExpressions": [{"key": "app", "operator": "In", "values": ["web", "-"]}]},
            "ingress": [{"from": [
                {"ipBlock": {"cidr": "010.020.030.000/24", "except": ["10.20.30.7/032"]}},
                {"podSelector": {"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["a b"]}]}}]}],
            "egress": [{"to": [{"ipBlock": {"cidr": "10.10.1.12/24"}}, {"ipBlock": {"cidr": "::ffff:10.40.0.0/112"}}]}]}));
        assert_eq!(network_policy(&odd), []);
        let warnings: Vec<String> = network_policy_warnings(&odd).iter().map(ToString::to_string).collect();
        assert_eq!(
            warnings,
            [
                "spec.podSelector.matchExpressions[0].values[1]: \"-\" is not a label value: up to 63 letters, digits, '-', \
                 '_', '.', beginning and ending with a letter or digit",
                "spec.ingress[0].from[0].ipBlock.cidr: \"010.020.030.000/24\" is read as 10.20.30.0/24: write that",
                "spec.ingress[0].from[0].ipBlock.except[0]: \"10.20.30.7/032\" is read as 10.20.30.7/32: write that",
                "spec.ingress[0].from[1].podSelector.matchExpressions[0].values[0]: \"a b\" is not a label value: up to 63 \
                 letters, digits, '-', '_', '.', beginning and ending with a letter or digit",
                "spec.egress[0].to[0].ipBlock.cidr: \"10.10.1.12/24\" is read as 10.10.1.0/24: write that, or \
                 10.10.1.12/32 for the one address",
                "spec.egress[0].to[1].ipBlock.cidr: \"::ffff:10.40.0.0/112\" is read as 10.40.0.0/16: write that",
                "spec.policyTypes: Ingress is listed twice: list it once",
            ]
        );
        let plain = policy(json!({"policyTypes": ["Ingress", "Egress"],
            "ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}]}]}));
        assert_eq!(network_policy_warnings(&plain), []);
    }

    #[test]
    fn wrong_words_are_named_by_their_field_when_reading() {
        let value = json!({"spec": {"ingress": [{"ports": [{"protocol": "tcp"}]}]}});
        let violation = super::super::parse::<NetworkPolicy>(&value).unwrap_err();
        assert_eq!(violation.field, "spec.ingress[0].ports[0].protocol");
        assert!(violation.message.contains("TCP"), "{violation}");
    }
}
