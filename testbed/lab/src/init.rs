//! Process 1 of a node: it makes the node's root, says so, and reaps.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use serde::{Deserialize, Serialize};

use crate::rootfs;
use margay_clab::Bind;

/// Arguments of the hidden subcommand: `node-init <lab directory> <node>`. Destroy finds processes by them.
pub(crate) const SUBCOMMAND: &str = "node-init";

/// What a node's first process is told on its standard input.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct InitSpec {
    pub(crate) hostname: String,
    /// Absent for segments, which need no root of their own.
    pub(crate) root: Option<RootSpec>,
    /// Applied in order of their keys; a missing one is an error only when the user asked for it.
    pub(crate) sysctls: BTreeMap<String, Sysctl>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Sysctl {
    pub(crate) value: String,
    pub(crate) required: bool,
}

/// A node's file system.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct RootSpec {
    /// An existing directory of the host where the node's own tmpfs goes; only the node sees it.
    pub(crate) scratch: PathBuf,
    /// Directories that the node shares with the host as they are.
    pub(crate) shared: Vec<PathBuf>,
    pub(crate) binds: Vec<Bind>,
    /// Contents of files of the node's own, by their paths in it.
    pub(crate) files: BTreeMap<PathBuf, String>,
    /// Contents of /etc/hosts.
    pub(crate) hosts: String,
}

/// Runs as the first process of new mount, network, UTS, IPC and PID namespaces. Never returns while the node lives.
pub fn run() -> anyhow::Result<()> {
    if std::process::id() != 1 {
        bail!("node-init is started by deploy, as the first process of a node");
    }
    let mut text = String::new();
    std::io::stdin()
        .read_to_string(&mut text)
        .context("reading what to become")?;
    let mut out = std::io::stdout();
    let answer = match serde_json::from_str(&text)
        .context("reading what to become")
        .and_then(|spec| become_node(&spec))
    {
        Ok(()) => "ready".to_owned(),
        Err(e) => format!("{e:#}"),
    };
    // A deploy that was killed does not read: then nobody wants this node.
    writeln!(out, "{answer}")
        .and_then(|()| out.flush())
        .context("answering deploy")?;
    if answer != "ready" {
        bail!("{answer}");
    }
    reap()
}

fn become_node(spec: &InitSpec) -> anyhow::Result<()> {
    nix::unistd::setsid().context("starting a session")?;
    match &spec.root {
        Some(root) => rootfs::make(root, &spec.hostname)?,
        None => rootfs::private_proc()?,
    }
    std::fs::write("/proc/sys/kernel/hostname", &spec.hostname).context("setting the host name")?;
    for (key, sysctl) in &spec.sysctls {
        let path = Path::new("/proc/sys").join(key.replace('.', "/"));
        if let Err(e) = std::fs::write(&path, &sysctl.value)
            && sysctl.required
        {
            bail!("sysctl {key}={}: {e}; correct it in the topology", sysctl.value);
        }
    }
    Ok(())
}

/// Collects the children that nobody else waits for. The kernel ends a namespace's processes with its first.
fn reap() -> anyhow::Result<()> {
    let mut set = SigSet::empty();
    for signal in [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        set.add(signal);
    }
    set.thread_block().context("blocking signals")?;
    loop {
        while matches!(
            waitpid(None, Some(WaitPidFlag::WNOHANG)),
            Ok(WaitStatus::Exited(..) | WaitStatus::Signaled(..) | WaitStatus::Stopped(..) | WaitStatus::Continued(_))
        ) {}
        set.wait().context("waiting for a signal")?;
    }
}
