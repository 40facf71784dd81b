//! Binds pods that name no node to the cluster's nodes in turn.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use futures::StreamExt;
use k8s_openapi::api::core::v1 as core;
use kube::api::{ListParams, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use serde_json::{Value, json};
use tracing::{debug, info, warn};

use crate::kubeconfig::client;

/// Schedules for ever.
///
/// # Errors
/// When the API server cannot be used at all.
pub(super) fn run(kubeconfig: &Path) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async { watch(client(kubeconfig).await?).await })
}

async fn watch(client: Client) -> Result<()> {
    let pods: Api<core::Pod> = Api::all(client.clone());
    let mut events = watcher(pods, watcher::Config::default().fields("spec.nodeName="))
        .default_backoff()
        .boxed();
    let mut waiting: BTreeMap<(String, String), core::Pod> = BTreeMap::new();
    let mut turn = Turn::default();
    // A pod that found no node is tried again: nodes come, go and become ready.
    let mut again = tokio::time::interval(std::time::Duration::from_secs(1));
    loop {
        tokio::select! {
            event = events.next() => match event.context("the watch of pods ended")? {
                Ok(watcher::Event::Apply(pod) | watcher::Event::InitApply(pod)) => {
                    if let Err(pod) = schedule(&client, pod, &mut turn).await {
                        waiting.insert(key(&pod), *pod);
                    }
                }
                Ok(watcher::Event::Delete(pod)) => {
                    waiting.remove(&key(&pod));
                }
                Ok(watcher::Event::Init) => waiting.clear(),
                Ok(watcher::Event::InitDone) => {}
                Err(error) => warn!(%error, "watching pods"),
            },
            _ = again.tick(), if !waiting.is_empty() => {
                for (key, pod) in std::mem::take(&mut waiting) {
                    if let Err(pod) = schedule(&client, pod, &mut turn).await {
                        waiting.insert(key, *pod);
                    }
                }
            }
        }
    }
}

fn key(pod: &core::Pod) -> (String, String) {
    (
        pod.metadata.namespace.clone().unwrap_or_default(),
        pod.metadata.name.clone().unwrap_or_default(),
    )
}

/// Binds `pod`, or gives it back when no node would have it.
async fn schedule(client: &Client, pod: core::Pod, turn: &mut Turn) -> Result<(), Box<core::Pod>> {
    let spec = pod.spec.as_ref();
    let other = spec
        .and_then(|s| s.scheduler_name.as_deref())
        .is_some_and(|n| n != "default-scheduler");
    let bound = spec.is_some_and(|s| s.node_name.as_ref().is_some_and(|n| !n.is_empty()));
    if other || bound || pod.metadata.deletion_timestamp.is_some() {
        return Ok(());
    }
    let nodes: Api<core::Node> = Api::all(client.clone());
    let nodes = match nodes.list(&ListParams::default()).await {
        Ok(nodes) => nodes.items,
        Err(error) => {
            warn!(%error, "listing nodes");
            return Err(Box::new(pod));
        }
    };
    let Some(node) = turn.choose(&pod, &nodes) else {
        return Err(Box::new(pod));
    };
    let (namespace, name) = key(&pod);
    let binding = json!({
        "apiVersion": "v1", "kind": "Binding",
        "metadata": {"name": name, "namespace": namespace},
        "target": {"apiVersion": "v1", "kind": "Node", "name": node},
    });
    let pods: Api<core::Pod> = Api::namespaced(client.clone(), &namespace);
    let answer = pods
        .create_subresource::<Value, Value>("binding", &name, &PostParams::default(), &binding)
        .await;
    match answer {
        Ok(_) => info!(pod = format!("{namespace}/{name}"), node, "bound"),
        // Deleted or bound meanwhile.
        Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => debug!(%status, "not bound"),
        Err(error) => {
            warn!(%error, "binding a pod");
            return Err(Box::new(pod));
        }
    }
    Ok(())
}

/// Whose turn it is.
#[derive(Debug, Default)]
struct Turn(usize);

impl Turn {
    /// The next node that is ready, takes pods and fits the pod's node selector.
    fn choose(&mut self, pod: &core::Pod, nodes: &[core::Node]) -> Option<String> {
        let mut names: Vec<&str> = nodes
            .iter()
            .filter(|n| takes(n, pod))
            .filter_map(|n| n.metadata.name.as_deref())
            .collect();
        names.sort_unstable();
        let chosen = names.get(self.0 % names.len().max(1)).map(|n| (*n).to_owned());
        self.0 = self.0.wrapping_add(usize::from(chosen.is_some()));
        chosen
    }
}

fn takes(node: &core::Node, pod: &core::Pod) -> bool {
    let conditions = node.status.iter().filter_map(|s| s.conditions.as_ref()).flatten();
    let ready = conditions.into_iter().any(|c| c.type_ == "Ready" && c.status == "True");
    let cordoned = node.spec.as_ref().is_some_and(|s| s.unschedulable == Some(true));
    let selector = pod.spec.as_ref().and_then(|s| s.node_selector.as_ref());
    let none = BTreeMap::new();
    let labels = node.metadata.labels.as_ref().unwrap_or(&none);
    ready && !cordoned && selector.into_iter().flatten().all(|(k, v)| labels.get(k) == Some(v))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, ready: &str, rack: &str) -> core::Node {
        serde_json::from_value(json!({
            "metadata": {"name": name, "labels": {"rack": rack}},
            "status": {"conditions": [{"type": "Ready", "status": ready}]}
        }))
        .unwrap()
    }

    #[test]
    fn pods_go_round_the_nodes_that_take_them() {
        let nodes = [
            node("b", "True", "1"),
            node("a", "True", "1"),
            node("c", "False", "1"),
            node("d", "True", "2"),
        ];
        let any: core::Pod = serde_json::from_value(json!({"spec": {"containers": []}})).unwrap();
        let mut turn = Turn::default();
        let chosen: Vec<String> = (0..4).filter_map(|_| turn.choose(&any, &nodes)).collect();
        assert_eq!(chosen, ["a", "b", "d", "a"]);
        let picky: core::Pod =
            serde_json::from_value(json!({"spec": {"containers": [], "nodeSelector": {"rack": "2"}}})).unwrap();
        assert_eq!(turn.choose(&picky, &nodes).as_deref(), Some("d"));
        assert_eq!(turn.choose(&picky, &nodes[..3]), None);
    }
}
