//! The end of a pod: containers, network, record, object.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1 as core;
use kube::Api;
use kube::api::{DeleteParams, Preconditions};
use nix::sys::signal::Signal;
use tracing::{info, warn};

use super::Worker;
use crate::lab::process::ProcessId;

impl Worker {
    /// Ends the pod: containers, network, record, object.
    pub(super) async fn end(mut self, pod: Option<&core::Pod>) {
        let grace = pod
            .and_then(|p| p.metadata.deletion_grace_period_seconds)
            .and_then(|g| u64::try_from(g).ok());
        let grace = Duration::from_secs(grace.unwrap_or(self.checkpoint.grace));
        info!(pod = self.name(), grace = grace.as_secs(), "ending");
        for task in std::mem::take(&mut self.probes).into_values() {
            task.abort();
        }
        stop(
            self.checkpoint.containers.values().filter_map(|c| c.process).collect(),
            grace,
        )
        .await;
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
