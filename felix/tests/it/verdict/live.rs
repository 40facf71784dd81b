//! The numbered cases that edit a cluster: the same question before and after.

use margay_api::slim::Phase;
use margay_felix::verdict::Protocol::Tcp;
use margay_felix::verdict::{EvaluateError, Peer};
use serde_json::{Value, json};

use super::world::Expect::{Allow, Deny};
use super::world::World;

fn from_gold_namespaces() -> Value {
    json!({"podSelector": {}, "ingress": [{"from": [{"namespaceSelector": {"matchLabels": {"tier": "gold"}}}]}]})
}

fn from_web() -> Value {
    json!({"podSelector": {}, "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "web"}}}]}]})
}

#[test]
fn case_29_a_namespaces_new_label_takes_effect() {
    let mut world = World::new().policy("a/gold", from_gold_namespaces());
    world.check(&[("b/web", "a/web", Tcp(80), Deny)]);
    let namespace = world
        .0
        .namespaces
        .iter_mut()
        .find(|namespace| namespace.metadata.name == "b");
    namespace
        .expect("b")
        .metadata
        .labels
        .insert("tier".to_owned(), "gold".to_owned());
    world.check(&[("b/web", "a/web", Tcp(80), Allow), ("a/db", "a/web", Tcp(80), Deny)]);
}

#[test]
fn case_30_a_pods_removed_label_denies_new_connections() {
    let mut world = World::new().policy("a/web", from_web());
    world.check(&[("a/web", "a/db", Tcp(80), Allow)]);
    world.find("a/web").metadata.labels.remove("app");
    world.check(&[("a/web", "a/db", Tcp(80), Deny)]);
}

#[test]
fn case_31_a_pod_that_becomes_selected_is_isolated() {
    let selected = json!({"podSelector": {"matchLabels": {"quarantine": "yes"}}, "policyTypes": ["Ingress", "Egress"]});
    let mut world = World::new().policy("a/quarantine", selected);
    world.check(&[("b/web", "a/web", Tcp(80), Allow), ("a/web", "b/web", Tcp(80), Allow)]);
    world
        .find("a/web")
        .metadata
        .labels
        .insert("quarantine".to_owned(), "yes".to_owned());
    world.check(&[("b/web", "a/web", Tcp(80), Deny), ("a/web", "b/web", Tcp(80), Deny)]);
}

#[test]
fn case_32_a_reused_address_is_the_live_pods() {
    for finished in [Phase::Succeeded, Phase::Failed] {
        let mut world = World::new().policy("a/web", from_web());
        world.find("a/web").status.phase = finished;
        world.check(&[("10.0.0.1", "a/db", Tcp(80), Deny)]);
        world.pod("a/new", "other", &["10.0.0.1"], "n1", json!([]));
        world.check(&[("10.0.0.1", "a/db", Tcp(80), Deny)]);
        world
            .find("a/new")
            .metadata
            .labels
            .insert("app".to_owned(), "web".to_owned());
        world.check(&[("10.0.0.1", "a/db", Tcp(80), Allow), ("a/new", "a/db", Tcp(80), Allow)]);
        assert_eq!(
            world.try_verdict("a/web", "a/db", Tcp(80)),
            Err(EvaluateError::Finished(Peer::pod("a", "web")))
        );
    }
}

#[test]
fn case_33_policy_holds_for_a_terminating_pod() {
    let deny_db = json!({"podSelector": {"matchLabels": {"app": "db"}}, "ingress": [{"from": [{"podSelector": {}}]}]});
    let mut world = World::new().policy("a/db", deny_db);
    for pod in ["a/db", "a/web"] {
        world.find(pod).metadata.deletion_timestamp = Some("2026-01-01T00:00:00Z".to_owned());
    }
    world.check(&[("b/web", "a/db", Tcp(80), Deny), ("a/web", "a/db", Tcp(80), Allow)]);
}

#[test]
fn case_34_a_tightened_policy_denies_new_connections() {
    let rule = |port: u16| json!({"podSelector": {}, "ingress": [{"ports": [{"port": port}]}]});
    World::new()
        .policy("a/port", rule(80))
        .check(&[("b/web", "a/web", Tcp(80), Allow)]);
    World::new()
        .policy("a/port", rule(81))
        .check(&[("b/web", "a/web", Tcp(80), Deny)]);
}

#[test]
fn case_35_a_deleted_policy_denies_no_new_connection() {
    let mut world = World::new().policy("a/deny", json!({"podSelector": {}}));
    world.check(&[("b/web", "a/web", Tcp(80), Deny)]);
    world.0.policies.clear();
    world.check(&[("b/web", "a/web", Tcp(80), Allow)]);
}
