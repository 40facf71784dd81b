//! The programs of a cluster's nodes.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::kubelet;
use crate::{Cluster, LAB_LABEL, NODE_ANNOTATIONS, NODE_LABELS, prefixed};
use margay_lab::process::{ProcessId, find_by_args, find_program, find_program_with_args};
use margay_lab::{Lab, NodeState};

/// Hidden subcommand: `kubelet <lab directory> <node> …`.
pub const KUBELET: &str = "kubelet";
/// Namespace of the controller's Lease.
pub const CONTROLLER_NAMESPACE: &str = "kube-system";
const CONF_DIR: &str = "/etc/cni/net.d";
const BIN_DIR: &str = "/opt/cni/bin";

/// Where the programs are on this machine.
pub(super) struct Programs {
    agent: PathBuf,
    controller: PathBuf,
    plugin: PathBuf,
    runner: PathBuf,
}

impl Programs {
    /// Finds all; the error names the first that is missing.
    pub(super) fn find() -> Result<Programs> {
        let find = |name| find_program(name).map_err(anyhow::Error::msg);
        find("margay-agnhost")?;
        Ok(Programs {
            agent: find("margay-node")?,
            controller: find("margay-controller")?,
            plugin: find("margay-cni")?,
            runner: find("margay-lab")?,
        })
    }
}

/// Installs the CNI plugin and its configuration in `node`, as the DaemonSet's init container would.
pub(super) fn install_network(lab: &Lab, node: &NodeState, programs: &Programs) -> Result<()> {
    let out = lab.exec(
        &node.name,
        &[
            &programs.agent.to_string_lossy(),
            "install-cni",
            "--plugin",
            &programs.plugin.to_string_lossy(),
        ],
    )?;
    if !out.status.success() {
        let told = String::from_utf8_lossy(&out.stderr);
        bail!("installing the network in {}: {}", node.name, told.trim());
    }
    Ok(())
}

/// Starts the pod runner of `node` unless it runs.
pub(super) fn start_kubelet(lab: &Lab, node: &NodeState, cluster: &Cluster, programs: &Programs) -> Result<()> {
    if !find_by_args(&[KUBELET, &lab.dir.to_string_lossy(), &node.name]).is_empty() {
        return Ok(());
    }
    let mut command = lab.command(node, &programs.runner.to_string_lossy());
    command
        .arg(KUBELET)
        .arg(&lab.dir)
        .arg(&node.name)
        .arg("--kubeconfig")
        .arg(&cluster.node_kubeconfig);
    for address in fabric_addresses(lab, node)? {
        command.args(["--ip", &address]);
    }
    command.args(["--label", &format!("{LAB_LABEL}={}", lab.state.name)]);
    for (flag, prefix) in [("--label", NODE_LABELS), ("--annotation", NODE_ANNOTATIONS)] {
        for (key, value) in prefixed(node, prefix) {
            command.arg(flag).arg(format!("{key}={value}"));
        }
    }
    start(lab, node, "kubelet", &mut command)
}

/// Starts the agent of `node` unless it runs.
pub(super) fn start_agent(lab: &Lab, node: &NodeState, cluster: &Cluster, programs: &Programs) -> Result<()> {
    if !agents(lab, node).is_empty() {
        return Ok(());
    }
    let mut command = lab.command(node, &programs.agent.to_string_lossy());
    command
        .args(["--node", &node.name])
        .arg("--kubeconfig")
        .arg(&cluster.node_kubeconfig);
    command.args(["--state-dir", "/var/lib/margay", "--run-dir", "/run/margay"]);
    start(lab, node, "agent", &mut command)
}

/// Starts the controller beside the management network unless it runs.
pub(super) fn start_controller(lab: &Lab, cluster: &Cluster, programs: &Programs) -> Result<()> {
    if !controllers(lab).is_empty() {
        return Ok(());
    }
    let mut command = Command::new(&programs.controller);
    command.arg("--kubeconfig").arg(&cluster.node_kubeconfig);
    command.args(controller_arguments(&lab.state.name, cluster.external));
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(append(&lab.dir.join("log/controller.log"))?);
    let mut child = lab.spawn_in_mgmt(&mut command)?;
    std::thread::spawn(move || child.wait());
    Ok(())
}

/// What the controller of the lab called `lab` calls itself.
pub fn controller_identity(lab: &str) -> String {
    format!("lab-{lab}")
}

fn controller_arguments(lab: &str, external: bool) -> Vec<String> {
    let mut words = vec!["--namespace".to_owned(), CONTROLLER_NAMESPACE.to_owned()];
    words.extend(["--identity".to_owned(), controller_identity(lab)]);
    // A lab is not to wait a quarter of an hour for a dead node's addresses; a cluster with other nodes has to.
    if !external {
        words.extend(["--leak-grace", "5", "--interval", "1"].map(str::to_owned));
    }
    words
}

