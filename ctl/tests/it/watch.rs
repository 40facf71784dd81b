//! `--watch`.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use assert_cmd::cargo::cargo_bin;

use crate::agent;

/// Killed when the test ends.
struct Watching(Child);

impl Drop for Watching {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(command: &mut Command) -> (Watching, impl Iterator<Item = String>) {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    (Watching(child), lines.map(Result::unwrap))
}

#[test]
fn answers_follow_each_other_into_a_pipe() {
    let folder = tempfile::tempdir().unwrap();
    agent::serve("well", &folder.path().join("well.sock"));
    let mut command = Command::new(cargo_bin!("margayctl"));
    command
        .current_dir(folder.path())
        .args(["bgp", "peers", "--socket", "well.sock", "--watch", "1"]);
    let (_watching, lines) = start(&mut command);
    let seen: Vec<String> = lines.take(5).collect();
    let answer = ["NODE   PEER", "node1  10.1.1.0", ""];
    for (line, beginning) in seen.iter().zip(answer.iter().cycle()) {
        assert!(line.starts_with(beginning), "{seen:?}");
    }
    assert!(!seen.concat().contains('\x1b'), "{seen:?}");
}

#[test]
fn a_terminal_shows_the_newest_alone_as_far_as_it_has_room() {
    let folder = tempfile::tempdir().unwrap();
    agent::serve("well", &folder.path().join("well.sock"));
    let program = cargo_bin!("margayctl").display().to_string();
    let command = format!("stty rows 6 cols 80; exec {program} status --socket well.sock -w 1");
    let mut terminal = Command::new("script");
    terminal
        .current_dir(folder.path())
        .args(["-qec", &command, "/dev/null"]);
    let (_watching, lines) = start(&mut terminal);
    let seen: Vec<String> = lines.take(10).collect();
    // Home, then each line and the rest of it cleared; the rest of the screen cleared before the next.
    for turn in seen.chunks(5) {
        let head = turn[0].trim_start_matches("\x1b[J");
        assert!(head.starts_with("\x1b[Hevery 1 s, at "), "{seen:?}");
        assert!(turn[2].starts_with("Asked "), "{seen:?}");
        assert!(turn[3].starts_with("Nodes "), "{seen:?}");
        assert!(turn[4].starts_with("… 12 more lines\x1b[K"), "{seen:?}");
    }
}

#[test]
fn a_failure_stands_in_an_answers_place() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(cargo_bin!("margayctl"));
    command
        .current_dir(folder.path())
        .args(["bgp", "peers", "--socket", "missing.sock", "-w", "1", "-o", "json"]);
    let (_watching, lines) = start(&mut command);
    let told = lines.filter(|line| line.contains("missing.sock does not exist"));
    assert_eq!(told.take(2).count(), 2);
}
