//! What the runner has done for a pod, on disk before it counts: a restarted runner adopts pods from here.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use margay_lab::process::ProcessId;
use margay_lab::state::replace_file;

/// Everything the runner keeps of one pod. One directory per pod, named by its UID, holds this and its files.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub name: String,
    /// UID of the pod.
    pub uid: String,
    /// The pod shares the node's network.
    pub host_network: bool,
    /// How long containers may take to end, seconds.
    pub grace: u64,
    /// When the runner first saw the pod, RFC 3339.
    pub start_time: String,
    /// Its network, once begun.
    pub sandbox: Option<Sandbox>,
    /// Containers by name, init containers too.
    pub containers: BTreeMap<String, Container>,
}

/// A pod's network namespace and its attachment.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Sandbox {
    /// CNI_CONTAINERID.
    pub id: String,
    /// File of the network namespace.
    pub netns: PathBuf,
    /// The plugin configuration it was attached with; DEL uses the same.
    pub config: Value,
    /// What ADD answered; absent while ADD has not succeeded.
    pub result: Option<Value>,
}

/// One container of a pod.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Container {
    /// Image as in the pod's spec.
    pub image: String,
    /// Its first process, as long as it has not been found dead.
    pub process: Option<ProcessId>,
    /// When that was started, RFC 3339.
    pub started_at: String,
    /// Starts before the present one.
    pub restarts: u32,
    /// Environment of the container's commands.
    pub env: BTreeMap<String, String>,
    /// Of a sidecar, its place among the init containers: the first to start is the last to end.
    #[serde(default)]
    pub sidecar: Option<usize>,
    /// How the latest run ended.
    pub ended: Option<Ended>,
}

/// The end of a container's run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// Exit code; 128 + signal when killed.
    pub code: i32,
    /// When it had been started, RFC 3339.
    pub started_at: String,
    /// When it ended, RFC 3339.
    pub finished_at: String,
}

impl Checkpoint {
    /// Every pod under `dir`; unreadable ones are left out.
    pub fn all(dir: &Path) -> Vec<Checkpoint> {
        let Ok(entries) = fs::read_dir(dir) else {
            return Vec::new();
        };
        entries
            .flatten()
            .filter_map(|e| serde_json::from_slice(&fs::read(e.path().join("pod.json")).ok()?).ok())
            .collect()
    }

    /// The pod's directory under `dir`.
    pub(crate) fn dir(&self, dir: &Path) -> PathBuf {
        dir.join(&self.uid)
    }

    /// Replaces the pod's record under `dir`.
    pub(crate) fn save(&self, dir: &Path) -> io::Result<()> {
        let own = self.dir(dir);
        fs::create_dir_all(&own)?;
        replace_file(&own.join("pod.json"), &serde_json::to_vec_pretty(self)?)
    }

    /// Forgets the pod.
    pub(crate) fn remove(&self, dir: &Path) -> io::Result<()> {
        match fs::remove_dir_all(self.dir(dir)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }

    /// The pod's addresses, first the primary one.
    pub fn ips(&self) -> Vec<String> {
        let result = self.sandbox.as_ref().and_then(|s| s.result.as_ref());
        let ips = result.and_then(|r| r["ips"].as_array());
        ips.into_iter()
            .flatten()
            .filter_map(|ip| ip["address"].as_str())
            .map(|a| a.split('/').next().unwrap_or(a).to_owned())
            .collect()
    }
}

/// The present time, RFC 3339 in seconds as Kubernetes writes it.
pub(crate) fn now() -> String {
    k8s_openapi::jiff::Timestamp::now()
        .strftime("%Y-%m-%dT%H:%M:%SZ")
        .to_string()
}
