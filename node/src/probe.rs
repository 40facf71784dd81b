//! `margay-node health`: asks the running agent on its control socket, wherever FelixConfiguration has it listen for probes,
//! and whether it does at all.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use axum::body::{Body, to_bytes};
use http::Request;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use margay_api::control::{ApiError, Health, Probe};
use tokio::net::UnixStream;

/// Which probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Which {
    /// Whether it works at all: a restart would cure it otherwise.
    Live,
    /// Whether pods on this node can be served.
    Ready,
}

/// Asks the agent that listens on `socket`.
///
/// # Errors
/// When no agent answers in `patience`.
pub async fn ask(socket: &Path, which: Which, patience: Duration) -> anyhow::Result<Probe> {
    let health = match tokio::time::timeout(patience, health(socket)).await {
        Ok(health) => health?,
        Err(_) => bail!("the agent at {} did not answer within {patience:?}", socket.display()),
    };
    Ok(match which {
        Which::Live => health.live,
        Which::Ready => health.ready,
    })
}

async fn health(socket: &Path) -> anyhow::Result<Health> {
    let stream = UnixStream::connect(socket).await;
    let stream = stream.with_context(|| format!("no agent listens on {}", socket.display()))?;
    let (mut agent, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = Request::get("/v1/health").header("host", "agent").body(Body::empty())?;
    let answer = agent.send_request(request).await?;
    let status = answer.status();
    let body = to_bytes(Body::new(answer.into_body()), 1 << 20).await?;
    if !status.is_success() {
        let told: ApiError = serde_json::from_slice(&body).unwrap_or_default();
        bail!("the agent at {} answers {status}: {}", socket.display(), told.message);
    }
    serde_json::from_slice(&body).context("the agent's answer is not understood")
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn an_agent_that_is_not_there_is_said_to_be_so() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("control.sock");
        let error = ask(&socket, Which::Live, PATIENCE).await.unwrap_err();
        assert!(error.to_string().starts_with("no agent listens on"), "{error:#}");
    }

    #[tokio::test]
    async fn an_agent_that_hangs_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("control.sock");
        let _listener = crate::cni_server::bind(&socket).unwrap();
        let error = ask(&socket, Which::Live, Duration::from_millis(100)).await.unwrap_err();
        assert!(error.to_string().contains("did not answer within 100ms"), "{error:#}");
    }
}
