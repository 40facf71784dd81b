//! Machines: what a node of the cluster is beyond its cables.
//!
//! ```text
//!   lab node (margay-lab)        network namespace, links, routes of the topology: the cables and the network card
//!     └─ machine (this module)   mount, PID, UTS, IPC and cgroup namespaces in that network: what a power button ends
//!          └─ services           containerd, kubelet, kube-proxy; etcd and the control plane on one
//! ```
//!
//! A machine's first process supervises the services, as systemd does on a real one: what dies comes back, what is
//! stopped stays stopped. It listens on a socket of the machine's own for what [`Machine`] asks. When it is killed, the
//! kernel ends everything of the machine; its disk ([`NodePlace::disk`](crate::place::NodePlace::disk)) remains.

mod cgroups;
mod client;
mod init;
mod network;
mod power;
mod root;
mod supervisor;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use client::UnitStatus;
pub use init::{SUBCOMMAND as INIT, run as run_init};
pub(crate) use power::kill;
pub use power::{Machine, SUBCOMMAND as POWER, run as run_power};

/// A service of a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unit {
    /// Its name, and its log's.
    pub name: String,
    /// Program, looked for on the machine's path, and arguments.
    pub argv: Vec<String>,
    /// A file that must be there before it is started.
    pub after: Option<PathBuf>,
}

/// What a machine is made of; its first process reads it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MachineSpec {
    /// Host name.
    pub hostname: String,
    /// Contents of /etc/hosts.
    pub hosts: String,
    /// Folder of the host with the programs of Kubernetes.
    pub programs: PathBuf,
    /// Folder of the host that becomes the machine's disk.
    pub disk: PathBuf,
    /// Folder of the host where the root is made.
    pub scratch: PathBuf,
    /// Services, in the order they start.
    pub units: Vec<Unit>,
}

/// Where a machine has the programs of Kubernetes.
const PROGRAMS: &str = "/opt/kubernetes/bin";
/// The socket of a machine's first process, in the machine.
const SOCKET: &str = "/run/machine.sock";
/// Where programs are looked for in a machine.
const PATH: &str = "/opt/kubernetes/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
