//! Keeps a pod's containers running, as its restart policy says.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1 as core;
use tracing::info;

use super::Worker;
use crate::kubelet::checkpoint::{Container, now};
use crate::kubelet::container::{self, Facts, Waiting};
use crate::kubelet::order;
use margay_lab::process::ProcessId;

/// Kubernetes' back-off of a container that keeps ending.
const FIRST_CRASH_DELAY: Duration = Duration::from_secs(10);
const LAST_CRASH_DELAY: Duration = Duration::from_secs(300);

impl Worker {
    pub(super) fn collect_ended(&mut self) {
        let dir = self.context.pods_dir.clone();
        let dead: Vec<String> = self
            .checkpoint
            .containers
            .iter()
            .filter(|(_, c)| c.process.is_some_and(|p| !p.alive()))
            .map(|(name, _)| name.clone())
            .collect();
        for name in dead {
            let Some(container) = self.checkpoint.containers.get(&name).cloned() else {
                continue;
            };
            let ended = container::ended(&self.checkpoint, &dir, &name, &container);
            info!(
                pod = self.name(),
                container = name,
                code = ended.code,
                "container ended"
            );
            if let Some(own) = self.checkpoint.containers.get_mut(&name) {
                own.process = None;
                own.ended = Some(ended);
            }
            self.live.ready.insert(name.clone(), false);
            self.live.started.remove(&name);
            self.stop_probes(&name);
            self.save();
        }
    }

    /// Starts `container` when it should run and does not.
    pub(super) fn keep_running(&mut self, pod: &core::Pod, container: &core::Container, policy: &str) {
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
                self.live.waiting.insert(
                    name.clone(),
                    Waiting {
                        reason: "CrashLoopBackOff",
                        message,
                    },
                );
                return;
            }
        }
        let facts = Facts {
            host_ip: self.live.host_ip.clone(),
            pod_ips: self.ips(),
        };
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
                self.live.waiting.insert(
                    name.clone(),
                    Waiting {
                        reason: "RunContainerError",
                        message,
                    },
                );
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
        info!(
            pod = self.name(),
            container = name,
            pid = process.pid,
            "container started"
        );
        let restarts = before.restarts + u32::from(before.ended.is_some());
        let state = Container {
            image: container.image.clone().unwrap_or_default(),
            process: Some(process),
            started_at: now(),
            restarts,
            env,
            sidecar: order::sidecar_place(pod, &name),
            ended: before.ended.clone(),
        };
        self.checkpoint.containers.insert(name.clone(), state);
        self.save();
        self.live.waiting.remove(&name);
        self.starts.insert(name.clone(), Instant::now());
        self.live.ready.insert(
            name.clone(),
            container.readiness_probe.is_none() && container.startup_probe.is_none(),
        );
        self.start_probes(pod, &name);
    }
}
