use serde_json::json;

use super::*;

fn convert(spec: serde_json::Value) -> (Policy, Vec<String>) {
    let json = serde_json::json!({"metadata": {"name": "p", "namespace": "shop"}, "spec": spec});
    let (update, problems) = network_policy(&serde_json::from_value(json).unwrap());
    let Update::Policy(id, Some(policy)) = update else {
        panic!("{update:?}")
    };
    assert_eq!(id.to_string(), "shop/p");
    (policy, problems.iter().map(ToString::to_string).collect())
}

#[test]
fn peers_of_a_rule_become_one_set_and_ports_one_rule_a_protocol() {
    let (policy, problems) = convert(
        serde_json::json!({"podSelector": {"matchLabels": {"app": "web"}}, "ingress": [{
        "from": [{"podSelector": {}}, {"namespaceSelector": {"matchLabels": {"team": "a"}}, "podSelector": {"matchLabels": {"x": "y"}}},
            {"ipBlock": {"cidr": "10.0.0.0/30", "except": ["10.0.0.0/31"]}}],
        "ports": [{"port": 80}, {"port": 8000, "endPort": 8010}, {"port": "http"}, {"protocol": "UDP"}, {"protocol": "UDP", "port": 53}]}]}),
    );
    assert_eq!(problems, [""; 0]);
    assert_eq!(policy.selects.to_string(), r#"[app in {"web"}] in namespace "shop""#);
    assert_eq!(policy.egress, None);
    let rules = policy.ingress.unwrap();
    assert_eq!(rules.len(), 2);
    let source = rules[0].source.as_ref().unwrap();
    let endpoints: Vec<_> = source.endpoints.iter().map(ToString::to_string).collect();
    assert_eq!(
        endpoints,
        [
            r#"[all()] in namespace "shop""#,
            r#"[x in {"y"}] in namespaces [team in {"a"}]"#
        ]
    );
    assert_eq!(
        source.nets.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["10.0.0.2/31"]
    );
    let ports = rules[0].destination_ports.as_ref().unwrap();
    assert_eq!(
        ports.ranges.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["80", "8000:8010"]
    );
    assert!(ports.names.contains("http"));
    assert_eq!(
        (rules[1].protocol, &rules[1].destination_ports),
        (Some(Protocol::UDP), &None)
    );
}

#[test]
fn empty_lists_mean_everything_and_missing_directions_nothing() {
    let (policy, _) =
        convert(serde_json::json!({"policyTypes": ["Egress"], "ingress": [{}], "egress": [{"to": [], "ports": []}]}));
    assert_eq!(policy.ingress, None);
    let rule = Rule {
        action: Action::Allow,
        protocol: None,
        source: None,
        destination: None,
        destination_ports: None,
    };
    assert_eq!(policy.egress, Some(vec![rule]));
}

#[test]
fn an_invalid_policy_denies_what_it_selects() {
    let wrong = [
        (
            json!({"ports": [{"port": 70000}]}),
            "ports[0].port: 70000 must be between 1 and 65535, inclusive",
        ),
        (
            json!({"ports": [{"endPort": 80}]}),
            "ports[0].endPort: may not be specified when `port` is not specified",
        ),
        (
            json!({"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["11.0.0.0/16"]}}]}),
            "from[0].ipBlock.except[0]: \"11.0.0.0/16\" must be a strict subset of `cidr`, which is 10.0.0.0/8",
        ),
        (
            json!({"from": [{"podSelector": {"matchExpressions": [{"key": "a", "operator": "In"}]}}]}),
            "from[0].podSelector.matchExpressions[0].values: must be specified when `operator` is 'In' or 'NotIn'",
        ),
    ];
    for (rule, message) in wrong {
        let (policy, problems) = convert(json!({"policyTypes": ["Ingress"], "ingress": [{}, rule]}));
        assert_eq!(problems, [format!("NetworkPolicy shop/p: spec.ingress[1].{message}")]);
        assert_eq!((policy.ingress, policy.egress), (Some(vec![]), None));
    }
}

#[test]
fn a_fault_in_a_direction_that_is_not_isolated_counts_too() {
    let (policy, problems) = convert(json!({"policyTypes": ["Egress"], "ingress": [{"from": [{}]}], "egress": [{}]}));
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert_eq!((policy.ingress, policy.egress), (None, Some(vec![])));
}

#[test]
fn the_sound_part_of_an_invalid_selector_selects() {
    let (policy, problems) = convert(json!({"podSelector": {"matchLabels": {"app": "web"},
        "matchExpressions": [{"key": "x", "operator": "NotIn", "values": []}]}, "ingress": [{}]}));
    assert_eq!(
        problems,
        [
            "NetworkPolicy shop/p: spec.podSelector.matchExpressions[0].values: must be specified when `operator` is 'In' or \
          'NotIn'"
        ]
    );
    assert_eq!(policy.selects.to_string(), r#"[app in {"web"}] in namespace "shop""#);
    assert_eq!(policy.ingress, Some(vec![]));
}

#[test]
fn spellings_that_are_stored_are_what_the_api_server_took_them_for() {
    let block = |cidr: &str, except: &[&str]| json!({"ipBlock": {"cidr": cidr, "except": except}});
    let (policy, problems) = convert(json!({"policyTypes": ["Ingress", "Ingress"], "ingress": [{"from": [
        block("010.020.030.000/24", &["10.20.30.128/025"]), block("192.0.2.9/024", &[]),
        block("::ffff:10.40.0.0/112", &[]), block("FD00:0:0:7::1/64", &[])]}]}));
    assert_eq!(problems, [""; 0]);
    let rules = policy.ingress.unwrap();
    let nets: Vec<_> = rules[0]
        .source
        .as_ref()
        .unwrap()
        .nets
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        nets,
        ["10.20.30.0/25", "10.40.0.0/16", "192.0.2.0/24", "fd00:0:0:7::/64"]
    );
}

#[test]
fn excepts_that_leave_too_many_ranges_deny() {
    let scattered = |n: u64| {
        (0..n)
            .map(|i| format!("{:x}:{:x}::/128", 0x2000 + i * 7 % 4096, i))
            .collect::<Vec<_>>()
    };
    let from = |n| json!({"from": [{"ipBlock": {"cidr": "::/0", "except": scattered(n)}}]});
    let spec = |rules: &[serde_json::Value]| json!({"podSelector": {}, "ingress": rules});
    let (policy, problems) = convert(spec(&[from(10_000)]));
    assert_eq!(
        problems,
        [
            "NetworkPolicy shop/p: spec.ingress[0].from[0].ipBlock.except: brings the policy's ipBlocks to more than \
          65536 ranges, too many for a node: except fewer and larger ranges, or make it several policies"
        ]
    );
    assert_eq!(policy.ingress, Some(vec![]));
    // Each of two is within bounds, both together are not.
    assert_eq!(convert(spec(&[from(500)])).1, [""; 0]);
    assert_eq!(convert(spec(&[from(500), from(500)])).1.len(), 1);
}
