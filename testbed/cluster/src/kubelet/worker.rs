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
use super::order;
use super::probe::{Purpose, Verdict};
use super::status::Live;
use margay_lab::process::ProcessId;

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
    /// A sidecar that has been told to end.
    ending: Option<ProcessId>,
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
            ending: None,
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
        for status in ["initContainerStatuses", "containerStatuses"]
            .iter()
            .filter_map(|kind| self.published[kind].as_array())
            .flatten()
        {
            let Some(name) = status["name"].as_str() else { continue };
            self.live.ready.insert(name.to_owned(), status["ready"] == true);
            if status["started"] == true {
                self.live.started.insert(name.to_owned());
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
        let plan = order::plan(spec, &self.checkpoint, |name| self.live.started.contains(name));
        for (container, policy) in plan.run {
            self.keep_running(pod, container, policy);
        }
        if plan.finished {
            self.end_sidecar();
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
