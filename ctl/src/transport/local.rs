//! HTTP over the agent's Unix socket.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use margay_api::control::{ApiError, NodeStatus};
use serde_json::Value;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::{Answer, STATUS};

/// The agent of this machine.
#[derive(Debug)]
pub(crate) struct Local {
    socket: PathBuf,
    /// How long it may take for all answers together.
    patience: Duration,
}

impl Local {
    pub(super) fn new(socket: PathBuf, patience: Duration) -> Self {
        Self { socket, patience }
    }

    pub(super) async fn fetch(&self, paths: &[&str]) -> Answer<Vec<Value>> {
        let mut node = "local".to_owned();
        let asked = timeout(self.patience, self.ask(paths, &mut node)).await;
        let result = asked.unwrap_or_else(|_| {
            let seconds = self.patience.as_secs();
            Err(format!(
                "the agent at {} did not answer within {seconds} s",
                self.socket.display()
            ))
        });
        Answer { node, result }
    }

    async fn ask(&self, paths: &[&str], node: &mut String) -> Result<Vec<Value>, String> {
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|error| self.explain(&error))?;
        let broken = |error: hyper::Error| format!("the agent at {} broke off: {error}", self.socket.display());
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        let connection = tokio::spawn(connection);
        let status = get(&mut sender, STATUS).await?;
        if let Some(name) = named(&status) {
            *node = name;
        }
        let mut answers = Vec::with_capacity(paths.len());
        for path in paths {
            answers.push(if *path == STATUS {
                status.clone()
            } else {
                get(&mut sender, path).await?
            });
        }
        connection.abort();
        Ok(answers)
    }

    /// Why connecting failed, and what to do.
    fn explain(&self, error: &io::Error) -> String {
        let socket = self.socket.display();
        match error.kind() {
            io::ErrorKind::NotFound => format!("no agent: {socket} does not exist; is margay-node running here?"),
            io::ErrorKind::ConnectionRefused => {
                format!("no agent: nobody listens on {socket}; margay-node has ended without removing it")
            }
            io::ErrorKind::PermissionDenied => format!("{socket}: permission denied; only root may ask the agent"),
            _ => format!("{socket}: {error}"),
        }
    }
}

async fn get(sender: &mut SendRequest<Empty<Bytes>>, path: &str) -> Result<Value, String> {
    let broken = |error: hyper::Error| format!("the agent broke off at GET {path}: {error}");
    let request = Request::get(path)
        .header("host", "localhost")
        .body(Empty::new())
        .map_err(|error| format!("GET {path}: {error}"))?;
    sender.ready().await.map_err(broken)?;
    let response = sender.send_request(request).await.map_err(broken)?;
    let status = response.status();
    let body = response.into_body().collect().await.map_err(broken)?.to_bytes();
    if !status.is_success() {
        let message = serde_json::from_slice::<ApiError>(&body)
            .map(|error| error.message)
            .unwrap_or_default();
        return Err(format!(
            "the agent refused GET {path}: {status}{}{message}",
            if message.is_empty() { "" } else { ": " }
        ));
    }
    serde_json::from_slice(&body).map_err(|error| format!("the agent's answer to GET {path} is not JSON: {error}"))
}

fn named(status: &Value) -> Option<String> {
    let NodeStatus { node, .. } = serde_json::from_value(status.clone()).ok()?;
    (!node.is_empty()).then_some(node)
}
