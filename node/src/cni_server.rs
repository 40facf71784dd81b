//! The agent's end of the CNI protocol: a root-only Unix socket, one request a connection.

mod attach;
mod detach;
mod leftovers;
mod parts;
#[cfg(test)]
mod tests;

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use margay_cni::protocol::frame::{self, FrameError};
use margay_cni::protocol::{Answer, Failure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

pub(crate) use attach::is_label_sequence;
pub use attach::{Attacher, AttacherConfig};
pub use parts::{Addresses, AssignError, Assignment, Links, Policy};

/// Binds the socket: replaces a leftover of an earlier run, root only.
pub fn bind(path: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // The umask decides about the moment before the mode is set.
    let previous = nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o177));
    let listener = UnixListener::bind(path);
    nix::sys::stat::umask(previous);
    let listener = listener?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Serves until dropped.
pub async fn serve<A: Addresses, P: Policy, L: Links>(listener: UnixListener, attacher: Arc<Attacher<A, P, L>>) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else {
            return;
        };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, most likely: give others time to close theirs.
                tracing::warn!(%error, "CNI connection not accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let attacher = attacher.clone();
        tokio::spawn(async move {
            connection(stream, &attacher).await;
            drop(slot);
        });
    }
}

/// Connections served at once; more wait in the listener's queue.
const MAX_CONNECTIONS: usize = 128;
/// A plugin sends its request in one write; whoever takes longer is no plugin.
const READ_TIMEOUT: Duration = Duration::from_secs(5);

async fn connection<A: Addresses, P: Policy, L: Links>(mut stream: UnixStream, attacher: &Attacher<A, P, L>) {
    match stream.peer_cred() {
        // The file's mode already keeps others out; this holds also if somebody changes it.
        Ok(peer) if peer.uid() == 0 || peer.uid() == nix::unistd::geteuid().as_raw() => {}
        Ok(peer) => {
            tracing::warn!(
                uid = peer.uid(),
                pid = peer.pid(),
                "CNI request refused: the caller is not root"
            );
            return;
        }
        Err(error) => {
            tracing::warn!(%error, "CNI request refused: the caller is unknown");
            return;
        }
    }
    let answer = match tokio::time::timeout(READ_TIMEOUT, read(&mut stream)).await {
        Ok(Ok(Some(message))) => match frame::decode_request(&message) {
            Ok((version, request)) => frame::encode_answer(version, &attacher.answer(request).await),
            Err(complaint) => complain(&complaint),
        },
        Ok(Ok(None)) => return,
        Ok(Err(complaint)) => complain(&complaint),
        Err(_) => complain(&FrameError::Malformed(format!(
            "no complete request within {READ_TIMEOUT:?}"
        ))),
    };
    if let Err(error) = stream.write_all(&answer).await {
        tracing::debug!(%error, "CNI answer not delivered");
    }
    let _ = stream.shutdown().await;
}

fn complain(complaint: &FrameError) -> Vec<u8> {
    tracing::warn!(error = %complaint, "CNI request not understood");
    complaint.answer()
}

/// One message, or `None` when the caller closed without sending anything.
async fn read(stream: &mut UnixStream) -> Result<Option<Vec<u8>>, FrameError> {
    let mut message = Vec::new();
    loop {
        if let Some(length) = frame::complete(&message)? {
            message.truncate(length);
            return Ok(Some(message));
        }
        let mut chunk = [0; 4096];
        match stream.read(&mut chunk).await {
            Ok(0) if message.is_empty() => return Ok(None),
            Ok(0) => {
                return Err(FrameError::Malformed(
                    "the connection closed in the middle of it".to_owned(),
                ));
            }
            Ok(count) => message.extend_from_slice(&chunk[..count]),
            Err(error) => return Err(FrameError::Malformed(error.to_string())),
        }
    }
}

/// The answer to a request that could not even be tried.
fn busy(reason: impl Into<String>, details: impl Into<String>) -> Answer {
    Failure::try_again(reason, details).into()
}
