//! The engine as the agent sees it: updates in, a kernel that enforces them out.
//!
//! One task owns everything (`run`). Callers talk to it through a [`Handle`]: a queue that holds at most one update
//! of a key (`queue`) and a [`Status`] that it keeps current. A kernel that refuses is retried with growing pauses
//! for as long as it takes; what it said is in the status.

mod queue;
mod run;
mod schedule;
mod status;

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::dataplane::{Backend, Dataplane, ToolError};
use crate::model::{EndpointId, Update};
use crate::render;
use queue::Queue;
use status::Board;

pub use status::{Counters, EndpointState, EndpointStatus, PolicyStatus, Status};

/// How an engine runs.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// What the rules look like.
    pub rules: render::Config,
    /// Which iptables holds the rules: `iptablesBackend`.
    pub backend: BackendChoice,
    /// How often the kernel is read back and repaired: `iptablesRefreshInterval`.
    pub refresh_interval: Duration,
    /// How long after a write the kernel is read back, and then after twice that, and so on; zero for never:
    /// `iptablesPostWriteCheckInterval`.
    pub post_write_check: Duration,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            rules: render::Config::default(),
            backend: BackendChoice::Auto,
            refresh_interval: Duration::from_secs(90),
            post_write_check: Duration::from_secs(5),
        }
    }
}

/// Which iptables to use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BackendChoice {
    /// nft, unless the host's own rules are in legacy tables.
    #[default]
    Auto,
    /// iptables on nf_tables.
    Nft,
    /// iptables on the kernel's x_tables.
    Legacy,
}

/// Starts engines.
#[derive(Debug)]
pub struct Engine;

impl Engine {
    /// Starts an engine for the network namespace of the calling thread; must be called within a tokio runtime whose
    /// threads are all in that namespace. It writes nothing to the kernel before [`Handle::in_sync`].
    ///
    /// # Errors
    ///
    /// When the tools are missing or the kernel cannot be read.
    pub async fn start(config: EngineConfig) -> Result<Handle, ToolError> {
        let backend = match config.backend {
            BackendChoice::Auto => Backend::detect().await?,
            BackendChoice::Nft => Backend::Nft,
            BackendChoice::Legacy => Backend::Legacy,
        };
        let dataplane = Dataplane::new(backend);
        let queue = Arc::new(Queue::default());
        let board = Arc::new(Board::new(backend));
        let task = tokio::spawn(run::run(config, dataplane, queue.clone(), board.clone()));
        Ok(Handle {
            inner: Arc::new(Inner {
                queue,
                board,
                task: parking_lot::Mutex::new(Some(task)),
            }),
        })
    }
}

/// A running engine. Clones share it; it stops when the last one is dropped or at [`Handle::shutdown`], and leaves
/// the kernel as it is.
#[derive(Clone, Debug)]
pub struct Handle {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    queue: Arc<Queue>,
    board: Arc<Board>,
    task: parking_lot::Mutex<Option<JoinHandle<()>>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.queue.close();
    }
}

impl Handle {
    /// Queues a key's new value. Never blocks: an older update of the same key that is still waiting is replaced.
    pub fn update(&self, update: Update) {
        self.inner.queue.push(update);
    }

    /// Says that everything that was there at the start has been given to [`Handle::update`]. The kernel is brought in
    /// line with it, which removes what an earlier run left and is no longer wanted.
    pub fn in_sync(&self) {
        self.inner.queue.mark_in_sync();
    }

    /// Waits until the kernel enforces the endpoint's policy, with every update that was queued before this call.
    ///
    /// # Errors
    ///
    /// After `timeout`, with the reason why the endpoint is still denied.
    pub async fn wait_programmed(&self, id: &EndpointId, timeout: Duration) -> Result<(), WaitError> {
        let queued = self.inner.queue.position();
        let deadline = Instant::now() + timeout;
        let mut changes = self.inner.board.subscribe();
        loop {
            let reason = match self.inner.board.programmed(id, queued) {
                Ok(()) => return Ok(()),
                Err(reason) => reason,
            };
            let timed_out = || WaitError {
                endpoint: id.clone(),
                timeout,
                reason: reason.clone(),
            };
            match tokio::time::timeout_at(deadline, changes.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return Err(timed_out()),
            }
        }
    }

    /// What the engine enforces, and what keeps it from enforcing more.
    pub fn status(&self) -> Status {
        self.inner.board.status(self.inner.queue.len())
    }

    /// Waits for the status to change; then [`Handle::status`] tells how.
    pub fn watch(&self) -> tokio::sync::watch::Receiver<u64> {
        self.inner.board.subscribe()
    }

    /// Stops the engine after what it is doing now, and waits for that. The kernel's rules stay.
    pub async fn shutdown(&self) {
        self.inner.queue.close();
        let task = self.inner.task.lock().take();
        if let Some(task) = task
            && let Err(error) = task.await
        {
            tracing::error!(%error, "policy engine ended badly");
        }
    }
}

/// An endpoint's policy was not in force in time. It is denied until then.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the policy of pod {endpoint} is not in force after {timeout:?}: {reason}")]
pub struct WaitError {
    /// The endpoint.
    pub endpoint: EndpointId,
    /// How long was waited.
    pub timeout: Duration,
    /// What it waits for.
    pub reason: String,
}
