//! `margay-bgpd`: a BGP speaker with a configuration file.
//!
//! SIGHUP reads the file again without touching sessions that stay the same; a faulty file changes nothing. SIGTERM and
//! SIGINT tell peers good-bye and remove the routes. Killed in any other way, the next start finds the routes and
//! restarts gracefully (RFC 4724).

mod control;

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use margay_bgp::config::file::File;
use margay_bgp::config::{Config, PeerConfig};
use margay_bgp::fib::Sources;
use margay_bgp::fib::kernel::KernelFib;
use margay_bgp::speaker::{Shutdown, Speaker};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing::{error, info};
use tracing_subscriber::EnvFilter;

/// A BGP speaker with a configuration file.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// The configuration file (YAML).
    #[arg(long)]
    config: PathBuf,
    /// Only say whether the configuration is sound.
    #[arg(long)]
    check: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let file = match File::read(&arguments.config) {
        Ok(file) => file,
        Err(fault) => return refuse(&arguments.config, &fault),
    };
    for note in notes(&file.bgp) {
        eprintln!("{}: note: {note}", arguments.config.display());
    }
    if arguments.check {
        let (peers, networks) = (file.bgp.peers.len(), file.bgp.networks.len());
        println!(
            "{}: sound: AS {}, {peers} peer(s), {networks} network(s)",
            arguments.config.display(),
            file.bgp.local_as
        );
        return ExitCode::SUCCESS;
    }
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    match run(&arguments.config, file) {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            eprintln!("margay-bgpd: {fault:#}");
            ExitCode::FAILURE
        }
    }
}

/// What is sound, and yet most likely not what was meant.
fn notes(config: &Config) -> Vec<String> {
    let ebgp = config.peers.iter().filter(|peer| peer.remote_as != config.local_as);
    let without = |peer: &PeerConfig| {
        let missing = [(&peer.import, "import"), (&peer.export, "export")];
        missing
            .map(|(filter, field)| filter.is_none().then_some(field))
            .into_iter()
            .flatten()
            .collect::<Vec<_>>()
    };
    ebgp.map(|peer| (peer.address, without(peer)))
        .filter(|(_, missing)| !missing.is_empty())
        .map(|(address, missing)| {
            format!(
                "peer {address} has no {} filter: no route passes that way over eBGP (RFC 8212)",
                missing.join(" and no ")
            )
        })
        .collect()
}

fn refuse(path: &Path, fault: &dyn std::fmt::Display) -> ExitCode {
    for line in fault.to_string().lines() {
        eprintln!("{}: {line}", path.display());
    }
    ExitCode::FAILURE
}

#[tokio::main(flavor = "current_thread")]
async fn run(path: &Path, file: File) -> anyhow::Result<()> {
    let mut hangup = signal(SignalKind::hangup())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let netlink = margay_netlink::Handle::new().context("cannot talk to the kernel about routes")?;
    let (sources, asked) = watch::channel(file.bgp.sources);
    let fib = KernelFib::new(netlink, file.kernel).sources(asked);
    let speaker = Speaker::start(file.bgp.clone(), fib).await?;
    let control = match &file.control {
        Some(path) => Some(control::serve(path, speaker.clone())?),
        None => None,
    };
    info!(asn = file.bgp.local_as, peers = file.bgp.peers.len(), "running");
    loop {
        tokio::select! {
            _ = hangup.recv() => match reload(path, &file, &speaker, &sources).await {
                Ok(()) => info!("configuration taken"),
                Err(fault) => error!("configuration refused, the old one stays in force: {fault:#}"),
            },
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
    }
    drop(control);
    speaker.shutdown(Shutdown::Cease).await;
    Ok(())
}

async fn reload(
    path: &Path,
    running: &File,
    speaker: &margay_bgp::speaker::Handle,
    sources: &watch::Sender<Sources>,
) -> anyhow::Result<()> {
    let file = File::read(path).with_context(|| path.display().to_string())?;
    if (file.kernel, &file.control) != (running.kernel, &running.control) {
        anyhow::bail!("{}: kernel and control only change with a restart", path.display());
    }
    let asked = file.bgp.sources;
    speaker.apply(file.bgp).await?;
    sources.send_replace(asked);
    Ok(())
}
