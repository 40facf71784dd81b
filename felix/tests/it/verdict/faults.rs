//! Faulty policies isolate and allow nothing; odd ones that an API server stores mean what it took them for.

use margay_felix::verdict::Protocol::{Tcp, Udp};
use margay_felix::verdict::is_faulty;
use serde_json::{Value, json};

use super::world::Expect::{Allow, Deny};
use super::world::World;

#[test]
fn a_fault_anywhere_takes_every_rule_with_it() {
    let rules = [
        json!({"from": [{"ipBlock": {"cidr": "203.0.113.9"}}]}),
        json!({"from": [{"ipBlock": {"cidr": "203.0.113.0/24", "except": ["nonsense"]}}]}),
        json!({"from": [{"ipBlock": {"cidr": "203.0.113.0/24", "except": ["203.0.114.0/25"]}}]}),
        json!({"from": [{"ipBlock": {"cidr": "203.0.113.0/24"}, "podSelector": {}}]}),
        json!({"from": [{}]}),
        json!({"ports": [{"port": 70000}]}),
        json!({"ports": [{"port": 90, "endPort": 80}]}),
        json!({"ports": [{"endPort": 90}]}),
        json!({"ports": [{"port": "metrics", "endPort": 10000}]}),
        json!({"from": [{"podSelector": {"matchExpressions": [{"key": "app", "operator": "NotIn", "values": []}]}}]}),
    ];
    for rule in rules {
        for ingress in [json!([rule]), json!([rule, {}]), json!([{}, rule])] {
            let world = World::new().policy("a/invalid", json!({"podSelector": {}, "ingress": ingress}));
            assert!(is_faulty(&world.0.policies[0]), "{ingress}");
            for (from, port) in [("203.0.113.9", 80), ("b/web", 90), ("a/db", 9100)] {
                world.check(&[
                    (from, "a/web", Tcp(port), Deny),
                    ("a/web", "203.0.113.9", Tcp(port), Allow),
                ]);
            }
        }
    }
}

#[test]
fn it_isolates_in_the_directions_that_it_names() {
    let faulty_in = |types: &[&str]| json!({"podSelector": {}, "policyTypes": types, "ingress": [{}], "egress": [{"ports": [{"port": 0}]}, {}]});
    World::new()
        .policy("a/in", faulty_in(&["Ingress"]))
        .check(&[("b/web", "a/web", Tcp(80), Deny), ("a/web", "b/web", Tcp(80), Allow)]);
    World::new()
        .policy("a/out", faulty_in(&["Egress"]))
        .check(&[("b/web", "a/web", Tcp(80), Allow), ("a/web", "b/web", Tcp(80), Deny)]);
    // Without policyTypes as with those that an API server fills in.
    World::new()
        .policy("a/both", faulty_in(&[]))
        .check(&[("b/web", "a/web", Tcp(80), Deny), ("a/web", "b/web", Tcp(80), Deny)]);
    let three = json!({"podSelector": {}, "policyTypes": ["Egress", "Egress", "Egress"], "egress": [{}]});
    World::new()
        .policy("a/three", three)
        .check(&[("b/web", "a/web", Tcp(80), Allow), ("a/web", "b/web", Tcp(80), Deny)]);
}

#[test]
fn the_sound_parts_of_a_faulty_pod_selector_select() {
    let policy = |selector: Value| World::new().policy("a/p", json!({"podSelector": selector, "ingress": [{}]}));
    let empty_in = json!({"key": "x", "operator": "In", "values": []});
    policy(json!({"matchExpressions": [empty_in]})).check(&[
        ("b/web", "a/web", Tcp(80), Deny),
        ("b/web", "a/db", Tcp(80), Deny),
        ("a/web", "b/web", Tcp(80), Allow),
    ]);
    policy(json!({"matchLabels": {"app": "web"}, "matchExpressions": [empty_in]}))
        .check(&[("b/web", "a/web", Tcp(80), Deny), ("b/web", "a/db", Tcp(80), Allow)]);
    policy(json!({"matchLabels": {"app": "web", "no key": "x"}}))
        .check(&[("b/web", "a/web", Tcp(80), Deny), ("b/web", "a/db", Tcp(80), Allow)]);
}

#[test]
fn another_policy_still_allows() {
    World::new()
        .policy(
            "a/faulty",
            json!({"podSelector": {}, "ingress": [{"ports": [{"port": 0}]}]}),
        )
        .policy(
            "a/udp",
            json!({"podSelector": {}, "ingress": [{"ports": [{"protocol": "UDP"}]}]}),
        )
        .check(&[("b/web", "a/web", Udp(53), Allow), ("b/web", "a/web", Tcp(53), Deny)]);
}

#[test]
fn more_ranges_than_a_node_has_room_for_are_a_fault() {
    let holes: Vec<String> = (0..500)
        .map(|i| format!("{:x}:{i:x}::/128", 0x2000 + i * 7 % 4096))
        .collect();
    let block = json!({"ipBlock": {"cidr": "::/0", "except": holes}});
    let spec = |peers: Value| json!({"podSelector": {}, "ingress": [{"from": peers}, {}]});
    World::new()
        .policy("a/once", spec(json!([block])))
        .check(&[("2001:db8::9", "a/web", Tcp(80), Allow)]);
    World::new()
        .policy("a/twice", spec(json!([block, block])))
        .check(&[("2001:db8::9", "a/web", Tcp(80), Deny)]);
}

#[test]
fn odd_spellings_that_are_stored_mean_what_they_say() {
    let from = |block: Value| json!({"podSelector": {}, "ingress": [{"from": [{"ipBlock": block}]}]});
    World::new()
        .policy(
            "a/bits",
            from(json!({"cidr": "10.10.1.12/24", "except": ["10.10.1.200/26"]})),
        )
        .policy("a/bits6", from(json!({"cidr": "FD00:0:0:7::1/64"})))
        .policy("a/zeros", from(json!({"cidr": "010.020.030.000/24"})))
        .policy("a/length", from(json!({"cidr": "192.0.2.0/024"})))
        .policy("a/mapped", from(json!({"cidr": "::ffff:10.40.0.0/112"})))
        .check(&[
            ("10.10.1.99", "a/web", Tcp(80), Allow),
            ("10.10.1.201", "a/web", Tcp(80), Deny),
            ("10.10.2.1", "a/web", Tcp(80), Deny),
            ("fd00:0:0:7::9", "fd00::1", Tcp(80), Allow),
            ("10.20.30.7", "a/web", Tcp(80), Allow),
            ("8.16.24.7", "a/web", Tcp(80), Deny),
            ("192.0.2.7", "a/web", Tcp(80), Allow),
            ("192.0.0.7", "a/web", Tcp(80), Deny),
            ("10.40.0.9", "a/web", Tcp(80), Allow),
            ("10.41.0.9", "a/web", Tcp(80), Deny),
        ]);
    World::new()
        .policy("a/any", from(json!({"cidr": "10.0.0.0/0"})))
        .check(&[
            ("203.0.113.5", "a/web", Tcp(80), Allow),
            ("2001:db8::1", "fd00::1", Tcp(80), Deny),
        ]);
    World::new()
        .policy(
            "a/twice",
            json!({"podSelector": {}, "policyTypes": ["Ingress", "Ingress"], "ingress": []}),
        )
        .check(&[
            ("203.0.113.5", "a/web", Tcp(80), Deny),
            ("a/web", "203.0.113.5", Tcp(80), Allow),
        ]);
}
