//! `networking.k8s.io/v1` NetworkPolicy.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde_json::Value;

use super::names::label_selector;
use crate::status::FieldError;

pub(super) fn validate(spec: &Value, errors: &mut Vec<FieldError>) {
    label_selector(&spec["podSelector"], "spec.podSelector", errors);
    for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
        for (i, rule) in items(&spec[direction]) {
            let at = format!("spec.{direction}[{i}]");
            items(&rule["ports"]).for_each(|(j, p)| port(p, &format!("{at}.ports[{j}]"), errors));
            items(&rule[peers]).for_each(|(j, p)| peer(p, &format!("{at}.{peers}[{j}]"), errors));
        }
    }
    if items(&spec["policyTypes"]).count() > 2 {
        let why = "may not specify more than two policyTypes";
        errors.push(FieldError::invalid("spec.policyTypes", &spec["policyTypes"], why));
    }
    for (i, kind) in items(&spec["policyTypes"]) {
        if !matches!(kind.as_str(), Some("Ingress" | "Egress")) {
            let supported = ["Egress".to_owned(), "Ingress".to_owned()];
            errors.push(FieldError::not_supported(
                format!("spec.policyTypes[{i}]"),
                kind,
                &supported,
            ));
        }
    }
}

fn port(port: &Value, at: &str, errors: &mut Vec<FieldError>) {
    let protocol = &port["protocol"];
    if !matches!(protocol.as_str(), Some("TCP" | "UDP" | "SCTP")) {
        let supported = ["SCTP".to_owned(), "TCP".to_owned(), "UDP".to_owned()];
        errors.push(FieldError::not_supported(
            format!("{at}.protocol"),
            protocol,
            &supported,
        ));
    }
    let (number, end) = (&port["port"], &port["endPort"]);
    let mut refuse_end = |why: &str| errors.push(FieldError::invalid(format!("{at}.endPort"), end, why));
    match (number, end.as_i64()) {
        (Value::Null, Some(_)) => refuse_end("may not be specified when `port` is not specified"),
        (Value::String(_), Some(_)) => refuse_end("may not be specified when `port` is non-numeric"),
        (Value::Number(n), Some(last)) if last < n.as_i64().unwrap_or(0) => {
            refuse_end("must be greater than or equal to `port`");
        }
        (_, Some(last)) if !(1..=65_535).contains(&last) => refuse_end("must be between 1 and 65535, inclusive"),
        _ => {}
    }
    match number {
        Value::Number(n) if !n.as_i64().is_some_and(|n| (1..=65_535).contains(&n)) => {
            errors.push(FieldError::invalid(
                format!("{at}.port"),
                number,
                "must be between 1 and 65535, inclusive",
            ));
        }
        Value::String(name) => {
            if let Some(why) = wrong_port_name(name) {
                errors.push(FieldError::invalid(format!("{at}.port"), number, why));
            }
        }
        _ => {}
    }
}

/// IANA service name, RFC 6335 section 5.1.
pub(super) fn wrong_port_name(name: &str) -> Option<&'static str> {
    let ok = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    if name.is_empty() || name.len() > 15 {
        Some("must be no more than 15 characters, and at least one")
    } else if !name.bytes().all(ok) {
        Some("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)")
    } else if !name.bytes().any(|c| c.is_ascii_lowercase()) {
        Some("must contain at least one letter (a-z)")
    } else if name.starts_with('-') || name.ends_with('-') {
        Some("must not begin or end with a hyphen")
    } else if name.contains("--") {
        Some("must not contain consecutive hyphens")
    } else {
        None
    }
}

fn peer(peer: &Value, at: &str, errors: &mut Vec<FieldError>) {
    let given = |name: &str| peer.get(name).is_some_and(Value::is_object);
    let selectors = given("podSelector") || given("namespaceSelector");
    for name in ["podSelector", "namespaceSelector"].into_iter().filter(|n| given(n)) {
        label_selector(&peer[name], &format!("{at}.{name}"), errors);
    }
    match (given("ipBlock"), selectors) {
        (false, false) => errors.push(FieldError::required(at, "must specify a peer")),
        (true, true) => errors.push(FieldError::forbidden(
            at,
            "may not specify both ipBlock and another peer",
        )),
        _ => {}
    }
    if given("ipBlock") {
        ip_block(&peer["ipBlock"], &format!("{at}.ipBlock"), errors);
    }
}

fn ip_block(block: &Value, at: &str, errors: &mut Vec<FieldError>) {
    const WHY: &str = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
    let text = block["cidr"].as_str().unwrap_or_default();
    if text.is_empty() {
        errors.push(FieldError::required(format!("{at}.cidr"), ""));
        return;
    }
    let Some((whole, length)) = cidr(text) else {
        errors.push(FieldError::invalid(format!("{at}.cidr"), &block["cidr"], WHY));
        return;
    };
    for (i, except) in items(&block["except"]) {
        let field = format!("{at}.except[{i}]");
        match cidr(except.as_str().unwrap_or_default()) {
            None => errors.push(FieldError::invalid(field, except, WHY)),
            Some((part, longer)) if longer <= length || !whole.contains(part.network()) => {
                errors.push(FieldError::invalid(field, except, "must be a strict subset of `cidr`"));
            }
            Some(_) => {}
        }
    }
}

