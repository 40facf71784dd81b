//! A pod runner that plays kubelet on a lab's node: pods bound to the node become network namespaces attached by CNI,
//! and containers become processes of the machine with PID and mount namespaces of their own.
//!
//! One task watches the node's pods; one worker task per pod does everything for it. What was done is on disk before
//! it counts, and containers are children of the node's process 1 once a runner ends: the next runner adopts them.
//!
//! ```text
//!   API server ── watch ──▶ run ── watch channel ──▶ worker (one per pod) ── patch status, delete ──▶ API server
//!                                                      │  ▲
//!                                          CNI, shims ◀┘  └ verdicts ── probe tasks
//! ```
//!
//! Left out: volumes, host ports, resources, security contexts, lifecycle hooks, logs and exec over the API. A pod that
//! needs a volume or a host port waits with a message.

pub mod checkpoint;
pub mod cni;
mod container;
mod events;
mod node;
mod order;
mod probe;
mod sandbox;
pub mod shim;
mod status;
mod worker;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use futures::StreamExt;
use k8s_openapi::api::core::v1 as core;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use tokio::sync::{mpsc, watch};
use tracing::{info, warn};

use checkpoint::Checkpoint;
use worker::{Wanted, Worker};

/// How to run the pods of one node.
#[derive(Debug, Clone)]
pub struct Config {
    /// Name of the node.
    pub node: String,
    /// Where the pods' records are kept.
    pub pods_dir: PathBuf,
    /// CNI configuration and plugins.
    pub cni: cni::Dirs,
    /// Where files of the pods' network namespaces are made.
    pub netns_dir: PathBuf,
    /// Addresses of the node, the first one primary.
    pub host_ips: Vec<String>,
    /// Labels of the Node object.
    pub labels: BTreeMap<String, String>,
    /// Annotations of the Node object.
    pub annotations: BTreeMap<String, String>,
}

pub(crate) struct Context {
    client: Client,
    node: String,
    pods_dir: PathBuf,
    cni: cni::Dirs,
    netns_dir: PathBuf,
    host_ips: Vec<String>,
}

/// Runs the node's pods for ever.
///
/// # Errors
/// When the Node object cannot be made for a reason that waiting does not mend.
pub async fn run(config: Config, client: Client) -> anyhow::Result<()> {
    let context = Arc::new(Context {
        client: client.clone(),
        node: config.node.clone(),
        pods_dir: config.pods_dir,
        cni: config.cni,
        netns_dir: config.netns_dir,
        host_ips: config.host_ips,
    });
    std::fs::create_dir_all(&context.pods_dir).context("making the directory of the pods' records")?;
    let mut delay = std::time::Duration::from_millis(100);
    while let Err(error) = node::register(&context, &config.labels, &config.annotations).await {
        warn!(%error, "the node cannot be registered yet");
        tokio::time::sleep(delay).await;
        delay = (delay * 2).min(std::time::Duration::from_secs(5));
    }
    info!(node = config.node, "registered");
    let reporting = Arc::clone(&context);
    tokio::spawn(async move { node::keep_reporting(&reporting).await });
    let api: Api<core::Pod> = Api::all(client);
    let pods = watcher(
        api,
        watcher::Config::default().fields(&format!("spec.nodeName={}", config.node)),
    );
    Runner::new(context).watch(pods.default_backoff().boxed()).await
}

/// A container's first process, as `margay-lab exec --pod` finds it.
///
/// # Errors
/// When the record cannot be read or the container does not run.
pub fn enter(record: &Path, container: Option<&str>, words: &[String]) -> anyhow::Result<u8> {
    let text = std::fs::read(record).with_context(|| format!("reading {}", record.display()))?;
    let pod: Checkpoint = serde_json::from_slice(&text)?;
    let names = || pod.containers.keys().cloned().collect::<Vec<_>>().join(", ");
    let (name, state) = match container {
        Some(name) => pod.containers.get_key_value(name).with_context(|| {
            let known = names();
            format!(
                "pod {}/{} has started no container {name}; those it has: {known}",
                pod.namespace, pod.name
            )
        }),
        None => pod
            .containers
            .iter()
            .find(|(_, c)| c.process.is_some())
            .with_context(|| {
                format!(
                    "no container of pod {0}/{1} runs; see `kubectl describe pod -n {0} {1}`",
                    pod.namespace, pod.name
                )
            }),
    }?;
    let process = state.process.filter(|p| p.alive());
    let process =
        process.with_context(|| format!("container {name} of {}/{} does not run", pod.namespace, pod.name))?;
    shim::exec(process.pid, &state.env, words)
}

