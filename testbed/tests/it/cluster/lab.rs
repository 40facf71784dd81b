//! A lab of a test's own, with its cluster up, gone when the test ends.

use std::{fs, path::Path, process::Output, time::Duration};

use margay_agnhost::traffic::Tally;
use margay_testkit::shell::{Shell, stdout_of, wait_for};
use margay_testkit::{programs, repository};
use serde_json::Value;
use tempfile::TempDir;

/// A lab in a state directory of its own, so that labs of other tests do not meet it.
pub(crate) struct ClusterLab {
    pub(crate) shell: Shell,
    dir: TempDir,
}

impl ClusterLab {
    /// `two-racks`, not deployed yet.
    pub(crate) fn empty(name: &str) -> Self {
        Self::of(name, "two-racks")
    }

    /// Of this topology, not deployed yet.
    pub(crate) fn of(name: &str, topology: &str) -> Self {
        let dir = tempfile::Builder::new()
            .prefix(&format!("margay-{name}-"))
            .tempdir()
            .unwrap();
        let bin = programs::dir();
        let topology = repository().join(format!("testbed/topologies/{topology}.clab.yml"));
        let labs_dir = Some(dir.path().join("labs"));
        Self {
            shell: Shell {
                bin,
                topology,
                kubeconfig: None,
                labs_dir,
            },
            dir,
        }
    }

    /// Deployed, with the API server, agents and pod runners, and the example's pools and BGP peers.
    pub(crate) fn up(name: &str) -> Self {
        let mut lab = Self::empty(name);
        lab.deploy();
        lab.apply_file(&repository().join("deploy/examples/two-racks/network.yaml"));
        for node in ["node1", "node2", "node3"] {
            lab.wait_agent_ready(node, Duration::from_secs(60));
        }
        lab
    }

    /// Deploys it, with the API server, agents and pod runners.
    pub(crate) fn deploy(&mut self) {
        self.shell.lab(&["deploy"], &[]).unwrap();
        self.shell.lab(&["cluster", "up"], &[]).unwrap();
        let inspected: Value = serde_json::from_str(&self.shell.lab(&["inspect"], &["-o", "json"]).unwrap()).unwrap();
        self.shell.kubeconfig = Some(inspected["kubeconfig"].as_str().expect("a kubeconfig").into());
    }

    /// Applies a manifest of `testbed/tests/it/cluster`.
    pub(crate) fn apply(&self, manifest: &str) {
        self.apply_file(&repository().join("testbed/tests/it/cluster").join(manifest));
    }

    pub(crate) fn apply_file(&self, path: &Path) {
        self.shell.kubectl(&["apply", "-f", &path.to_string_lossy()]).unwrap();
    }

    /// Runs `margay-demo`, as `make demo` does.
    pub(crate) fn demo(&self, arguments: &[&str]) -> Output {
        let mut command = self.shell.command(&self.shell.bin.join("margay-demo"));
        command.args(arguments).current_dir(repository()).output().unwrap()
    }

    /// Runs `margayctl` as a user of this lab and returns what it prints.
    pub(crate) fn ctl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let mut command = self.shell.command(&self.shell.bin.join("margayctl"));
        command.args(arguments);
        stdout_of(command)
    }

    /// `kill` (with -9) or `start` the agent of a node.
    pub(crate) fn agent(&self, verb: &str, node: &str) {
        self.shell.lab(&["agent", verb], &[node]).unwrap();
    }

    /// Waits until the agent of `node` says that it is ready.
    pub(crate) fn wait_agent_ready(&self, node: &str, limit: Duration) {
        let what = format!("the agent of {node} is ready");
        wait_for(&what, limit, || {
            self.shell.in_node(
                node,
                &["curl", "-sS", "--fail-with-body", "http://127.0.0.1:9099/readyz"],
            )
        })
        .unwrap();
    }

    /// What the agent of `node` says of itself.
    pub(crate) fn status(&self, node: &str) -> anyhow::Result<Value> {
        let socket = ["--unix-socket", "/run/margay/control.sock"];
        let curl = [
            &["curl", "-sS", "--fail-with-body"],
            &socket[..],
            &["http://agent/v1/status"],
        ]
        .concat();
        Ok(serde_json::from_str(&self.shell.in_node(node, &curl)?)?)
    }

    /// The first address of a pod.
    pub(crate) fn pod_address(&self, namespace: &str, pod: &str) -> String {
        self.shell
            .kubectl(&["get", "pod", "-n", namespace, pod, "-o", "jsonpath={.status.podIP}"])
            .unwrap()
    }

    /// 200 packets a second from the pod `traffic/source` to the UDP server at `address`.
    pub(crate) fn traffic(&self, address: &str, flow: &str, duration: &str) -> anyhow::Result<Tally> {
        let (program, target) = (self.shell.program("margay-agnhost"), format!("{address}:9000"));
        let (flow, duration) = (format!("--flow={flow}"), format!("--duration={duration}"));
        let words = [program.as_str(), "traffic", &target, "--rate=200", &flow, &duration];
        Ok(serde_json::from_str(&self.shell.in_pod(
            "traffic/source",
            None,
            &words,
        )?)?)
    }
}

impl ClusterLab {
    /// What a person needs to understand a failure: the last words of every program of the lab.
    fn print_logs(&self) {
        let labs = self.shell.labs_dir.iter().flat_map(fs::read_dir).flatten().flatten();
        let logs = labs.flat_map(|lab| fs::read_dir(lab.path().join("log")));
        for log in logs.flatten().flatten() {
            let text = fs::read_to_string(log.path()).unwrap_or_default();
            let lines: Vec<_> = text.lines().collect();
            eprintln!("── {}", log.path().display());
            lines
                .iter()
                .skip(lines.len().saturating_sub(25))
                .for_each(|line| eprintln!("{line}"));
        }
    }
}

impl Drop for ClusterLab {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.print_logs();
        }
        if let Err(error) = self.shell.lab(&["destroy"], &[]) {
            eprintln!(
                "the lab in {} could not be destroyed: {error:#}",
                self.dir.path().display()
            );
        }
    }
}
