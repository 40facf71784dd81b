//! Which pod speaks for which node. Pure.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use margay_api::slim::Metadata;
use serde::Deserialize;

/// A node's agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Agent {
    pub(super) node: String,
    /// The pod to ask, or why there is none.
    pub(super) pod: Result<String, String>,
}

/// What counts of an agent's pod.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Pod {
    pub(super) metadata: Metadata,
    spec: Spec,
    status: Status,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    node_name: String,
    affinity: serde_json::Value,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    conditions: Vec<Condition>,
    init_container_statuses: Vec<Container>,
    container_statuses: Vec<Container>,
    reason: String,
    message: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Condition {
    r#type: String,
    status: String,
    message: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Container {
    name: String,
    ready: bool,
    state: State,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct State {
    running: Option<serde::de::IgnoredAny>,
    waiting: Option<Halt>,
    terminated: Option<Halt>,
}

/// Why a container does not run.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Halt {
    reason: String,
    message: String,
}

/// One agent for each node, in order of name, of the nodes in `only` where it names any.
///
/// During an upgrade a node has two pods, of which either reaches the agent's socket: one that stays is preferred, and one
/// that is ready.
pub(super) fn agents(pods: &[Pod], only: &[String]) -> Vec<Agent> {
    let mut best: BTreeMap<String, &Pod> = BTreeMap::new();
    for pod in pods {
        let Some(node) = pod.node() else { continue };
        let place = best.entry(node.to_owned()).or_insert(pod);
        if pod.worth() > place.worth() {
            *place = pod;
        }
    }
    if only.is_empty() {
        return best.into_iter().map(|(node, pod)| pod.agent(node)).collect();
    }
    let mut named: Vec<&String> = only.iter().collect();
    named.sort_unstable();
    named.dedup();
    let agent = |node: &String| match best.get(node) {
        Some(pod) => pod.agent(node.clone()),
        None => Agent {
            node: node.clone(),
            pod: Err(format!(
                "no agent's pod is on it: kubectl get node {node} says whether there is such a node"
            )),
        },
    };
    named.into_iter().map(agent).collect()
}

impl Pod {
    /// The node that it runs on, or waits for.
    fn node(&self) -> Option<&str> {
        if !self.spec.node_name.is_empty() {
            return Some(&self.spec.node_name);
        }
        // The DaemonSet controller leaves it to the scheduler to put the pod where this says.
        let terms = "/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms/0/matchFields/0";
        let field = self.spec.affinity.pointer(terms)?;
        field["values"][0].as_str().filter(|_| field["key"] == "metadata.name")
    }

    fn container(&self) -> Option<&Container> {
        let mut containers = self.status.container_statuses.iter();
        containers.find(|container| container.name == super::CONTAINER)
    }

    fn runs(&self) -> bool {
        self.container()
            .is_some_and(|container| container.state.running.is_some())
    }

    /// Larger for the pod to be asked; of equals the older one, which is no newcomer that only stands by.
    fn worth(&self) -> impl Ord + use<> {
        let ready = self.container().is_some_and(|container| container.ready);
        let age = Reverse(self.metadata.creation_timestamp.clone());
        (self.runs(), !self.metadata.is_terminating(), ready, age)
    }

    fn agent(&self, node: String) -> Agent {
        let name = &self.metadata.name;
        let pod = if self.runs() {
            Ok(name.clone())
        } else {
            Err(format!("pod {name} does not run: {}", self.halt()))
        };
        Agent { node, pod }
    }

    /// Why its container does not run.
    fn halt(&self) -> String {
        let waits = |container: &&Container| container.state.waiting.is_some();
        let failed = |container: &&Container| {
            let ended = container.state.terminated.as_ref();
            ended.is_some_and(|halt| halt.reason != "Completed")
        };
        let init = || self.status.init_container_statuses.iter();
        let container = init()
            .find(failed)
            .or_else(|| init().find(waits))
            .or_else(|| self.container());
        let halt = container.and_then(|one| one.state.waiting.as_ref().or(one.state.terminated.as_ref()));
        if let (Some(container), Some(halt)) = (container, halt) {
            let text = words(&halt.reason, &halt.message);
            return format!("container {}: {text}", container.name);
        }
        let unmet = self.status.conditions.iter().find(|condition| {
            condition.r#type == "PodScheduled" && condition.status == "False" && !condition.message.is_empty()
        });
        match unmet {
            Some(condition) => condition.message.clone(),
            None => words(&self.status.reason, &self.status.message),
        }
    }
}

fn words(reason: &str, message: &str) -> String {
    match (reason, message) {
        ("", "") => "nobody says why".to_owned(),
        ("", text) | (text, "") => text.to_owned(),
        (reason, message) => format!("{reason}: {message}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(name: &str, node: &str, state: Value) -> Value {
        json!({
            "metadata": {"name": name, "namespace": "margay-system", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"nodeName": node},
            "status": {"phase": "Running", "containerStatuses": [
                {"name": "margay-node", "ready": true, "state": state}]},
        })
    }

    fn running() -> Value {
        json!({"running": {"startedAt": "2026-01-01T00:00:00Z"}})
    }

    fn chosen(pods: Value, only: &[&str]) -> Vec<(String, Result<String, String>)> {
        let pods: Vec<Pod> = serde_json::from_value(pods).expect("pods");
        let only: Vec<String> = only.iter().map(|node| (*node).to_owned()).collect();
        let agents = agents(&pods, &only).into_iter();
        agents.map(|agent| (agent.node, agent.pod)).collect()
    }

    fn pods_of(pods: Value) -> Vec<Result<String, String>> {
        chosen(pods, &[]).into_iter().map(|(_, pod)| pod).collect()
    }

    #[test]
    fn one_for_each_node_or_for_those_that_are_named() {
        let pods = json!([pod("y", "node2", running()), pod("x", "node1", running())]);
        let ok = |node: &str, pod: &str| (node.to_owned(), Ok(pod.to_owned()));
        assert_eq!(chosen(pods.clone(), &[]), [ok("node1", "x"), ok("node2", "y")]);
        let missing = "no agent's pod is on it: kubectl get node node9 says whether there is such a node";
        assert_eq!(
            chosen(pods, &["node9", "node2", "node2"]),
            [ok("node2", "y"), ("node9".to_owned(), Err(missing.to_owned()))]
        );
    }

    #[test]
    fn during_an_upgrade_the_pod_that_stays_and_works_is_asked() {
        let mut going = pod("going", "node1", running());
        going["metadata"]["deletionTimestamp"] = json!("2026-01-02T00:00:00Z");
        let mut unready = pod("unready", "node1", running());
        unready["status"]["containerStatuses"][0]["ready"] = json!(false);
        let mut next = pod("next", "node1", running());
        next["metadata"]["creationTimestamp"] = json!("2026-01-02T00:00:00Z");
        let stays = pod("stays", "node1", running());
        let starting = pod("starting", "node1", json!({"waiting": {"reason": "ContainerCreating"}}));
        let best = |pods: &[&Value]| {
            let there = pods_of(json!(pods));
            let back: Vec<&&Value> = pods.iter().rev().collect();
            assert_eq!(there, pods_of(json!(back)), "the order of the list does not matter");
            there[0].clone().expect("a pod")
        };
        assert_eq!(best(&[&next, &stays]), "stays");
        assert_eq!(best(&[&going, &next]), "next");
        assert_eq!(best(&[&unready, &next]), "next");
        assert_eq!(best(&[&going, &starting]), "going");
        assert_eq!(best(&[&unready, &starting]), "unready");
    }

    #[test]
    fn a_pod_that_does_not_run_says_why() {
        let waiting = json!({"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}});
        let ended = json!({"terminated": {"reason": "Error", "exitCode": 1}});
        let mut init = pod("p", "n", json!({"waiting": {"reason": "PodInitializing"}}));
        init["status"]["initContainerStatuses"] = json!([
            {"name": "install-cni", "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]);
        let mut unbound = pod("p", "", json!({}));
        unbound["status"] = json!({"phase": "Pending", "conditions": [
            {"type": "PodScheduled", "status": "False", "message": "0/3 nodes are available"}]});
        unbound["spec"] = json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["node4"]}]}]}}}});
        let mut evicted = pod("p", "n", json!({}));
        evicted["status"] = json!({"phase": "Failed", "reason": "Evicted", "message": "no disk"});
        for (pod, why) in [
            (
                pod("p", "n", waiting),
                "container margay-node: ImagePullBackOff: no such image",
            ),
            (pod("p", "n", ended), "container margay-node: Error"),
            (init, "container install-cni: CrashLoopBackOff"),
            (unbound, "0/3 nodes are available"),
            (evicted, "Evicted: no disk"),
        ] {
            assert_eq!(pods_of(json!([pod])), [Err(format!("pod p does not run: {why}"))]);
        }
    }
}
