//! A cluster on a lab's nodes: an API server they reach, and on each an agent and a pod runner.
//!
//! Nodes are those with the label `margay.io/kubernetes-node: "true"` in the topology. Labels
//! `node-labels.margay.io/<key>` and `annotations.margay.io/<key>` become labels and annotations of the Node object.
//!
//! ```text
//!   host:    kubectl ─▶ 127.0.0.1:port ┐
//!                                      control-plane (API server, scheduler), or api-relay to a given API server
//!   mgmt:    margay-controller ─▶ .1:6443 ┘ ▲
//!   node N:  margay-node, kubelet ──────────┘
//! ```
//!
//! Processes are found by their arguments, so that nothing is lost with whoever started them.

mod control_plane;
mod kubeconfig;
pub mod kubelet;
mod programs;
mod relay;
mod scheduler;

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use serde::{Deserialize, Serialize};

use margay_lab::process::{host_servers, kill_and_wait, wait_until};
use margay_lab::state::Lock;
use margay_lab::{Lab, LabState, NodeState, labs_dir};

pub use control_plane::{SUBCOMMAND as CONTROL_PLANE, run as run_control_plane};
pub use programs::{CONTROLLER_NAMESPACE, KUBELET, controller_identity, kubelet as run_kubelet};
pub use relay::{SUBCOMMAND as RELAY, run as run_relay};

/// Label of a topology's nodes that belong to the cluster.
pub const NODE_LABEL: &str = "margay.io/kubernetes-node";
/// Label of a lab's Nodes, with the lab's name.
pub const LAB_LABEL: &str = "margay.io/lab";
const NODE_LABELS: &str = "node-labels.margay.io/";
const NODE_ANNOTATIONS: &str = "annotations.margay.io/";
/// Port of the API server on the management network.
const API_PORT: u16 = 6443;
/// Where an agent answers /readyz, in its node.
const HEALTH: ([u8; 4], u16) = ([127, 0, 0, 1], 9099);
const READY_LIMIT: Duration = Duration::from_secs(60);

/// How a cluster is brought up.
#[derive(Debug, Clone, Default)]
pub struct UpOptions {
    /// An API server to use instead of the lab's own.
    pub kubeconfig: Option<PathBuf>,
    /// The repository's `deploy` directory; the one this program was built from when absent.
    pub deploy: Option<PathBuf>,
}

/// What `cluster.json` says of a lab's cluster.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Cluster {
    /// For kubectl on the host.
    pub kubeconfig: PathBuf,
    /// For programs on the nodes.
    pub node_kubeconfig: PathBuf,
    /// The API server was given, not started here.
    pub external: bool,
    /// Port of the lab's own API server on the host's loopback; it keeps it when restarted.
    pub port: u16,
}

impl Cluster {
    /// The cluster of the lab in `dir`, if it has one.
    pub fn read(dir: &Path) -> Option<Cluster> {
        serde_json::from_slice(&fs::read(dir.join("cluster.json")).ok()?).ok()
    }

    fn write(&self, dir: &Path) -> Result<()> {
        let text = serde_json::to_vec_pretty(self)?;
        margay_lab::state::replace_file(&dir.join("cluster.json"), &text).context("writing cluster.json")
    }
}

/// The API server that `$KUBECONFIG` names, unless that is a lab's own.
pub fn given_kubeconfig() -> Option<PathBuf> {
    given(std::env::var_os("KUBECONFIG").map(PathBuf::from)?, &labs_dir())
}

fn given(path: PathBuf, labs: &Path) -> Option<PathBuf> {
    let absolute = path.canonicalize().unwrap_or_else(|_| path.clone());
    let own = absolute.starts_with(labs) || kubeconfig::is_marked(&path);
    (!path.as_os_str().is_empty() && !own).then_some(path)
}

/// Brings the cluster up, or completes one that is up in part. Returns when every agent says it is ready.
///
/// # Errors
/// What is missing or did not come up, and where its log is.
pub fn up(lab: &Lab, options: &UpOptions) -> Result<Cluster> {
    let _lock = lock(lab)?;
    let nodes = nodes(lab);
    if nodes.is_empty() {
        bail!(
            "lab {} has no cluster nodes; label them {NODE_LABEL}: \"true\" in its topology",
            lab.state.name
        );
    }
    let found = programs::Programs::find()?;
    let crds = crds(options.deploy.as_deref())?;
    let cluster = match &options.kubeconfig {
        Some(given) => relay::up(lab, given)?,
        None => control_plane::up(lab)?,
    };
    cluster.write(&lab.dir)?;
    let crds = crds.to_string_lossy();
    kubectl(&cluster.kubeconfig, &["apply", "-f", &crds])?;
    kubectl(
        &cluster.kubeconfig,
        &["wait", "--for=condition=Established", "--timeout=30s", "-f", &crds],
    )?;
    in_parallel(&nodes, |node| {
        programs::install_network(lab, node, &found)?;
        programs::start_kubelet(lab, node, &cluster, &found)?;
        programs::start_agent(lab, node, &cluster, &found)
    })?;
    programs::start_controller(lab, &cluster, &found)?;
    in_parallel(&nodes, |node| await_agent(lab, node))?;
    let names: Vec<&str> = nodes.iter().map(|node| node.name.as_str()).collect();
    await_nodes(&names, |args| kubectl(&cluster.kubeconfig, args))?;
    Ok(cluster)
}

