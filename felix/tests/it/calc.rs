//! What calc puts out in cases that random clusters seldom reach.

use margay_felix::calc::{Calc, Change, Member};
use margay_felix::convert;
use margay_felix::model::{Attachment, EndpointId, PolicyId, Pool, Update};
use serde_json::{Value, json};

fn pod(name: &str, uid: &str, app: &str, ip: &str, phase: &str) -> Update {
    let pod = json!({"metadata": {"namespace": "shop", "name": name, "uid": uid, "labels": {"app": app}},
        "spec": {"containers": []}, "status": {"phase": phase, "podIP": ip}});
    convert::pod(&serde_json::from_value(pod).unwrap())
}

fn attachment(name: &str, uid: &str, ip: &str) -> Update {
    let attachment = Attachment {
        uid: uid.into(),
        interface: format!("mgy{name}").into(),
        addresses: vec![ip.parse().unwrap()],
    };
    Update::Attachment(EndpointId::new("shop", name), Some(attachment))
}

fn policy(spec: Value) -> Update {
    let policy = json!({"metadata": {"namespace": "shop", "name": "np"}, "spec": spec});
    convert::network_policy(&serde_json::from_value(policy).unwrap()).0
}

fn from_web() -> Update {
    policy(json!({"podSelector": {"matchLabels": {"app": "db"}}, "ingress": [
        {"from": [{"podSelector": {"matchLabels": {"app": "web"}}}]}]}))
}

/// One local pod `db` that the policy selects, and what else is given.
fn calc(updates: impl IntoIterator<Item = Update>) -> (Calc, Vec<Change>) {
    let mut calc = Calc::new();
    [
        pod("db", "u0", "db", "10.0.0.1", "Running"),
        attachment("db", "u0", "10.0.0.1"),
        from_web(),
    ]
    .into_iter()
    .chain(updates)
    .for_each(|update| calc.update(update));
    calc.in_sync();
    let changes = calc.flush();
    (calc, changes)
}

/// Changes in short: what, and of sets the members.
fn short(changes: &[Change]) -> Vec<String> {
    let members = |members: &std::collections::BTreeSet<Member>| {
        members.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    };
    let text = |change: &Change| match change {
        Change::SetAdded(_, all) => format!("set: {}", members(all)),
        Change::SetChanged(_, delta) => format!("set +[{}] -[{}]", members(&delta.added), members(&delta.removed)),
        Change::SetRemoved(_) => "no set".into(),
        Change::PolicyUpdated(id, _) => format!("policy {id}"),
        Change::PolicyRemoved(id) => format!("no policy {id}"),
        Change::EndpointUpdated(id, endpoint) => match &endpoint.policy {
            Some(policy) => format!(
                "endpoint {id}: {} in, {} out",
                policy.ingress.len(),
                policy.egress.len()
            ),
            None => format!("endpoint {id}: denied"),
        },
        Change::EndpointRemoved(id) => format!("no endpoint {id}"),
        Change::PoolsChanged(pools) => format!("pools {:?}", pools.all.len()),
    };
    changes.iter().map(text).collect()
}

#[test]
fn an_address_counts_while_any_pod_has_it() {
    let two = [
        pod("a", "u1", "web", "10.0.0.2", "Running"),
        pod("b", "u2", "web", "10.0.0.2", "Running"),
    ];
    let (mut calc, changes) = calc(two);
    assert_eq!(
        short(&changes),
        ["set: 10.0.0.2/32", "policy shop/np", "endpoint shop/db: 1 in, 0 out"]
    );
    calc.update(pod("a", "u1", "web", "10.0.0.2", "Succeeded"));
    assert_eq!(short(&calc.flush()), [""; 0]);
    calc.update(pod("b", "u2", "api", "10.0.0.2", "Running"));
    assert_eq!(short(&calc.flush()), ["set +[] -[10.0.0.2/32]"]);
}

#[test]
fn a_finished_pod_has_no_address() {
    let (mut calc, _) = calc([pod("a", "u1", "web", "10.0.0.2", "Running")]);
    calc.update(pod("a", "u1", "web", "10.0.0.2", "Failed"));
    assert_eq!(short(&calc.flush()), ["set +[] -[10.0.0.2/32]"]);
}

#[test]
fn the_address_given_here_goes_before_the_reported_one_for_the_same_incarnation_only() {
    let (mut calc, _) = calc([pod("a", "u1", "web", "", "Pending"), attachment("a", "u1", "10.0.0.5")]);
    calc.update(pod("a", "u1", "web", "10.0.0.9", "Running"));
    assert_eq!(short(&calc.flush()), [""; 0]);
    // The name lives on elsewhere: here everything is denied, and its new address counts.
    calc.update(pod("a", "u2", "web", "10.0.7.7", "Running"));
    assert_eq!(
        short(&calc.flush()),
        ["set +[10.0.7.7/32] -[10.0.0.5/32]", "endpoint shop/a: denied"]
    );
}

#[test]
fn what_comes_and_goes_between_two_flushes_leaves_no_trace() {
    let (mut calc, _) = calc([pod("a", "u1", "web", "10.0.0.2", "Running")]);
    calc.update(Update::Policy(PolicyId::new("shop", "np"), None));
    calc.update(pod("a", "u1", "api", "10.0.0.2", "Running"));
    calc.update(from_web());
    calc.update(pod("a", "u1", "web", "10.0.0.2", "Running"));
    calc.update(pod("x", "u9", "web", "10.0.0.9", "Running"));
    calc.update(Update::Workload(EndpointId::new("shop", "x"), None));
    assert_eq!(short(&calc.flush()), [""; 0]);
}

#[test]
fn what_concerns_nobody_here_costs_nothing() {
    let mut calc = Calc::new();
    calc.in_sync();
    calc.update(pod("db", "u0", "db", "10.0.0.1", "Running"));
    calc.update(pod("a", "u1", "web", "10.0.0.2", "Running"));
    calc.update(from_web());
    assert_eq!(short(&calc.flush()), [""; 0]);
    calc.update(attachment("db", "u0", "10.0.0.1"));
    assert_eq!(
        short(&calc.flush()),
        ["set: 10.0.0.2/32", "policy shop/np", "endpoint shop/db: 1 in, 0 out"]
    );
    calc.update(Update::Attachment(EndpointId::new("shop", "db"), None));
    assert_eq!(
        short(&calc.flush()),
        ["no endpoint shop/db", "no policy shop/np", "no set"]
    );
}

#[test]
fn an_invalid_policy_isolates_and_allows_nothing() {
    let (mut calc, _) = calc([]);
    calc.update(policy(json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"], "ingress": [{}], "egress": [{"ports": [{"port": 70000}]}]})));
    let changes = calc.flush();
    assert_eq!(
        short(&changes),
        ["policy shop/np", "endpoint shop/db: 1 in, 1 out", "no set"]
    );
    let Change::PolicyUpdated(_, active) = &changes[0] else {
        panic!()
    };
    assert!(active.ingress.is_empty() && active.egress.is_empty());
}

#[test]
fn pools_come_as_they_are() {
    let (mut calc, _) = calc([]);
    calc.update(Update::Pool(
        "10.0.0.0/16".parse().unwrap(),
        Some(Pool { nat_outgoing: true }),
    ));
    assert_eq!(short(&calc.flush()), ["pools 1"]);
    calc.update(Update::Pool(
        "10.0.0.0/16".parse().unwrap(),
        Some(Pool { nat_outgoing: true }),
    ));
    assert_eq!(short(&calc.flush()), [""; 0]);
}
