//! `margayctl`: what a person types to look into Margay.

mod api_server;
mod cli;
mod completion;
mod fleet;
mod known;
mod manifests;
mod output;
mod policy;
mod transport;
mod view;
mod watch;

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use jiff::Timestamp;

use cli::{Again, Bgp, Cli, Command, Ipam, Policy};
use fleet::Fleet;
use output::Output;
use transport::Transport;
use view::View;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> anyhow::Result<ExitCode> {
    // One provider for every TLS connection of this process; kube finds it there, and nobody else installs any.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")?;
    runtime.block_on(async {
        let output = match &cli.command {
            Command::Policy(Policy::Eval(eval)) => policy::eval(eval, &cli.target, cli.output).await?,
            Command::Completion { shell } => completion::completion(*shell)?,
            Command::Raw { paths } => transport::raw(&cli.target, paths).await?,
            Command::Status { all, check, again } => {
                let (all, check) = (*all, *check);
                return look(cli, View::Status { all, check }, *again).await;
            }
            Command::Ipam(Ipam::Show { again }) => return look(cli, View::Ipam, *again).await,
            Command::Bgp(Bgp::Peers { again }) => return look(cli, View::Peers, *again).await,
            Command::Bgp(Bgp::Routes { again }) => return look(cli, View::Routes, *again).await,
        };
        print(&output)
    })
}

/// Asks for what `view` needs and shows it, once or again and again.
async fn look(cli: &Cli, view: View, again: Again) -> anyhow::Result<ExitCode> {
    let transport = Transport::choose(&cli.target).await?;
    let ask = async || {
        let fleet = Fleet::ask(&transport, view.questions(), view.wants_known()).await?;
        Ok(view.show(&fleet, cli.output, Timestamp::now()))
    };
    match again.watch {
        None => print(&ask().await?),
        Some(seconds) => {
            watch::watch(Duration::from_secs(seconds), cli.output, ask).await?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn print(output: &Output) -> anyhow::Result<ExitCode> {
    for warning in &output.warnings {
        eprintln!("warning: {warning}");
    }
    let mut stdout = io::stdout().lock();
    match stdout.write_all(output.text.as_bytes()).and_then(|()| stdout.flush()) {
        // The reader has seen enough, as `head` has.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        result => result?,
    }
    Ok(if output.complete {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
