//! Starting nodes: one first process each, in namespaces of its own.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sched::CloneFlags;

use crate::enter::{Target, spawn_in};
use crate::error::LabError;
use crate::init::{InitSpec, RootSpec, SUBCOMMAND, Sysctl};
use crate::process::{ProcessId, find_program, program_dirs};
use margay_clab::{Bind, NodeKind, NodePlan, Plan};

/// Name of the process that holds the management network; no node can be called so.
pub(crate) const MGMT: &str = "@mgmt";

/// Settings of every node that containerlab's users expect of a router or rely on for a quick start. The topology's own
/// come after them.
const SYSCTLS: &[(&str, &str)] = &[
    ("net.ipv4.ip_forward", "1"),
    ("net.ipv4.conf.all.rp_filter", "0"),
    ("net.ipv4.conf.default.rp_filter", "0"),
    ("net.ipv4.fib_multipath_hash_policy", "1"),
    ("net.ipv6.conf.all.disable_ipv6", "0"),
    ("net.ipv6.conf.default.disable_ipv6", "0"),
    ("net.ipv6.conf.all.forwarding", "1"),
    ("net.ipv6.conf.default.forwarding", "1"),
    ("net.ipv6.conf.all.accept_dad", "0"),
    ("net.ipv6.conf.default.accept_dad", "0"),
    ("net.ipv6.fib_multipath_hash_policy", "1"),
];

/// Starts the process that holds the management network's namespace.
pub(crate) fn mgmt(lab_dir: &Path) -> Result<ProcessId, LabError> {
    let sysctls = BTreeMap::from([
        (
            "net.ipv6.conf.all.accept_dad".into(),
            Sysctl {
                value: "0".into(),
                required: false,
            },
        ),
        (
            "net.ipv6.conf.default.accept_dad".into(),
            Sysctl {
                value: "0".into(),
                required: false,
            },
        ),
    ]);
    start(
        lab_dir,
        MGMT,
        &InitSpec {
            hostname: "mgmt".into(),
            root: None,
            sysctls,
        },
    )
}

/// Starts the first process of `node` and returns once the node's root is ready.
pub(crate) fn node(plan: &Plan, node: &NodePlan, lab_dir: &Path) -> Result<ProcessId, LabError> {
    let mut sysctls: BTreeMap<String, Sysctl> = SYSCTLS
        .iter()
        .map(|(key, value)| {
            (
                (*key).to_owned(),
                Sysctl {
                    value: (*value).to_owned(),
                    required: false,
                },
            )
        })
        .collect();
    for (key, value) in &node.sysctls {
        sysctls.insert(
            key.clone(),
            Sysctl {
                value: value.clone(),
                required: true,
            },
        );
    }
    let node_dir = node_dir(lab_dir, &node.name);
    let root = (node.kind == NodeKind::Linux).then(|| RootSpec {
        scratch: node_dir.join(".root"),
        shared: shared_dirs(lab_dir),
        binds: node.binds.clone(),
        files: node.files.clone(),
        hosts: hosts(plan),
    });
    let prepare = || {
        fs::create_dir_all(node_dir.join(".root"))?;
        // A bind of the node's own directory may name what does not exist yet.
        node.binds
            .iter()
            .filter(|b| b.source.starts_with(lab_dir) && !b.source.exists())
            .try_for_each(make_source)
    };
    prepare().map_err(|e| LabError::io(format!("preparing node {}", node.name), e))?;
    start(
        lab_dir,
        &node.name,
        &InitSpec {
            hostname: node.hostname.clone(),
            root,
            sysctls,
        },
    )
}

/// The directory of a node on the host.
pub(crate) fn node_dir(lab_dir: &Path, node: &str) -> PathBuf {
    lab_dir.join("nodes").join(node)
}

fn make_source(bind: &Bind) -> std::io::Result<()> {
    fs::create_dir_all(&bind.source)
}

/// What nodes share with the host: the lab's directory and this project's programs.
fn shared_dirs(lab_dir: &Path) -> Vec<PathBuf> {
    let mut dirs: Vec<PathBuf> = program_dirs()
        .into_iter()
        .filter(|d| d.is_dir())
        .filter_map(|d| d.canonicalize().ok())
        .collect();
    dirs.push(lab_dir.to_owned());
    dirs.sort();
    dirs.dedup();
    dirs
}

fn hosts(plan: &Plan) -> String {
    let mut text = String::from(
        "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\nff02::1 ip6-allnodes\nff02::2 ip6-allrouters\n",
    );
    for node in &plan.nodes {
        if let Some((v4, v6)) = node.mgmt {
            let names = if node.long_name == node.name {
                node.name.clone()
            } else {
                format!("{} {}", node.name, node.long_name)
            };
            text.push_str(&format!("{v4} {names}\n{v6} {names}\n"));
        }
    }
    text
}

fn start(lab_dir: &Path, name: &str, spec: &InitSpec) -> Result<ProcessId, LabError> {
    let what = format!("starting node {name}");
    let failed = |e| LabError::io(what.clone(), e);
    let program = find_program("margay-lab").map_err(|e| LabError::step(what.clone(), e))?;
    fs::create_dir_all(lab_dir.join("log")).map_err(failed)?;
    let log = File::create(lab_dir.join("log").join(format!("{name}.init.log"))).map_err(failed)?;
    let mut command = Command::new(program);
    command.arg(SUBCOMMAND).arg(lab_dir).arg(name).current_dir("/");
    command
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(log);
    let fresh = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWPID;
    let mut child = spawn_in(&Target::default(), fresh, &mut command).map_err(failed)?;
    let pid = i32::try_from(child.id()).map_err(|e| LabError::step(what.clone(), e.to_string()))?;
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    let process = ProcessId::of(pid);
    // Collects the node's end while this program lives; afterwards the system does.
    std::thread::spawn(move || child.wait());
    let text = serde_json::to_vec(spec).map_err(|e| LabError::step(what.clone(), e.to_string()))?;
    let mut answer = String::new();
    if let (Some(mut stdin), Some(stdout)) = (stdin, stdout) {
        stdin.write_all(&text).map_err(failed)?;
        drop(stdin);
        BufReader::new(stdout).read_line(&mut answer).map_err(failed)?;
    }
    match (answer.trim_end(), process) {
        ("ready", Some(process)) => Ok(process),
        ("", _) | ("ready", None) => Err(LabError::step(what, "its first process ended; see its log")),
        (why, _) => Err(LabError::step(what, why)),
    }
}
