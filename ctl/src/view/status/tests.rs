//! How the answers of a large cluster read.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::fleet::Fleet;
use crate::known::{Known, Node, Pool};
use crate::output::Format;
use crate::transport::Answer;
use crate::view::View;

const NODES: usize = 100;
const PODS_OF_A_NODE: usize = 50;
const PEERS_OF_A_NODE: usize = 20;

fn name(node: usize) -> String {
    format!("node{node:03}")
}

/// What a node says that has 50 pods and 20 peers, and no session with those that are `dead`.
fn answers(node: usize, dead: &[usize]) -> Vec<Value> {
    let peers = (1..=PEERS_OF_A_NODE).map(|step| {
        let peer = (node + step) % NODES;
        let (state, reason) = if dead.contains(&peer) {
            ("Active", json!("no route to host"))
        } else {
            ("Established", Value::Null)
        };
        json!({"address": format!("10.0.0.{peer}"), "name": name(peer), "remoteAs": 64512, "state": state, "reason": reason})
    });
    let peers: Vec<Value> = peers.collect();
    let endpoints = (0..PODS_OF_A_NODE).map(|pod| {
        json!({"namespace": "shop", "pod": format!("web-{node}-{pod}"), "hostInterface": "mgy0123456789a",
            "addresses": [format!("10.{node}.0.{pod}")],
            "policy": {"inForce": true, "ingress": ["shop/default-deny", format!("shop/web-{}", pod % 10)]}})
    });
    let up = peers.iter().filter(|peer| peer["state"] == "Established").count();
    let problems = match peers.len() - up {
        0 => json!([]),
        _ => json!([{"part": "bgp", "message": format!("{up} of {} sessions established: …", peers.len())}]),
    };
    vec![
        json!({"node": name(node), "version": "0.1.0", "ready": true, "problems": problems,
            "dataplane": {"inSync": true, "endpoints": PODS_OF_A_NODE}, "bgp": {"peers": peers.len(), "established": up},
            "datastore": {"connected": true, "synced": true}}),
        json!(peers),
        json!([{"cidr": format!("10.{node}.0.0/26"), "affinity": format!("host:{}", name(node)), "capacity": 64, "used": 50}]),
        json!(endpoints.collect::<Vec<Value>>()),
    ]
}

fn fleet(dead: &[usize], known: Option<Known>) -> Fleet {
    let answer = |node: usize| Answer {
        node: name(node),
        result: if dead.contains(&node) {
            Err(format!("no answer from pod margay-node-{node} within 10 s"))
        } else {
            Ok(answers(node, dead))
        },
    };
    let view = View::Status {
        all: false,
        check: false,
    };
    Fleet::of(
        "a test".to_owned(),
        view.questions(),
        (0..NODES).map(answer).collect(),
        known,
    )
}

fn shown(fleet: &Fleet, all: bool) -> String {
    View::Status { all, check: false }
        .show(fleet, Format::Table, Timestamp::UNIX_EPOCH)
        .text
}

fn checked(fleet: &Fleet) -> bool {
    let view = View::Status {
        all: false,
        check: true,
    };
    view.show(fleet, Format::Table, Timestamp::UNIX_EPOCH).complete
}

#[test]
fn five_thousand_pods_are_a_few_lines() {
    let fleet = fleet(&[], None);
    let expected = "\
Asked      a test
Nodes      100 of 100 ready
Version    0.1.0
Sessions   2000 of 2000 up
Endpoints  5000
Policies   11 in use
Addresses  5000 of 6400 in 100 blocks
Problems   none

--all shows every agent, session, block and endpoint.
";
    assert_eq!(shown(&fleet, false), expected);
    assert!(checked(&fleet));
}

#[test]
fn all_shows_every_row() {
    let text = shown(&fleet(&[], None), true);
    let rows = |word: &str| text.lines().filter(|line| line.contains(word)).count();
    assert_eq!(rows(" shop/web-"), 5000);
    assert_eq!(rows("Established"), 2000);
    assert_eq!(rows("in sync"), 100);
}

