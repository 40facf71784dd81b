//! The numbered cases, one test each; those about edits to a live cluster are in `live`.

use margay_felix::verdict::Protocol::{Icmp, Sctp, Tcp, Udp};
use serde_json::json;

use super::world::Expect::{Allow, Deny};
use super::world::World;

#[test]
fn case_01_no_policy_allows() {
    World::new().check(&[
        ("a/web", "a/db", Tcp(80), Allow),
        ("b/job", "a/web", Udp(53), Allow),
        ("203.0.113.9", "a/web", Sctp(1), Allow),
        ("2001:db8::9", "a/web", Icmp, Allow),
        ("a/web", "203.0.113.9", Tcp(443), Allow),
    ]);
}

#[test]
fn case_02_ingress_without_rules_denies_in_and_allows_out() {
    let spec = json!({"podSelector": {}, "policyTypes": ["Ingress"]});
    World::new().policy("a/deny", spec).check(&[
        ("b/web", "a/web", Tcp(80), Deny),
        ("a/db", "a/web", Tcp(80), Deny),
        ("203.0.113.9", "a/web", Tcp(80), Deny),
        ("a/web", "b/web", Tcp(80), Allow),
        ("a/web", "203.0.113.9", Tcp(80), Allow),
        ("a/web", "b/web", Udp(80), Allow),
    ]);
}

#[test]
fn case_03_without_policy_types_egress_rules_isolate_ingress_too() {
    let spec = json!({"podSelector": {"matchLabels": {"app": "web"}}, "egress": [{"ports": [{"port": 443}]}]});
    World::new().policy("a/out", spec).check(&[
        ("a/web", "b/web", Tcp(443), Allow),
        ("a/web", "b/web", Tcp(80), Deny),
        ("b/web", "a/web", Tcp(443), Deny),
        ("b/web", "a/db", Tcp(443), Allow),
    ]);
}

#[test]
fn case_03_without_policy_types_and_egress_rules_egress_stays_open() {
    for spec in [json!({"podSelector": {}}), json!({"podSelector": {}, "egress": []})] {
        World::new()
            .policy("a/in", spec)
            .check(&[("a/web", "b/web", Tcp(443), Allow), ("b/web", "a/web", Tcp(443), Deny)]);
    }
}

#[test]
fn case_04_ingress_rules_are_ignored_by_an_egress_policy() {
    let spec = json!({"podSelector": {}, "policyTypes": ["Egress"], "ingress": [{"ports": [{"port": 80}]}]});
    World::new()
        .policy("a/out", spec)
        .check(&[("b/web", "a/web", Tcp(81), Allow), ("a/web", "b/web", Tcp(80), Deny)]);
}

#[test]
fn case_05_an_empty_rule_allows_all() {
    let spec = json!({"podSelector": {}, "ingress": [{}]});
    World::new().policy("a/open", spec).check(&[
        ("b/web", "a/web", Tcp(80), Allow),
        ("203.0.113.9", "a/web", Udp(53), Allow),
        ("2001:db8::9", "a/web", Sctp(5), Allow),
        ("b/job", "a/web", Icmp, Allow),
    ]);
}

#[test]
fn case_06_an_empty_from_is_all_peers() {
    let spec = json!({"podSelector": {}, "ingress": [{"from": [], "ports": [{"port": 80}]}]});
    World::new().policy("a/port", spec).check(&[
        ("b/web", "a/web", Tcp(80), Allow),
        ("203.0.113.9", "a/web", Tcp(80), Allow),
        ("203.0.113.9", "a/web", Tcp(81), Deny),
    ]);
}

#[test]
fn case_07_an_empty_pod_selector_is_the_own_namespace() {
    let spec = json!({"podSelector": {}, "ingress": [{"from": [{"podSelector": {}}]}]});
    World::new().policy("a/own", spec).check(&[
        ("a/db", "a/web", Tcp(80), Allow),
        ("b/web", "a/web", Tcp(80), Deny),
        ("203.0.113.9", "a/web", Tcp(80), Deny),
    ]);
}

#[test]
fn case_08_an_empty_namespace_selector_is_all_pods_and_nobody_else() {
    let spec = json!({"podSelector": {}, "ingress": [{"from": [{"namespaceSelector": {}}]}]});
    World::new().policy("a/pods", spec).check(&[
        ("a/db", "a/web", Tcp(80), Allow),
        ("b/web", "a/web", Tcp(80), Allow),
        ("203.0.113.9", "a/web", Tcp(80), Deny),
        ("192.168.0.2", "a/web", Tcp(80), Deny),
    ]);
}

