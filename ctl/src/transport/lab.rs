//! The agents of a lab: `margay-lab exec` runs this very program in every cluster node.

use std::env;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use futures::future::join_all;
use serde_json::{Map, Value};
use tokio::process::Command;
use tokio::time::timeout;

use super::{Answer, raw};

/// The topology's label that makes a node one of the cluster.
const CLUSTER_LABEL: &str = "margay.io/kubernetes-node";
/// What `margay-lab exec` may take beyond the agent's own time, so that the node's own words about that arrive.
const MARGIN: Duration = Duration::from_secs(5);

/// A deployed lab.
#[derive(Debug)]
pub(crate) struct Lab {
    name: String,
    /// Its cluster nodes, in the order of the topology.
    nodes: Vec<String>,
    /// Its API server's, if it has one and the lab was asked for alone.
    kubeconfig: Option<PathBuf>,
    /// Seconds that each agent may take.
    seconds: u64,
}

impl Lab {
    /// The lab of this name, or of this topology file.
    pub(super) fn named(lab: &str, seconds: u64) -> anyhow::Result<Self> {
        let is_file = lab.contains('/') || lab.ends_with(".yml") || lab.ends_with(".yaml");
        let option = if is_file { "--topo" } else { "--name" };
        let mut labs = inspect(&[option, lab], seconds)?;
        match (labs.pop(), labs.is_empty()) {
            (Some(found), true) => Ok(found),
            _ => bail!("margay-lab inspect {option} {lab} does not tell one lab"),
        }
    }

    /// All labs on this machine; none where nothing is installed that could deploy one.
    pub(super) fn deployed(seconds: u64) -> anyhow::Result<Vec<Self>> {
        match inspect(&[], seconds) {
            Err(error) if is_missing(&error) => Ok(Vec::new()),
            labs => labs,
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// What reaches its API server.
    pub(super) fn kubeconfig(&self) -> Option<&Path> {
        self.kubeconfig.as_deref()
    }

    /// Whether any of its nodes may have an agent.
    pub(super) fn has_cluster(&self) -> bool {
        !self.nodes.is_empty()
    }

    /// Leaves only these nodes to be asked; all of them when there is none.
    pub(super) fn limited_to(mut self, only: &[String]) -> anyhow::Result<Self> {
        if let Some(unknown) = only
            .iter()
            .find(|node| self.has_cluster() && !self.nodes.contains(node))
        {
            bail!(
                "lab {} has no cluster node {unknown}: it has {}",
                self.name,
                self.nodes.join(", ")
            );
        }
        self.nodes.retain(|node| only.is_empty() || only.contains(node));
        Ok(self)
    }

    pub(super) async fn fetch(&self, paths: &[&str]) -> anyhow::Result<Vec<Answer<Vec<Value>>>> {
        if self.nodes.is_empty() {
            bail!("the lab has no cluster node: none of its nodes has the label {CLUSTER_LABEL}: \"true\"");
        }
        Ok(join_all(self.nodes.iter().map(|node| self.ask(node, paths))).await)
    }

    async fn ask(&self, node: &str, paths: &[&str]) -> Answer<Vec<Value>> {
        let result = self.exec(node, paths).await.map_err(|error| format!("{error:#}"));
        Answer {
            node: node.to_owned(),
            result,
        }
    }

    async fn exec(&self, node: &str, paths: &[&str]) -> anyhow::Result<Vec<Value>> {
        let this = env::current_exe().context("cannot tell this program's path")?;
        let mut command = Command::new(program());
        command.stdin(Stdio::null()).kill_on_drop(true);
        command.args(["exec", "--name", &self.name, node, "--"]).arg(this);
        command.args(raw::arguments(self.seconds, paths));
        let patience = Duration::from_secs(self.seconds) + MARGIN;
        let output = timeout(patience, run(command))
            .await
            .with_context(|| format!("no answer within {} s", patience.as_secs()))??;
        raw::answers(&output.stdout, paths.len())
    }
}

fn inspect(which: &[&str], seconds: u64) -> anyhow::Result<Vec<Lab>> {
    let mut command = std::process::Command::new(program());
    command.args(["inspect", "-o", "json"]).args(which).stdin(Stdio::null());
    let output = command.output().with_context(not_started)?;
    let output = succeeded(output)?;
    let labs: Map<String, Value> = serde_json::from_slice(&output.stdout)
        .context("margay-lab inspect printed something else than a JSON object")?;
    let kubeconfig = labs.get("kubeconfig").and_then(Value::as_str).map(PathBuf::from);
    let labs = labs.into_iter().filter_map(|(name, nodes)| {
        let nodes = nodes
            .as_array()?
            .iter()
            .filter(|node| node["labels"][CLUSTER_LABEL] == "true");
        let nodes = nodes
            .filter_map(|node| Some(node["node"].as_str()?.to_owned()))
            .collect();
        Some(Lab {
            name,
            nodes,
            kubeconfig: kubeconfig.clone(),
            seconds,
        })
    });
    Ok(labs.collect())
}

/// Whether there is no `margay-lab`.
fn is_missing(error: &anyhow::Error) -> bool {
    let cause = error.root_cause().downcast_ref::<io::Error>();
    cause.is_some_and(|cause| cause.kind() == io::ErrorKind::NotFound)
}

async fn run(mut command: Command) -> anyhow::Result<Output> {
    succeeded(command.output().await.with_context(not_started)?)
}

/// Turns a failure into the last words that the command, or this program inside the node, wrote about it.
fn succeeded(output: Output) -> anyhow::Result<Output> {
    if output.status.success() {
        return Ok(output);
    }
    match raw::reason(&output.stderr) {
        Some(words) => bail!("{words}"),
        None => bail!("margay-lab failed: {}", output.status),
    }
}

fn not_started() -> String {
    format!("cannot run {}", Path::new(&program()).display())
}

/// The `margay-lab` that was built with this program, else the one in PATH.
fn program() -> OsString {
    let beside = env::current_exe().ok().map(|this| this.with_file_name("margay-lab"));
    beside
        .filter(|path| path.is_file())
        .map_or_else(|| "margay-lab".into(), PathBuf::into_os_string)
}
