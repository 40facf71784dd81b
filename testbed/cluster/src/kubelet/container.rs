//! From a container's spec to a running process. An image is a look-up key for a program of this machine.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use k8s_openapi::api::core::v1 as core;
use nix::sched::CloneFlags;

use super::checkpoint::{Checkpoint, Container, Ended, now};
use super::shim::{Exit, SUBCOMMAND, ShimSpec};
use margay_clab::repository;
use margay_lab::enter::{Target, spawn_in};
use margay_lab::process::{ProcessId, find_program};

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Why a container cannot be started, in Kubernetes' words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Waiting {
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

/// What is needed to start a container.
#[derive(Debug, Clone)]
pub(crate) struct Launch {
    pub(crate) argv: Vec<String>,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) dir: Option<PathBuf>,
}

/// Resolves `container` of `pod`.
pub(crate) fn resolve(pod: &core::Pod, container: &core::Container, facts: &Facts) -> Result<Launch, Waiting> {
    let config = |message: String| Waiting {
        reason: "CreateContainerConfigError",
        message,
    };
    let image = container.image.clone().unwrap_or_default();
    let (entrypoint, default_args) = program(&image)?;
    let unsupported = pod
        .spec
        .as_ref()
        .and_then(|s| s.volumes.as_ref())
        .into_iter()
        .flatten()
        .find(|volume| {
            // What the API server's admission adds to every pod is no wish of its author.
            !volume.name.starts_with("kube-api-access-")
                && container.volume_mounts.iter().flatten().any(|m| m.name == volume.name)
        });
    if let Some(volume) = unsupported {
        return Err(config(format!(
            "volume {}: pods of a lab have no volumes; remove its mount",
            volume.name
        )));
    }
    let host_network = pod.spec.as_ref().is_some_and(|spec| spec.host_network == Some(true));
    let host_port = container.ports.iter().flatten().find_map(|port| port.host_port);
    if let Some(port) = host_port.filter(|_| !host_network) {
        return Err(config(format!(
            "hostPort {port}: pods of a lab have no host ports; remove it"
        )));
    }
    let env = environment(pod, container, facts).map_err(config)?;
    let expanded =
        |words: &Option<Vec<String>>| -> Vec<String> { words.iter().flatten().map(|w| expand(w, &env)).collect() };
    let command = expanded(&container.command);
    let mut args = expanded(&container.args);
    let mut argv = if command.is_empty() {
        if args.is_empty() {
            args = default_args.iter().map(|a| (*a).to_owned()).collect();
        }
        entrypoint.clone()
    } else {
        command
    };
    argv.extend(args);
    // The image's own program, however the manifest names it.
    if let (Some(first), Some(own)) = (argv.first_mut(), entrypoint.first())
        && repository(&image).1 == "agnhost"
        && matches!(first.as_str(), "/agnhost" | "agnhost")
    {
        own.clone_into(first);
    }
    if argv.is_empty() {
        argv.push("/bin/sh".to_owned());
    }
    Ok(Launch {
        argv,
        env,
        dir: container.working_dir.as_ref().map(PathBuf::from),
    })
}

/// Entry point and default arguments of an image.
fn program(image: &str) -> Result<(Vec<String>, &'static [&'static str]), Waiting> {
    let agnhost = || {
        find_program("margay-agnhost")
            .map(|p| p.to_string_lossy().into_owned())
            .map_err(|message| Waiting {
                reason: "ErrImagePull",
                message,
            })
    };
    match repository(image).1 {
        "agnhost" => Ok((vec![agnhost()?], &["pause"])),
        "pause" => Ok((vec![agnhost()?, "pause".to_owned()], &[])),
        "alpine" | "busybox" | "debian" | "ubuntu" | "netshoot" => Ok((Vec::new(), &[])),
        _ => Err(Waiting {
            reason: "ImagePullBackOff",
            message: format!(
                "no program is known for image {image:?}; known here: agnhost, pause, and the machine's tools as \
                 alpine, busybox, debian, ubuntu, netshoot"
            ),
        }),
    }
}