struct Runner {
    context: Arc<Context>,
    workers: HashMap<String, watch::Sender<Wanted>>,
    ended: (mpsc::UnboundedSender<String>, mpsc::UnboundedReceiver<String>),
}

impl Runner {
    fn new(context: Arc<Context>) -> Runner {
        Runner {
            context,
            workers: HashMap::new(),
            ended: mpsc::unbounded_channel(),
        }
    }

    async fn watch(
        mut self,
        mut pods: futures::stream::BoxStream<'static, watcher::Result<watcher::Event<core::Pod>>>,
    ) -> anyhow::Result<()> {
        let mut listed = BTreeSet::new();
        loop {
            tokio::select! {
                event = pods.next() => match event {
                    Some(Ok(watcher::Event::Init)) => listed.clear(),
                    Some(Ok(watcher::Event::InitApply(pod))) => {
                        listed.extend(pod.metadata.uid.clone());
                        self.apply(pod);
                    }
                    Some(Ok(watcher::Event::InitDone)) => self.forget_unlisted(&listed),
                    Some(Ok(watcher::Event::Apply(pod))) => self.apply(pod),
                    Some(Ok(watcher::Event::Delete(pod))) => {
                        if let Some(worker) = pod.metadata.uid.and_then(|uid| self.workers.get(&uid)) {
                            worker.send_replace(Wanted::Gone);
                        }
                    }
                    Some(Err(error)) => warn!(%error, "watching pods"),
                    None => anyhow::bail!("the watch of pods ended"),
                },
                Some(uid) = self.ended.1.recv() => {
                    self.workers.remove(&uid);
                }
            }
        }
    }

    fn apply(&mut self, pod: core::Pod) {
        let Some(uid) = pod.metadata.uid.clone() else { return };
        let pod = Arc::new(pod);
        if let Some(worker) = self.workers.get(&uid) {
            worker.send_replace(Wanted::Pod(pod));
            return;
        }
        let record = self.context.pods_dir.join(&uid).join("pod.json");
        let known = std::fs::read(record)
            .ok()
            .and_then(|text| serde_json::from_slice(&text).ok());
        let finished = pod.status.as_ref().and_then(|s| s.phase.as_deref());
        if known.is_none()
            && matches!(finished, Some("Succeeded" | "Failed"))
            && pod.metadata.deletion_timestamp.is_none()
        {
            return;
        }
        let checkpoint = known.unwrap_or_else(|| fresh(&pod, &uid));
        self.start(uid, Wanted::Pod(pod), checkpoint);
    }

    /// Pods that have a record but no object any more are ended.
    fn forget_unlisted(&mut self, listed: &BTreeSet<String>) {
        for (uid, worker) in &self.workers {
            if !listed.contains(uid) {
                worker.send_replace(Wanted::Gone);
            }
        }
        for checkpoint in Checkpoint::all(&self.context.pods_dir) {
            let uid = checkpoint.uid.clone();
            if !listed.contains(&uid) && !self.workers.contains_key(&uid) {
                self.start(uid, Wanted::Gone, checkpoint);
            }
        }
    }

    fn start(&mut self, uid: String, wanted: Wanted, checkpoint: Checkpoint) {
        let (sender, receiver) = watch::channel(wanted);
        let worker = Worker::new(Arc::clone(&self.context), receiver, checkpoint);
        let ended = self.ended.0.clone();
        self.workers.insert(uid.clone(), sender);
        tokio::spawn(async move {
            worker.run().await;
            // The runner itself ends only with the process.
            let _ = ended.send(uid);
        });
    }
}

fn fresh(pod: &core::Pod, uid: &str) -> Checkpoint {
    let spec = pod.spec.as_ref();
    let grace = spec
        .and_then(|s| s.termination_grace_period_seconds)
        .and_then(|g| u64::try_from(g).ok());
    Checkpoint {
        namespace: pod.metadata.namespace.clone().unwrap_or_default(),
        name: pod.metadata.name.clone().unwrap_or_default(),
        uid: uid.to_owned(),
        host_network: spec.and_then(|s| s.host_network).unwrap_or(false),
        grace: grace.unwrap_or(30),
        start_time: checkpoint::now(),
        ..Checkpoint::default()
    }
}
