//! `make demo`: brings up a routed, policed pod network on this machine, proves it, and leaves it up.

use std::{
    env,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};
use margay_clab::Plan;
use margay_cluster::given_kubeconfig;
use margay_demo::{host::HostState, own, stages::Story};
use margay_lab::labs_dir;
use margay_testkit::shell::Shell;

#[derive(Parser)]
#[command(
    version,
    about = "A routed, policed pod network on one machine, and the proof that it works"
)]
struct Arguments {
    /// The containerlab file to deploy.
    #[arg(long, global = true, default_value = "testbed/topologies/two-racks.clab.yml")]
    topology: PathBuf,
    /// The folder that holds the example manifests.
    #[arg(long, global = true, default_value = "deploy/examples")]
    examples: PathBuf,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Bring the lab up, tell the story, leave the lab up.
    Run {
        /// Before the last matrix run COMMAND in NODE, given as NODE:COMMAND; shows that the demo notices a fault.
        #[arg(long, value_name = "NODE:COMMAND")]
        tamper: Option<String>,
    },
    /// Probe once on the lab that is up and compare with an expectation, such as 3-allowed.txt.
    Check {
        /// A file in EXAMPLES/payments/expected.
        expectation: String,
    },
    /// Take the lab away and compare the host with how it was before.
    Down,
}

fn main() -> ExitCode {
    match act(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nmargay-demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn act(arguments: Arguments) -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("this makes network namespaces and firewall rules, which needs root; run it as root");
    }
    let bin = env::current_exe()?
        .parent()
        .context("no directory of programs")?
        .to_owned();
    let topology = arguments.topology.canonicalize().with_context(|| {
        format!(
            "cannot find {}; run this in the repository or give --topology",
            arguments.topology.display()
        )
    })?;
    let shell = Shell {
        bin,
        topology,
        kubeconfig: given_kubeconfig(),
        labs_dir: None,
    };
    let before = state_file();
    match arguments.verb {
        Verb::Run { tamper } => {
            let tamper = tamper.map(|text| split_tamper(&text)).transpose()?;
            // Replacing the lab would leave behind what it made there.
            if let Some((there, true)) = cluster_of(&shell)
                && shell.kubeconfig.as_ref().and_then(|path| path.canonicalize().ok()) != Some(there.clone())
            {
                bail!(
                    "the lab that is up uses the API server of {}; take it away first (`make demo-down`), or set KUBECONFIG to \
                     that file",
                    there.display()
                );
            }
            // A second run finds the first one's lab: only the host without it is worth comparing with, as late as can be.
            if HostState::kept(&before)?.is_none() || !is_there(&shell)? {
                look(&shell)?.keep(&before)?;
            }
            Story::new(shell, arguments.examples, tamper).tell()
        }
        Verb::Check { expectation } => {
            let mut shell = shell;
            let (kubeconfig, _) = cluster_of(&shell).context("the lab's cluster is not up: run `make demo` first")?;
            shell.kubeconfig = Some(kubeconfig);
            Story::new(shell, arguments.examples, None).check(&expectation)
        }
        Verb::Down => down(&shell, &before),
    }
}

fn down(shell: &Shell, before: &Path) -> Result<()> {
    let mut given = shell.clone();
    // Of a cluster that is up its own record counts, not what is exported now.
    if let Some((kubeconfig, external)) = cluster_of(shell) {
        given.kubeconfig = external.then_some(kubeconfig);
    }
    shell.lab(&["destroy"], &[])?;
    let cleared = match &given.kubeconfig {
        Some(path) => own::clear(&given).with_context(|| {
            format!(
                "the lab is gone, but not all that it made on the API server of {}; repeat this once it answers",
                path.display()
            )
        }),
        None => Ok(()),
    };
    let compared = compare(shell, before);
    cleared.and(compared)
}

fn compare(shell: &Shell, before: &Path) -> Result<()> {
    let Some(state) = HostState::kept(before)? else {
        println!("the lab is gone (it was not brought up by margay-demo, so there is nothing to compare with)");
        return Ok(());
    };
    let differences = state.differences(&look(shell)?, &labs_dir());
    std::fs::remove_file(before).with_context(|| format!("cannot remove {}", before.display()))?;
    if !differences.of_the_lab.is_empty() {
        bail!(
            "the lab is gone, but left on the host:\n  {}",
            differences.of_the_lab.join("\n  ")
        );
    }
    if !differences.of_others.is_empty() {
        println!(
            "the lab is gone, and nothing of it is left; others changed the host meanwhile:\n  {}",
            differences.of_others.join("\n  ")
        );
        return Ok(());
    }
    println!("the lab is gone; the host is as before: {}", state.summary());
    Ok(())
}

fn look(shell: &Shell) -> Result<HostState> {
    HostState::look(&shell.bin, &labs_dir())
}

/// Beside the labs' own state, which goes with each lab.
fn state_file() -> PathBuf {
    labs_dir().with_extension("before.json")
}

/// Whether anything of the lab is there, whole or not.
fn is_there(shell: &Shell) -> Result<bool> {
    Ok(labs_dir().join(Plan::lab_name(&shell.topology)?).is_dir())
}

/// The kubeconfig of the lab's cluster, and whether that was given; nothing when none is up.
fn cluster_of(shell: &Shell) -> Option<(PathBuf, bool)> {
    let lab: serde_json::Value = serde_json::from_str(&shell.lab(&["inspect"], &["-o", "json"]).ok()?).ok()?;
    Some((lab["kubeconfig"].as_str()?.into(), lab["external"] == true))
}

fn split_tamper(text: &str) -> Result<(String, String)> {
    let (node, command) = text.split_once(':').context("--tamper takes NODE:COMMAND")?;
    Ok((node.to_owned(), command.to_owned()))
}
