//! Which policy and rule decided, and connections that cannot exist.

use margay_api::slim;
use margay_felix::verdict::Protocol::{Icmp, Tcp};
use margay_felix::verdict::{Decision, Direction, EvaluateError, Exemption, Peer, PolicyRef, RuleRef};
use serde_json::json;

use super::world::Expect::{Allow, Deny};
use super::world::{World, words};

#[test]
fn the_first_allowing_rule_by_policy_name_and_position_is_named() {
    let world = World::new()
        .policy("a/z", json!({"podSelector": {}, "ingress": [{}]}))
        .policy(
            "a/m",
            json!({"podSelector": {}, "ingress": [{"ports": [{"port": 1}]}, {"ports": [{"port": 80}]}]}),
        )
        .policy("a/c", json!({"podSelector": {}}));
    let verdict = world.verdict("b/web", "a/web", Tcp(80));
    assert_eq!(verdict.egress, Decision::NotIsolated);
    assert_eq!(
        verdict.ingress,
        Decision::Allowed(RuleRef {
            policy: PolicyRef {
                namespace: "a".to_owned(),
                name: "m".to_owned()
            },
            direction: Direction::Ingress,
            index: 1,
        })
    );
    assert_eq!(
        words(&verdict),
        ["no policy selects the pod", "allowed by a/m ingress[1]"]
    );
    assert_eq!(
        words(&world.verdict("b/web", "a/web", Icmp))[1],
        "allowed by a/z ingress[0]"
    );
}

#[test]
fn a_denial_names_every_isolating_policy() {
    let world = World::new()
        .policy("a/two", json!({"podSelector": {}, "policyTypes": ["Egress"]}))
        .policy("a/one", json!({"podSelector": {}, "policyTypes": ["Egress"]}))
        .policy(
            "a/other",
            json!({"podSelector": {"matchLabels": {"app": "db"}}, "policyTypes": ["Egress"]}),
        );
    let verdict = world.verdict("a/web", "203.0.113.9", Tcp(80));
    assert_eq!(
        words(&verdict),
        ["isolated by a/one, a/two, no rule matched", "not a pod"]
    );
    assert_eq!(
        verdict.egress.policy().map(ToString::to_string).as_deref(),
        Some("a/one")
    );
    assert!(!verdict.egress.allows() && verdict.ingress.allows());
}

#[test]
fn exemptions_are_told_apart() {
    let world = World::new().policy(
        "a/deny",
        json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}),
    );
    let both = |from, to| {
        let verdict = world.verdict(from, to, Tcp(80));
        (verdict.egress, verdict.ingress)
    };
    let exempt = Decision::Exempt;
    assert_eq!(
        both("a/web", "a/web"),
        (exempt(Exemption::SameEndpoint), exempt(Exemption::SameEndpoint))
    );
    assert_eq!(
        both("192.168.0.1", "a/web"),
        (exempt(Exemption::Host), exempt(Exemption::OwnNode))
    );
    assert_eq!(
        both("203.0.113.9", "a/agent"),
        (exempt(Exemption::External), exempt(Exemption::Host))
    );
}

#[test]
fn connections_that_cannot_exist_are_errors() {
    let mut world = World::new();
    assert_eq!(
        world.try_verdict("a/none", "a/web", Tcp(80)),
        Err(EvaluateError::UnknownPod(Peer::pod("a", "none")))
    );
    assert!(matches!(
        world.try_verdict("b/job", "fd00::1", Tcp(80)),
        Err(EvaluateError::NoCommonFamily { .. })
    ));
    world.pod("b/twin", "web", &["10.0.1.2"], "n1", json!([]));
    let error = world
        .try_verdict("10.0.1.2", "a/web", Tcp(80))
        .expect_err("two pods, one address");
    assert_eq!(
        error.to_string(),
        "address 10.0.1.2 belongs to several pods: b/job, b/twin"
    );
}

#[test]
fn pods_without_addresses_are_judged_by_their_labels() {
    let from = json!([{"podSelector": {"matchLabels": {"app": "web"}}}, {"ipBlock": {"cidr": "0.0.0.0/0"}}]);
    let mut world = World::new().policy("a/web", json!({"podSelector": {}, "ingress": [{"from": from}]}));
    for pod in ["a/web", "b/web"] {
        world.find(pod).status = slim::PodStatus::default();
    }
    world.check(&[
        ("a/web", "a/db", Tcp(80), Allow),
        ("b/web", "a/db", Tcp(80), Deny),
        ("b/job", "a/db", Tcp(80), Allow),
    ]);
}

#[test]
fn the_first_common_family_of_the_source_decides() {
    let spec = json!({"podSelector": {}, "ingress": [{"from": [{"ipBlock": {"cidr": "::/0"}}]}]});
    let mut world = World::new().policy("a/v6", spec);
    world.check(&[("b/web", "a/web", Tcp(80), Deny)]);
    let status = &mut world.find("b/web").status;
    status.pod_ips.reverse();
    status.pod_ip = status.pod_ips[0].ip.clone();
    world.check(&[("b/web", "a/web", Tcp(80), Allow)]);
}

#[test]
fn a_pod_in_an_unknown_namespace_is_matched_by_no_namespace_selector() {
    let not_b = json!({"matchExpressions": [{"key": "team", "operator": "NotIn", "values": ["b"]}]});
    let spec = json!({"podSelector": {}, "ingress": [{"from": [{"namespaceSelector": not_b}]}]});
    let mut world = World::new().policy("a/not-b", spec);
    world.pod("c/web", "web", &["10.0.2.1"], "n1", json!([]));
    world.check(&[("c/web", "a/web", Tcp(80), Deny), ("a/db", "a/web", Tcp(80), Allow)]);
}

#[test]
fn sidecars_serve_named_ports_and_other_init_containers_do_not() {
    let spec = json!({"podSelector": {}, "ingress": [{"ports": [{"port": "mesh"}]}]});
    let mut world = World::new().policy("a/mesh", spec);
    let container = |restart: Option<&str>| slim::Container {
        name: "init".to_owned(),
        ports: vec![slim::ContainerPort {
            name: "mesh".to_owned(),
            container_port: 15000,
            protocol: slim::Protocol::Tcp,
        }],
        restart_policy: restart.map(str::to_owned),
    };
    world.find("a/web").spec.init_containers = vec![container(None)];
    world.check(&[("b/web", "a/web", Tcp(15000), Deny)]);
    world.find("a/web").spec.init_containers = vec![container(Some("Always"))];
    world.check(&[("b/web", "a/web", Tcp(15000), Allow)]);
}
