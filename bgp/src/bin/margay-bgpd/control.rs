//! The control socket: one word a connection, one JSON document back.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use margay_bgp::speaker::Handle;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tracing::debug;

/// How long a client may take over its word.
const PATIENCE: Duration = Duration::from_secs(5);

/// A socket that is served until this is dropped.
#[derive(Debug)]
pub(crate) struct Control {
    path: PathBuf,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Control {
    fn drop(&mut self) {
        self.task.abort();
        // It may have been removed by hand; there is nothing to do about it on the way out.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Serves `peers`, `routes` and `status` to root.
pub(crate) fn serve(path: &Path, speaker: Handle) -> anyhow::Result<Control> {
    let name = || format!("control: cannot listen on {}", path.display());
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error).with_context(name),
        _ => {}
    }
    let listener = UnixListener::bind(path).with_context(name)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).with_context(name)?;
    let task = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let speaker = speaker.clone();
            tokio::spawn(async move {
                if let Err(error) = answer(stream, &speaker).await {
                    debug!(%error, "control client");
                }
            });
        }
    });
    Ok(Control {
        path: path.to_owned(),
        task,
    })
}

async fn answer(mut stream: UnixStream, speaker: &Handle) -> anyhow::Result<()> {
    let mut word = Vec::new();
    while !word.ends_with(b"\n") && word.len() < 64 {
        if tokio::time::timeout(PATIENCE, stream.read_buf(&mut word)).await?? == 0 {
            break;
        }
    }
    let answer = match String::from_utf8_lossy(&word).trim() {
        "peers" => serde_json::to_vec(&speaker.peers().await?)?,
        "routes" => serde_json::to_vec(&speaker.routes().await?)?,
        "status" => serde_json::to_vec(&speaker.status().await?)?,
        _ => br#"{"error":"say one of peers, routes, status"}"#.to_vec(),
    };
    stream.write_all(&answer).await?;
    stream.write_all(b"\n").await?;
    Ok(())
}