/// What the downward API can tell that is not in the pod's object.
#[derive(Debug, Clone, Default)]
pub(crate) struct Facts {
    pub(crate) host_ip: String,
    pub(crate) pod_ips: Vec<String>,
}

fn environment(
    pod: &core::Pod,
    container: &core::Container,
    facts: &Facts,
) -> Result<BTreeMap<String, String>, String> {
    let mut env = BTreeMap::from([
        ("PATH".to_owned(), PATH.to_owned()),
        ("HOME".to_owned(), "/root".to_owned()),
        ("HOSTNAME".to_owned(), pod.metadata.name.clone().unwrap_or_default()),
    ]);
    for var in container.env.iter().flatten() {
        let value = match (&var.value, &var.value_from) {
            (Some(value), _) => expand(value, &env),
            (None, None) => String::new(),
            (None, Some(from)) => {
                let path = from.field_ref.as_ref().map(|f| f.field_path.as_str()).ok_or_else(|| {
                    format!(
                        "env {}: a lab's pods take values and fieldRef only; write the value",
                        var.name
                    )
                })?;
                field(pod, path, facts).ok_or_else(|| format!("env {}: fieldRef {path} is not known here", var.name))?
            }
        };
        env.insert(var.name.clone(), value);
    }
    Ok(env)
}

fn field(pod: &core::Pod, path: &str, facts: &Facts) -> Option<String> {
    let spec = pod.spec.as_ref();
    let keyed = |map: &Option<BTreeMap<String, String>>, rest: &str| {
        let key = rest.strip_prefix("['")?.strip_suffix("']")?;
        Some(map.as_ref().and_then(|m| m.get(key)).cloned().unwrap_or_default())
    };
    match path {
        "metadata.name" => pod.metadata.name.clone(),
        "metadata.namespace" => pod.metadata.namespace.clone(),
        "metadata.uid" => pod.metadata.uid.clone(),
        "spec.nodeName" => spec?.node_name.clone(),
        "spec.serviceAccountName" => Some(spec?.service_account_name.clone().unwrap_or_else(|| "default".into())),
        "status.hostIP" => Some(facts.host_ip.clone()),
        "status.podIP" => Some(facts.pod_ips.first().cloned().unwrap_or_default()),
        "status.podIPs" => Some(facts.pod_ips.join(",")),
        _ => path
            .strip_prefix("metadata.labels")
            .map(|rest| keyed(&pod.metadata.labels, rest))
            .or_else(|| {
                path.strip_prefix("metadata.annotations")
                    .map(|rest| keyed(&pod.metadata.annotations, rest))
            })?,
    }
}

/// `$(NAME)` becomes the variable's value, `$$` a dollar; unknown names stay.
fn expand(text: &str, env: &BTreeMap<String, String>) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let tail = &rest[at..];
        let reference = tail.strip_prefix("$(").and_then(|t| t.split_once(')'));
        if let Some(after) = tail.strip_prefix("$$") {
            out.push('$');
            rest = after;
        } else if let Some((value, after)) = reference.and_then(|(name, after)| Some((env.get(name)?, after))) {
            out.push_str(value);
            rest = after;
        } else {
            out.push('$');
            rest = &tail[1..];
        }
    }
    out + rest
}