#[test]
fn case_09_both_selectors_in_one_peer_must_match() {
    let peer =
        json!({"namespaceSelector": {"matchLabels": {"team": "b"}}, "podSelector": {"matchLabels": {"app": "web"}}});
    let spec = json!({"podSelector": {}, "ingress": [{"from": [peer]}]});
    World::new().policy("a/and", spec).check(&[
        ("b/web", "a/db", Tcp(80), Allow),
        ("b/job", "a/db", Tcp(80), Deny),
        ("a/web", "a/db", Tcp(80), Deny),
    ]);
}

#[test]
fn case_10_either_of_two_peers_is_enough() {
    let peers = json!([{"namespaceSelector": {"matchLabels": {"team": "b"}}}, {"podSelector": {"matchLabels": {"app": "web"}}}]);
    let spec = json!({"podSelector": {}, "ingress": [{"from": peers}]});
    World::new().policy("a/or", spec).check(&[
        ("b/web", "a/db", Tcp(80), Allow),
        ("b/job", "a/db", Tcp(80), Allow),
        ("a/web", "a/db", Tcp(80), Allow),
        ("a/db", "a/web", Tcp(80), Deny),
    ]);
}

#[test]
fn case_11_egress_allows_and_ingress_denies() {
    World::new()
        .policy(
            "a/out",
            json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": [{}]}),
        )
        .policy("b/deny", json!({"podSelector": {}}))
        .check(&[
            ("a/web", "b/web", Tcp(80), Deny),
            ("a/web", "203.0.113.9", Tcp(80), Allow),
        ]);
}

#[test]
fn case_12_ingress_allows_and_egress_denies() {
    World::new()
        .policy("a/out", json!({"podSelector": {}, "policyTypes": ["Egress"]}))
        .policy("b/open", json!({"podSelector": {}, "ingress": [{}]}))
        .check(&[
            ("a/web", "b/web", Tcp(80), Deny),
            ("203.0.113.9", "b/web", Tcp(80), Allow),
        ]);
}

#[test]
fn case_13_policies_add_up() {
    World::new()
        .policy(
            "a/http",
            json!({"podSelector": {}, "ingress": [{"ports": [{"port": 80}]}]}),
        )
        .policy(
            "a/https",
            json!({"podSelector": {}, "ingress": [{"ports": [{"port": 443}]}]}),
        )
        .check(&[
            ("b/web", "a/web", Tcp(80), Allow),
            ("b/web", "a/web", Tcp(443), Allow),
            ("b/web", "a/web", Tcp(8080), Deny),
        ]);
}

#[test]
fn case_14_an_empty_port_is_all_of_tcp() {
    World::new()
        .policy("a/tcp", json!({"podSelector": {}, "ingress": [{"ports": [{}]}]}))
        .check(&[
            ("b/web", "a/web", Tcp(1), Allow),
            ("b/web", "a/web", Tcp(65535), Allow),
            ("b/web", "a/web", Udp(53), Deny),
            ("b/web", "a/web", Sctp(53), Deny),
            ("b/web", "a/web", Icmp, Deny),
        ]);
}

#[test]
fn case_15_a_protocol_alone_is_all_its_ports() {
    World::new()
        .policy(
            "a/udp",
            json!({"podSelector": {}, "ingress": [{"ports": [{"protocol": "UDP"}]}]}),
        )
        .check(&[("b/web", "a/web", Udp(53), Allow), ("b/web", "a/web", Tcp(53), Deny)]);
}

#[test]
fn case_16_sctp_only() {
    World::new()
        .policy(
            "a/sctp",
            json!({"podSelector": {}, "ingress": [{"ports": [{"protocol": "SCTP"}]}]}),
        )
        .check(&[
            ("b/web", "a/web", Sctp(5000), Allow),
            ("b/web", "a/web", Tcp(5000), Deny),
            ("b/web", "a/web", Udp(5000), Deny),
        ]);
}

#[test]
fn case_17_a_port_range_includes_both_ends() {
    let ports = json!([{"port": 8000, "endPort": 8010}]);
    World::new()
        .policy("a/range", json!({"podSelector": {}, "ingress": [{"ports": ports}]}))
        .check(&[
            ("b/web", "a/web", Tcp(7999), Deny),
            ("b/web", "a/web", Tcp(8000), Allow),
            ("b/web", "a/web", Tcp(8005), Allow),
            ("b/web", "a/web", Tcp(8010), Allow),
            ("b/web", "a/web", Tcp(8011), Deny),
            ("b/web", "a/web", Udp(8000), Deny),
        ]);
}