/// Ends the cluster's processes, pods included. What agents programmed stays in the nodes until the lab is destroyed.
///
/// # Errors
/// When processes do not die.
pub fn down(lab: &Lab) -> Result<()> {
    let _lock = lock(lab)?;
    let mut processes = host_servers(&lab.dir);
    processes.extend(programs::running(lab));
    kill_and_wait(&processes).map_err(anyhow::Error::msg)?;
    for node in nodes(lab) {
        let pods = programs::pods_dir(lab, node);
        for pod in crate::kubelet::checkpoint::Checkpoint::all(&pods) {
            let netns = pod.sandbox.map(|s| s.netns.to_string_lossy().into_owned());
            if let Some(netns) = netns {
                // Of a node that died meanwhile there is nothing left.
                let _ = lab.exec(&node.name, &["sh", "-c", &format!("umount -l {netns}; rm -f {netns}")]);
            }
        }
        let _ = fs::remove_dir_all(pods);
    }
    for file in ["cluster.json", "kubeconfig", "node.kubeconfig"] {
        let _ = fs::remove_file(lab.dir.join(file));
    }
    let _ = fs::remove_dir_all(lab.dir.join("api"));
    Ok(())
}

/// A destroy waits for what changes the lab's cluster, and what comes after a destroy finds no lab.
fn lock(lab: &Lab) -> Result<Lock> {
    let (labs, name) = (labs_dir(), &lab.state.name);
    let lock = Lock::take(&labs, name)?;
    if LabState::read(&lab.dir)?.is_none() {
        lock.remove(&labs, name);
        bail!("lab {name} was destroyed meanwhile");
    }
    Ok(lock)
}

/// Kills the agent of `node` with SIGKILL; `false` when none ran.
///
/// # Errors
/// When there is no such node or the agent does not die.
pub fn kill_agent(lab: &Lab, node: &str) -> Result<bool> {
    let node = lab.node(node)?;
    let agents = programs::agents(lab, node);
    kill_and_wait(&agents).map_err(anyhow::Error::msg)?;
    Ok(!agents.is_empty())
}

/// Starts the agent of `node` unless it runs, and returns at once.
///
/// # Errors
/// When there is no such node or no cluster.
pub fn start_agent(lab: &Lab, node: &str) -> Result<()> {
    let node = lab.node(node)?;
    let cluster = Cluster::read(&lab.dir).context("the lab has no cluster; `margay-lab cluster up`")?;
    programs::start_agent(lab, node, &cluster, &programs::Programs::find()?)
}

/// Waits until the agent of `node` says that it is ready.
///
/// # Errors
/// With the agent's own words when it is not ready in time.
pub fn await_agent(lab: &Lab, node: &NodeState) -> Result<()> {
    let mut last = String::from("no agent answers");
    let ready = wait_until(READY_LIMIT, || match readyz(lab, node) {
        Ok((true, _)) => true,
        Ok((false, words)) => {
            last = words;
            false
        }
        Err(_) => false,
    });
    if ready {
        return Ok(());
    }
    let log = programs::log(lab, node, "agent");
    bail!(
        "the agent of {} is not ready after {} s: {last}; its log: {}",
        node.name,
        READY_LIMIT.as_secs(),
        log.display()
    )
}

/// Waits until the Nodes called `names` are ready. `kubectl wait` takes a Node that is not there yet for an error.
fn await_nodes(names: &[&str], kubectl: impl Fn(&[&str]) -> Result<()>) -> Result<()> {
    let mut registered = Ok(());
    wait_until(READY_LIMIT, || {
        registered = kubectl(&[&["get", "node"], names].concat());
        registered.is_ok()
    });
    registered.context("the pod runners have not registered their nodes")?;
    kubectl(&[&["wait", "--for=condition=Ready", "--timeout=60s", "node"], names].concat())
}

