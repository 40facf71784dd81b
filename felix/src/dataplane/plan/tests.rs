use serde_json::json;

use super::*;
use crate::calc::Calc;
use crate::convert;
use crate::model::{Attachment, EndpointId, Pool, Update};
use crate::render::{Config, Renderer};

const WRITTEN: &str = include_str!("example.txt");

fn updates() -> Vec<Update> {
    let pod = |name: &str, app: &str, ip: &str| {
        let pod = json!({"metadata": {"namespace": "shop", "name": name, "uid": name, "labels": {"app": app}},
            "spec": {"containers": [{"name": "c", "ports": [{"name": "http", "containerPort": 8080}]}]},
            "status": {"phase": "Running", "podIPs": [{"ip": ip}]}});
        convert::pod(&serde_json::from_value(pod).unwrap())
    };
    let policy = json!({"metadata": {"namespace": "shop", "name": "web"}, "spec": {"podSelector": {"matchLabels": {"app": "web"}},
        "policyTypes": ["Ingress", "Egress"], "ingress": [
            {"from": [{"podSelector": {"matchLabels": {"app": "client"}}}], "ports": [{"port": "http"}, {"port": 80}, {"port": 8000, "endPort": 8010}]},
            {"from": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": ["128.0.0.0/1"]}}]}]}});
    let attachment = Attachment {
        uid: "web".into(),
        interface: "mgyweb".into(),
        addresses: vec!["10.0.0.1".parse().unwrap()],
    };
    vec![
        pod("web", "web", "10.0.0.1"),
        pod("client", "client", "10.0.0.2"),
        convert::network_policy(&serde_json::from_value(policy).unwrap()).0,
        Update::Attachment(EndpointId::new("shop", "web"), Some(attachment)),
        Update::Pool("10.0.0.0/16".parse().unwrap(), Some(Pool { nat_outgoing: true })),
    ]
}

/// What is written for IPv4, without the rules' hashes.
fn written(plan: &Plan) -> String {
    let tables: String = plan
        .tables
        .iter()
        .filter(|(family, ..)| *family == Family::V4)
        .map(|(.., text)| text.as_str())
        .collect();
    let mut text = String::new();
    for line in format!("{}{tables}{}", plan.sets_before, plan.sets_after)
        .lines()
        .filter(|line| !line.contains("mgy6-"))
    {
        match line.split_once("mgy:") {
            Some((before, after)) => text.push_str(&format!("{before}mgy:…{}\n", &after[16..])),
            None => text.push_str(&format!("{line}\n")),
        }
    }
    text
}

#[test]
fn writes_a_small_example_as_committed() {
    let (mut calc, mut renderer) = (Calc::new(), Renderer::new(Config::default(), BTreeMap::new()));
    updates().into_iter().for_each(|update| calc.update(update));
    calc.in_sync();
    renderer.apply(calc.flush());
    let plan = Plan::for_snapshot(renderer.ruleset(), &Snapshot::default(), &Family::ALL);
    assert_eq!(written(&plan), WRITTEN);
    // Once it is there, nothing is left to write.
    let mut kernel = Snapshot::default();
    for family in Family::ALL {
        let tables = plan
            .tables
            .iter()
            .filter(|(of, ..)| *of == family)
            .map(|(.., text)| text.as_str());
        kernel.read_tables(
            family,
            &tables
                .collect::<String>()
                .replace("-I FORWARD 1 ", "-A FORWARD ")
                .replace("-I INPUT 1 ", "-A INPUT ")
                .replace("-I OUTPUT 1 ", "-A OUTPUT ")
                .replace("-I PREROUTING 1 ", "-A PREROUTING "),
        );
    }
    kernel.read_sets(&format!("{}{}", plan.sets_before, plan.sets_after));
    let again = Plan::for_snapshot(renderer.ruleset(), &kernel, &Family::ALL);
    assert_eq!(again, Plan::default());
    // A change of members alone writes members alone.
    calc.update(Update::Workload(EndpointId::new("shop", "client"), None));
    let delta = renderer.apply(calc.flush());
    let plan = Plan::for_delta(renderer.ruleset(), &delta, &Family::ALL);
    assert!(plan.tables.is_empty() && plan.sets_after.is_empty());
    assert_eq!(plan.sets_before.lines().count(), 1);
    assert!(plan.sets_before.starts_with("del mgy4-") && plan.sets_before.ends_with(" 10.0.0.2/32\n"));
}

/// Where IPv6 is off, its tools would refuse.
#[test]
fn writes_only_the_families_that_there_are() {
    let (mut calc, mut renderer) = (Calc::new(), Renderer::new(Config::default(), BTreeMap::new()));
    updates().into_iter().for_each(|update| calc.update(update));
    calc.in_sync();
    let delta = renderer.apply(calc.flush());
    let families = |plan: Plan| {
        plan.tables
            .into_iter()
            .map(|(family, ..)| family)
            .collect::<BTreeSet<_>>()
    };
    let both = Plan::for_delta(renderer.ruleset(), &delta, &Family::ALL);
    assert_eq!(families(both), BTreeSet::from(Family::ALL));
    let one = Plan::for_delta(renderer.ruleset(), &delta, &[Family::V4]);
    assert_eq!(families(one), BTreeSet::from([Family::V4]));
}

/// Hooks stand around the rules of others; where they do not, all of the chain's are written anew.
#[test]
fn hooks_are_put_where_they_belong() {
    let name = |text: &str| ChainName(text.into());
    let hooks = Hooks {
        first: vec![name("mgy-a"), name("mgy-b")],
        last: vec![name("mgy-y"), name("mgy-z")],
    };
    let wanted = TableRules {
        chains: BTreeMap::new(),
        hooks: BTreeMap::from([(Builtin::Forward, hooks)]),
    };
    let line = |chain: &str| format!("-A FORWARD {}\n", hook_line(Builtin::Forward, &name(chain)).spec);
    let lines = ["mgy-a", "mgy-b", "mgy-y", "mgy-z"].map(line);
    let [a, b, y, z] = lines.each_ref().map(String::as_str);
    let theirs = "-A FORWARD -j KUBE-FORWARD\n";
    let edit = |there: &[&str]| {
        let mut kernel = Snapshot::default();
        kernel.read_tables(Family::V4, &format!("*filter\n{}", there.concat()));
        TableEdit::between(&wanted, &kernel.tables[&(Family::V4, Table::Filter)]).hooks
    };
    let all = [b, a].map(|line| line.replace("-A FORWARD", "-I FORWARD 1")).concat() + y + z;
    assert_eq!(edit(&[]), all);
    assert_eq!(edit(&[a, b, y, z]), "");
    assert_eq!(edit(&[a, b, theirs, theirs, y, z]), "");
    let without = |lines: &[&str]| lines.concat().replace("-A ", "-D ") + &all;
    for odd in [
        [a, b, y, theirs, z],
        [a, b, theirs, z, y],
        [a, b, y, z, theirs],
        [theirs, a, b, y, z],
        [b, a, theirs, y, z],
        [a, b, theirs, y, y],
    ] {
        let ours: Vec<&str> = odd.into_iter().filter(|line| *line != theirs).collect();
        assert_eq!(edit(&odd), without(&ours), "{odd:?}");
    }
    assert_eq!(edit(&[a, theirs, y, z]), without(&[a, y, z]));
    let extra = "-A FORWARD -j mgy-old\n";
    assert_eq!(edit(&[a, b, extra, y, z]), without(&[a, b, extra, y, z]));
}
