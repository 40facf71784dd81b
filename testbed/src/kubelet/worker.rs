//! One pod's life: a task that makes what its object asks for, reports, and takes it away again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1 as core;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tracing::{debug, info, warn};

use super::checkpoint::{Checkpoint, Container, Sandbox, now};
use super::container::{self, Facts, Waiting};
use super::probe::{self, Asked, Purpose, Verdict};
use super::status::{self, Live};
use super::{Context, cni, events, sandbox};
use crate::lab::process::ProcessId;

/// How often the worker looks whether its processes live.
const TICK: Duration = Duration::from_millis(100);
const FIRST_RETRY: Duration = Duration::from_millis(200);
const LAST_RETRY: Duration = Duration::from_secs(5);
/// Kubernetes' back-off of a container that keeps ending.
const FIRST_CRASH_DELAY: Duration = Duration::from_secs(10);
const LAST_CRASH_DELAY: Duration = Duration::from_secs(300);

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
        Retry { at: Instant::now(), delay: FIRST_RETRY }
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

    fn collect_ended(&mut self) {
        let dir = self.context.pods_dir.clone();
        let dead: Vec<String> = self
            .checkpoint
            .containers
            .iter()
            .filter(|(_, c)| c.process.is_some_and(|p| !p.alive()))
            .map(|(name, _)| name.clone())
            .collect();
        for name in dead {
            let Some(container) = self.checkpoint.containers.get(&name).cloned() else { continue };
            let ended = container::ended(&self.checkpoint, &dir, &name, &container);
            info!(pod = self.name(), container = name, code = ended.code, "container ended");
            if let Some(own) = self.checkpoint.containers.get_mut(&name) {
                own.process = None;
                own.ended = Some(ended);
            }
            self.live.ready.insert(name.clone(), false);
            self.stop_probes(&name);
            self.save();
        }
    }

    /// Makes the pod's network namespace and attaches it. A try that failed is undone first.
    async fn attach(&mut self, spec: &core::PodSpec) {
        if let Err(error) = self.try_attach().await {
            debug!(pod = self.name(), %error, "no network yet");
            for container in spec.init_containers.iter().flatten().chain(&spec.containers) {
                let waiting = Waiting { reason: "ContainerCreating", message: error.to_string() };
                self.live.waiting.insert(container.name.clone(), waiting);
            }
            self.network.failed();
        } else {
            self.live.waiting.clear();
        }
    }

    async fn try_attach(&mut self) -> anyhow::Result<()> {
        self.detach().await?;
        let config = cni::first_config(&self.context.cni)?;
        let id = fresh_id()?;
        let netns = self.context.netns_dir.join(format!("pod-{}", &id[..16]));
        // On disk first: a runner that dies from here on finds what to undo.
        self.checkpoint.sandbox = Some(Sandbox { id: id.clone(), netns, config: config.clone(), result: None });
        self.checkpoint.save(&self.context.pods_dir)?;
        sandbox::create(&self.context.netns_dir, &id)?;
        let result = cni::add(&self.context.cni, &config, &self.attachment()).await?;
        if let Some(sandbox) = &mut self.checkpoint.sandbox {
            sandbox.result = Some(result);
        }
        self.checkpoint.save(&self.context.pods_dir)?;
        info!(pod = self.name(), ips = self.checkpoint.ips().join(","), "attached");
        Ok(())
    }

    /// DEL and the end of the network namespace, when there is one.
    async fn detach(&mut self) -> anyhow::Result<()> {
        let Some(sandbox) = self.checkpoint.sandbox.clone() else { return Ok(()) };
        cni::del(&self.context.cni, &sandbox.config, sandbox.result.as_ref(), &self.attachment()).await?;
        sandbox::delete(&sandbox.netns)?;
        self.checkpoint.sandbox = None;
        self.checkpoint.save(&self.context.pods_dir)?;
        Ok(())
    }

    fn attachment(&self) -> cni::Attachment {
        let sandbox = self.checkpoint.sandbox.as_ref();
        cni::Attachment {
            id: sandbox.map(|s| s.id.clone()).unwrap_or_default(),
            netns: sandbox.map(|s| s.netns.clone()).unwrap_or_default(),
            namespace: self.checkpoint.namespace.clone(),
            name: self.checkpoint.name.clone(),
            uid: self.checkpoint.uid.clone(),
        }
    }

    /// Starts `container` when it should run and does not.
    fn keep_running(&mut self, pod: &core::Pod, container: &core::Container, policy: &str) {
        let name = &container.name;
        let state = self.checkpoint.containers.get(name).cloned().unwrap_or_default();
        if state.process.is_some() {
            return;
        }
        if let Some(ended) = &state.ended {
            let again = policy == "Always" || (policy == "OnFailure" && ended.code != 0);
            if !again {
                return;
            }
            // The first restart is immediate, as a kubelet's; then the delay doubles.
            let delay = match state.restarts {
                0 => Duration::ZERO,
                n => (FIRST_CRASH_DELAY * 2u32.saturating_pow(n.min(10) - 1)).min(LAST_CRASH_DELAY),
            };
            let since = self.starts.get(name).copied();
            if since.is_some_and(|s| s.elapsed() < delay) {
                let message = format!("back-off {} s restarting failed container={name}", delay.as_secs());
                self.live.waiting.insert(name.clone(), Waiting { reason: "CrashLoopBackOff", message });
                return;
            }
        }
        let facts = Facts { host_ip: self.live.host_ip.clone(), pod_ips: self.ips() };
        let launch = match container::resolve(pod, container, &facts) {
            Ok(launch) => launch,
            Err(waiting) => {
                self.live.waiting.insert(name.clone(), waiting);
                return;
            }
        };
        match container::start(&self.checkpoint, &self.context.pods_dir, name, &launch) {
            Ok(process) => self.started(pod, container, &state, process, launch.env),
            Err(error) => {
                let message = error.to_string();
                self.live.waiting.insert(name.clone(), Waiting { reason: "RunContainerError", message });
            }
        }
    }

    fn started(
        &mut self,
        pod: &core::Pod,
        container: &core::Container,
        before: &Container,
        process: ProcessId,
        env: BTreeMap<String, String>,
    ) {
        let name = container.name.clone();
        info!(pod = self.name(), container = name, pid = process.pid, "container started");
        let restarts = before.restarts + u32::from(before.ended.is_some());
        let state = Container {
            image: container.image.clone().unwrap_or_default(),
            process: Some(process),
            started_at: now(),
            restarts,
            env,
            ended: before.ended.clone(),
        };
        self.checkpoint.containers.insert(name.clone(), state);
        self.save();
        self.live.waiting.remove(&name);
        self.starts.insert(name.clone(), Instant::now());
        self.live.ready.insert(name.clone(), container.readiness_probe.is_none() && container.startup_probe.is_none());
        self.start_probes(pod, &name);
    }

    fn ips(&self) -> Vec<String> {
        if self.checkpoint.host_network { self.live.host_ips.clone() } else { self.checkpoint.ips() }
    }

    /// Starts the probes of a running container: the startup probe alone, when there is one.
    fn start_probes(&mut self, pod: &core::Pod, name: &str) {
        let spec = pod.spec.as_ref();
        let Some(container) = spec.and_then(|s| s.containers.iter().find(|c| c.name == name)).cloned() else { return };
        if container.startup_probe.is_some() && self.live.ready.get(name) != Some(&true) {
            self.start_probe(&container, Purpose::Startup, container.startup_probe.clone());
        } else {
            self.start_probe(&container, Purpose::Readiness, container.readiness_probe.clone());
            self.start_probe(&container, Purpose::Liveness, container.liveness_probe.clone());
        }
    }

    fn start_probe(&mut self, container: &core::Container, purpose: Purpose, probe: Option<core::Probe>) {
        let state = self.checkpoint.containers.get(&container.name);
        let (Some(probe), Some(state)) = (probe, state) else { return };
        let Some(process) = state.process else { return };
        let asked = Asked {
            container: container.clone(),
            purpose,
            probe,
            ip: self.ips().first().cloned().unwrap_or_default(),
            pid: process.pid,
            env: state.env.clone(),
        };
        let task = tokio::spawn(probe::ask(asked, self.verdicts.0.clone()));
        if let Some(old) = self.probes.insert((container.name.clone(), purpose), task.abort_handle()) {
            old.abort();
        }
    }

    fn stop_probes(&mut self, container: &str) {
        self.probes.retain(|(name, _), task| {
            if name == container {
                task.abort();
            }
            name != container
        });
    }

    fn judge(&mut self, pod: &core::Pod, verdict: Verdict) {
        let Verdict { container, purpose, healthy, message } = verdict;
        if !self.probes.contains_key(&(container.clone(), purpose)) {
            return;
        }
        match (purpose, healthy) {
            (Purpose::Readiness, ready) => {
                self.live.ready.insert(container, ready);
            }
            (Purpose::Startup, true) => {
                self.stop_probes(&container);
                let spec = pod.spec.as_ref().and_then(|s| s.containers.iter().find(|c| c.name == container)).cloned();
                if let Some(spec) = spec {
                    let ready = spec.readiness_probe.is_none();
                    self.live.ready.insert(container, ready);
                    self.start_probe(&spec, Purpose::Readiness, spec.readiness_probe.clone());
                    self.start_probe(&spec, Purpose::Liveness, spec.liveness_probe.clone());
                }
            }
            (Purpose::Liveness, true) => {}
            (Purpose::Liveness | Purpose::Startup, false) => {
                info!(pod = self.name(), container, message, "unhealthy; ending it");
                let process = self.checkpoint.containers.get(&container).and_then(|c| c.process);
                self.stop_probes(&container);
                if let Some(process) = process {
                    tokio::spawn(stop(vec![process], Duration::from_secs(self.checkpoint.grace)));
                }
            }
        }
    }

    /// Writes the pod's status when it differs from what was written last.
    async fn publish(&mut self, pod: &core::Pod) {
        if !self.publishing.due() {
            return;
        }
        let status = status::status(pod, &self.checkpoint, &self.live, &self.published);
        if status == self.published {
            return;
        }
        let api: Api<core::Pod> = Api::namespaced(self.context.client.clone(), &self.checkpoint.namespace);
        let patch = json!({"metadata": {"uid": self.checkpoint.uid}, "status": status});
        match api.patch_status(&self.checkpoint.name, &PatchParams::default(), &Patch::Merge(&patch)).await {
            Ok(_) => {
                self.published = status;
                self.publishing = Retry::new();
            }
            Err(error) => {
                debug!(pod = self.name(), %error, "the pod's status cannot be written");
                self.publishing.failed();
            }
        }
    }

    /// An Event for each new reason why a container does not run: `kubectl describe` shows those, not messages.
    async fn tell(&mut self) {
        let waiting = self.live.waiting.clone();
        for (container, why) in waiting.iter().filter(|(_, why)| !why.message.is_empty()) {
            if self.told.get(container) != Some(why) {
                events::warn(&self.context, &self.checkpoint, container, why).await;
            }
        }
        self.told = waiting;
    }

    /// Ends the pod: containers, network, record, object.
    async fn end(mut self, pod: Option<&core::Pod>) {
        let grace = pod.and_then(|p| p.metadata.deletion_grace_period_seconds).and_then(|g| u64::try_from(g).ok());
        let grace = Duration::from_secs(grace.unwrap_or(self.checkpoint.grace));
        info!(pod = self.name(), grace = grace.as_secs(), "ending");
        for task in std::mem::take(&mut self.probes).into_values() {
            task.abort();
        }
        stop(self.checkpoint.containers.values().filter_map(|c| c.process).collect(), grace).await;
        while let Err(error) = self.detach().await {
            warn!(pod = self.name(), %error, "the pod's network cannot be taken away yet");
            tokio::time::sleep(self.network.delay).await;
            self.network.failed();
        }
        if pod.is_some() {
            self.delete_object().await;
        }
        if let Err(error) = self.checkpoint.remove(&self.context.pods_dir) {
            warn!(pod = self.name(), %error, "the pod's record cannot be removed");
        }
        info!(pod = self.name(), "ended");
    }

    async fn delete_object(&mut self) {
        let api: Api<core::Pod> = Api::namespaced(self.context.client.clone(), &self.checkpoint.namespace);
        let uid = Some(self.checkpoint.uid.clone());
        let preconditions = Some(Preconditions { uid, resource_version: None });
        let params = DeleteParams { grace_period_seconds: Some(0), preconditions, ..DeleteParams::default() };
        loop {
            match api.delete(&self.checkpoint.name, &params).await {
                Ok(_) => return,
                // Gone already, or another pod of that name.
                Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => return,
                Err(error) => {
                    warn!(pod = self.name(), %error, "the pod's object cannot be deleted yet");
                    tokio::time::sleep(self.publishing.delay).await;
                    self.publishing.failed();
                }
            }
        }
    }
}

/// SIGTERM, `grace`, SIGKILL; returns when all are gone.
async fn stop(processes: Vec<ProcessId>, grace: Duration) {
    let deadline = Instant::now() + grace;
    let mut killed = false;
    for process in &processes {
        process.signal(Signal::SIGTERM);
    }
    while processes.iter().any(|p| p.alive()) {
        if !killed && Instant::now() >= deadline {
            processes.iter().for_each(|p| p.signal(Signal::SIGKILL));
            killed = true;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn fresh_id() -> std::io::Result<String> {
    use std::io::Read;
    let mut bytes = [0; 32];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|b| format!("{b:02x}")).collect())
}
