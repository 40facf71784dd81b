//! `margay-lab`: containerlab topologies, and clusters on them, in namespaces of this machine.

mod kube;

use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitCode, ExitStatus};

use anyhow::Context;
use clap::{Args, Parser, Subcommand, ValueEnum};
use margay_clab::{Plan, quote};
use margay_cluster::{self as cluster, Cluster, UpOptions, kubelet};
use margay_lab::{self as lab, Lab};

#[derive(Parser)]
#[command(
    name = "margay-lab",
    version,
    about = "Runs containerlab topologies in namespaces of this machine"
)]
struct Cli {
    #[command(subcommand)]
    command: Cmd,
}

#[derive(Subcommand)]
enum Cmd {
    /// Deploy the lab that a topology file describes
    Deploy {
        /// Topology file
        #[arg(short, long, value_name = "FILE.clab.yml")]
        topo: PathBuf,
        /// Destroy a deployed lab of that name first
        #[arg(long)]
        reconfigure: bool,
    },
    /// Destroy a lab: its processes, namespaces, links and files
    Destroy {
        #[command(flatten)]
        which: Which,
    },
    /// Show the nodes of one lab, or of all
    Inspect {
        #[command(flatten)]
        which: Which,
        /// Output format
        #[arg(short, long, value_enum, default_value = "table")]
        output: Output,
    },
    /// Run a command in a node, or in a pod's container
    Exec {
        #[command(flatten)]
        which: Which,
        /// Node of the lab
        #[arg(required_unless_present = "pod", conflicts_with = "pod")]
        node: Option<String>,
        /// Pod of the lab's cluster
        #[arg(long, value_name = "NAMESPACE/NAME")]
        pod: Option<String>,
        /// Container of the pod; the first one that runs by default
        #[arg(short, long, requires = "pod")]
        container: Option<String>,
        /// Command and its arguments
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// Bring a cluster up on the lab's nodes, or end it
    #[command(subcommand)]
    Cluster(ClusterCmd),
    /// Kill a node's agent, or start it again
    #[command(subcommand)]
    Agent(AgentCmd),
    /// Real Kubernetes on a topology's nodes
    #[command(subcommand)]
    Kube(kube::KubeCmd),
    #[command(name = margay_kubelab::machine::POWER, hide = true)]
    MachinePower {
        machine: PathBuf,
        groups: PathBuf,
        name: String,
    },
    #[command(name = margay_kubelab::machine::INIT, hide = true)]
    MachineInit { machine: PathBuf },
    #[command(name = margay_kubelab::relay::SUBCOMMAND, hide = true)]
    KubeRelay { dir: PathBuf, network: PathBuf, port: u16 },
    #[command(name = "node-init", hide = true)]
    NodeInit { dir: PathBuf, node: String },
    #[command(name = "container-init", hide = true)]
    ContainerInit { spec: PathBuf },
    #[command(name = "pod-exec", hide = true)]
    PodExec {
        record: PathBuf,
        #[arg(short, long)]
        container: Option<String>,
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    #[command(name = cluster::CONTROL_PLANE, hide = true)]
    ControlPlane { dir: PathBuf },
    #[command(name = cluster::RELAY, hide = true)]
    ApiRelay { dir: PathBuf, host: String, port: u16 },
    #[command(name = cluster::KUBELET, hide = true)]
    Kubelet {
        dir: PathBuf,
        node: String,
        #[arg(long)]
        kubeconfig: PathBuf,
        #[arg(long)]
        ip: Vec<String>,
        #[arg(long)]
        label: Vec<String>,
        #[arg(long)]
        annotation: Vec<String>,
    },
}

#[derive(Subcommand)]
enum ClusterCmd {
    /// Start the API server, and an agent and a pod runner on each node labelled margay.io/kubernetes-node
    Up {
        #[command(flatten)]
        which: Which,
        /// Use this API server instead of the lab's own ($KUBECONFIG by default, unless that is a lab's)
        #[arg(long)]
        kubeconfig: Option<PathBuf>,
        /// The repository's deploy directory
        #[arg(long)]
        deploy: Option<PathBuf>,
    },
    /// End the cluster's processes, pods included; the lab stays
    Down {
        #[command(flatten)]
        which: Which,
    },
}

#[derive(Subcommand)]
enum AgentCmd {
    /// Kill the agent of a node with SIGKILL
    Kill {
        #[command(flatten)]
        which: Which,
        /// Node of the lab
        node: String,
    },
    /// Start the agent of a node, and wait until it is ready
    Start {
        #[command(flatten)]
        which: Which,
        /// Node of the lab
        node: String,
    },
}

/// Which lab is meant; the only deployed one when neither is given.
#[derive(Args)]
struct Which {
    /// Topology file of the lab
    #[arg(short, long, value_name = "FILE.clab.yml", conflicts_with = "name")]
    topo: Option<PathBuf>,
    /// Name of the lab
    #[arg(long)]
    name: Option<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Output {
    Table,
    Json,
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("margay-lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Cmd) -> anyhow::Result<ExitCode> {
    match command {
        Cmd::Deploy { topo, reconfigure } => {
            let deployed = lab::deploy(&topo, reconfigure)?;
            for warning in &deployed.warnings {
                eprintln!("warning: {warning}");
            }
            println!("{}", lab::inspect_table(std::slice::from_ref(&deployed.lab)));
            println!(
                "lab {} deployed in {:.1} s",
                deployed.lab.state.name,
                deployed.elapsed.as_secs_f64()
            );
        }
        Cmd::Destroy { which } => {
            let name = which.name()?;
            match lab::destroy(&name)? {
                true => println!("lab {name} destroyed"),
                false => println!("lab {name} is not deployed; nothing to destroy"),
            }
        }
        Cmd::Inspect { which, output } => {
            let labs = which.labs()?;
            match output {
                Output::Table => println!("{}", lab::inspect_table(&labs)),
                Output::Json => println!("{:#}", inspect_json(&labs)),
            }
        }
        Cmd::Exec {
            which,
            node: Some(node),
            command,
            ..
        } => return exec(&which.lab()?, &node, &command),
        Cmd::Exec {
            which,
            pod,
            container,
            command,
            ..
        } => {
            return exec_in_pod(&which.lab()?, &pod.unwrap_or_default(), container.as_deref(), &command);
        }
        Cmd::Cluster(ClusterCmd::Up {
            which,
            kubeconfig,
            deploy,
        }) => {
            let begun = std::time::Instant::now();
            let options = UpOptions {
                kubeconfig: kubeconfig.or_else(cluster::given_kubeconfig),
                deploy,
            };
            let cluster = cluster::up(&which.lab()?, &options)?;
            println!("cluster up in {:.1} s", begun.elapsed().as_secs_f64());
            println!("export KUBECONFIG={}", quote(&cluster.kubeconfig.to_string_lossy()));
        }
        Cmd::Cluster(ClusterCmd::Down { which }) => cluster::down(&which.lab()?)?,
        Cmd::Agent(AgentCmd::Kill { which, node }) => {
            if !cluster::kill_agent(&which.lab()?, &node)? {
                println!("no agent runs on {node}");
            }
        }
        Cmd::Agent(AgentCmd::Start { which, node }) => {
            let lab = which.lab()?;
            cluster::start_agent(&lab, &node)?;
            cluster::await_agent(&lab, lab.node(&node)?)?;
        }
        Cmd::Kube(command) => return kube::run(command),
        Cmd::MachinePower { machine, groups, name } => margay_kubelab::machine::run_power(&machine, &groups, &name)?,
        Cmd::MachineInit { machine } => margay_kubelab::machine::run_init(&machine)?,
        Cmd::KubeRelay { network, port, .. } => logged(|| margay_kubelab::relay::run(&network, port))?,
        Cmd::NodeInit { .. } => lab::init::run()?,
        Cmd::ContainerInit { spec } => return Ok(ExitCode::from(kubelet::shim::run(&spec)?)),
        Cmd::PodExec {
            record,
            container,
            command,
        } => {
            return Ok(ExitCode::from(kubelet::enter(&record, container.as_deref(), &command)?));
        }
        Cmd::ControlPlane { dir } => logged(|| cluster::run_control_plane(&dir))?,
        Cmd::ApiRelay { dir, host, port } => logged(|| cluster::run_relay(&dir, &host, port))?,
        Cmd::Kubelet {
            dir,
            node,
            kubeconfig,
            ip,
            label,
            annotation,
        } => {
            logged(|| cluster::run_kubelet(&dir, &node, &kubeconfig, ip, &label, &annotation))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn exec(lab: &Lab, node: &str, words: &[String]) -> anyhow::Result<ExitCode> {
    let node = lab.node(node)?;
    let (program, args) = words.split_first().context("no command is given; write it after --")?;
    let status = lab.spawn(node, lab.command(node, program).args(args))?.wait()?;
    Ok(passed_on(status))
}

/// Enters the pod's node, then from there the container: the runner's records count in the node's pids.
fn exec_in_pod(lab: &Lab, pod: &str, container: Option<&str>, words: &[String]) -> anyhow::Result<ExitCode> {
    let (node, record) = cluster::find_pod(lab, pod)?;
    let program = lab::process::find_program("margay-lab").map_err(anyhow::Error::msg)?;
    let mut command = lab.command(node, &program.to_string_lossy());
    command.arg("pod-exec").arg(record);
    if let Some(container) = container {
        command.args(["-c", container]);
    }
    let status = lab.spawn(node, command.arg("--").args(words))?.wait()?;
    Ok(passed_on(status))
}

/// Labs as containerlab prints them; of a single one, also its cluster's kubeconfig, and whether that was given.
fn inspect_json(labs: &[Lab]) -> serde_json::Value {
    let mut json = lab::inspect_json(labs);
    if let [lab] = labs
        && let Some(cluster) = Cluster::read(&lab.dir)
    {
        json["kubeconfig"] = serde_json::json!(cluster.kubeconfig);
        json["external"] = serde_json::json!(cluster.external);
    }
    json
}

fn logged(work: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        .with_writer(std::io::stderr)
        .init();
    work()
}

/// The exit code a shell would give for `status`.
fn passed_on(status: ExitStatus) -> ExitCode {
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX))
}

impl Which {
    fn name(&self) -> anyhow::Result<String> {
        match (&self.name, &self.topo) {
            (Some(name), _) => Ok(name.clone()),
            (None, Some(file)) => Ok(Plan::lab_name(file)?),
            (None, None) => Ok(Lab::sole()?.state.name),
        }
    }

    fn lab(&self) -> anyhow::Result<Lab> {
        Ok(Lab::open(&self.name()?)?)
    }

    /// The named lab, or all.
    fn labs(&self) -> anyhow::Result<Vec<Lab>> {
        if self.name.is_some() || self.topo.is_some() {
            return Ok(vec![self.lab()?]);
        }
        Ok(lab::lab_names(&lab::labs_dir())
            .iter()
            .map(|name| Lab::open(name))
            .collect::<Result<_, _>>()?)
    }
}