/// Starts `launch` as the container called `name` of the pod in `checkpoint`, whose files are under `dir`.
pub(crate) fn start(checkpoint: &Checkpoint, dir: &Path, name: &str, launch: &Launch) -> io::Result<ProcessId> {
    let own = checkpoint.dir(dir);
    fs::create_dir_all(&own)?;
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .open(own.join(format!("{name}.log")))?;
    let exit_file = own.join(format!("{name}.exit"));
    // What an earlier run left must not be taken for this one's end.
    let _ = fs::remove_file(&exit_file);
    let hosts = own.join("hosts");
    let spec = ShimSpec {
        argv: launch.argv.clone(),
        env: launch.env.clone(),
        dir: launch.dir.clone(),
        hostname: (!checkpoint.host_network).then(|| checkpoint.name.clone()),
        hosts: (!checkpoint.host_network).then_some(hosts.clone()),
        exit_file,
    };
    if !checkpoint.host_network {
        let mut text = String::from("127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n");
        for ip in checkpoint.ips() {
            text.push_str(&format!("{ip} {}\n", checkpoint.name));
        }
        fs::write(&hosts, text)?;
    }
    let spec_file = own.join(format!("{name}.json"));
    fs::write(&spec_file, serde_json::to_vec(&spec)?)?;
    let mut command = Command::new(find_program("margay-lab").map_err(io::Error::other)?);
    command.arg(SUBCOMMAND).arg(&spec_file).current_dir("/");
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    let fresh = CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWIPC;
    let (target, fresh) = match &checkpoint.sandbox {
        Some(sandbox) => (
            Target::default().with_path(&sandbox.netns)?,
            fresh | CloneFlags::CLONE_NEWUTS,
        ),
        None => (Target::default(), fresh),
    };
    let mut child = spawn_in(&target, fresh, &mut command)?;
    let process = i32::try_from(child.id()).ok().and_then(ProcessId::of);
    std::thread::spawn(move || child.wait());
    process.ok_or_else(|| io::Error::other("the container ended at once"))
}

/// How the run of a dead container ended: what its first process wrote down, else killed.
pub(crate) fn ended(checkpoint: &Checkpoint, dir: &Path, name: &str, container: &Container) -> Ended {
    let text = fs::read(checkpoint.dir(dir).join(format!("{name}.exit"))).unwrap_or_default();
    let exit = serde_json::from_slice(&text).unwrap_or_else(|_| Exit {
        code: 137,
        finished_at: now(),
    });
    Ended {
        code: exit.code,
        started_at: container.started_at.clone(),
        finished_at: exit.finished_at,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(container: serde_json::Value) -> core::Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "shop", "labels": {"app": "web"}},
            "spec": {"nodeName": "node1", "containers": [container]}
        }))
        .unwrap()
    }

    fn launch(container: serde_json::Value) -> Result<Launch, Waiting> {
        let pod = pod(container);
        let facts = Facts {
            host_ip: "10.1.1.11".into(),
            pod_ips: vec!["10.244.0.1".into(), "fd00::1".into()],
        };
        resolve(&pod, &pod.spec.as_ref().unwrap().containers[0], &facts)
    }

    #[test]
    fn commands_and_variables_are_resolved() {
        let launch = launch(json!({
            "name": "c", "image": "docker.io/library/busybox:1.36",
            "command": ["echo"], "args": ["$(A)", "$(NONE)", "$$(A)", "$(B)"],
            "env": [
                {"name": "A", "value": "1"}, {"name": "B", "value": "$(A)2"},
                {"name": "IPS", "valueFrom": {"fieldRef": {"fieldPath": "status.podIPs"}}},
                {"name": "APP", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}}
            ]
        }))
        .unwrap();
        assert_eq!(launch.argv, ["echo", "1", "$(NONE)", "$(A)", "12"]);
        assert_eq!(
            (launch.env["IPS"].as_str(), launch.env["APP"].as_str()),
            ("10.244.0.1,fd00::1", "web")
        );
    }

    #[test]
    fn what_cannot_run_is_named() {
        let error = launch(json!({"name": "c", "image": "nginx:1"})).unwrap_err();
        assert_eq!(error.reason, "ImagePullBackOff");
        assert!(error.message.contains("\"nginx:1\""), "{}", error.message);
        let env = json!([{"name": "X", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]);
        let error = launch(json!({"name": "c", "image": "busybox", "env": env})).unwrap_err();
        assert_eq!(error.reason, "CreateContainerConfigError");
        let ports = json!([{"containerPort": 80, "hostPort": 8080}]);
        let error = launch(json!({"name": "c", "image": "busybox", "ports": ports})).unwrap_err();
        assert!(error.message.contains("hostPort 8080"), "{}", error.message);
    }
}
