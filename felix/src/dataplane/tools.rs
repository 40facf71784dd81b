//! Runs `iptables` and `ipset`.

use std::io;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::Backend;
use super::snapshot::Snapshot;
use crate::render::Family;

/// How long a tool waits for others to let go of the tables, in seconds.
const LOCK_WAIT: &str = "10";

/// How long a tool may run, that wait included.
const LIMIT: Duration = Duration::from_secs(60);

/// A tool that could not be run, or that refused.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ToolError {
    /// It could not be run.
    #[error("cannot run {tool}: {reason}; install the packages iptables and ipset, and run as root")]
    Run {
        /// Its name.
        tool: String,
        /// What the system said.
        reason: String,
    },
    /// It hung.
    #[error(
        "{tool} had not ended after {limit:?} and was killed; see what else holds the tables, and the kernel's log"
    )]
    Hung {
        /// Its name.
        tool: String,
        /// How long it was given.
        limit: Duration,
    },
    /// It refused.
    #[error("{tool} failed: {message}")]
    Refused {
        /// Its name.
        tool: String,
        /// What it printed, with the line that it names.
        message: String,
    },
}

/// The tools of one back end.
#[derive(Debug)]
pub(super) struct Tools {
    backend: Backend,
    families: Vec<Family>,
}

impl Tools {
    pub(super) fn new(backend: Backend) -> Self {
        let v6 = Path::new("/proc/net/if_inet6").exists();
        let families = Family::ALL
            .into_iter()
            .filter(|family| v6 || *family == Family::V4)
            .collect();
        Self { backend, families }
    }

    pub(super) fn backend(&self) -> Backend {
        self.backend
    }

    /// The families that the kernel has.
    pub(super) fn families(&self) -> &[Family] {
        &self.families
    }

    pub(super) async fn snapshot(&self) -> Result<Snapshot, ToolError> {
        let mut snapshot = self.snapshot_tables().await?;
        snapshot.sets = self.snapshot_sets().await?.sets;
        Ok(snapshot)
    }

    pub(super) async fn snapshot_sets(&self) -> Result<Snapshot, ToolError> {
        let mut snapshot = Snapshot::default();
        snapshot.read_sets(&run("ipset", &["save"], "", |_| ()).await?);
        Ok(snapshot)
    }

    /// A family that the tool refuses to read keeps no other from being read.
    pub(super) async fn snapshot_tables(&self) -> Result<Snapshot, ToolError> {
        let mut snapshot = Snapshot::default();
        for &family in &self.families {
            match run(&self.tool(family, "save"), &[], "", |_| ()).await {
                Ok(saved) => snapshot.read_tables(family, &saved),
                Err(error @ ToolError::Refused { .. }) => _ = snapshot.unread.insert(family, error),
                Err(error) => return Err(error),
            }
        }
        Ok(snapshot)
    }

    /// One transaction; `started` hears the process's number.
    pub(super) async fn restore_table(
        &self,
        family: Family,
        text: &str,
        started: impl FnOnce(u32),
    ) -> Result<(), ToolError> {
        run(
            &self.tool(family, "restore"),
            &["--noflush", "-w", LOCK_WAIT],
            text,
            started,
        )
        .await
        .map(|_| ())
    }

    /// Sets and members that are there already, or are gone already, are no errors.
    pub(super) async fn restore_sets(&self, text: &str) -> Result<(), ToolError> {
        run("ipset", &["-exist", "restore"], text, |_| ()).await.map(|_| ())
    }

    fn tool(&self, family: Family, verb: &str) -> String {
        format!("{}-{verb}", tool_name(family, self.backend))
    }
}

/// `iptables-nft` and its like.
pub(super) fn tool_name(family: Family, backend: Backend) -> String {
    let family = match family {
        Family::V4 => "iptables",
        Family::V6 => "ip6tables",
    };
    format!("{family}-{backend}")
}

async fn run(tool: &str, arguments: &[&str], input: &str, started: impl FnOnce(u32)) -> Result<String, ToolError> {
    run_within(LIMIT, tool, arguments, input, started).await
}

async fn run_within(
    limit: Duration,
    tool: &str,
    arguments: &[&str],
    input: &str,
    started: impl FnOnce(u32),
) -> Result<String, ToolError> {
    let failed = |error: io::Error| ToolError::Run {
        tool: tool.to_owned(),
        reason: error.to_string(),
    };
    let mut command = Command::new(tool);
    command
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut child = command.spawn().map_err(failed)?;
    if let Some(process) = child.id() {
        started(process);
    }
    let mut stdin = child.stdin.take();
    let write = async {
        if let Some(stdin) = &mut stdin {
            // A tool that refuses stops reading; what it says then is what counts.
            let _ = stdin.write_all(input.as_bytes()).await;
        }
        drop(stdin.take());
    };
    let both = async { tokio::join!(write, child.wait_with_output()).1 };
    let hung = |_| ToolError::Hung {
        tool: tool.to_owned(),
        limit,
    };
    let output = tokio::time::timeout(limit, both).await.map_err(hung)?.map_err(failed)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    let message = format!("{}{}", stderr.trim(), named_line(&stderr, input).unwrap_or_default());
    Err(ToolError::Refused {
        tool: tool.to_owned(),
        message,
    })
}

/// The line of the input that the tool complains of, for people.
fn named_line(stderr: &str, input: &str) -> Option<String> {
    let (_, after) = stderr.split_once("line ").or_else(|| stderr.split_once("line: "))?;
    let digits: String = after.chars().take_while(char::is_ascii_digit).collect();
    let line = input.lines().nth(digits.parse::<usize>().ok()?.checked_sub(1)?)?;
    Some(format!(" ({line})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_line() {
        let stderr = "iptables-restore v1.8.9 (nf_tables): \nline 2: CHAIN_ADD failed\n";
        assert_eq!(named_line(stderr, "*filter\n-A x\n").as_deref(), Some(" (-A x)"));
        assert_eq!(named_line("no number", "x"), None);
    }

    #[test]
    fn a_tool_that_hangs_is_ended_and_named() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let error = runtime.block_on(run_within(Duration::from_millis(10), "sleep", &["1000"], "", |_| ()));
        assert!(
            error
                .unwrap_err()
                .to_string()
                .starts_with("sleep had not ended after 10ms and was killed; ")
        );
    }
}
