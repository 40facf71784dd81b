//! `margay-lab kube`: real Kubernetes on a topology's nodes.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Subcommand;
use margay_clab::quote;
use margay_kubelab::spec::ProxyMode;
use margay_kubelab::{Cluster, Options};

use super::{Which, passed_on};

#[derive(Subcommand)]
pub(crate) enum KubeCmd {
    /// Deploy a topology and bring a cluster up on its nodes; a CNI plugin is for you to install
    Up {
        /// Topology file
        #[arg(short, long, value_name = "FILE.clab.yml")]
        topo: PathBuf,
        /// Mode of kube-proxy, in place of the topology's
        #[arg(long, value_name = "MODE")]
        kube_proxy: Option<ProxyMode>,
    },
    /// Take the cluster and its lab away
    Down {
        #[command(flatten)]
        which: Which,
    },
    /// Show the nodes and their services
    Status {
        #[command(flatten)]
        which: Which,
    },
    /// Run a command on a node
    Exec {
        #[command(flatten)]
        which: Which,
        /// Node of the cluster
        node: String,
        /// Command and its arguments
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// Switch a node off as a power cut does, or stop one of its services
    Stop {
        #[command(flatten)]
        which: Which,
        /// What to stop; services are those that `status` shows
        #[arg(value_name = "NODE[/SERVICE]")]
        what: String,
    },
    /// Switch a node on again, or start one of its services
    Start {
        #[command(flatten)]
        which: Which,
        /// What to start
        #[arg(value_name = "NODE[/SERVICE]")]
        what: String,
    },
    /// Kill a service with SIGKILL; it comes back by itself
    Crash {
        #[command(flatten)]
        which: Which,
        /// What to kill
        #[arg(value_name = "NODE/SERVICE")]
        what: String,
    },
    /// Give all nodes the images of an OCI or Docker archive
    Load {
        #[command(flatten)]
        which: Which,
        /// The archive
        archive: PathBuf,
    },
    /// Save what etcd holds in a file of the control plane's node
    Backup {
        #[command(flatten)]
        which: Which,
        /// Path on the node
        #[arg(default_value = "/var/lib/etcd.backup")]
        file: String,
    },
    /// Put etcd back to a backup
    Restore {
        #[command(flatten)]
        which: Which,
        /// Path on the node
        #[arg(default_value = "/var/lib/etcd.backup")]
        file: String,
    },
}

pub(crate) fn run(command: KubeCmd) -> Result<ExitCode> {
    match command {
        KubeCmd::Up { topo, kube_proxy } => up(&topo, kube_proxy)?,
        KubeCmd::Down { which } => {
            let name = which.name()?;
            match margay_kubelab::down(&name)? {
                true => println!("cluster of lab {name} taken down"),
                false => println!("lab {name} is not deployed; nothing to take down"),
            }
        }
        KubeCmd::Status { which } => status(&which.cluster()?)?,
        KubeCmd::Exec { which, node, command } => {
            let machine = which.cluster()?.machine(&node)?;
            let (program, args) = command
                .split_first()
                .context("no command is given; write it after --")?;
            let status = machine.spawn(machine.command(program).args(args))?.wait()?;
            return Ok(passed_on(status));
        }
        KubeCmd::Stop { which, what } => match what.split_once('/') {
            Some((node, unit)) => which.cluster()?.machine(node)?.stop_unit(unit)?,
            None => which.cluster()?.stop(&what)?,
        },
        KubeCmd::Start { which, what } => match what.split_once('/') {
            Some((node, unit)) => which.cluster()?.machine(node)?.start_unit(unit)?,
            None => which.cluster()?.start(&what)?,
        },
        KubeCmd::Crash { which, what } => {
            let (node, unit) = what.split_once('/').context("name a service: NODE/SERVICE")?;
            which.cluster()?.machine(node)?.crash_unit(unit)?;
        }
        KubeCmd::Load { which, archive } => which.cluster()?.load(&archive)?,
        KubeCmd::Backup { which, file } => which.cluster()?.backup(&file)?,
        KubeCmd::Restore { which, file } => which.cluster()?.restore(&file)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn up(topo: &Path, proxy: Option<ProxyMode>) -> Result<()> {
    let cluster = margay_kubelab::up(topo, Options { proxy }, &|line| println!("{line}"))?;
    println!("export KUBECONFIG={}", quote(&cluster.kubeconfig().to_string_lossy()));
    println!("export PATH={}:$PATH", quote(&cluster.assets().bin().to_string_lossy()));
    Ok(())
}

fn status(cluster: &Cluster) -> Result<()> {
    for machine in cluster.machines()? {
        let Some(_) = machine.process() else {
            println!("{:10} off", machine.name());
            continue;
        };
        for unit in machine.status()? {
            let state = match (unit.pid, unit.wanted) {
                (Some(pid), _) => format!("runs, pid {pid}"),
                (None, true) => "is to be started".to_owned(),
                (None, false) => "stopped".to_owned(),
            };
            let ended = unit.ended.map_or_else(String::new, |how| format!("; last it {how}"));
            println!(
                "{:10} {:24} {state}, started {} times{ended}",
                machine.name(),
                unit.name,
                unit.starts
            );
        }
    }
    Ok(())
}

impl Which {
    fn cluster(&self) -> Result<Cluster> {
        Cluster::open(&self.name()?)
    }
}
