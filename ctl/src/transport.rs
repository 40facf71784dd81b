//! Ways to the agents.

mod lab;
mod local;

use std::env;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::bail;
use serde_json::Value;

use crate::cli::{DEFAULT_SOCKET, Target};

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
    /// The agent of this machine, whatever labs there are.
    pub(crate) fn local(target: &Target) -> Self {
        let socket = target.socket.clone().unwrap_or_else(|| PathBuf::from(DEFAULT_SOCKET));
        Self::Local(Local::new(socket, Duration::from_secs(target.timeout)))
    }

    /// What the user named; else the agent of this machine; else the only lab deployed on it.
    pub(crate) fn choose(target: &Target) -> anyhow::Result<Self> {
        if target.socket.is_some() {
            return Ok(Self::local(target));
        }
        let lab = target.lab.clone().or_else(|| env::var(LAB_VARIABLE).ok());
        if let Some(name) = lab.filter(|name| !name.is_empty()) {
            return Ok(Self::Lab(Lab::named(&name, target.timeout)?));
        }
        if Path::new(DEFAULT_SOCKET).exists() {
            return Ok(Self::local(target));
        }
        let mut labs = match Lab::deployed(target.timeout) {
            Ok(labs) => labs,
            Err(error) => bail!("no agent listens on {DEFAULT_SOCKET}, and labs cannot be listed: {error:#}"),
        };
        match (labs.pop(), labs.as_slice()) {
            (Some(lab), []) => Ok(Self::Lab(lab)),
            (None, _) => {
                bail!("no agent listens on {DEFAULT_SOCKET}, and no lab is deployed: name one with --socket or --lab")
            }
            (Some(last), others) => {
                let names: Vec<&str> = others.iter().chain([&last]).map(Lab::name).collect();
                bail!("several labs are deployed ({}): choose with --lab", names.join(", "))
            }
        }
    }

    /// Asks every agent for the answers to GET of `paths`, in the order of the nodes.
    pub(crate) async fn fetch(&self, paths: &[&str]) -> Vec<Answer<Vec<Value>>> {
        match self {
            Self::Local(local) => vec![local.fetch(paths).await],
            Self::Lab(lab) => lab.fetch(paths).await,
        }
    }
}
