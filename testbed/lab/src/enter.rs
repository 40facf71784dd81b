//! Entering namespaces. Switches happen on a thread of their own, which ends with the switch.

use std::fs::File;
use std::io;
use std::process::{Child, Command};

use nix::sched::{CloneFlags, setns, unshare};

/// Kinds of namespace, by their names under /proc/PID/ns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Interfaces, routes, sockets.
    Net,
    /// Host name.
    Uts,
    /// System V IPC and POSIX message queues.
    Ipc,
    /// Process numbers.
    Pid,
    /// Control groups.
    Cgroup,
    /// Mounts.
    Mount,
}

impl Kind {
    /// Everything that makes a node. The mount namespace comes last: after it paths mean something else.
    pub const NODE: [Kind; 5] = [Kind::Net, Kind::Uts, Kind::Ipc, Kind::Pid, Kind::Mount];

    fn file(self) -> &'static str {
        match self {
            Kind::Net => "net",
            Kind::Uts => "uts",
            Kind::Ipc => "ipc",
            Kind::Pid => "pid",
            Kind::Cgroup => "cgroup",
            Kind::Mount => "mnt",
        }
    }
}

/// Open handles of the namespaces to enter, in order.
#[derive(Debug, Default)]
pub struct Target(Vec<File>);

impl Target {
    /// The namespaces of process `pid`.
    pub fn of(pid: i32, kinds: &[Kind]) -> io::Result<Target> {
        kinds
            .iter()
            .map(|k| File::open(format!("/proc/{pid}/ns/{}", k.file())))
            .collect::<Result<_, _>>()
            .map(Target)
    }

    /// Puts the namespace at `path` (a network namespace's file) in front.
    pub fn with_path(mut self, path: &std::path::Path) -> io::Result<Target> {
        self.0.insert(0, File::open(path)?);
        Ok(self)
    }
}

/// Runs `work` inside `target`, on a thread of its own; then with the namespaces in `fresh` new.
pub fn run_in<T: Send>(
    target: &Target,
    fresh: CloneFlags,
    work: impl FnOnce() -> io::Result<T> + Send,
) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            // A mount namespace can only be entered by a thread that shares its directories with no other.
            unshare(CloneFlags::CLONE_FS)?;
            for file in &target.0 {
                setns(file, CloneFlags::empty())?;
            }
            unshare(fresh)?;
            work()
        });
        thread
            .join()
            .map_err(|_| io::Error::other("the thread that switched namespaces panicked"))?
    })
}

/// Starts `command` inside `target`, in new namespaces `fresh` as well. With a PID namespace in `fresh` the command is
/// its first process.
pub fn spawn_in(target: &Target, fresh: CloneFlags, command: &mut Command) -> io::Result<Child> {
    run_in(target, fresh, || command.spawn())
}
