//! `margayctl`: what a person types to look into Margay.

mod cli;
mod fleet;
mod manifests;
mod output;
mod policy;
mod transport;
mod view;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;

use cli::{Bgp, Cli, Command, Ipam, Policy};
use output::Output;
use transport::Transport;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli).and_then(|output| print(&output)) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> anyhow::Result<Output> {
    match &cli.command {
        Command::Policy(Policy::Eval { manifests, connections }) => policy::eval(manifests, connections, cli.output),
        Command::Raw { paths } => view::raw(&Transport::local(&cli.target), paths),
        Command::Status => view::status(&Transport::choose(&cli.target)?, cli.output),
        Command::Ipam(Ipam::Show) => view::ipam(&Transport::choose(&cli.target)?, cli.output),
        Command::Bgp(Bgp::Peers) => view::peers(&Transport::choose(&cli.target)?, cli.output),
        Command::Bgp(Bgp::Routes) => view::routes(&Transport::choose(&cli.target)?, cli.output),
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
