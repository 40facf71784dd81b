//! The lab's own control plane: the embedded API server and the scheduler, in one process of the host.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::{API_PORT, Cluster, kubeconfig, scheduler};
use margay_apiserver::{Config, Server};
use margay_lab::Lab;
use margay_lab::process::{find_by_args, find_program};
use margay_lab::state::{LabState, replace_file};

/// Hidden subcommand: `control-plane <lab directory>`.
pub const SUBCOMMAND: &str = "control-plane";

/// Starts the control plane unless it runs, and returns once it serves.
pub(super) fn up(lab: &Lab) -> Result<Cluster> {
    let running = find_by_args(&[SUBCOMMAND, &lab.dir.to_string_lossy()]);
    if let Some(cluster) = Cluster::read(&lab.dir).filter(|c| !c.external && !running.is_empty()) {
        return Ok(cluster);
    }
    start(lab, SUBCOMMAND, &[])?;
    Cluster::read(&lab.dir).context("the control plane wrote no cluster.json")
}

/// Starts `margay-lab <subcommand> <lab directory>` on the host and returns once it says `ready`.
pub(super) fn start(lab: &Lab, subcommand: &str, more: &[&str]) -> Result<()> {
    fs::create_dir_all(lab.dir.join("log"))?;
    let path = lab.dir.join("log").join(format!("{subcommand}.log"));
    let log = fs::OpenOptions::new().create(true).append(true).open(&path)?;
    let mut command = Command::new(find_program("margay-lab").map_err(anyhow::Error::msg)?);
    command.arg(subcommand).arg(&lab.dir).args(more).current_dir("/");
    // A group of its own: the terminal's Ctrl-C is for who sits there.
    command
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log);
    let mut child = command.spawn().with_context(|| format!("starting {subcommand}"))?;
    let stdout = child.stdout.take();
    let mut line = String::new();
    if let Some(stdout) = stdout {
        BufReader::new(stdout).read_line(&mut line)?;
    }
    std::thread::spawn(move || child.wait());
    if line.trim_end() == "ready" {
        return Ok(());
    }
    let told = fs::read_to_string(&path).unwrap_or_default();
    bail!(
        "{subcommand} did not start: {}; its log: {}",
        told.lines().last().unwrap_or_default(),
        path.display()
    )
}

/// Serves the lab in `dir` for ever: the body of the hidden subcommand.
///
/// # Errors
/// When it cannot start.
pub fn run(dir: &Path) -> Result<()> {
    let state = LabState::read(dir)?.context("there is no lab")?;
    let lab = Lab {
        dir: dir.to_owned(),
        state,
    };
    let port = Cluster::read(dir).filter(|c| !c.external).map_or(0, |c| c.port);
    let host = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).with_context(|| format!("port {port} of the host"))?;
    let gateway = lab.state.mgmt.ipv4_gw;
    let mgmt = lab
        .in_mgmt(|| TcpListener::bind((gateway, API_PORT)))
        .context("the management network")?;
    let api = dir.join("api");
    fs::create_dir_all(&api)?;
    fs::set_permissions(&api, fs::Permissions::from_mode(0o700))?;
    let port = host.local_addr()?.port();
    let mut config = Config::new(vec![host, mgmt], token(&api)?);
    config.state_file = Some(api.join("state"));
    config.tls_dir = Some(api.join("tls"));
    let server = Server::start(config)?;
    let cluster = Cluster {
        kubeconfig: dir.join("kubeconfig"),
        node_kubeconfig: dir.join("node.kubeconfig"),
        external: false,
        port,
    };
    for (path, url) in [
        (&cluster.kubeconfig, format!("https://127.0.0.1:{port}")),
        (&cluster.node_kubeconfig, format!("https://{gateway}:{API_PORT}")),
    ] {
        secret(path, &kubeconfig::marked(&server.kubeconfig(&url), &lab.state.name))?;
    }
    cluster.write(dir)?;
    println!("ready");
    scheduler::run(&cluster.kubeconfig)
}

/// Replaces a file that only root may read.
pub(super) fn secret(path: &Path, text: &str) -> Result<()> {
    replace_file(path, text.as_bytes()).with_context(|| format!("writing {}", path.display()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(())
}

/// The lab's token, made on first use.
fn token(api: &Path) -> Result<String> {
    let path = api.join("token");
    if let Ok(token) = fs::read_to_string(&path) {
        return Ok(token.trim().to_owned());
    }
    let mut bytes = [0; 24];
    fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    let token: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&path)?;
    std::io::Write::write_all(&mut file, token.as_bytes())?;
    Ok(token)
}
