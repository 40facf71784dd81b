//! Bad input on the command line: one clear message, status not 0.

use std::process::Command;

fn refused(program: &str, args: &[&str]) -> String {
    let output = Command::new(program)
        .args(args)
        .env_remove("NODENAME")
        .env_remove("KUBECONFIG")
        .output()
        .unwrap();
    assert!(!output.status.success(), "{args:?} was accepted");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn the_agent_says_what_is_missing_or_wrong() {
    let agent = env!("CARGO_BIN_EXE_margay-node");
    assert!(refused(agent, &[]).contains("--node NAME or set NODENAME"));
    assert!(refused(agent, &["--node", "n", "--health-listen", "somewhere"]).contains("ADDRESS:PORT or off"));
    assert!(refused(agent, &["--colour"]).contains("unexpected argument '--colour'"));
    let absent = refused(
        agent,
        &[
            "install-cni",
            "--plugin",
            "/nonexistent/margay-cni",
            "--bin-dir",
            "/nonexistent/bin",
        ],
    );
    assert!(
        absent.contains("cannot read the plugin /nonexistent/margay-cni"),
        "{absent}"
    );
}

#[test]
fn a_probe_without_an_agent_fails_in_words() {
    let dir = tempfile::tempdir().unwrap();
    let agent = env!("CARGO_BIN_EXE_margay-node");
    let told = refused(agent, &["health", "ready", "--run-dir", dir.path().to_str().unwrap()]);
    assert!(told.contains("no agent listens on"), "{told}");
    assert!(refused(agent, &["health", "well"]).contains("possible values: live, ready"));
}

#[test]
fn a_kubeconfig_that_is_none_is_named() {
    if !nix::unistd::geteuid().is_root() {
        assert!(std::env::var_os("CI").is_none(), "CI must run this as root");
        println!("SKIPPED a_kubeconfig_that_is_none_is_named: needs root");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config");
    std::fs::write(&file, "not: [a kubeconfig").unwrap();
    let path = file.to_str().unwrap();
    let state = dir.path().join("state");
    let agent = env!("CARGO_BIN_EXE_margay-node");
    let told = refused(
        agent,
        &[
            "--node",
            "n",
            "--kubeconfig",
            path,
            "--state-dir",
            state.to_str().unwrap(),
        ],
    );
    assert!(told.contains(&format!("kubeconfig {path}")), "{told}");
    assert!(!state.exists(), "nothing is half done");
    let controller = env!("CARGO_BIN_EXE_margay-controller");
    assert!(refused(controller, &["--kubeconfig", path]).contains(&format!("kubeconfig {path}")));
    assert!(refused(controller, &["--health-listen", "x"]).contains("neither ADDRESS:PORT nor off"));
}
