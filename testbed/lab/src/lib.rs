//! Labs: containerlab topologies run in namespaces of this machine.
//!
//! A node is a process 1 in mount, network, UTS, IPC and PID namespaces of its own; when it dies, everything of the
//! node dies. The management network lives in a namespace of its own too, so that the host's links, addresses, routes
//! and rules stay as they are. `state.json` is written before each step, and processes are also found by their
//! arguments: a deploy that was killed leaves nothing that destroy, or the next deploy, does not clear.

mod deploy;
mod destroy;
pub mod enter;
mod error;
pub mod init;
mod inspect;
pub mod process;
mod rootfs;
mod start;
pub mod state;
mod wiring;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use margay_clab::Plan;
use nix::sched::CloneFlags;

pub use deploy::{Deployed, deploy};
pub use destroy::destroy;
pub use error::LabError;
pub use inspect::{inspect_json, inspect_table};
pub use state::{LabState, NodeState, Phase, lab_names, labs_dir};

use enter::{Kind, Target};

/// A deployed lab.
#[derive(Debug, Clone)]
pub struct Lab {
    /// Directory of its state.
    pub dir: PathBuf,
    /// What it consists of.
    pub state: LabState,
}

impl Lab {
    /// The deployed lab called `name`.
    pub fn open(name: &str) -> Result<Lab, LabError> {
        let labs = labs_dir();
        let dir = labs.join(name);
        match LabState::read(&dir)? {
            Some(state) => Ok(Lab { dir, state }),
            None => Err(LabError::NotDeployed {
                name: name.to_owned(),
                deployed: deployed(&labs),
            }),
        }
    }

    /// The lab that the topology file describes.
    pub fn of_file(file: &Path) -> Result<Lab, LabError> {
        Self::open(&Plan::lab_name(file)?)
    }

    /// The only deployed lab.
    pub fn sole() -> Result<Lab, LabError> {
        let labs = labs_dir();
        match lab_names(&labs).as_slice() {
            [name] => Self::open(name),
            _ => Err(LabError::Ambiguous(deployed(&labs))),
        }
    }

    /// The node called `name`, short or long.
    pub fn node(&self, name: &str) -> Result<&NodeState, LabError> {
        let found = self.state.nodes.iter().find(|n| n.name == name || n.long_name == name);
        found.ok_or_else(|| LabError::NoSuchNode {
            lab: self.state.name.clone(),
            node: name.to_owned(),
            nodes: self
                .state
                .nodes
                .iter()
                .map(|n| n.name.as_str())
                .collect::<Vec<_>>()
                .join(", "),
        })
    }

    /// A command with the environment that commands of `node` have: its own variables, a path that ends with this
    /// project's programs, and nothing else of the caller's.
    pub fn command(&self, node: &NodeState, program: &str) -> Command {
        let mut command = Command::new(program);
        let mut path =
            String::from("/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/opt/cni/bin:/usr/lib/frr");
        for dir in process::program_dirs().iter().filter_map(|d| d.canonicalize().ok()) {
            path.push(':');
            path.push_str(&dir.to_string_lossy());
        }
        command.env_clear().env("PATH", path).env("HOME", "/root");
        for name in [
            "TERM",
            "MARGAY_BIN_DIR",
            "MARGAY_LAB_DIR",
            "MARGAY_LOG",
            "RUST_LOG",
            "RUST_BACKTRACE",
        ] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command.envs(&node.env);
        command
    }

    /// Starts `command` inside `node`.
    pub fn spawn(&self, node: &NodeState, command: &mut Command) -> Result<Child, LabError> {
        if !nix::unistd::geteuid().is_root() {
            return Err(LabError::NotRoot);
        }
        let process = node
            .process
            .filter(|p| p.alive())
            .ok_or_else(|| LabError::NodeDead(node.name.clone()))?;
        let what = || format!("running {:?} in node {}", command_name(command), node.name);
        // A process that is ending loses its namespaces before it counts as dead.
        let target = Target::of(process.pid, &Kind::NODE).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => LabError::NodeDead(node.name.clone()),
            _ => LabError::io(what(), e),
        })?;
        let what = what();
        enter::spawn_in(&target, CloneFlags::empty(), command).map_err(|e| LabError::io(what, e))
    }

    /// Runs a command inside the node called `node` to its end and returns what it printed.
    pub fn exec(&self, node: &str, argv: &[&str]) -> Result<Output, LabError> {
        let node = self.node(node)?;
        let (program, args) = argv
            .split_first()
            .ok_or_else(|| LabError::step("exec", "no command is given; write it after --"))?;
        let mut command = self.command(node, program);
        command
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let child = self.spawn(node, &mut command)?;
        child
            .wait_with_output()
            .map_err(|e| LabError::io(format!("running {program} in node {}", node.name), e))
    }

    /// The process that holds the management network's namespace, where the lab's own servers listen.
    pub fn mgmt_process(&self) -> Result<process::ProcessId, LabError> {
        let process = self.state.mgmt_process.filter(|p| p.alive());
        process.ok_or_else(|| LabError::NodeDead("of the management network".into()))
    }

    /// Starts `command` beside the management network, where it ends with the lab.
    pub fn spawn_in_mgmt(&self, command: &mut Command) -> Result<Child, LabError> {
        let process = self.mgmt_process()?;
        Target::of(process.pid, &Kind::NODE)
            .and_then(|target| enter::spawn_in(&target, CloneFlags::empty(), command))
            .map_err(|e| LabError::io("entering the management network", e))
    }

    /// Runs `work` on a thread inside the network namespace of `node`.
    pub fn in_node_network<T: Send>(
        &self,
        node: &NodeState,
        work: impl FnOnce() -> std::io::Result<T> + Send,
    ) -> Result<T, LabError> {
        let process = node
            .process
            .filter(|p| p.alive())
            .ok_or_else(|| LabError::NodeDead(node.name.clone()))?;
        Target::of(process.pid, &[Kind::Net])
            .and_then(|target| enter::run_in(&target, CloneFlags::empty(), work))
            .map_err(|e| LabError::io(format!("entering node {}", node.name), e))
    }

    /// Runs `work` on a thread inside the management network's namespace: sockets made there listen in the lab.
    pub fn in_mgmt<T: Send>(&self, work: impl FnOnce() -> std::io::Result<T> + Send) -> Result<T, LabError> {
        let process = self.mgmt_process()?;
        Target::of(process.pid, &[Kind::Net])
            .and_then(|target| enter::run_in(&target, CloneFlags::empty(), work))
            .map_err(|e| LabError::io("entering the management network", e))
    }
}

fn command_name(command: &Command) -> String {
    command.get_program().to_string_lossy().into_owned()
}

fn deployed(labs: &Path) -> String {
    match lab_names(labs) {
        names if names.is_empty() => "none".to_owned(),
        names => names.join(", "),
    }
}