/// A CIDR as servers before 1.36 take it: leading zeros and bits beyond the prefix count for nothing, and IPv6 that maps
/// IPv4 is IPv4. The length is as written.
fn cidr(text: &str) -> Option<(IpNetwork, u8)> {
    let (address, length) = text.split_once('/')?;
    let digits = length.bytes().all(|b| b.is_ascii_digit());
    let length = without_zeros(length).parse().ok().filter(|_| digits)?;
    let network = IpNetwork::new(without_zeros(address).parse().ok()?, length).ok()?;
    let mapped = match network.network() {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().zip(length.checked_sub(96)),
        IpAddr::V4(_) => None,
    };
    let mapped = mapped.and_then(|(v4, prefix)| IpNetwork::new(v4.into(), prefix).ok());
    Some((mapped.unwrap_or(network), length))
}

fn without_zeros(text: &str) -> String {
    let number = |number: &str| {
        let significant = number.trim_start_matches('0');
        let is_zero = number.starts_with('0') && !significant.starts_with(|c: char| c.is_ascii_hexdigit());
        format!("{}{significant}", if is_zero { "0" } else { "" })
    };
    text.split_inclusive([':', '.']).map(number).collect()
}

fn items(list: &Value) -> impl Iterator<Item = (usize, &Value)> {
    list.as_array().into_iter().flatten().enumerate()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_fault_is_named_with_its_field() {
        let cases = [
            (
                json!({"ingress": [{"ports": [{"protocol": "TCP", "port": 70000}]}]}),
                "spec.ingress[0].ports[0].port: Invalid value: 70000: must be between 1 and 65535, inclusive",
            ),
            (
                json!({"egress": [{"ports": [{"protocol": "TCP", "port": 90, "endPort": 80}]}]}),
                "spec.egress[0].ports[0].endPort: Invalid value: 80: must be greater than or equal to `port`",
            ),
            (
                json!({"egress": [{"ports": [{"protocol": "TCP", "port": "http", "endPort": 80}]}]}),
                "spec.egress[0].ports[0].endPort: Invalid value: 80: may not be specified when `port` is non-numeric",
            ),
            (
                json!({"ingress": [{"ports": [{"protocol": "ICMP"}]}]}),
                "spec.ingress[0].ports[0].protocol: Unsupported value: \"ICMP\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
            ),
            (
                json!({"podSelector": {"matchExpressions": [{"key": "a", "operator": "In", "values": []}]}}),
                "spec.podSelector.matchExpressions[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'",
            ),
            (
                json!({"ingress": [{"from": [{}]}]}),
                "spec.ingress[0].from[0]: Required value: must specify a peer",
            ),
            (
                json!({"ingress": [{"from": [{"podSelector": {}, "ipBlock": {"cidr": "10.0.0.0/8"}}]}]}),
                "spec.ingress[0].from[0]: Forbidden: may not specify both ipBlock and another peer",
            ),
            (
                json!({"egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.0.0.0/8"]}}]}]}),
                "spec.egress[0].to[0].ipBlock.except[0]: Invalid value: \"10.0.0.0/8\": must be a strict subset of `cidr`",
            ),
            (
                json!({"policyTypes": ["Both"]}),
                "spec.policyTypes[0]: Unsupported value: \"Both\": supported values: \"Egress\", \"Ingress\"",
            ),
        ];
        for (spec, expected) in cases {
            let mut errors = Vec::new();
            validate(&spec, &mut errors);
            let said: Vec<String> = errors.iter().map(|e| format!("{}: {}", e.field, e.message)).collect();
            assert_eq!(said, [expected], "{spec}");
        }
        let mut errors = Vec::new();
        let good = json!({"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{
            "ports": [{"protocol": "UDP", "port": 80, "endPort": 90}, {"protocol": "TCP", "port": "http"}],
            "from": [{"ipBlock": {"cidr": "fd00::/16", "except": ["fd00:1::/32"]}}, {"namespaceSelector": {}}],
        }]});
        validate(&good, &mut errors);
        assert_eq!(errors, []);
    }

    #[test]
    fn what_servers_store_is_stored() {
        let from = |blocks: Value| json!({"podSelector": {}, "policyTypes": ["Ingress", "Ingress"], "ingress": [{"from": blocks}]});
        let block = |cidr: &str, except: &[&str]| json!({"ipBlock": {"cidr": cidr, "except": except}});
        for (cidr, except) in [
            ("10.10.1.12/24", &["10.10.1.200/26"] as &[&str]),
            ("10.0.0.0/0", &[]),
            ("FD00:0:0:7::1/64", &[]),
            ("010.020.030.000/24", &["10.20.30.128/025"]),
            ("192.0.2.0/024", &[]),
            ("::ffff:10.40.0.0/112", &[]),
            ("10.0.0.0/8", &["::ffff:10.40.0.0/112"]),
        ] {
            let mut errors = Vec::new();
            validate(&from(json!([block(cidr, except)])), &mut errors);
            assert_eq!(errors, [], "{cidr} {except:?}");
        }
        for (cidr, except) in [
            ("10.0.0.0", &[] as &[&str]),
            ("10.0.0.0/033", &[]),
            ("10.0.0.0/", &[]),
            ("10.0.0.0/+8", &[]),
            ("0x10.0.0.0/8", &[]),
            ("::ffff:10.0.0.0/104", &["10.40.0.0/16"]),
            ("10.0.0.0/8", &["fd00::/64"]),
        ] {
            let mut errors = Vec::new();
            validate(&from(json!([block(cidr, except)])), &mut errors);
            assert_eq!(errors.len(), 1, "{cidr} {except:?}");
        }
    }
}
