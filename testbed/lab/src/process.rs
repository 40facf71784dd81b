//! Processes named so that a recycled pid is never mistaken for one of ours.

use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

/// A process: its pid and when it started, which together no other process has had since boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// Pid in the PID namespace of the reader.
    pub pid: i32,
    /// Field 22 of /proc/PID/stat, clock ticks since boot.
    pub started: u64,
}

impl ProcessId {
    /// The process that has `pid` now, unless it is gone or a zombie.
    pub fn of(pid: i32) -> Option<ProcessId> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The command in parentheses may itself hold spaces and parentheses.
        let mut fields = stat[stat.rfind(')')? + 2..].split(' ');
        let state = fields.next()?;
        let started = fields.nth(18)?.parse().ok()?;
        (!matches!(state, "Z" | "X")).then_some(ProcessId { pid, started })
    }

    /// Whether it still runs.
    pub fn alive(self) -> bool {
        Self::of(self.pid) == Some(self)
    }

    /// Sends `signal` if it still runs.
    pub fn signal(self, signal: Signal) {
        if self.alive() {
            // It may end between the two calls; then there is nothing left to signal.
            let _ = kill(Pid::from_raw(self.pid), signal);
        }
    }
}

/// Every process that was given `args`, in a row.
pub fn find_by_args(args: &[&str]) -> Vec<ProcessId> {
    find(|words| {
        words
            .windows(args.len())
            .any(|row| row.iter().zip(args).all(|(word, arg)| *word == arg.as_bytes()))
    })
}

/// First arguments of the processes that serve a lab from outside of its nodes; the second is the lab's directory.
/// They end with the lab, whoever started them.
pub const HOST_SERVERS: &[&str] = &["control-plane", "api-relay"];

/// The processes outside of the nodes that serve the lab in `dir`.
pub fn host_servers(dir: &Path) -> Vec<ProcessId> {
    let dir = dir.to_string_lossy();
    HOST_SERVERS
        .iter()
        .flat_map(|server| find_by_args(&[server, &dir]))
        .collect()
}

/// Every process of the program called `name`, or of a script called so, that was given `args` first.
pub fn find_program_with_args(name: &str, args: &[&str]) -> Vec<ProcessId> {
    find(|words| {
        let at = words
            .iter()
            .take(2)
            .position(|w| w.rsplit(|b| *b == b'/').next() == Some(name.as_bytes()));
        let given = at.and_then(|at| words.get(at + 1..at + 1 + args.len()));
        given.is_some_and(|given| given.iter().zip(args).all(|(word, arg)| *word == arg.as_bytes()))
    })
}

fn find(wanted: impl Fn(&[&[u8]]) -> bool) -> Vec<ProcessId> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            wanted(&line.split(|b| *b == 0).collect::<Vec<_>>())
        })
        .filter_map(ProcessId::of)
        .collect()
}

/// Kills all of `processes` and returns once they are gone; the error names the ones that stay.
pub fn kill_and_wait(processes: &[ProcessId]) -> Result<(), String> {
    for process in processes {
        process.signal(Signal::SIGKILL);
    }
    let gone = wait_until(Duration::from_secs(60), || processes.iter().all(|p| !p.alive()));
    let stay: Vec<String> = processes
        .iter()
        .filter(|p| p.alive())
        .map(|p| p.pid.to_string())
        .collect();
    if gone {
        Ok(())
    } else {
        Err(format!("processes {} do not die", stay.join(", ")))
    }
}

/// Waits until `condition` holds; false when `limit` has passed first.
pub fn wait_until(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// The program of this name: in `$MARGAY_BIN_DIR`, else beside the running program, else its parent directory (tests
/// run one level below the binaries).
pub fn find_program(name: &str) -> Result<std::path::PathBuf, String> {
    let mut tried = Vec::new();
    for dir in program_dirs() {
        let path = dir.join(name);
        if path.is_file() {
            return Ok(path);
        }
        tried.push(path.display().to_string());
    }
    Err(format!(
        "{name} is not built (looked for {}); run `cargo build --bins`, or set MARGAY_BIN_DIR",
        tried.join(", ")
    ))
}

/// Where this project's programs are looked for, in order.
pub fn program_dirs() -> Vec<std::path::PathBuf> {
    let mut dirs = Vec::new();
    if let Some(dir) = std::env::var_os("MARGAY_BIN_DIR") {
        dirs.push(dir.into());
    }
    if let Ok(exe) = std::env::current_exe()
        && let Some(dir) = exe.parent()
    {
        dirs.push(dir.to_owned());
        dirs.extend(dir.parent().filter(|_| dir.ends_with("deps")).map(Path::to_owned));
    }
    dirs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_process_is_not_alive() {
        let mut child = std::process::Command::new("cat")
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let id = ProcessId::of(i32::try_from(child.id()).unwrap()).unwrap();
        assert!(id.alive());
        assert!(
            !ProcessId {
                started: id.started + 1,
                ..id
            }
            .alive()
        );
        id.signal(Signal::SIGKILL);
        assert!(
            wait_until(Duration::from_secs(5), || !id.alive()),
            "a zombie counts as dead"
        );
        child.wait().unwrap();
    }
}
