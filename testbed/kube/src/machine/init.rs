//! The first process of a machine.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use nix::sys::signal::{SigSet, Signal};

use super::client::{Answer, Request};
use super::supervisor::Supervisor;
use super::{MachineSpec, SOCKET, root};

/// Arguments of the hidden subcommand: `machine-init <machine file>`.
pub const SUBCOMMAND: &str = "machine-init";

/// Runs as the first process of a machine; never returns while the machine is on.
///
/// # Errors
/// When it cannot become one.
pub fn run(file: &Path) -> Result<()> {
    if std::process::id() != 1 {
        bail!("{SUBCOMMAND} is started by `margay-lab kube`, as the first process of a machine");
    }
    let text = fs::read(file).with_context(|| format!("reading {}", file.display()))?;
    let spec: MachineSpec = serde_json::from_slice(&text).context("what the machine is made of")?;
    // Every thread inherits it: the one below waits for them.
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        signals.add(signal);
    }
    signals.thread_block().context("blocking signals")?;
    let supervisor = Arc::new(Supervisor::new(spec.units.clone()));
    let begun = become_machine(&spec, &supervisor);
    let answer = begun
        .as_ref()
        .map_or_else(|e| format!("{e:#}"), |()| "ready".to_owned());
    let mut out = std::io::stdout();
    // Whoever started this may be gone; then nobody wants the machine.
    writeln!(out, "{}", answer.replace('\n', " ")).and_then(|()| out.flush())?;
    begun?;
    let keeper = Arc::clone(&supervisor);
    std::thread::spawn(move || keeper.keep_running());
    loop {
        supervisor.reap();
        signals.wait().context("waiting for a signal")?;
    }
}

fn become_machine(spec: &MachineSpec, supervisor: &Arc<Supervisor>) -> Result<()> {
    nix::unistd::setsid().context("starting a session")?;
    root::make(spec)?;
    let listener = UnixListener::bind(SOCKET).context("the machine's socket")?;
    let supervisor = Arc::clone(supervisor);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let supervisor = Arc::clone(&supervisor);
            // Who asks may hang up before the answer.
            std::thread::spawn(move || serve(&stream, &supervisor));
        }
    });
    Ok(())
}

fn serve(stream: &UnixStream, supervisor: &Supervisor) -> Result<()> {
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    let outcome = match serde_json::from_str(&line)? {
        Request::Status => Ok(()),
        Request::Start(name) => supervisor.start(&name).map_err(|e| format!("{name}: {e}")),
        Request::Stop(name) => supervisor.stop(&name).map_err(|e| format!("{name}: {e}")),
        Request::Crash(name) => supervisor.crash(&name).map_err(|e| format!("{name}: {e}")),
    };
    let answer = Answer {
        error: outcome.err(),
        units: supervisor.status(),
    };
    let mut stream = stream;
    writeln!(stream, "{}", serde_json::to_string(&answer)?)?;
    Ok(())
}
