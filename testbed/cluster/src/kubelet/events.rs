//! Events about pods, in a kubelet's words.

use k8s_openapi::api::core::v1 as core;
use kube::Api;
use kube::api::PostParams;
use serde_json::json;
use tracing::debug;

use super::Context;
use super::checkpoint::{Checkpoint, now};
use super::container::Waiting;

/// Reports why `container` does not run. An Event that cannot be written is no reason to stop.
pub(crate) async fn warn(context: &Context, pod: &Checkpoint, container: &str, why: &Waiting) {
    let reason = match why.reason {
        "ContainerCreating" => "FailedCreatePodSandBox",
        "CrashLoopBackOff" => "BackOff",
        _ => "Failed",
    };
    let event = json!({
        "metadata": {"generateName": format!("{}.", pod.name), "namespace": pod.namespace},
        "involvedObject": {
            "apiVersion": "v1", "kind": "Pod", "namespace": pod.namespace, "name": pod.name, "uid": pod.uid,
            "fieldPath": format!("spec.containers{{{container}}}"),
        },
        "type": "Warning", "reason": reason, "message": why.message, "count": 1,
        "firstTimestamp": now(), "lastTimestamp": now(),
        "source": {"component": "kubelet", "host": context.node},
        "reportingComponent": "kubelet", "reportingInstance": context.node,
    });
    let api: Api<core::Event> = Api::namespaced(context.client.clone(), &pod.namespace);
    let written = match serde_json::from_value(event) {
        Ok(event) => api
            .create(&PostParams::default(), &event)
            .await
            .map(drop)
            .map_err(|e| e.to_string()),
        Err(error) => Err(error.to_string()),
    };
    if let Err(error) = written {
        debug!(pod = pod.name, error, "an Event cannot be written");
    }
}
