//! Ways to the agents.

mod cluster;
mod lab;
mod local;
mod raw;

use std::env;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::Value;

use crate::cli::{DEFAULT_SOCKET, Target};
use crate::known::Known;
use crate::output::Output;

use cluster::Cluster;
use lab::Lab;
use local::Local;

/// Names the lab to ask, like `--lab`. Read here and not by clap: `--socket` beside it is no conflict.
const LAB_VARIABLE: &str = "MARGAY_LAB";

/// The path that every request begins with: it tells the node's name.
const STATUS: &str = "/v1/status";

/// A way to one agent or several.
#[derive(Debug)]
pub(crate) enum Transport {
    /// The agent of this machine.
    Local(Local),
    /// The agents of a lab's cluster nodes.
    Lab(Lab),
    /// The agents of a cluster.
    Cluster(Cluster),
}

/// What one node said.
#[derive(Debug)]
pub(crate) struct Answer<T> {
    /// The node's name; `local` while this machine's agent has not told it.
    pub(crate) node: String,
    /// The answer, or why there is none, in words.
    pub(crate) result: Result<T, String>,
}

impl Transport {
    /// The agent of this machine, whatever else there is.
    pub(crate) fn local(target: &Target) -> Self {
        let socket = target.socket.clone().unwrap_or_else(|| PathBuf::from(DEFAULT_SOCKET));
        Self::Local(Local::new(socket, Duration::from_secs(target.timeout)))
    }

    /// What the user named; else the agent of this machine; else the only lab deployed on it; else a cluster.
    pub(crate) async fn choose(target: &Target) -> anyhow::Result<Self> {
        if target.socket.is_some() {
            return Ok(Self::local(target));
        }
        if target.names_cluster() {
            return Ok(Self::Cluster(Cluster::connect(target).await?));
        }
        let lab = target.lab.clone().or_else(|| env::var(LAB_VARIABLE).ok());
        if let Some(name) = lab.filter(|name| !name.is_empty()) {
            return Ok(Self::Lab(Lab::named(&name, target.timeout)?.limited_to(&target.nodes)?));
        }
        if Path::new(DEFAULT_SOCKET).exists() && target.nodes.is_empty() {
            return Ok(Self::local(target));
        }
        let mut labs = Lab::deployed(target.timeout).context("labs cannot be listed")?;
        labs.retain(Lab::has_cluster);
        match (labs.pop(), labs.as_slice()) {
            (Some(lab), []) => Ok(Self::Lab(lab.limited_to(&target.nodes)?)),
            (Some(last), others) => {
                let names: Vec<&str> = others.iter().chain([&last]).map(Lab::name).collect();
                bail!(
                    "several labs are deployed ({}): choose with --lab, or a cluster with --context",
                    names.join(", ")
                )
            }
            (None, _) => {
                let cluster = Cluster::connect(target).await;
                let nobody = match target.nodes.as_slice() {
                    [] => format!("no agent listens on {DEFAULT_SOCKET}, and no lab is deployed"),
                    _ => "no lab is deployed that has nodes to choose".to_owned(),
                };
                let cluster = cluster.context(nobody)?;
                Ok(Self::Cluster(cluster))
            }
        }
    }

    /// Whom it asks, for people.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Local(_) => "the agent of this machine".to_owned(),
            Self::Lab(lab) => format!("lab {}", lab.name()),
            Self::Cluster(cluster) => cluster.name(),
        }
    }

    /// Asks every agent for the answers to GET of `paths`, in the order of the nodes.
    ///
    /// # Errors
    /// When it cannot be told whom to ask. An agent that does not answer is one of the answers.
    pub(crate) async fn fetch(&self, paths: &[&str]) -> anyhow::Result<Vec<Answer<Vec<Value>>>> {
        match self {
            Self::Local(local) => Ok(vec![local.fetch(paths).await]),
            Self::Lab(lab) => lab.fetch(paths).await,
            Self::Cluster(cluster) => cluster.fetch(paths).await,
        }
    }

    /// What the API server knows beside the agents, where it can be asked.
    pub(crate) async fn know(&self) -> Option<Known> {
        match self {
            Self::Local(_) | Self::Lab(_) => None,
            Self::Cluster(cluster) => Some(cluster.know().await),
        }
    }
}

/// The local agent's answers as they came, one line each.
pub(crate) async fn raw(target: &Target, paths: &[String]) -> anyhow::Result<Output> {
    let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
    let mut text = String::new();
    for answer in Transport::local(target).fetch(&paths).await? {
        for value in answer.result.map_err(anyhow::Error::msg)? {
            text.push_str(&format!("{value}\n"));
        }
    }
    Ok(Output {
        text,
        warnings: Vec::new(),
        complete: true,
    })
}

/// The same, with the kubeconfig of the lab that the user or `$MARGAY_LAB` names, where no cluster is named.
pub(crate) fn with_kubeconfig_of_lab(target: &Target) -> anyhow::Result<Target> {
    let mut target = target.clone();
    let lab = target.lab.take().or_else(|| env::var(LAB_VARIABLE).ok());
    if let Some(name) = lab.filter(|name| !name.is_empty() && !target.names_cluster()) {
        let lab = Lab::named(&name, target.timeout)?;
        let kubeconfig = lab
            .kubeconfig()
            .with_context(|| format!("lab {name} has no API server: margay-lab cluster up"))?;
        target.kubeconfig = Some(kubeconfig.to_owned());
    }
    Ok(target)
}
