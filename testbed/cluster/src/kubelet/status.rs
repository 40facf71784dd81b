//! The status of a pod as the runner reports it. Pure.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1 as core;
use serde_json::{Value, json};

use super::checkpoint::{Checkpoint, Container, now};
use super::container::Waiting;
use super::order;

/// What the runner knows beside the checkpoint.
#[derive(Debug, Clone, Default)]
pub(crate) struct Live {
    /// Why containers are not running.
    pub(crate) waiting: BTreeMap<String, Waiting>,
    /// Readiness by container; absent counts as not ready.
    pub(crate) ready: BTreeMap<String, bool>,
    /// Containers whose startup probe has succeeded.
    pub(crate) started: BTreeSet<String>,
    pub(crate) host_ip: String,
    pub(crate) host_ips: Vec<String>,
}

/// The status of `pod`. Condition times are taken from `previous` where nothing changed.
pub(crate) fn status(pod: &core::Pod, checkpoint: &Checkpoint, live: &Live, previous: &Value) -> Value {
    let Some(spec) = pod.spec.as_ref() else {
        return Value::Null;
    };
    let inits: Vec<Value> = spec
        .init_containers
        .iter()
        .flatten()
        .map(|c| one(c, spec, checkpoint, live))
        .collect();
    let containers: Vec<Value> = spec.containers.iter().map(|c| one(c, spec, checkpoint, live)).collect();
    let sidecar = |status: &&Value| {
        let mut specs = spec.init_containers.iter().flatten().filter(|c| order::is_sidecar(c));
        specs.any(|c| status["name"] == c.name.as_str())
    };
    let (sidecars, preparing): (Vec<&Value>, Vec<&Value>) = inits.iter().partition(sidecar);
    let phase = match phase(spec, &containers, &preparing) {
        // A pod that is done is said to be so once nothing of it runs.
        "Succeeded" | "Failed" if sidecars.iter().any(|c| c["state"]["running"].is_object()) => "Running",
        phase => phase,
    };
    let initialized = order::has_begun(spec, checkpoint)
        || (preparing.iter().all(|c| c["state"]["terminated"]["exitCode"] == 0)
            && sidecars.iter().all(|c| c["started"] == true));
    let lasting = || sidecars.iter().copied().chain(&containers);
    let all_ready = lasting().all(|c| c["ready"] == true);
    let networked = checkpoint.host_network || checkpoint.sandbox.as_ref().is_some_and(|s| s.result.is_some());
    let done = matches!(phase, "Succeeded" | "Failed");
    let not_ready = || {
        let names: Vec<&str> = lasting()
            .filter(|c| c["ready"] != true)
            .filter_map(|c| c["name"].as_str())
            .collect();
        if done {
            ("PodCompleted", String::new())
        } else {
            (
                "ContainersNotReady",
                format!("containers with unready status: [{}]", names.join(" ")),
            )
        }
    };
    let condition = |kind: &str, holds: bool, why: (&str, String)| {
        let state = if holds { "True" } else { "False" };
        let before = previous["conditions"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|c| c["type"] == kind);
        let since = before
            .filter(|c| c["status"] == state)
            .map_or_else(|| json!(now()), |c| c["lastTransitionTime"].clone());
        let mut condition = json!({"type": kind, "status": state, "lastTransitionTime": since});
        if !holds {
            condition["reason"] = json!(why.0);
            if !why.1.is_empty() {
                condition["message"] = json!(why.1);
            }
        }
        condition
    };
    let waiting_for_network = || ("ContainersNotReady", String::new());
    let ready = all_ready && !done;
    let mut status = json!({
        "phase": phase,
        "startTime": checkpoint.start_time,
        "hostIP": live.host_ip,
        "hostIPs": live.host_ips.iter().map(|ip| json!({"ip": ip})).collect::<Vec<_>>(),
        "qosClass": "BestEffort",
        "containerStatuses": containers,
        "conditions": [
            condition("PodReadyToStartContainers", networked, waiting_for_network()),
            condition("Initialized", initialized, ("ContainersNotInitialized", String::new())),
            condition("Ready", ready, not_ready()),
            condition("ContainersReady", ready, not_ready()),
            condition("PodScheduled", true, ("", String::new())),
        ],
    });
    if !inits.is_empty() {
        status["initContainerStatuses"] = json!(inits);
    }
    let ips = if checkpoint.host_network {
        live.host_ips.clone()
    } else {
        checkpoint.ips()
    };
    if let Some(first) = ips.first() {
        status["podIP"] = json!(first);
        status["podIPs"] = ips.iter().map(|ip| json!({"ip": ip})).collect();
    }
    status
}

