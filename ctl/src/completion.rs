//! `margayctl completion`.

use clap::{Command, CommandFactory};
use clap_complete::shells;

use crate::cli::{Cli, Shell};
use crate::output::Output;

/// A script for the shell to read.
pub(crate) fn completion(shell: Shell) -> anyhow::Result<Output> {
    let mut command = shown();
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    match shell {
        Shell::Bash => clap_complete::generate(shells::Bash, &mut command, name, &mut script),
        Shell::Zsh => clap_complete::generate(shells::Zsh, &mut command, name, &mut script),
        Shell::Fish => clap_complete::generate(shells::Fish, &mut command, name, &mut script),
    }
    Ok(Output {
        text: String::from_utf8(script)?,
        warnings: Vec::new(),
        complete: true,
    })
}

/// The command line without what is hidden: the generators would offer it.
fn shown() -> Command {
    let whole = Cli::command();
    let subcommands = whole.get_subcommands().filter(|command| !command.is_hide_set());
    Command::new("margayctl")
        .version(env!("CARGO_PKG_VERSION"))
        .args(whole.get_arguments())
        .subcommands(subcommands)
}
