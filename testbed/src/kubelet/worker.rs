//! One pod's life: a task that makes what its object asks for, reports, and takes it away again.

mod containers;
mod ending;
mod health;
mod network;
mod report;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1 as core;
use serde_json::Value;
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tracing::{info, warn};

use super::Context;
use super::checkpoint::Checkpoint;
use super::container::Waiting;
use super::probe::{Purpose, Verdict};
use super::status::Live;

/// How often the worker looks whether its processes live.
const TICK: Duration = Duration::from_millis(100);
const FIRST_RETRY: Duration = Duration::from_millis(200);
const LAST_RETRY: Duration = Duration::from_secs(5);

/// What the runner wants of a worker.
#[derive(Debug, Clone)]
pub(crate) enum Wanted {
    /// The pod as the API server has it; with a deletion timestamp it is to end.
    Pod(Arc<core::Pod>),
    /// The object is gone: end what is left.
    Gone,
}

pub(crate) struct Worker {
    context: Arc<Context>,
    wanted: watch::Receiver<Wanted>,
    checkpoint: Checkpoint,
    live: Live,
    published: Value,
    probes: BTreeMap<(String, Purpose), AbortHandle>,
    verdicts: (mpsc::UnboundedSender<Verdict>, mpsc::UnboundedReceiver<Verdict>),
    network: Retry,
    publishing: Retry,
    starts: BTreeMap<String, Instant>,
    told: BTreeMap<String, Waiting>,
}

/// When something that failed may be tried again.
struct Retry {
    at: Instant,
    delay: Duration,
}

impl Retry {
    fn new() -> Self {
        Retry {
            at: Instant::now(),
            delay: FIRST_RETRY,
        }
    }

    fn due(&self) -> bool {
        Instant::now() >= self.at
    }

    fn failed(&mut self) {
        self.at = Instant::now() + self.delay;
        self.delay = (self.delay * 2).min(LAST_RETRY);
    }
}

impl Worker {
    /// A worker that goes on from `checkpoint`.
    pub(crate) fn new(context: Arc<Context>, wanted: watch::Receiver<Wanted>, checkpoint: Checkpoint) -> Worker {
        let live = Live {
            host_ip: context.host_ips.first().cloned().unwrap_or_default(),
            host_ips: context.host_ips.clone(),
            ..Live::default()
        };
        Worker {
            context,
            wanted,
            checkpoint,
            live,
            published: Value::Null,
            probes: BTreeMap::new(),
            verdicts: mpsc::unbounded_channel(),
            network: Retry::new(),
            publishing: Retry::new(),
            starts: BTreeMap::new(),
            told: BTreeMap::new(),
        }
    }

    /// Works until the pod is gone from the node and the API server.
    pub(crate) async fn run(mut self) {
        let mut first = true;
        loop {
            let wanted = self.wanted.borrow_and_update().clone();
            let pod = match wanted {
                Wanted::Pod(pod) if pod.metadata.deletion_timestamp.is_none() => pod,
                Wanted::Pod(pod) => return self.end(Some(&pod)).await,
                Wanted::Gone => return self.end(None).await,
            };
            if std::mem::take(&mut first) {
                self.adopt(&pod);
            }
            self.sync(&pod).await;
            self.publish(&pod).await;
            self.tell().await;
            tokio::select! {
                _ = self.wanted.changed() => {}
                Some(verdict) = self.verdicts.1.recv() => self.judge(&pod, verdict),
                () = tokio::time::sleep(TICK) => {}
            }
        }
    }

    /// What an earlier runner had reported is not reported anew.
    fn adopt(&mut self, pod: &core::Pod) {
        self.published = serde_json::to_value(&pod.status).unwrap_or_default();
        for status in self.published["containerStatuses"].as_array().into_iter().flatten() {
            if let (Some(name), Some(ready)) = (status["name"].as_str(), status["ready"].as_bool()) {
                self.live.ready.insert(name.to_owned(), ready);
            }
        }
        for (name, container) in self.checkpoint.containers.clone() {
            if let Some(process) = container.process.filter(|p| p.alive()) {
                info!(pod = self.name(), container = name, pid = process.pid, "adopted");
                self.start_probes(pod, &name);
            }
        }
    }

    fn name(&self) -> String {
        format!("{}/{}", self.checkpoint.namespace, self.checkpoint.name)
    }

    fn save(&self) {
        if let Err(error) = self.checkpoint.save(&self.context.pods_dir) {
            warn!(pod = self.name(), %error, "the pod's record cannot be written");
        }
    }

    /// One step towards what the pod's object asks for.
    async fn sync(&mut self, pod: &core::Pod) {
        let Some(spec) = &pod.spec else { return };
        self.collect_ended();
        if !self.checkpoint.host_network && !self.network_ready() {
            if self.network.due() {
                self.attach(spec).await;
            }
            if !self.network_ready() {
                return;
            }
        }
        let policy = spec.restart_policy.as_deref().unwrap_or("Always");
        for container in spec.init_containers.iter().flatten() {
            let done = self.checkpoint.containers.get(&container.name);
            let done = done.is_some_and(|c| c.ended.as_ref().is_some_and(|e| e.code == 0));
            if !done {
                // An init container that fails runs again, unless the pod never restarts.
                let policy = if policy == "Never" { "Never" } else { "OnFailure" };
                self.keep_running(pod, container, policy);
                return;
            }
        }
        for container in &spec.containers {
            self.keep_running(pod, container, policy);
        }
    }

    fn network_ready(&self) -> bool {
        self.checkpoint.sandbox.as_ref().is_some_and(|s| s.result.is_some())
    }

    fn ips(&self) -> Vec<String> {
        if self.checkpoint.host_network {
            self.live.host_ips.clone()
        } else {
            self.checkpoint.ips()
        }
    }
}
