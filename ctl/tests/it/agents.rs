//! Commands that ask the agent of this machine.

use std::os::unix::net::UnixListener;

use tempfile::TempDir;

use crate::agent;
use crate::transcript::Stage;

/// Commands run in `folder`, where the sockets are.
fn stage(folder: &TempDir) -> Stage {
    Stage {
        directory: folder.path().to_owned(),
        ..Stage::fixtures()
    }
}

#[test]
fn every_command_as_table() {
    let folder = tempfile::tempdir().unwrap();
    agent::serve("node1", &folder.path().join("control.sock"));
    stage(&folder).play("agent-tables");
}

#[test]
fn every_command_as_json() {
    let folder = tempfile::tempdir().unwrap();
    agent::serve("node2", &folder.path().join("control.sock"));
    stage(&folder).play("agent-json");
}

#[test]
fn an_agent_that_does_not_answer_is_a_row_with_its_reason() {
    let folder = tempfile::tempdir().unwrap();
    drop(UnixListener::bind(folder.path().join("dead.sock")).unwrap());
    agent::serve_silence(&folder.path().join("silent.sock"));
    agent::serve("odd", &folder.path().join("odd.sock"));
    stage(&folder).play("agent-failures");
}

#[test]
fn a_check_fails_when_something_is_down_and_not_for_what_is_only_to_be_known() {
    let folder = tempfile::tempdir().unwrap();
    agent::serve("well", &folder.path().join("well.sock"));
    agent::serve("node1", &folder.path().join("down.sock"));
    stage(&folder).play("check");
}
