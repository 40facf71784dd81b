//! The services of a machine, kept running.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::client::UnitStatus;
use super::{PATH, Unit};

/// How long a service that ended waits before it is started again.
const PAUSE: Duration = Duration::from_secs(1);
/// How long a service may take to end when it is asked to.
const PATIENCE: Duration = Duration::from_secs(15);

/// The services of this machine.
#[derive(Debug)]
pub(super) struct Supervisor {
    services: Mutex<BTreeMap<String, Service>>,
    /// Told whenever something in `services` changes.
    changed: Condvar,
}

#[derive(Debug)]
struct Service {
    unit: Unit,
    /// Whether it shall run.
    wanted: bool,
    pid: Option<Pid>,
    /// How often it was started.
    starts: u32,
    /// When it may be started next.
    not_before: Instant,
    /// How it ended last.
    ended: Option<String>,
}

impl Supervisor {
    pub(super) fn new(units: Vec<Unit>) -> Supervisor {
        let service = |unit: Unit| Service {
            unit,
            wanted: true,
            pid: None,
            starts: 0,
            not_before: Instant::now(),
            ended: None,
        };
        Supervisor {
            services: Mutex::new(units.into_iter().map(|u| (u.name.clone(), service(u))).collect()),
            changed: Condvar::new(),
        }
    }

    /// Starts what shall run and does not, for ever.
    pub(super) fn keep_running(&self) {
        let mut services = self.lock();
        loop {
            let now = Instant::now();
            let mut next = Duration::from_secs(3600);
            for service in services.values_mut().filter(|s| s.wanted && s.pid.is_none()) {
                let wait = service.not_before.saturating_duration_since(now);
                if !wait.is_zero() {
                    next = next.min(wait);
                } else if service.unit.after.as_ref().is_some_and(|path| !path.exists()) {
                    next = next.min(Duration::from_millis(20));
                } else {
                    service.start();
                }
            }
            let waited = self.changed.wait_timeout(services, next);
            services = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Collects what has ended, services and orphans alike.
    pub(super) fn reap(&self) {
        let mut services = self.lock();
        loop {
            let (pid, how) = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => (pid, format!("exited with {code}")),
                Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, format!("ended by {signal}")),
                Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => break,
                _ => continue,
            };
            for service in services.values_mut().filter(|s| s.pid == Some(pid)) {
                service.pid = None;
                service.ended = Some(how.clone());
                service.not_before = Instant::now() + PAUSE;
            }
        }
        self.changed.notify_all();
    }

    /// Lets a service run again; returns once it does.
    pub(super) fn start(&self, name: &str) -> Result<(), String> {
        let mut services = self.lock();
        let service = services.get_mut(name).ok_or_else(|| unknown(name))?;
        service.wanted = true;
        service.not_before = Instant::now();
        self.changed.notify_all();
        let service = |services: &MutexGuard<'_, BTreeMap<String, Service>>| services.get(name).map(|s| s.pid);
        let deadline = Instant::now() + PATIENCE;
        while service(&services).flatten().is_none() {
            services = self.wait(services, deadline).ok_or("it does not start")?;
        }
        Ok(())
    }

    /// Ends a service, and keeps it so; returns once it is gone.
    pub(super) fn stop(&self, name: &str) -> Result<(), String> {
        let mut services = self.lock();
        services.get_mut(name).ok_or_else(|| unknown(name))?.wanted = false;
        for signal in [Signal::SIGTERM, Signal::SIGKILL] {
            let deadline = Instant::now() + PATIENCE;
            loop {
                let Some(pid) = services.get(name).and_then(|s| s.pid) else {
                    return Ok(());
                };
                // It may end between two looks.
                let _ = kill(pid, signal);
                match self.wait(services, deadline) {
                    Some(again) => services = again,
                    None => break,
                }
            }
            services = self.lock();
        }
        Err("it does not die".to_owned())
    }

    /// Kills a service as a crash would; it comes back by itself.
    pub(super) fn crash(&self, name: &str) -> Result<(), String> {
        let services = self.lock();
        let service = services.get(name).ok_or_else(|| unknown(name))?;
        let pid = service.pid.ok_or("it does not run")?;
        kill(pid, Signal::SIGKILL).map_err(|e| e.to_string())
    }

    pub(super) fn status(&self) -> Vec<UnitStatus> {
        let status = |service: &Service| UnitStatus {
            name: service.unit.name.clone(),
            wanted: service.wanted,
            pid: service.pid.map(Pid::as_raw),
            starts: service.starts,
            ended: service.ended.clone(),
        };
        self.lock().values().map(status).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Service>> {
        self.services.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a change; `None` once the deadline has passed.
    fn wait<'a>(
        &self,
        services: MutexGuard<'a, BTreeMap<String, Service>>,
        deadline: Instant,
    ) -> Option<MutexGuard<'a, BTreeMap<String, Service>>> {
        let left = deadline.checked_duration_since(Instant::now())?;
        let waited = self.changed.wait_timeout(services, left);
        Some(waited.unwrap_or_else(PoisonError::into_inner).0)
    }
}

impl Service {
    fn start(&mut self) {
        self.starts += 1;
        match spawn(&self.unit) {
            Ok(pid) => self.pid = Some(pid),
            Err(error) => {
                self.ended = Some(format!("cannot be started: {error}"));
                self.not_before = Instant::now() + PAUSE;
            }
        }
    }
}

/// Starts a service. The supervisor collects it by its pid: the standard library's handle has no say.
fn spawn(unit: &Unit) -> io::Result<Pid> {
    let (program, args) = unit
        .argv
        .split_first()
        .ok_or_else(|| io::Error::other("it has no program"))?;
    let log = log(&unit.name)?;
    let child = Command::new(find(program))
        .args(args)
        .env_clear()
        .env("PATH", PATH)
        .env("HOME", "/root")
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .process_group(0)
        .spawn()?;
    Ok(Pid::from_raw(i32::try_from(child.id()).map_err(io::Error::other)?))
}

fn log(name: &str) -> io::Result<File> {
    fs::create_dir_all("/var/log")?;
    let path = Path::new("/var/log").join(format!("{name}.log"));
    OpenOptions::new().create(true).append(true).open(path)
}

/// A program on the machine's path, which is not this process's own.
fn find(program: &str) -> std::path::PathBuf {
    let found = PATH.split(':').map(|dir| Path::new(dir).join(program));
    found
        .into_iter()
        .find(|path| path.is_file())
        .unwrap_or_else(|| program.into())
}

fn unknown(name: &str) -> String {
    format!("there is no service {name} here")
}
