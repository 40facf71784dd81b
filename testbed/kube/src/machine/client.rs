//! What is asked of a machine's first process: one line of JSON each way on its socket.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::SOCKET;

/// A question.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Request {
    /// How the services are.
    Status,
    /// Let a service run.
    Start(String),
    /// End a service and keep it so.
    Stop(String),
    /// Kill a service; it comes back.
    Crash(String),
}

/// The answer.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Answer {
    pub(super) error: Option<String>,
    pub(super) units: Vec<UnitStatus>,
}

/// How a service is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitStatus {
    /// Its name.
    pub name: String,
    /// Whether it shall run.
    pub wanted: bool,
    /// Its process in the machine, while it runs.
    pub pid: Option<i32>,
    /// How often it was started since the machine was.
    pub starts: u32,
    /// How it ended last.
    pub ended: Option<String>,
}

/// Asks the machine whose first process is `pid` on the host.
pub(super) fn ask(pid: i32, request: &Request) -> Result<Vec<UnitStatus>> {
    let socket = Path::new("/proc").join(pid.to_string()).join(format!("root{SOCKET}"));
    let mut stream = UnixStream::connect(&socket).context("the machine does not answer")?;
    writeln!(stream, "{}", serde_json::to_string(request)?)?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    let answer: Answer = serde_json::from_str(&line).context("the machine's answer")?;
    match answer.error {
        Some(error) => bail!("{error}"),
        None => Ok(answer.units),
    }
}
