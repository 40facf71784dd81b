//! `margayctl policy eval`.

use std::fs;

use assert_cmd::Command;

use crate::transcript::{Stage, it};

#[test]
fn verdicts_as_table_and_json() {
    Stage::fixtures().play("eval");
}

#[test]
fn faults_are_one_message_each() {
    Stage::fixtures().play("eval-faults");
}

#[test]
fn a_list_as_kubectl_prints_it_and_json_manifests() {
    Stage::fixtures().play("eval-list");
}

#[test]
fn what_is_passed_over_is_named() {
    Stage::fixtures().play("eval-warnings");
}

#[test]
fn spellings_that_are_stored_are_understood_and_told() {
    Stage::fixtures().play("eval-stored");
    let output = Command::new(assert_cmd::cargo::cargo_bin!("margayctl"))
        .current_dir(it().join("fixtures/stored"))
        .args(["policy", "eval", "-o", "json", "--manifests", "cluster.yaml"])
        .args(["--connections", "connections.jsonl"])
        .output()
        .unwrap();
    let answers = String::from_utf8(output.stdout).unwrap();
    assert_eq!(answers.lines().count(), 13, "{answers}");
    for answer in answers.lines() {
        let answer: serde_json::Value = serde_json::from_str(answer).unwrap();
        assert_eq!(answer["verdict"], answer["want"], "{answer}");
    }
}

#[test]
fn connections_come_from_standard_input() {
    let fixtures = it().join("fixtures");
    let run = |connections: &str| {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin!("margayctl"));
        command
            .current_dir(&fixtures)
            .args(["policy", "eval", "-o", "json", "--manifests", "shop", "--connections"]);
        command.arg(connections);
        command
    };
    let file = run("shop/connections.jsonl")
        .assert()
        .success()
        .get_output()
        .stdout
        .clone();
    let lines = fs::read(fixtures.join("shop/connections.jsonl")).unwrap();
    run("-").write_stdin(lines).assert().success().stdout(file);
    run("-").write_stdin("").assert().success().stdout("");
    run("-")
        .write_stdin("{}")
        .assert()
        .code(1)
        .stdout("")
        .stderr("error: standard input:1: no from: write \"namespace/pod\" or \"address\"\n");
}

#[test]
fn a_closed_pipe_is_no_error() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let status = std::process::Command::new(assert_cmd::cargo::cargo_bin!("margayctl"))
        .args([
            "policy",
            "eval",
            "--manifests",
            "shop",
            "--connections",
            "shop/connections.jsonl",
        ])
        .current_dir(it().join("fixtures"))
        .stdout(writer)
        .status()
        .unwrap();
    assert!(status.success(), "{status}");
}

#[test]
fn a_link_to_the_folder_above_is_walked_once() {
    let folder = tempfile::tempdir().unwrap();
    fs::copy(it().join("fixtures/list.json"), folder.path().join("list.json")).unwrap();
    fs::write(folder.path().join("connections.jsonl"), "").unwrap();
    std::os::unix::fs::symlink(".", folder.path().join("again")).unwrap();
    Command::new(assert_cmd::cargo::cargo_bin!("margayctl"))
        .current_dir(folder.path())
        .args([
            "policy",
            "eval",
            "--manifests",
            ".",
            "--connections",
            "connections.jsonl",
        ])
        .assert()
        .success();
}