#[test]
fn case_18_a_named_port_is_each_pods_own() {
    let spec = json!({"podSelector": {}, "ingress": [{"ports": [{"port": "metrics"}]}]});
    World::new()
        .policy("a/metrics", spec.clone())
        .policy("b/metrics", spec)
        .check(&[
            ("a/db", "a/web", Tcp(9100), Allow),
            ("a/db", "a/web", Tcp(9200), Deny),
            ("a/db", "b/web", Tcp(9200), Allow),
            ("a/db", "b/web", Tcp(9100), Deny),
        ]);
}

#[test]
fn case_19_the_protocol_decides_between_ports_of_one_name() {
    let ports = json!([{"port": "dns", "protocol": "UDP"}]);
    World::new()
        .policy("a/dns", json!({"podSelector": {}, "ingress": [{"ports": ports}]}))
        .check(&[
            ("b/job", "a/web", Udp(5353), Allow),
            ("b/job", "a/web", Udp(53), Deny),
            ("b/job", "a/web", Tcp(53), Deny),
            ("b/job", "a/web", Tcp(5353), Deny),
        ]);
}

#[test]
fn case_20_a_named_port_in_egress_is_the_destinations() {
    let spec = json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": [{"ports": [{"port": "metrics"}]}]});
    World::new().policy("a/scrape", spec).check(&[
        ("a/db", "a/web", Tcp(9100), Allow),
        ("a/db", "b/web", Tcp(9200), Allow),
        ("a/db", "b/web", Tcp(9100), Deny),
        ("a/db", "203.0.113.9", Tcp(9100), Deny),
        ("a/db", "a/agent", Tcp(9100), Deny),
    ]);
}

#[test]
fn case_21_a_named_port_that_the_pod_lacks_matches_nothing() {
    let spec = json!({"podSelector": {}, "ingress": [{"ports": [{"port": "metrics"}]}]});
    World::new()
        .policy("a/metrics", spec)
        .check(&[("b/web", "a/db", Tcp(9100), Deny), ("b/web", "a/db", Tcp(80), Deny)]);
}

#[test]
fn case_22_except_inside_its_cidr_denies() {
    let block = json!({"cidr": "203.0.113.0/24", "except": ["203.0.113.8/30"]});
    World::new()
        .policy(
            "a/block",
            json!({"podSelector": {}, "ingress": [{"from": [{"ipBlock": block}]}]}),
        )
        .check(&[
            ("203.0.113.7", "a/web", Tcp(80), Allow),
            ("203.0.113.8", "a/web", Tcp(80), Deny),
            ("203.0.113.11", "a/web", Tcp(80), Deny),
            ("203.0.113.12", "a/web", Tcp(80), Allow),
            ("203.0.114.0", "a/web", Tcp(80), Deny),
        ]);
}

#[test]
fn case_23_nested_and_overlapping_excepts_deny() {
    let block = json!({"cidr": "10.0.0.0/8",
        "except": ["10.1.0.0/16", "10.1.2.0/24", "10.1.0.0/16", "10.0.0.0/15"]});
    World::new()
        .policy(
            "a/block",
            json!({"podSelector": {}, "ingress": [{"from": [{"ipBlock": block}]}]}),
        )
        .check(&[
            ("10.1.2.3", "a/web", Tcp(80), Deny),
            ("10.1.200.3", "a/web", Tcp(80), Deny),
            ("10.0.200.3", "a/web", Tcp(80), Deny),
            ("10.2.0.0", "a/web", Tcp(80), Allow),
        ]);
}

#[test]
fn case_24_excepted_by_one_policy_and_allowed_by_another() {
    let block = |block| json!({"podSelector": {}, "ingress": [{"from": [{"ipBlock": block}]}]});
    World::new()
        .policy(
            "a/most",
            block(json!({"cidr": "203.0.113.0/24", "except": ["203.0.113.9/32"]})),
        )
        .policy("a/nine", block(json!({"cidr": "203.0.113.9/32"})))
        .check(&[
            ("203.0.113.9", "a/web", Tcp(80), Allow),
            ("203.0.114.9", "a/web", Tcp(80), Deny),
        ]);
}

#[test]
fn case_25_a_block_that_contains_a_pods_address_matches_the_pod() {
    let spec = json!({"podSelector": {}, "ingress": [{"from": [{"ipBlock": {"cidr": "10.0.1.0/24"}}]}]});
    World::new().policy("a/block", spec).check(&[
        ("b/web", "a/web", Tcp(80), Allow),
        ("10.0.1.2", "a/web", Tcp(80), Allow),
        ("a/db", "a/web", Tcp(80), Deny),
    ]);
}