/// Agents of `node`.
pub(super) fn agents(lab: &Lab, node: &NodeState) -> Vec<ProcessId> {
    find_by_args(&[
        "--node",
        &node.name,
        "--kubeconfig",
        &lab.dir.join("node.kubeconfig").to_string_lossy(),
    ])
}

/// Every process of the cluster that runs in the lab's namespaces, containers included.
pub(super) fn running(lab: &Lab) -> Vec<ProcessId> {
    let mut processes = controllers(lab);
    processes.extend(find_by_args(&[KUBELET, &lab.dir.to_string_lossy()]));
    for node in crate::nodes(lab) {
        processes.extend(agents(lab, node));
        processes.extend(containers(lab, node));
    }
    processes
}

/// First processes of all containers of `node`, as the host sees them.
fn containers(lab: &Lab, node: &NodeState) -> Vec<ProcessId> {
    let pods = pods_dir(lab, node);
    kubelet::checkpoint::Checkpoint::all(&pods)
        .iter()
        .flat_map(|pod| {
            pod.containers
                .keys()
                .map(|name| pods.join(&pod.uid).join(format!("{name}.json")))
        })
        .flat_map(|spec| find_by_args(&["container-init", &spec.to_string_lossy()]))
        .collect()
}

fn controllers(lab: &Lab) -> Vec<ProcessId> {
    let kubeconfig = lab.dir.join("node.kubeconfig");
    find_program_with_args("margay-controller", &["--kubeconfig", &kubeconfig.to_string_lossy()])
}

/// Where the runner of `node` keeps its pods' records.
pub(super) fn pods_dir(lab: &Lab, node: &NodeState) -> PathBuf {
    lab.dir.join("nodes").join(&node.name).join("pods")
}

/// The log of a program of `node`.
pub(super) fn log(lab: &Lab, node: &NodeState, program: &str) -> PathBuf {
    lab.dir.join("log").join(format!("{}.{program}.log", node.name))
}

fn start(lab: &Lab, node: &NodeState, name: &str, command: &mut Command) -> Result<()> {
    let log = append(&log(lab, node, name))?;
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    std::os::unix::process::CommandExt::process_group(command, 0);
    let mut child = lab.spawn(node, command)?;
    std::thread::spawn(move || child.wait());
    Ok(())
}

fn append(path: &Path) -> Result<fs::File> {
    fs::create_dir_all(path.parent().unwrap_or(Path::new("/")))?;
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .with_context(|| format!("opening {}", path.display()))
}

/// Addresses of the node's first interface to the fabric (of eth0 when it has no other), IPv4 first.
fn fabric_addresses(lab: &Lab, node: &NodeState) -> Result<Vec<String>> {
    let out = lab.exec(&node.name, &["ip", "-j", "address", "show", "scope", "global"])?;
    let links: Vec<Value> = serde_json::from_slice(&out.stdout).context("reading `ip -j address`")?;
    let mut links: Vec<&Value> = links
        .iter()
        .filter(|l| l["addr_info"].as_array().is_some_and(|a| !a.is_empty()))
        .filter(|l| !matches!(l["ifname"].as_str(), Some("lo") | None))
        .collect();
    links.sort_by_key(|l| {
        (
            l["ifname"] == "eth0",
            l["ifname"].as_str().unwrap_or_default().to_owned(),
        )
    });
    let Some(link) = links.first() else {
        bail!("node {} has no address; give it one in exec", node.name)
    };
    let mut addresses: Vec<&Value> = link["addr_info"].as_array().into_iter().flatten().collect();
    addresses.sort_by_key(|a| a["family"] != "inet");
    Ok(addresses
        .iter()
        .filter_map(|a| a["local"].as_str())
        .map(str::to_owned)
        .collect())
}

/// The body of the hidden subcommand: runs the pods of `node` of the lab in `dir`.
///
/// # Errors
/// When the node cannot be registered.
pub fn kubelet(
    dir: &Path,
    node: &str,
    kubeconfig: &Path,
    ips: Vec<String>,
    labels: &[String],
    annotations: &[String],
) -> Result<()> {
    let pairs = |list: &[String]| {
        list.iter()
            .filter_map(|p| p.split_once('='))
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .collect()
    };
    let config = kubelet::Config {
        node: node.to_owned(),
        pods_dir: dir.join("nodes").join(node).join("pods"),
        cni: kubelet::cni::Dirs {
            conf: CONF_DIR.into(),
            bin: BIN_DIR.into(),
        },
        netns_dir: "/run/netns".into(),
        host_ips: ips,
        labels: pairs(labels),
        annotations: pairs(annotations),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(async { kubelet::run(config, crate::kubeconfig::client(kubeconfig).await?).await })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_a_given_cluster_are_not_released_in_haste() {
        let own = [
            "--namespace",
            "kube-system",
            "--identity",
            "lab-x",
            "--leak-grace",
            "5",
            "--interval",
            "1",
        ];
        assert_eq!(controller_arguments("x", false), own);
        assert_eq!(controller_arguments("x", true), own[..4]);
    }
}
