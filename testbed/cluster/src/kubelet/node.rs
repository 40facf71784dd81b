//! The Node object: what the runner says about its node.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1 as core;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use tracing::warn;

use super::checkpoint::now;
use super::{Context, cni};

const HEARTBEAT: Duration = Duration::from_secs(10);
/// How often the network's installation is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// Creates the Node object, or brings labels and annotations of an existing one up to date.
pub(crate) async fn register(
    context: &Context,
    labels: &BTreeMap<String, String>,
    annotations: &BTreeMap<String, String>,
) -> kube::Result<()> {
    let api: Api<core::Node> = Api::all(context.client.clone());
    let mut all = BTreeMap::from([
        ("kubernetes.io/hostname".to_owned(), context.node.clone()),
        ("kubernetes.io/os".to_owned(), "linux".to_owned()),
        ("kubernetes.io/arch".to_owned(), arch().to_owned()),
    ]);
    all.extend(labels.clone());
    let node = json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": context.node, "labels": all, "annotations": annotations},
    });
    let object: core::Node = serde_json::from_value(node.clone()).map_err(kube::Error::SerdeError)?;
    match api.create(&PostParams::default(), &object).await {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if status.code == 409 => {
            let patch = json!({"metadata": node["metadata"]});
            api.patch(&context.node, &PatchParams::default(), &Patch::Merge(&patch))
                .await?;
        }
        Err(error) => return Err(error),
    }
    report(context, network_error(context).as_deref()).await
}

/// Keeps the Node's status true: Ready follows the network's installation.
pub(crate) async fn keep_reporting(context: &Context) {
    let mut last = None;
    let mut reported = tokio::time::Instant::now();
    loop {
        tokio::time::sleep(LOOK).await;
        let error = network_error(context);
        if last.as_ref() == Some(&error) && reported.elapsed() < HEARTBEAT {
            continue;
        }
        match report(context, error.as_deref()).await {
            Ok(()) => last = Some(error),
            Err(error) => warn!(%error, "the node's status cannot be written"),
        }
        reported = tokio::time::Instant::now();
    }
}

fn network_error(context: &Context) -> Option<String> {
    cni::first_config(&context.cni).err().map(|e| e.to_string())
}

async fn report(context: &Context, network_error: Option<&str>) -> kube::Result<()> {
    let api: Api<core::Node> = Api::all(context.client.clone());
    let before = api.get(&context.node).await?;
    let patch = json!({"status": status(context, network_error, &before)});
    api.patch_status(&context.node, &PatchParams::default(), &Patch::Merge(&patch))
        .await
        .map(drop)
}

fn status(context: &Context, network_error: Option<&str>, before: &core::Node) -> Value {
    let mut addresses: Vec<Value> = context
        .host_ips
        .iter()
        .map(|ip| json!({"type": "InternalIP", "address": ip}))
        .collect();
    addresses.push(json!({"type": "Hostname", "address": context.node}));
    let (state, reason, message) = match network_error {
        None => ("True", "KubeletReady", "the pod runner is ready".to_owned()),
        Some(error) => ("False", "KubeletNotReady", error.to_owned()),
    };
    let conditions = before.status.iter().filter_map(|s| s.conditions.as_ref()).flatten();
    let same = conditions.clone().find(|c| c.type_ == "Ready" && c.status == state);
    let since = same
        .and_then(|c| serde_json::to_value(&c.last_transition_time).ok())
        .filter(|t| !t.is_null());
    // Conditions of others, NetworkUnavailable for one, stay.
    let mut all: Vec<Value> = conditions
        .filter(|c| c.type_ != "Ready")
        .filter_map(|c| serde_json::to_value(c).ok())
        .collect();
    all.push(json!({
        "type": "Ready", "status": state, "reason": reason, "message": message,
        "lastHeartbeatTime": now(), "lastTransitionTime": since.unwrap_or_else(|| json!(now())),
    }));
    json!({
        "addresses": addresses,
        "conditions": all,
        "capacity": {"pods": "110"},
        "allocatable": {"pods": "110"},
        "nodeInfo": {
            "architecture": arch(), "operatingSystem": "linux",
            "kernelVersion": read("/proc/sys/kernel/osrelease"), "osImage": "Margay lab",
            "kubeletVersion": format!("v{}-margay-lab", env!("CARGO_PKG_VERSION")), "kubeProxyVersion": "",
            "containerRuntimeVersion": format!("margay-lab://{}", env!("CARGO_PKG_VERSION")),
            "machineID": context.node, "systemUUID": context.node, "bootID": read("/proc/sys/kernel/random/boot_id"),
        },
    })
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

fn arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