fn phase(spec: &core::PodSpec, containers: &[Value], inits: &[&Value]) -> &'static str {
    let never = spec.restart_policy.as_deref() == Some("Never");
    if never
        && inits
            .iter()
            .any(|c| c["state"]["terminated"]["exitCode"].as_i64().is_some_and(|c| c != 0))
    {
        return "Failed";
    }
    let codes: Vec<Option<i64>> = containers
        .iter()
        .map(|c| c["state"]["terminated"]["exitCode"].as_i64())
        .collect();
    let started = containers.iter().any(|c| {
        c["state"]["running"].is_object()
            || c["state"]["terminated"].is_object()
            || c["lastState"]["terminated"].is_object()
    });
    if !codes.is_empty() && codes.iter().all(Option::is_some) {
        let succeeded = codes.iter().all(|c| *c == Some(0));
        return match spec.restart_policy.as_deref() {
            Some("Never") if succeeded => "Succeeded",
            Some("Never") => "Failed",
            Some("OnFailure") if succeeded => "Succeeded",
            _ => "Running",
        };
    }
    if started { "Running" } else { "Pending" }
}

fn one(container: &core::Container, spec: &core::PodSpec, checkpoint: &Checkpoint, live: &Live) -> Value {
    let inits = || spec.init_containers.iter().flatten();
    let init = inits().any(|c| c.name == container.name) && !order::is_sidecar(container);
    let none = Container::default();
    let known = checkpoint.containers.get(&container.name);
    let state = known.unwrap_or(&none);
    let id = |started: &str| format!("margay-lab://{}-{}-{started}", checkpoint.uid, container.name);
    let terminated = |ended: &super::checkpoint::Ended| {
        let reason = if ended.code == 0 { "Completed" } else { "Error" };
        json!({"terminated": {
            "exitCode": ended.code, "reason": reason, "startedAt": ended.started_at, "finishedAt": ended.finished_at,
            "containerID": id(&ended.started_at),
        }})
    };
    let running = state.process.is_some();
    let waiting = live.waiting.get(&container.name);
    let now = match (running, waiting, &state.ended) {
        (true, _, _) => json!({"running": {"startedAt": state.started_at}}),
        (false, Some(waiting), _) => json!({"waiting": {"reason": waiting.reason, "message": waiting.message}}),
        (false, None, Some(ended)) => terminated(ended),
        (false, None, None) if inits().next().is_some() => json!({"waiting": {"reason": "PodInitializing"}}),
        (false, None, None) => json!({"waiting": {"reason": "ContainerCreating"}}),
    };
    // An ended run is the last state once the present one is something else.
    let last = match &state.ended {
        Some(ended) if now["terminated"].is_null() => terminated(ended),
        _ => json!({}),
    };
    let done = init && state.ended.as_ref().is_some_and(|e| e.code == 0);
    json!({
        "name": container.name,
        "image": container.image,
        "imageID": "",
        "containerID": if known.is_some() { id(&state.started_at) } else { String::new() },
        "restartCount": state.restarts,
        "ready": done || (running && live.ready.get(&container.name) == Some(&true)),
        "started": order::is_started(container, checkpoint, |name| live.started.contains(name)),
        "state": now,
        "lastState": last,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubelet::checkpoint::{Ended, Sandbox};
    use margay_lab::process::ProcessId;

    fn pod(policy: &str) -> core::Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "shop", "uid": "u"},
            "spec": {"restartPolicy": policy, "containers": [{"name": "a", "image": "agnhost"}]}
        }))
        .unwrap()
    }

    fn with(container: Container) -> Checkpoint {
        let result = json!({"ips": [{"address": "10.244.0.5/32"}, {"address": "fd00::5/128"}]});
        Checkpoint {
            uid: "u".into(),
            sandbox: Some(Sandbox {
                id: "x".into(),
                netns: "/n".into(),
                config: Value::Null,
                result: Some(result),
            }),
            containers: BTreeMap::from([("a".to_owned(), container)]),
            ..Checkpoint::default()
        }
    }

    fn ended(code: i32) -> Container {
        let ended = Ended {
            code,
            started_at: "t0".into(),
            finished_at: "t1".into(),
        };
        Container {
            ended: Some(ended),
            ..Container::default()
        }
    }

    fn running() -> Container {
        Container {
            process: Some(ProcessId { pid: 1, started: 1 }),
            ..Container::default()
        }
    }

    #[test]
    fn a_ready_pod_says_where_it_is() {
        let live = Live {
            ready: BTreeMap::from([("a".into(), true)]),
            host_ip: "10.1.1.11".into(),
            ..Live::default()
        };
        let status = status(&pod("Always"), &with(running()), &live, &Value::Null);
        assert_eq!(status["phase"], "Running");
        assert_eq!(status["podIPs"], json!([{"ip": "10.244.0.5"}, {"ip": "fd00::5"}]));
        let ready = status["conditions"]
            .as_array()
            .unwrap()
            .iter()
            .find(|c| c["type"] == "Ready")
            .unwrap();
        assert_eq!(ready["status"], "True");
    }

    #[rstest::rstest]
    #[case("Never", 0, "Succeeded")]
    #[case("Never", 1, "Failed")]
    #[case("OnFailure", 0, "Succeeded")]
    #[case("OnFailure", 1, "Running")]
    #[case("Always", 0, "Running")]
    fn phases_follow_the_restart_policy(#[case] policy: &str, #[case] code: i32, #[case] want: &str) {
        let status = status(&pod(policy), &with(ended(code)), &Live::default(), &Value::Null);
        assert_eq!(status["phase"], want);
    }

    /// What is said of a pod whose only container and whose sidecar are in these states.
    #[rstest::rstest]
    #[case::starting(Container::default(), None, ("Pending", "False", "False"))]
    #[case::serving(running(), Some(running()), ("Running", "True", "True"))]
    #[case::failing(ended(1), Some(running()), ("Running", "True", "False"))]
    #[case::main_is_done(running(), Some(ended(0)), ("Running", "True", "False"))]
    #[case::all_is_done(ended(0), Some(ended(0)), ("Succeeded", "True", "False"))]
    fn a_sidecar_counts_like_a_container(
        #[case] side: Container,
        #[case] main: Option<Container>,
        #[case] want: (&str, &str, &str),
    ) {
        let pod: core::Pod = serde_json::from_value(json!({"spec": {
            "restartPolicy": "OnFailure",
            "initContainers": [{"name": "side", "image": "agnhost", "restartPolicy": "Always"}],
            "containers": [{"name": "a", "image": "agnhost"}],
        }}))
        .unwrap();
        let containers = [("side".to_owned(), side)].into_iter();
        let checkpoint = Checkpoint {
            containers: containers.chain(main.map(|main| ("a".to_owned(), main))).collect(),
            ..Checkpoint::default()
        };
        let live = Live {
            ready: BTreeMap::from([("side".into(), true), ("a".into(), true)]),
            ..Live::default()
        };
        let status = status(&pod, &checkpoint, &live, &Value::Null);
        let condition = |kind: &str| {
            let all = status["conditions"].as_array().unwrap();
            all.iter().find(|c| c["type"] == kind).unwrap()["status"]
                .as_str()
                .unwrap()
        };
        let phase = status["phase"].as_str().unwrap();
        assert_eq!(
            (phase, condition("Initialized"), condition("Ready")),
            want,
            "{status:#}"
        );
    }

    #[test]
    fn condition_times_change_only_with_the_condition() {
        let before = json!({"conditions": [
            {"type": "Ready", "status": "False", "lastTransitionTime": "then"},
            {"type": "Initialized", "status": "False", "lastTransitionTime": "then"}]});
        let status = status(&pod("Always"), &Checkpoint::default(), &Live::default(), &before);
        let time = |kind: &str| {
            let all = status["conditions"].as_array().unwrap();
            all.iter().find(|c| c["type"] == kind).unwrap()["lastTransitionTime"].clone()
        };
        assert_eq!(time("Ready"), "then");
        assert_ne!(time("Initialized"), "then");
        assert_eq!(status["phase"], "Pending");
    }
}
