//! `margay-lab`: containerlab topologies, and clusters on them, in namespaces of this machine.

use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitCode, ExitStatus};

use anyhow::Context;
use clap::{Args, Parser, Subcommand, ValueEnum};
use margay_testbed::lab::{self, Lab, Plan};

#[derive(Parser)]
#[command(name = "margay-lab", version, about = "Runs containerlab topologies in namespaces of this machine")]
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
    /// Run a command in a node
    Exec {
        #[command(flatten)]
        which: Which,
        /// Node of the lab
        node: String,
        /// Command and its arguments
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    #[command(name = "node-init", hide = true)]
    NodeInit { dir: PathBuf, node: String },
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
            println!("lab {} deployed in {:.1} s", deployed.lab.state.name, deployed.elapsed.as_secs_f64());
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
                Output::Json => println!("{:#}", lab::inspect_json(&labs)),
            }
        }
        Cmd::Exec { which, node, command } => return exec(&which.lab()?, &node, &command),
        Cmd::NodeInit { .. } => lab::init::run()?,
    }
    Ok(ExitCode::SUCCESS)
}

fn exec(lab: &Lab, node: &str, words: &[String]) -> anyhow::Result<ExitCode> {
    let node = lab.node(node)?;
    let (program, args) = words.split_first().context("no command is given; write it after --")?;
    let status = lab.spawn(node, lab.command(node, program).args(args))?.wait()?;
    Ok(passed_on(status))
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
        Ok(lab::lab_names(&lab::labs_dir()).iter().map(|name| Lab::open(name)).collect::<Result<_, _>>()?)
    }
}
