//! With an API server of the user's own: a relay that lets the lab's nodes reach it, since their network has no way out.

use std::net::TcpListener;
use std::path::Path;

use anyhow::{Context, Result};
use tokio::net::TcpStream;
use tracing::warn;

use crate::control_plane::{secret, start};
use crate::{API_PORT, Cluster, kubeconfig};
use margay_lab::Lab;
use margay_lab::process::find_by_args;
use margay_lab::state::LabState;

/// Hidden subcommand: `api-relay <lab directory> <host> <port>`.
pub const SUBCOMMAND: &str = "api-relay";

/// Starts the relay unless it runs, and writes the nodes' kubeconfig.
pub(super) fn up(lab: &Lab, given: &Path) -> Result<Cluster> {
    let given = given
        .canonicalize()
        .with_context(|| format!("the kubeconfig {}", given.display()))?;
    let config = kubeconfig::read(&given)?;
    let (host, port) = kubeconfig::server(&config)?;
    let url = format!("https://{}:{API_PORT}", lab.state.mgmt.ipv4_gw);
    let node_kubeconfig = lab.dir.join("node.kubeconfig");
    secret(
        &node_kubeconfig,
        &serde_json::to_string_pretty(&kubeconfig::redirected(&config, &given, &url)?)?,
    )?;
    let port_text = port.to_string();
    if find_by_args(&[SUBCOMMAND, &lab.dir.to_string_lossy(), &host, &port_text]).is_empty() {
        start(lab, SUBCOMMAND, &[&host, &port_text])?;
    }
    Ok(Cluster {
        kubeconfig: given,
        node_kubeconfig,
        external: true,
        port,
    })
}

/// Relays for ever: the body of the hidden subcommand.
///
/// # Errors
/// When it cannot listen.
pub fn run(dir: &Path, host: &str, port: u16) -> Result<()> {
    let state = LabState::read(dir)?.context("there is no lab")?;
    let lab = Lab {
        dir: dir.to_owned(),
        state,
    };
    let gateway = lab.state.mgmt.ipv4_gw;
    let listener = lab
        .in_mgmt(|| TcpListener::bind((gateway, API_PORT)))
        .context("the management network")?;
    listener.set_nonblocking(true)?;
    println!("ready");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        loop {
            let (mut inside, peer) = listener.accept().await?;
            let host = host.to_owned();
            tokio::spawn(async move {
                match TcpStream::connect((host.as_str(), port)).await {
                    Ok(mut outside) => {
                        // Either side may end the connection.
                        let _ = tokio::io::copy_bidirectional(&mut inside, &mut outside).await;
                    }
                    Err(error) => warn!(%peer, host, port, %error, "the API server cannot be reached"),
                }
            });
        }
    })
}
