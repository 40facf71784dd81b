//! `policy eval` against the payments example's committed matrices, which the demo measures by real traffic.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::transcript::it;

/// Peers of the matrix as `policy eval` names them; client and node are addresses, the node's Node is a fixture.
const PEERS: [(&str, &str); 7] = [
    ("frontend", "shop/frontend"),
    ("checkout", "shop/checkout"),
    ("payments", "payments/payments"),
    ("postgres", "data/postgres"),
    ("intruder", "intruder/intruder"),
    ("client", "10.9.0.10"),
    ("node1", "192.168.0.1"),
];

#[test]
fn before_any_policy() {
    compare("1-open.txt", &["01-namespaces.yaml", "02-pods.yaml"]);
}

#[test]
fn after_default_deny() {
    compare(
        "2-default-deny.txt",
        &["01-namespaces.yaml", "02-pods.yaml", "03-default-deny.yaml"],
    );
}

#[test]
fn after_the_allow_rules() {
    compare(
        "3-allowed.txt",
        &[
            "01-namespaces.yaml",
            "02-pods.yaml",
            "03-default-deny.yaml",
            "04-allow.yaml",
        ],
    );
}

#[test]
fn a_missing_rule_is_seen() {
    let differs = differences(
        "3-allowed.txt",
        &["01-namespaces.yaml", "02-pods.yaml", "04-allow.yaml"],
    );
    assert!(
        differs.iter().any(|cell| cell == "intruder -> client:8080"),
        "{differs:?}"
    );
}

#[track_caller]
fn compare(matrix: &str, manifests: &[&str]) {
    let differs = differences(matrix, manifests);
    assert!(differs.is_empty(), "{matrix} says otherwise about {differs:?}");
}

/// The cells that `policy eval` judges otherwise than the matrix.
fn differences(matrix: &str, manifests: &[&str]) -> Vec<String> {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/examples/payments");
    let cells = cells(&fs::read_to_string(example.join("expected").join(matrix)).unwrap());
    assert!(cells.len() >= 40, "only {} cells in {matrix}", cells.len());

    let folder = tempfile::tempdir().unwrap();
    let connections = folder.path().join("connections.jsonl");
    let lines = cells.iter().map(|(cell, connection, expected)| {
        let mut line = connection.clone();
        line["cell"] = cell.as_str().into();
        line["expected"] = expected.as_str().into();
        format!("{line}\n")
    });
    fs::write(&connections, lines.collect::<String>()).unwrap();
    let output = Command::new(assert_cmd::cargo::cargo_bin!("margayctl"))
        .args(["policy", "eval", "-o", "json", "--connections"])
        .arg(&connections)
        .arg("--manifests")
        .arg(it().join("fixtures/node1.yaml"))
        .args(manifests.iter().map(|name| example.join(name)))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let answers: Vec<Value> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(answers.len(), cells.len());
    let differing = answers.iter().filter(|answer| answer["verdict"] != answer["expected"]);
    differing
        .map(|answer| answer["cell"].as_str().unwrap().to_owned())
        .collect()
}

/// `(cell, connection, expected verdict)` of every cell but the empty ones.
fn cells(matrix: &str) -> Vec<(String, Value, String)> {
    let peer = |name: &str| {
        PEERS
            .iter()
            .find(|(known, _)| *known == name)
            .unwrap_or_else(|| panic!("{name}"))
            .1
    };
    let mut lines = matrix
        .lines()
        .filter(|line| !line.starts_with('#') && !line.trim().is_empty());
    let header: Vec<&str> = lines.next().unwrap().split_whitespace().skip(1).collect();
    let mut cells = Vec::new();
    for line in lines {
        let mut words = line.split_whitespace();
        let from = words.next().unwrap();
        for (target, expected) in header.iter().zip(words).filter(|(_, expected)| *expected != "-") {
            let (to, port) = target.split_once(':').unwrap();
            let connection = json!({"from": peer(from), "to": peer(to), "port": port.parse::<u16>().unwrap()});
            cells.push((format!("{from} -> {target}"), connection, expected.to_owned()));
        }
    }
    cells
}
