//! A relay that lets programs of the host reach the API server, which listens in the lab alone.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use margay_lab::enter::{Kind, Target, spawn_in};
use margay_lab::process::{ProcessId, find_by_args, find_program};
use margay_lab::{Lab, NodeState};
use nix::sched::{CloneFlags, setns};
use tokio::net::TcpStream;
use tracing::warn;

/// Arguments of the hidden subcommand: `kube-relay <lab directory> <network namespace> <port on the host>`.
pub const SUBCOMMAND: &str = "kube-relay";

/// Where the API server listens, as its own node sees it.
const API: ([u8; 4], u16) = ([127, 0, 0, 1], 6443);

/// Starts the relay to the API server on `node` and returns its port on the host's loopback; `port` again where one is
/// given.
///
/// # Errors
/// When it does not start.
pub(crate) fn start(lab: &Lab, node: &NodeState, port: Option<u16>, log: &Path) -> Result<u16> {
    let process = node.process.filter(|p| p.alive()).context("the lab's node is dead")?;
    let mut command = Command::new(find_program("margay-lab").map_err(anyhow::Error::msg)?);
    command
        .arg(SUBCOMMAND)
        .arg(&lab.dir)
        .arg(format!("/proc/{}/ns/net", process.pid))
        .arg(port.unwrap_or(0).to_string())
        .current_dir("/")
        // A group of its own: the terminal's Ctrl-C is for who sits there.
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(File::create(log)?);
    // Of the node it has the life, and the host's everything else: it ends with the lab.
    let target = Target::of(process.pid, &[Kind::Pid])?;
    let mut child = spawn_in(&target, CloneFlags::empty(), &mut command).context("starting the relay")?;
    let mut line = String::new();
    BufReader::new(child.stdout.take().context("no answer")?).read_line(&mut line)?;
    std::thread::spawn(move || child.wait());
    match line.trim().parse() {
        Ok(port) => Ok(port),
        Err(_) => bail!(
            "the relay to the API server did not start: {}",
            std::fs::read_to_string(log).unwrap_or_default().trim()
        ),
    }
}

/// The relays of the lab in `dir`.
pub(crate) fn running(dir: &Path) -> Vec<ProcessId> {
    find_by_args(&[SUBCOMMAND, &dir.to_string_lossy()])
}

/// Relays for ever: the body of the hidden subcommand.
///
/// # Errors
/// When it cannot listen or enter the node's network.
pub fn run(network: &Path, port: u16) -> Result<()> {
    let listener =
        TcpListener::bind((Ipv4Addr::LOCALHOST, port)).with_context(|| format!("port {port} of the host"))?;
    listener.set_nonblocking(true)?;
    println!("{}", listener.local_addr()?.port());
    // What is dialled from here on is dialled in the node; the listener stays where it was made.
    setns(&File::open(network)?, CloneFlags::CLONE_NEWNET).context("entering the node's network")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        loop {
            let (mut outside, peer) = listener.accept().await?;
            tokio::spawn(async move {
                match TcpStream::connect(SocketAddr::from(API)).await {
                    Ok(mut inside) => {
                        // Either side may end the connection.
                        let _ = tokio::io::copy_bidirectional(&mut outside, &mut inside).await;
                    }
                    Err(error) => warn!(%peer, %error, "the API server cannot be reached"),
                }
            });
        }
    })
}
