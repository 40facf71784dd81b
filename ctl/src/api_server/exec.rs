//! Running a command in a pod.

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::AttachParams;
use tokio::io::{AsyncRead, AsyncReadExt};

use super::{ApiError, ApiServer};

/// Bytes that may wait to be read.
const BUFFER: usize = 1 << 16;

/// What came of a command.
pub(crate) struct Ended {
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
    /// Why it counts as failed, in the words of the container's runtime; nothing when it succeeded.
    pub(crate) failure: Option<String>,
}

impl ApiServer {
    /// Runs a command in a container to its end.
    ///
    /// # Errors
    /// When it cannot be started, or the connection to it breaks off.
    pub(crate) async fn exec(
        &self,
        namespace: &str,
        pod: &str,
        container: &str,
        command: &[String],
    ) -> Result<Ended, ApiError> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let params = AttachParams::default()
            .container(container)
            .stdin(false)
            .stderr(true)
            .max_stdout_buf_size(BUFFER)
            .max_stderr_buf_size(BUFFER);
        let started = pods.exec(pod, command, &params).await;
        let mut process = started.map_err(|error| ApiError::of(&error, &self.context))?;
        let (stdout, stderr, status) = (process.stdout(), process.stderr(), process.take_status());
        let ended = async {
            match status {
                Some(status) => status.await,
                None => None,
            }
        };
        let (stdout, stderr, status) = tokio::join!(read(stdout), read(stderr), ended);
        let status = status.ok_or_else(|| ApiError::Other("the connection to the container broke off".to_owned()))?;
        let succeeded = status.status.as_deref() == Some("Success");
        Ok(Ended {
            stdout,
            stderr,
            failure: (!succeeded).then(|| status.message.unwrap_or_else(|| "it failed without a word".to_owned())),
        })
    }
}

/// All of a stream; what came of it when it breaks off.
async fn read(stream: Option<impl AsyncRead + Unpin>) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(mut stream) = stream {
        // How the command ended is told apart from this.
        let _ = stream.read_to_end(&mut bytes).await;
    }
    bytes
}
