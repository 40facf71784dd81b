//! The end of a pod: containers, network, record, object.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1 as core;
use kube::Api;
use kube::api::{DeleteParams, Preconditions};
use nix::sys::signal::Signal;
use tracing::{info, warn};

use super::Worker;
use margay_lab::process::ProcessId;

impl Worker {
    /// Ends the pod: containers (sidecars after the others), network, record, object.
    pub(super) async fn end(mut self, pod: Option<&core::Pod>) {
        let grace = pod
            .and_then(|p| p.metadata.deletion_grace_period_seconds)
            .and_then(|g| u64::try_from(g).ok());
        let grace = Duration::from_secs(grace.unwrap_or(self.checkpoint.grace));
        info!(pod = self.name(), grace = grace.as_secs(), "ending");
        for task in std::mem::take(&mut self.probes).into_values() {
            task.abort();
        }
        let deadline = Instant::now() + grace;
        let mut running: BTreeMap<Option<Reverse<usize>>, Vec<ProcessId>> = BTreeMap::new();
        for container in self.checkpoint.containers.values() {
            let turn = container.sidecar.map(Reverse);
            running.entry(turn).or_default().extend(container.process);
        }
        for processes in running.into_values() {
            stop(processes, deadline.saturating_duration_since(Instant::now())).await;
        }
        while let Err(error) = self.detach().await {
            warn!(pod = self.name(), %error, "the pod's network cannot be taken away yet");
            tokio::time::sleep(self.network.delay).await;
            self.network.failed();
        }
        // Who sees the object gone finds nothing of the pod left. A runner that dies before the object goes is followed by
        // one that finds an object being deleted and no record, and has only this left to do.
        if let Err(error) = self.checkpoint.remove(&self.context.pods_dir) {
            warn!(pod = self.name(), %error, "the pod's record cannot be removed");
        }
        if pod.is_some() {
            self.delete_object().await;
        }
        info!(pod = self.name(), "ended");
    }

    /// Ends the last sidecar that runs, once what it served is done.
    pub(super) fn end_sidecar(&mut self) {
        let sidecars = self.checkpoint.containers.values().filter(|c| c.process.is_some());
        let Some(process) = sidecars.max_by_key(|c| c.sidecar).and_then(|c| c.process) else {
            return;
        };
        if self.ending.replace(process) != Some(process) {
            tokio::spawn(stop(vec![process], Duration::from_secs(self.checkpoint.grace)));
        }
    }

    async fn delete_object(&mut self) {
        let api: Api<core::Pod> = Api::namespaced(self.context.client.clone(), &self.checkpoint.namespace);
        let uid = Some(self.checkpoint.uid.clone());
        let preconditions = Some(Preconditions {
            uid,
            resource_version: None,
        });
        let params = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions,
            ..DeleteParams::default()
        };
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
pub(super) async fn stop(processes: Vec<ProcessId>, grace: Duration) {
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
