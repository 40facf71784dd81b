//! Commands that ask all nodes of a lab, through a `margay-lab` that runs everything right here.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use tempfile::TempDir;

use crate::agent;
use crate::transcript::{Stage, it};

/// Knows the labs of `fixtures/lab/inspect.json`; a node's agent is the socket of its name in the current folder.
const MARGAY_LAB: &str = r#"#!/bin/sh
set -eu
case "$1" in
inspect)
    case "$*" in
    *"--name nothere"*) echo "margay-lab: no lab nothere is deployed" >&2; exit 1 ;;
    esac
    cat inspect.json ;;
exec)
    # exec --name LAB NODE -- PROGRAM --socket SOCKET raw PATH...
    node=$4; program=$6; shift 8
    if [ "$node" = node3 ]; then echo "margay-lab: node3 is dead" >&2; exit 1; fi
    exec "$program" --socket "$node.sock" "$@" ;;
esac
"#;

/// A folder with the program, its `margay-lab` beside it, and these labs deployed.
fn stage(inspect: &str) -> (TempDir, Stage) {
    let folder = tempfile::tempdir().unwrap();
    let built = Stage::fixtures();
    let program = folder.path().join("margayctl");
    // current_exe() resolves symbolic links; a hard link needs the same file system.
    fs::hard_link(&built.program, &program)
        .or_else(|_| fs::copy(&built.program, &program).map(drop))
        .unwrap();
    let lab = folder.path().join("margay-lab");
    fs::write(&lab, MARGAY_LAB).unwrap();
    fs::set_permissions(&lab, fs::Permissions::from_mode(0o755)).unwrap();
    fs::copy(
        it().join("fixtures/lab").join(inspect),
        folder.path().join("inspect.json"),
    )
    .unwrap();
    let stage = Stage {
        program,
        directory: folder.path().to_owned(),
        ..built
    };
    (folder, stage)
}

#[test]
fn all_nodes_in_one_answer_and_the_dead_one_with_its_reason() {
    let (folder, stage) = stage("one.json");
    for node in ["node1", "node2"] {
        agent::serve(node, &folder.path().join(format!("{node}.sock")));
    }
    stage.play("lab");
}

#[test]
fn a_lab_that_cannot_be_asked_is_one_message() {
    let (_folder, stage) = stage("no-cluster.json");
    stage.play("lab-failures");
}

#[test]
fn the_only_lab_needs_no_name() {
    if fs::exists("/run/margay/control.sock").unwrap_or(true) {
        eprintln!("SKIPPED the_only_lab_needs_no_name: needs a machine without an agent");
        return;
    }
    let (folder, only) = stage("one.json");
    for node in ["node1", "node2"] {
        agent::serve(node, &folder.path().join(format!("{node}.sock")));
    }
    only.play("lab-only");
    stage("two.json").1.play("lab-several");
    stage("none.json").1.play("lab-none");
}

#[test]
fn the_environment_names_the_lab_unless_a_socket_is_given() {
    let (folder, stage) = stage("one.json");
    agent::serve("node1", &folder.path().join("node1.sock"));
    let run = |arguments: &[&str]| {
        let mut command = assert_cmd::Command::new(&stage.program);
        command
            .current_dir(folder.path())
            .env("MARGAY_LAB", "nothere")
            .args(arguments);
        command.assert()
    };
    let missing = run(&["bgp", "peers"]).code(1).stdout("");
    missing.stderr("error: margay-lab: no lab nothere is deployed\n");
    run(&["bgp", "peers", "--socket", "node1.sock"]).success().stderr("");
}