#[test]
fn what_many_nodes_say_of_dead_ones_is_a_row_each() {
    let fleet = fleet(&[7, 8, 9, 10, 11], None);
    let text = shown(&fleet, false);
    let rows: Vec<&str> = text.lines().filter(|line| line.contains(" down ")).collect();
    assert_eq!(rows.len(), 10, "{text}");
    let row = |words: &str| {
        rows.iter()
            .any(|row| row.split_whitespace().collect::<Vec<_>>().join(" ") == words)
    };
    assert!(
        row("node007 agent down does not answer: no answer from pod margay-node-7 within 10 s"),
        "{text}"
    );
    assert!(
        row(
            "node000,node001,node002 and 17 more session down with 10.0.0.7 (node007, AS 64512) is Active: no route to host"
        ),
        "{text}"
    );
    assert!(text.contains("Nodes      95 of 100 ready\n"), "{text}");
    assert!(text.contains("Sessions   1810 of 1900 up\n"), "{text}");
    assert!(!checked(&fleet));
}

#[test]
fn of_many_problems_the_first_are_shown_and_all_on_demand() {
    let dead: Vec<usize> = (50..100).collect();
    let fleet = fleet(&dead, None);
    let (few, all) = (shown(&fleet, false), shown(&fleet, true));
    assert!(few.lines().count() < 40, "{few}");
    assert!(few.contains("\n… and 50 more\n"), "{few}");
    assert_eq!(all.lines().filter(|line| line.contains(" down ")).count(), 70);
}

#[test]
fn what_the_api_server_knows_counts() {
    let node = |name: &str, unready: Option<&str>| Node {
        name: name.to_owned(),
        unready: unready.map(str::to_owned),
        counts: true,
    };
    let pool = |name: &str, used: u64, free_blocks: u128| Pool {
        name: name.to_owned(),
        cidr: "10.0.0.0/24".to_owned(),
        disabled: false,
        size: 256,
        blocks: 4,
        free_blocks,
        used,
    };
    let mut nodes: Vec<Node> = (0..NODES).map(|node_number| node(&name(node_number), None)).collect();
    nodes.push(node("late", None));
    nodes[0].unready = Some("Kubelet stopped posting node status.".to_owned());
    let known = Known {
        nodes: Ok(nodes),
        pools: Ok(vec![
            pool("empty", 0, 4),
            pool("near", 240, 0),
            pool("borrow", 100, 0),
            pool("full", 256, 0),
        ]),
        blocks: Ok(Vec::new()),
        only: Vec::new(),
    };
    let fleet = fleet(&[], Some(known));
    let text = shown(&fleet, false);
    let lines: Vec<String> = text
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    for line in [
        "Nodes 100 of 101 ready",
        "Pools full 100 %, near 93 %, borrow 39 %, empty 0 %",
        "Problems 3 down, 2 to know",
        "late agent down no agent's pod is on it; the agents' DaemonSet says why: kubectl describe daemonset margay-node",
        "IPPool full ipam down all 256 addresses are given out: add an IPPool",
        "node000 node down is not Ready: Kubelet stopped posting node status.",
        "IPPool near ipam to know 93 % of 256 addresses are given out: add an IPPool in time",
        "IPPool borrow ipam to know all 4 blocks have an owner: a further node can only borrow. Add an IPPool",
    ] {
        assert!(lines.iter().any(|shown| shown == line), "{line} is not in\n{text}");
    }
}

#[test]
fn programs_get_the_same_as_json() {
    let fleet = fleet(&[7], None);
    let view = View::Status {
        all: false,
        check: false,
    };
    let text = view.show(&fleet, Format::Json, Timestamp::UNIX_EPOCH).text;
    let json: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(json["summary"]["nodes"], json!({"total": 100, "ready": 99}));
    assert_eq!(json["summary"]["sessions"], json!({"total": 1980, "up": 1960}));
    assert_eq!(json["problems"][0]["where"], json!(["node007"]));
    assert_eq!(json["problems"][1]["where"].as_array().map(Vec::len), Some(20));
    assert_eq!(json["nodes"].as_array().map(Vec::len), Some(100));
    assert_eq!(json.get("api"), None);
}
