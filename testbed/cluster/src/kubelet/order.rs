//! Which of a pod's containers should run now: init containers one after the other, sidecars among them from their turn
//! to the pod's end, then the others. Pure.

use k8s_openapi::api::core::v1 as core;

use super::checkpoint::Checkpoint;

/// What to do about a pod's containers.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    /// To be kept running, each by its own restart policy.
    pub(crate) run: Vec<(&'a core::Container, &'a str)>,
    /// The pod has done its work: sidecars are to end.
    pub(crate) finished: bool,
}

/// The plan for the containers of `spec`; `started` knows whose startup probe has succeeded.
pub(crate) fn plan<'a>(spec: &'a core::PodSpec, checkpoint: &Checkpoint, started: impl Fn(&str) -> bool) -> Plan<'a> {
    let policy = spec.restart_policy.as_deref().unwrap_or("Always");
    if is_finished(spec, checkpoint) {
        return Plan {
            run: Vec::new(),
            finished: true,
        };
    }
    let mut run = Vec::new();
    // A sidecar that restarts later holds nothing up.
    let begun = has_begun(spec, checkpoint);
    for container in spec.init_containers.iter().flatten() {
        let waits = if is_sidecar(container) {
            run.push((container, "Always"));
            !begun && !is_started(container, checkpoint, &started)
        } else if code(&container.name, checkpoint) == Some(0) {
            false
        } else {
            // An init container that fails runs again, unless the pod never restarts.
            run.push((container, if policy == "Never" { "Never" } else { "OnFailure" }));
            true
        };
        if waits {
            return Plan { run, finished: false };
        }
    }
    run.extend(spec.containers.iter().map(|container| (container, policy)));
    Plan { run, finished: false }
}

/// Whether `container` is an init container that runs as long as its pod.
pub(crate) fn is_sidecar(container: &core::Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// Of a sidecar, its place among the init containers of `pod`.
pub(crate) fn sidecar_place(pod: &core::Pod, name: &str) -> Option<usize> {
    let mut inits = pod
        .spec
        .iter()
        .filter_map(|spec| spec.init_containers.as_ref())
        .flatten();
    inits.position(|c| c.name == name && is_sidecar(c))
}

/// Containers that run as long as their pod: sidecars, then the others.
pub(crate) fn lasting(spec: &core::PodSpec) -> impl Iterator<Item = &core::Container> {
    let sidecars = spec.init_containers.iter().flatten().filter(|c| is_sidecar(c));
    sidecars.chain(&spec.containers)
}

/// Whether a container that is no init container has been started.
pub(crate) fn has_begun(spec: &core::PodSpec, checkpoint: &Checkpoint) -> bool {
    spec.containers
        .iter()
        .any(|c| checkpoint.containers.contains_key(&c.name))
}

/// Whether `container` runs and, where it has a startup probe, that has succeeded.
pub(crate) fn is_started(container: &core::Container, checkpoint: &Checkpoint, started: impl Fn(&str) -> bool) -> bool {
    let known = checkpoint.containers.get(&container.name);
    known.is_some_and(|c| c.process.is_some()) && (container.startup_probe.is_none() || started(&container.name))
}

/// Nothing but sidecars will run again.
fn is_finished(spec: &core::PodSpec, checkpoint: &Checkpoint) -> bool {
    let code = |container: &core::Container| code(&container.name, checkpoint);
    let mut inits = spec.init_containers.iter().flatten().filter(|c| !is_sidecar(c));
    match spec.restart_policy.as_deref() {
        Some("Never") => {
            inits.any(|c| code(c).is_some_and(|code| code != 0)) || spec.containers.iter().all(|c| code(c).is_some())
        }
        Some("OnFailure") => spec.containers.iter().all(|c| code(c) == Some(0)),
        _ => false,
    }
}

/// With what the latest run of a container ended, unless it runs again.
fn code(name: &str, checkpoint: &Checkpoint) -> Option<i32> {
    let known = checkpoint.containers.get(name).filter(|c| c.process.is_none())?;
    known.ended.as_ref().map(|ended| ended.code)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubelet::checkpoint::{Container, Ended};
    use margay_lab::process::ProcessId;
    use serde_json::json;

    /// A pod that prepares, serves beside (probed once it has started) and works.
    fn spec(policy: &str) -> core::PodSpec {
        serde_json::from_value(json!({
            "restartPolicy": policy,
            "initContainers": [
                {"name": "first", "image": "busybox"},
                {"name": "side", "image": "agnhost", "restartPolicy": "Always", "startupProbe": {}},
                {"name": "second", "image": "busybox"},
            ],
            "containers": [{"name": "main", "image": "agnhost"}],
        }))
        .unwrap()
    }

    /// `+` runs, a number is the code of its end.
    fn record(states: &[(&str, &str)]) -> Checkpoint {
        let container = |state: &str| match state.parse() {
            Ok(code) => Container {
                ended: Some(Ended {
                    code,
                    started_at: String::new(),
                    finished_at: String::new(),
                }),
                ..Container::default()
            },
            Err(_) => Container {
                process: Some(ProcessId { pid: 1, started: 1 }),
                ..Container::default()
            },
        };
        let containers = states
            .iter()
            .map(|(name, state)| ((*name).to_owned(), container(state)));
        Checkpoint {
            containers: containers.collect(),
            ..Checkpoint::default()
        }
    }

    #[rstest::rstest]
    #[case::nothing("Always", &[], false, "first:OnFailure")]
    #[case::prepared("Always", &[("first", "0")], false, "side:Always")]
    #[case::not_started("Always", &[("first", "0"), ("side", "+")], false, "side:Always")]
    #[case::started("Always", &[("first", "0"), ("side", "+")], true, "side:Always second:OnFailure")]
    #[case::ready("Always", &[("first", "0"), ("side", "+"), ("second", "0")], true, "side:Always main:Always")]
    #[case::restarting("Always", &[("first", "0"), ("side", "1"), ("second", "0"), ("main", "+")], false, "side:Always main:Always")]
    #[case::works_on("OnFailure", &[("first", "0"), ("side", "+"), ("second", "0"), ("main", "1")], true, "side:Always main:OnFailure")]
    #[case::done("OnFailure", &[("first", "0"), ("side", "+"), ("second", "0"), ("main", "0")], true, "finished")]
    #[case::failed("Never", &[("first", "0"), ("side", "+"), ("second", "0"), ("main", "1")], true, "finished")]
    #[case::not_prepared("Never", &[("first", "0"), ("side", "+"), ("second", "1")], true, "finished")]
    fn containers_have_their_turn(
        #[case] policy: &str,
        #[case] states: &[(&str, &str)],
        #[case] started: bool,
        #[case] want: &str,
    ) {
        let spec = spec(policy);
        let plan = plan(&spec, &record(states), |_| started);
        let mut words: Vec<String> = plan
            .run
            .iter()
            .map(|(c, policy)| format!("{}:{policy}", c.name))
            .collect();
        words.extend(plan.finished.then(|| "finished".to_owned()));
        assert_eq!(words.join(" "), want);
    }
}