/// The pod called `namespace/name` anywhere in the lab: its node and the file of its record.
///
/// # Errors
/// When no node runs it.
pub fn find_pod<'a>(lab: &'a Lab, pod: &str) -> Result<(&'a NodeState, PathBuf)> {
    let (namespace, name) = pod.split_once('/').unwrap_or(("default", pod));
    for node in &lab.state.nodes {
        let dir = programs::pods_dir(lab, node);
        for found in crate::kubelet::checkpoint::Checkpoint::all(&dir) {
            if found.namespace == namespace && found.name == name {
                return Ok((node, dir.join(&found.uid).join("pod.json")));
            }
        }
    }
    bail!(
        "no node of lab {} runs pod {namespace}/{name}; see `kubectl get pods -A -o wide`",
        lab.state.name
    )
}

/// The lab's nodes that belong to the cluster.
pub fn nodes(lab: &Lab) -> Vec<&NodeState> {
    lab.state
        .nodes
        .iter()
        .filter(|n| n.labels.get(NODE_LABEL).is_some_and(|v| v == "true"))
        .collect()
}

/// Labels of the topology that start with `prefix`, without it.
fn prefixed(node: &NodeState, prefix: &str) -> BTreeMap<String, String> {
    let of = node
        .labels
        .iter()
        .filter_map(|(k, v)| Some((k.strip_prefix(prefix)?.to_owned(), v.clone())));
    of.collect()
}

fn crds(deploy: Option<&Path>) -> Result<PathBuf> {
    let built_from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy");
    let crds = deploy.unwrap_or(&built_from).join("crds");
    if !crds.is_dir() {
        bail!(
            "{} is not there; name the repository's deploy directory with --deploy",
            crds.display()
        );
    }
    Ok(crds)
}

fn kubectl(kubeconfig: &Path, args: &[&str]) -> Result<()> {
    let out = Command::new("kubectl")
        .args(args)
        .env("KUBECONFIG", kubeconfig)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => anyhow!("kubectl is not installed: `scripts/needs demo` installs it"),
            _ => anyhow!("running kubectl: {error}"),
        })?;
    if !out.status.success() {
        bail!(
            "`kubectl {}` failed: {}",
            args.join(" "),
            String::from_utf8_lossy(&out.stderr).trim()
        );
    }
    Ok(())
}

/// What the agent of `node` says at /readyz: whether it is ready, and its words.
fn readyz(lab: &Lab, node: &NodeState) -> Result<(bool, String)> {
    let answer = lab.in_node_network(node, || {
        let limit = Duration::from_secs(2);
        let mut stream = TcpStream::connect_timeout(&SocketAddr::from(HEALTH), limit)?;
        stream.set_read_timeout(Some(limit))?;
        stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    })?;
    let ready = answer.split_whitespace().nth(1) == Some("200");
    let words = answer.split_once("\r\n\r\n").map(|(_, body)| body.trim().to_owned());
    Ok((ready, words.unwrap_or_default()))
}

fn in_parallel(nodes: &[&NodeState], work: impl Fn(&NodeState) -> Result<()> + Sync) -> Result<()> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = nodes.iter().map(|node| scope.spawn(|| work(node))).collect();
        for thread in threads {
            thread
                .join()
                .map_err(|_| anyhow::anyhow!("a thread that set up a node panicked"))??;
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn a_labs_own_kubeconfig_is_no_given_one() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().canonicalize().unwrap();
        let labs = dir.join("labs");
        fs::create_dir_all(labs.join("x")).unwrap();
        let [theirs, ours, anothers] = ["theirs", "labs/x/kubeconfig", "anothers"].map(|name| dir.join(name));
        let text = "apiVersion: v1\nkind: Config\n";
        fs::write(&theirs, text).unwrap();
        fs::write(&ours, text).unwrap();
        fs::write(&anothers, kubeconfig::marked(text, "two-racks")).unwrap();
        assert_eq!(given(theirs.clone(), &labs), Some(theirs));
        assert_eq!(given(ours, &labs), None);
        assert_eq!(given(anothers, &labs), None, "a lab in another labs' directory");
        assert_eq!(given(PathBuf::new(), &labs), None);
    }

    #[test]
    fn nodes_are_waited_for_once_they_are_there() {
        let tries = Cell::new(0);
        let kubectl = |args: &[&str]| {
            tries.set(tries.get() + 1);
            assert!(
                args.ends_with(&["n1", "n2"]),
                "strangers' nodes are not ours to wait for: {args:?}"
            );
            match (args[0], tries.get()) {
                ("get", ..3) => bail!("nodes \"n1\" not found"),
                ("get", 3) | ("wait", 4) => Ok(()),
                other => bail!("{other:?} comes at the wrong time"),
            }
        };
        await_nodes(&["n1", "n2"], kubectl).unwrap();
        assert_eq!(tries.get(), 4);
    }
}
