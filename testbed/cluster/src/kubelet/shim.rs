//! Process 1 of a container: it makes the container's view of the machine, runs the container's command, and writes
//! down how that ended, so that it can be told even by a runner that was not there.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use nix::mount::{MsFlags, mount};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

/// Hidden subcommand: `container-init <spec file>`.
pub(crate) const SUBCOMMAND: &str = "container-init";

/// What a container's first process reads from its spec file.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ShimSpec {
    pub(crate) argv: Vec<String>,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) dir: Option<PathBuf>,
    /// Absent for pods that share the node's name.
    pub(crate) hostname: Option<String>,
    /// Bound over /etc/hosts.
    pub(crate) hosts: Option<PathBuf>,
    /// Where the end is written.
    pub(crate) exit_file: PathBuf,
}

/// Contents of the exit file.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Exit {
    pub(crate) code: i32,
    pub(crate) finished_at: String,
}

/// Runs as the first process of new PID, mount, UTS and IPC namespaces; returns the exit code to end with.
pub fn run(spec: &Path) -> anyhow::Result<u8> {
    if std::process::id() != 1 {
        bail!("container-init is started by the pod runner, as the first process of a container");
    }
    nix::unistd::setsid().context("starting a session")?;
    let text = fs::read(spec).with_context(|| format!("reading {}", spec.display()))?;
    let spec: ShimSpec = serde_json::from_slice(&text).with_context(|| format!("reading {}", spec.display()))?;
    // Opened before its directory is covered by the container's own /run.
    let mut exit_file = File::create(&spec.exit_file).context("opening the exit file")?;
    let code = match own_view(&spec).and_then(|()| run_command(&spec)) {
        Ok(code) => code,
        Err(e) => {
            eprintln!("{e:#}");
            // As a shell does for what it cannot run.
            127
        }
    };
    let exit = Exit {
        code,
        finished_at: super::checkpoint::now(),
    };
    exit_file
        .write_all(&serde_json::to_vec(&exit)?)
        .context("writing the exit file")?;
    Ok(u8::try_from(code).unwrap_or(u8::MAX))
}

fn own_view(spec: &ShimSpec) -> anyhow::Result<()> {
    let bind = |source: &Path, target: &Path| {
        mount(Some(source), target, None::<&str>, MsFlags::MS_BIND, None::<&str>)
            .with_context(|| format!("binding {}", target.display()))
    };
    mount(
        None::<&str>,
        "/",
        None::<&str>,
        MsFlags::MS_REC | MsFlags::MS_PRIVATE,
        None::<&str>,
    )
    .context("making mounts private")?;
    if let Some(hosts) = &spec.hosts {
        bind(hosts, Path::new("/etc/hosts"))?;
    }
    let program = spec
        .argv
        .first()
        .map(PathBuf::from)
        .and_then(|p| p.parent().map(Path::to_owned));
    let program = program.filter(|p| p.is_absolute() && p.is_dir());
    let program_fd = program
        .as_ref()
        .map(File::open)
        .transpose()
        .context("opening the program's directory")?;
    for (kind, target, options) in [
        ("proc", "/proc", ""),
        ("sysfs", "/sys", ""),
        ("tmpfs", "/tmp", "mode=1777"),
        ("tmpfs", "/run", "mode=755"),
        ("tmpfs", "/var/lib/margay", "mode=700"),
    ] {
        // The node's own network shows in the /sys that is there.
        let needed = target != "/sys" || spec.hostname.is_some();
        if needed && Path::new(target).exists() {
            mount(Some(kind), target, Some(kind), MsFlags::empty(), Some(options))
                .with_context(|| format!("mounting {kind} on {target}"))?;
        }
    }
    if let (Some(dir), Some(fd)) = (program, program_fd)
        && !dir.is_dir()
    {
        fs::create_dir_all(&dir)?;
        bind(Path::new(&format!("/proc/self/fd/{}", fd.as_raw_fd())), &dir)?;
    }
    if let Some(name) = &spec.hostname {
        fs::write("/proc/sys/kernel/hostname", name).context("setting the host name")?;
    }
    Ok(())
}

fn run_command(spec: &ShimSpec) -> anyhow::Result<i32> {
    let mut signals = SigSet::empty();
    for signal in [
        Signal::SIGCHLD,
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGHUP,
        Signal::SIGUSR1,
        Signal::SIGUSR2,
    ] {
        signals.add(signal);
    }
    signals.thread_block().context("blocking signals")?;
    let (program, args) = spec.argv.split_first().context("the container has no command")?;
    let mut command = Command::new(program);
    command.args(args).env_clear().envs(&spec.env);
    command.current_dir(spec.dir.as_deref().unwrap_or(Path::new("/")));
    // A command starts with no signal blocked; what arrives meanwhile is looked for right after.
    signals.thread_unblock().context("unblocking signals")?;
    let child = command.spawn();
    signals.thread_block().context("blocking signals")?;
    let child = child.with_context(|| format!("running {program}"))?;
    let child = Pid::from_raw(i32::try_from(child.id())?);
    if let Some(code) = reap(child) {
        return Ok(code);
    }
    loop {
        match signals.wait().context("waiting for a signal")? {
            Signal::SIGCHLD => {
                if let Some(code) = reap(child) {
                    return Ok(code);
                }
            }
            other => {
                // It may have ended just now; then SIGCHLD follows.
                let _ = kill(child, other);
            }
        }
    }
}

/// Collects ended processes; the exit code of `main` when it is among them.
fn reap(main: Pid) -> Option<i32> {
    loop {
        let (pid, code) = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) => (pid, code),
            Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, 128 + signal as i32),
            Ok(WaitStatus::StillAlive) | Err(_) => return None,
            Ok(_) => continue,
        };
        if pid == main {
            return Some(code);
        }
    }
}

/// Runs `words` in the namespaces of the container whose first process is `pid`; for `margay-lab exec --pod`.
pub(crate) fn exec(pid: i32, env: &BTreeMap<String, String>, words: &[String]) -> anyhow::Result<u8> {
    use margay_lab::enter::{Kind, Target, spawn_in};
    let (program, args) = words.split_first().context("no command is given; write it after --")?;
    let target = Target::of(pid, &Kind::NODE).context("entering the container")?;
    let mut command = Command::new(program);
    command.args(args).env_clear().envs(env);
    if let Some(term) = std::env::var_os("TERM") {
        command.env("TERM", term);
    }
    let mut child = spawn_in(&target, nix::sched::CloneFlags::empty(), &mut command)
        .with_context(|| format!("running {program}"))?;
    let status = child.wait()?;
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    Ok(u8::try_from(code).unwrap_or(u8::MAX))
}
