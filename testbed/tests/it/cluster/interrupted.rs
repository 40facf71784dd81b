//! Commands that meet each other: what a killed `make demo` leaves running.

use std::{process::Stdio, time::Duration};

use margay_testkit::shell::wait_for;

use super::lab::ClusterLab;
use margay_testkit::needs;

#[test]
fn a_destroy_waits_for_a_cluster_that_comes_up() {
    if !needs::root("a_destroy_waits_for_a_cluster_that_comes_up") {
        return;
    }
    let lab = ClusterLab::empty("orphan");
    lab.shell.lab(&["deploy"], &[]).unwrap();
    let mut up = lab.shell.command(&lab.shell.bin.join("margay-lab"));
    up.args(["cluster", "up", "-t"]).arg(&lab.shell.topology);
    let mut up = up.stdout(Stdio::null()).spawn().unwrap();
    let labs = lab.shell.labs_dir.clone().unwrap();
    let begun = labs.join("two-racks/log/control-plane.log");
    wait_for("the API server is started", Duration::from_secs(30), || {
        anyhow::ensure!(begun.exists(), "{} is not there", begun.display());
        Ok(())
    })
    .unwrap();
    lab.shell.lab(&["destroy"], &[]).unwrap();
    assert!(up.wait().unwrap().success(), "the cluster came up before it went");
    assert!(!labs.exists(), "{} is left", labs.display());
}
