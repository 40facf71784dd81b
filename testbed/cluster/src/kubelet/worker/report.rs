//! What the API server is told of a pod.

use k8s_openapi::api::core::v1 as core;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use tracing::debug;

use super::{Retry, Worker};
use crate::kubelet::{events, status};

impl Worker {
    /// Writes the pod's status when it differs from what was written last.
    pub(super) async fn publish(&mut self, pod: &core::Pod) {
        if !self.publishing.due() {
            return;
        }
        let status = status::status(pod, &self.checkpoint, &self.live, &self.published);
        if status == self.published {
            return;
        }
        let api: Api<core::Pod> = Api::namespaced(self.context.client.clone(), &self.checkpoint.namespace);
        let patch = json!({"metadata": {"uid": self.checkpoint.uid}, "status": status});
        match api
            .patch_status(&self.checkpoint.name, &PatchParams::default(), &Patch::Merge(&patch))
            .await
        {
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
    pub(super) async fn tell(&mut self) {
        let waiting = self.live.waiting.clone();
        for (container, why) in waiting.iter().filter(|(_, why)| !why.message.is_empty()) {
            if self.told.get(container) != Some(why) {
                events::warn(&self.context, &self.checkpoint, container, why).await;
            }
        }
        self.told = waiting;
    }
}
