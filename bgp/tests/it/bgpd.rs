//! What `margay-bgpd` says to bad input.

use std::process::Command;

fn run(text: &str) -> (Option<i32>, String) {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("bad.yaml");
    std::fs::write(&path, text).expect("a file");
    let output = Command::new(env!("CARGO_BIN_EXE_margay-bgpd"))
        .arg("--check")
        .arg("--config")
        .arg(&path)
        .output()
        .expect("run");
    let said = String::from_utf8_lossy(&output.stderr).replace(&dir.path().display().to_string(), "DIR");
    (output.status.code(), said)
}

#[test]
fn a_file_is_refused_whole_with_one_line_a_fault() {
    let (code, said) =
        run("bgp: {local_as: 0, router_id: 10.0.0.1, peers: [{address: 10.0.0.2, remote_as: 1, import: x}]}");
    assert_eq!(code, Some(1));
    assert_eq!(
        said,
        "DIR/bad.yaml: local_as: AS 0 is reserved (RFC 7607, 6793, 7300); use the number of a real AS\n\
         DIR/bad.yaml: peers[0].import: there is no filter \"x\"; define it under filters\n"
    );
}

#[test]
fn an_unknown_field_is_named() {
    let (code, said) = run("bgp: {local_as: 1, router_id: 10.0.0.1, peer: []}");
    assert_eq!(code, Some(1));
    assert!(said.contains("peer"), "{said}");
}

#[test]
fn a_missing_file_is_named() {
    let output = Command::new(env!("CARGO_BIN_EXE_margay-bgpd"))
        .args(["--check", "--config", "/nonexistent/bgp.yaml"])
        .output()
        .expect("run");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        said.starts_with("/nonexistent/bgp.yaml: cannot read it: No such file"),
        "{said}"
    );
}

#[test]
fn a_sound_file_passes() {
    assert_eq!(run("bgp: {local_as: 1, router_id: 10.0.0.1}"), (Some(0), String::new()));
}

#[test]
fn a_peer_that_no_route_passes_is_pointed_out() {
    let (code, said) = run(
        "bgp: {local_as: 1, router_id: 10.0.0.1, filters: {all: {default: accept}}, peers: [\
         {address: 10.0.0.2, remote_as: 2, export: all}, {address: 10.0.0.3, remote_as: 1}]}",
    );
    assert_eq!(code, Some(0));
    assert_eq!(
        said,
        "DIR/bad.yaml: note: peer 10.0.0.2 has no import filter: no route passes that way over eBGP (RFC 8212)\n"
    );
}