#[test]
fn case_26_all_of_ipv4_is_nothing_of_ipv6() {
    let spec = json!({"podSelector": {}, "ingress": [{"from": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]}]});
    World::new().policy("a/v4", spec).check(&[
        ("203.0.113.9", "a/web", Tcp(80), Allow),
        ("b/web", "a/web", Tcp(80), Allow),
        ("2001:db8::9", "a/web", Tcp(80), Deny),
        ("fd00::11", "fd00::1", Tcp(80), Deny),
    ]);
}

#[test]
fn case_27_families_are_independent() {
    let block = json!({"cidr": "fd00::/16", "except": ["fd00::11/128"]});
    let spec =
        json!({"podSelector": {}, "ingress": [{"from": [{"ipBlock": block}, {"ipBlock": {"cidr": "10.0.1.1/32"}}]}]});
    World::new().policy("a/dual", spec).check(&[
        ("fd00::2", "fd00::1", Tcp(80), Allow),
        ("fd00::11", "fd00::1", Tcp(80), Deny),
        ("10.0.1.1", "10.0.0.1", Tcp(80), Allow),
        ("10.0.1.2", "10.0.0.1", Tcp(80), Deny),
        ("10.0.0.2", "10.0.0.1", Tcp(80), Deny),
    ]);
}

#[test]
fn case_28_a_cidr_and_an_address_inside_it() {
    let from = json!([{"ipBlock": {"cidr": "203.0.113.0/24"}}, {"ipBlock": {"cidr": "203.0.113.9/32"}}]);
    World::new()
        .policy("a/both", json!({"podSelector": {}, "ingress": [{"from": from}]}))
        .check(&[
            ("203.0.113.9", "a/web", Tcp(80), Allow),
            ("203.0.113.10", "a/web", Tcp(80), Allow),
            ("203.0.112.9", "a/web", Tcp(80), Deny),
        ]);
}

#[test]
fn case_36_the_own_node_is_allowed_and_another_is_not() {
    let spec = json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]});
    World::new().policy("a/deny", spec).check(&[
        ("192.168.0.1", "a/web", Tcp(8080), Allow),
        ("192.168.0.2", "a/web", Tcp(8080), Deny),
        ("192.168.0.2", "a/db", Tcp(8080), Allow),
        ("a/agent", "a/web", Tcp(8080), Allow),
        ("a/agent", "a/db", Tcp(8080), Deny),
        ("a/web", "192.168.0.1", Tcp(10250), Deny),
    ]);
}

#[test]
fn case_37_host_network_pods_are_not_isolated_and_not_selected_as_peers() {
    let deny = json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]});
    World::new().policy("a/deny", deny).check(&[
        ("b/web", "a/agent", Tcp(80), Allow),
        ("b/web", "192.168.0.1", Tcp(80), Allow),
        ("a/agent", "b/web", Tcp(80), Allow),
    ]);
    let web = json!([{"podSelector": {"matchLabels": {"app": "web"}}}, {"namespaceSelector": {}}]);
    World::new()
        .policy("a/web-only", json!({"podSelector": {}, "ingress": [{"from": web}]}))
        .check(&[("a/agent", "a/db", Tcp(80), Deny), ("a/web", "a/db", Tcp(80), Allow)]);
    let node = json!([{"ipBlock": {"cidr": "192.168.0.0/24"}}]);
    World::new()
        .policy("a/nodes", json!({"podSelector": {}, "ingress": [{"from": node}]}))
        .check(&[("a/agent", "a/db", Tcp(80), Allow)]);
}

#[test]
fn case_38_a_pod_reaches_its_own_address() {
    let spec = json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]});
    World::new().policy("a/deny", spec).check(&[
        ("a/web", "a/web", Tcp(80), Allow),
        ("a/web", "10.0.0.1", Tcp(80), Allow),
        ("fd00::1", "a/web", Udp(80), Allow),
        ("a/web", "a/db", Tcp(80), Deny),
    ]);
}

#[test]
fn case_39_echo_needs_a_rule_without_ports() {
    let tcp = json!({"podSelector": {}, "ingress": [{"ports": [{"port": 80}]}]});
    World::new()
        .policy("a/tcp", tcp)
        .check(&[("b/web", "a/web", Icmp, Deny), ("b/web", "a/web", Tcp(80), Allow)]);
    let peers = json!({"podSelector": {}, "ingress": [{"from": [{"namespaceSelector": {}}]}]});
    World::new()
        .policy("a/peers", peers)
        .check(&[("b/web", "a/web", Icmp, Allow), ("203.0.113.9", "a/web", Icmp, Deny)]);
}
