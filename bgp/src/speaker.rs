//! The shell around the pure rooms: sockets, clocks, tasks.
//!
//! ```text
//!  listener (per address) ─┐ accepted                       ┌─▶ writer (per connection, bounded)
//!  dialer (per attempt) ───┼──────────▶ core: Sessions + Rib┼─▶ FIB task (one batch under way)
//!  reader (per connection) ┘  events    ▲                   └─▶ answers to Handle
//!                            (bounded)  └── commands, timers
//! ```
//!
//! The core never waits for a peer or the kernel: it asks the RIB for messages only while a writer has room, so a
//! peer that stops reading costs memory for one queue, and later changes supersede earlier ones.

mod core;
mod fib_task;
mod io;
mod reconfigure;
pub mod status;

use std::net::SocketAddr;

use tokio::sync::{mpsc, oneshot};

use crate::config::{Config, ConfigErrors};
use crate::fib::Fib;
use status::{PeerStatus, RouteStatus, SpeakerStatus};

/// Starts speakers.
#[derive(Debug)]
pub struct Speaker;

/// Why a speaker does not start or take a configuration.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration contradicts itself; nothing was changed.
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    /// A listening socket cannot be had; nothing was changed.
    #[error("listen: cannot accept sessions on {address}: {error}; free it or choose another address")]
    Listen {
        /// The address of [`Config::listen`].
        address: SocketAddr,
        /// The system's reason.
        error: std::io::Error,
    },
    /// The forwarding plane cannot be read.
    #[error("cannot read the forwarding plane: {0}")]
    Fib(std::io::Error),
    /// The speaker has shut down.
    #[error("the BGP speaker has stopped")]
    Stopped,
}

/// How to leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shutdown {
    /// For good: tell peers (Cease, administrative shutdown) and remove all routes.
    Cease,
    /// To come back soon: say nothing and leave the routes, so that graceful restart keeps traffic flowing.
    Restart,
}

/// A running speaker. Clones speak of the same one; it runs until [`Handle::shutdown`], or all are dropped.
#[derive(Clone, Debug)]
pub struct Handle {
    commands: mpsc::Sender<Command>,
}

enum Command {
    Apply(Box<Config>, oneshot::Sender<Result<(), Error>>),
    Peers(oneshot::Sender<Vec<PeerStatus>>),
    Routes(oneshot::Sender<Vec<RouteStatus>>),
    Status(oneshot::Sender<SpeakerStatus>),
    Shutdown(Shutdown, oneshot::Sender<()>),
}

impl Speaker {
    /// Starts a speaker on the current tokio runtime. Sockets are made in the network namespace of the threads that
    /// run it.
    ///
    /// # Errors
    /// [`Error::Config`], [`Error::Listen`] or [`Error::Fib`]; then nothing runs.
    pub async fn start(config: Config, fib: impl Fib) -> Result<Handle, Error> {
        config.validate()?;
        let (commands, receiver) = mpsc::channel(16);
        core::start(config, fib, receiver).await?;
        Ok(Handle { commands })
    }
}

impl Handle {
    /// Takes a new configuration. New filters, networks and next hops apply without a flap, times when a session is next
    /// established. Only other families in use or another transport end a session, and leave routes where both ends
    /// have graceful restart; another AS or router identifier starts over.
    ///
    /// # Errors
    /// As [`Speaker::start`]; then the old configuration stays in force.
    pub async fn apply(&self, config: Config) -> Result<(), Error> {
        config.validate()?;
        self.ask(|reply| Command::Apply(Box::new(config), reply)).await?
    }

    /// All peers, by address.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    pub async fn peers(&self) -> Result<Vec<PeerStatus>, Error> {
        self.ask(Command::Peers).await
    }

    /// All routes, by prefix.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    pub async fn routes(&self) -> Result<Vec<RouteStatus>, Error> {
        self.ask(Command::Routes).await
    }

    /// The speaker as a whole.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    pub async fn status(&self) -> Result<SpeakerStatus, Error> {
        self.ask(Command::Status).await
    }

    /// Ends the speaker and returns when peers have been told and routes are as they shall stay.
    pub async fn shutdown(&self, how: Shutdown) {
        // An error means that it has ended already.
        let _ = self.ask(|reply| Command::Shutdown(how, reply)).await;
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, Error> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.map_err(|_| Error::Stopped)?;
        answer.await.map_err(|_| Error::Stopped)
    }
}
