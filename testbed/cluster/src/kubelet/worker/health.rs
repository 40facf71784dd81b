//! A pod's probes, and what follows from them.

use std::time::Duration;

use k8s_openapi::api::core::v1 as core;
use tracing::info;

use super::{Worker, ending};
use crate::kubelet::order;
use crate::kubelet::probe::{self, Asked, Purpose, Verdict};

impl Worker {
    /// Starts the probes of a running container: the startup probe alone, when there is one.
    pub(super) fn start_probes(&mut self, pod: &core::Pod, name: &str) {
        let spec = pod.spec.as_ref();
        let Some(container) = spec.and_then(|s| order::lasting(s).find(|c| c.name == name)).cloned() else {
            return;
        };
        if container.startup_probe.is_some() && !self.live.started.contains(name) {
            self.start_probe(&container, Purpose::Startup, container.startup_probe.clone());
        } else {
            self.start_probe(&container, Purpose::Readiness, container.readiness_probe.clone());
            self.start_probe(&container, Purpose::Liveness, container.liveness_probe.clone());
        }
    }

    fn start_probe(&mut self, container: &core::Container, purpose: Purpose, probe: Option<core::Probe>) {
        let state = self.checkpoint.containers.get(&container.name);
        let (Some(probe), Some(state)) = (probe, state) else {
            return;
        };
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
        if let Some(old) = self
            .probes
            .insert((container.name.clone(), purpose), task.abort_handle())
        {
            old.abort();
        }
    }

    pub(super) fn stop_probes(&mut self, container: &str) {
        self.probes.retain(|(name, _), task| {
            if name == container {
                task.abort();
            }
            name != container
        });
    }

    pub(super) fn judge(&mut self, pod: &core::Pod, verdict: Verdict) {
        let Verdict {
            container,
            purpose,
            healthy,
            message,
        } = verdict;
        if !self.probes.contains_key(&(container.clone(), purpose)) {
            return;
        }
        match (purpose, healthy) {
            (Purpose::Readiness, ready) => {
                self.live.ready.insert(container, ready);
            }
            (Purpose::Startup, true) => {
                self.stop_probes(&container);
                let spec = pod
                    .spec
                    .as_ref()
                    .and_then(|s| order::lasting(s).find(|c| c.name == container))
                    .cloned();
                self.live.started.insert(container.clone());
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
                    tokio::spawn(ending::stop(vec![process], Duration::from_secs(self.checkpoint.grace)));
                }
            }
        }
    }
}
