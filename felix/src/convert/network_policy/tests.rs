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
            serde_json::json!({"ports": [{"port": 0}]}),
            "ports[0].port: 0 is not a port from 1 to 65535",
        ),
        (
            serde_json::json!({"ports": [{"port": 90, "endPort": 80}]}),
            "ports[0].endPort: 80 is not a port from 90 to 65535",
        ),
        (
            serde_json::json!({"ports": [{"endPort": 80}]}),
            "ports[0].endPort: needs `port`, the first port of the range",
        ),
        (
            serde_json::json!({"ports": [{"port": "x", "endPort": 80}]}),
            "ports[0].endPort: goes with a port number, not with a port's name",
        ),
        (
            serde_json::json!({"ports": [{"port": "UPPER"}]}),
            "ports[0].port: \"UPPER\" is not a port's name: at most 15 of a-z, 0-9 and -, at least one letter",
        ),
        (
            serde_json::json!({"from": [{}]}),
            "from[0]: is empty: give it a podSelector, a namespaceSelector or an ipBlock",
        ),
        (
            serde_json::json!({"from": [{"ipBlock": {"cidr": "10.0.0.0/8"}, "podSelector": {}}]}),
            "from[0]: has an ipBlock and a selector: write them as two peers",
        ),
        (
            serde_json::json!({"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["11.0.0.0/16"]}}]}),
            "from[0].ipBlock.except[0]: 11.0.0.0/16 is not a part of 10.0.0.0/8",
        ),
        (
            serde_json::json!({"from": [{"podSelector": {"matchExpressions": [{"key": "a", "operator": "In"}]}}]}),
            "from[0].podSelector.matchExpressions[0].values: needs at least one value",
        ),
    ];
    for (rule, message) in wrong {
        let (policy, problems) = convert(serde_json::json!({"policyTypes": ["Ingress"], "ingress": [{}, rule]}));
        assert_eq!(problems, [format!("NetworkPolicy shop/p: spec.ingress[1].{message}")]);
        assert_eq!((policy.ingress, policy.egress), (Some(vec![]), None));
    }
}

#[test]
fn the_sound_part_of_an_invalid_selector_selects() {
    let (policy, problems) = convert(serde_json::json!({"podSelector": {"matchLabels": {"app": "web"},
        "matchExpressions": [{"key": "x", "operator": "NotIn", "values": []}]}, "ingress": [{}]}));
    assert_eq!(
        problems,
        ["NetworkPolicy shop/p: spec.podSelector.matchExpressions[0].values: needs at least one value"]
    );
    assert_eq!(policy.selects.to_string(), r#"[app in {"web"}] in namespace "shop""#);
    assert_eq!(policy.ingress, Some(vec![]));
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
