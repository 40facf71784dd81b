//! An agent whose surroundings are not as they should be: what it does without, and what it says of it.

use anyhow::{Context, Result, ensure};
use margay_testkit::shell::wait_for;
use margay_testkit::{needs, repository};
use serde_json::Value;

use super::READY;
use super::lab::ClusterLab;

const CRD: &str = "bgppeers.projectcalico.org";

impl ClusterLab {
    fn json(&self, arguments: &[&str]) -> Result<Value> {
        Ok(serde_json::from_str(&self.shell.kubectl(arguments)?)?)
    }

    /// Fails unless `node` has a session of each family with its router.
    fn has_sessions(&self, node: &str) -> Result<Value> {
        let status = self.status(node)?;
        ensure!(status["bgp"]["established"] == 2, "{status:#}");
        Ok(status)
    }
}

/// A resource type that the agent can do without is not there when it starts, and comes later.
#[test]
fn an_agent_does_without_an_optional_resource_until_it_comes() {
    if !needs::root("an_agent_does_without_an_optional_resource_until_it_comes") {
        return;
    }
    let lab = ClusterLab::up("optional");
    wait_for("node1 has its sessions", READY, || lab.has_sessions("node1")).unwrap();
    lab.shell.kubectl(&["delete", "crd", CRD]).unwrap();
    lab.agent("kill", "node1");
    // Nor does an earlier run help.
    lab.shell
        .in_node("node1", &["rm", "/var/lib/margay/cluster.json"])
        .unwrap();
    lab.agent("start", "node1");
    lab.wait_agent_ready("node1", READY);
    let status = lab.status("node1").unwrap()["problems"].to_string();
    let told = format!("the API server does not serve {CRD}: apply deploy/crds");
    assert!(status.contains(&told), "{status}");
    wait_for("an Event about the Node says so", READY, || {
        let events = lab.json(&["get", "events", "-o", "json"])?;
        let about_node1 =
            |event: &&Value| event["reason"] == "ResourceNotServed" && event["involvedObject"]["name"] == "node1";
        let events = events["items"].as_array().context("a list")?;
        let event = events.iter().find(about_node1).context("no such Event")?;
        ensure!(
            event["message"]
                .as_str()
                .is_some_and(|message| message.starts_with(&told)),
            "{event}"
        );
        Ok(())
    })
    .unwrap();

    let crds = repository().join("deploy/crds");
    lab.shell.kubectl(&["apply", "-f", &crds.to_string_lossy()]).unwrap();
    lab.apply_file(&repository().join("deploy/examples/two-racks/network.yaml"));
    wait_for("the sessions are back and nothing is missing", READY, || {
        let problems = lab.has_sessions("node1")?["problems"].to_string();
        ensure!(!problems.contains(&told), "{problems}");
        Ok(())
    })
    .unwrap();
}

/// What a cloud says of a new node is taken back, and nothing else that is said of it.
#[test]
fn a_network_that_is_up_is_not_unavailable() {
    if !needs::root("a_network_that_is_up_is_not_unavailable") {
        return;
    }
    let lab = ClusterLab::up("condition");
    let patch = r#"{"status": {"conditions": [
        {"type": "NetworkUnavailable", "status": "True", "reason": "NoRouteCreated", "message": "by the cloud"},
        {"type": "Strange", "status": "True"}]}}"#;
    let patched = [
        "patch",
        "node",
        "node2",
        "--subresource=status",
        "--type=strategic",
        "-p",
        patch,
    ];
    lab.shell.kubectl(&patched).unwrap();
    wait_for("the condition is cleared", READY, || {
        let node = lab.json(&["get", "node", "node2", "-o", "json"])?;
        let conditions = node["status"]["conditions"].as_array().context("conditions")?;
        let find = |name: &str| conditions.iter().find(|condition| condition["type"] == name);
        let network = find("NetworkUnavailable").context("it is gone")?;
        ensure!(
            network["status"] == "False" && network["reason"] == "MargayIsUp",
            "{network}"
        );
        ensure!(
            find("Strange").is_some_and(|condition| condition["status"] == "True"),
            "{node}"
        );
        ensure!(find("Ready").is_some(), "{node}");
        Ok(())
    })
    .unwrap();
}
