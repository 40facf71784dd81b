//! Hears of what others do to the tables, as far as a back end tells.

mod lock;
mod nft;

use std::io;

use lock::LockEvents;
use nft::NftEvents;

use super::Backend;

/// Listens in the network namespace in which it was made.
#[derive(Debug)]
pub(super) enum Events {
    Nft(NftEvents),
    Legacy(LockEvents),
}

impl Events {
    pub(super) fn listen(backend: Backend) -> io::Result<Self> {
        match backend {
            Backend::Nft => NftEvents::listen().map(Self::Nft),
            Backend::Legacy => LockEvents::listen(lock::path()).map(Self::Legacy),
        }
    }

    /// This process begins to write for us: what it does is not news.
    pub(super) fn ignore(&mut self, process: u32) {
        match self {
            Self::Nft(events) => events.ignore(process),
            Self::Legacy(events) => events.begin_own(),
        }
    }

    /// The process that was named last has ended.
    pub(super) fn ended(&mut self) {
        match self {
            Self::Nft(_) => {}
            Self::Legacy(events) => events.end_own(),
        }
    }

    /// Returns once others may have changed chains of ours, or such that we have hooks in.
    pub(super) async fn changed_by_others(&mut self) {
        match self {
            Self::Nft(events) => events.changed_by_others().await,
            Self::Legacy(events) => events.changed_by_others().await,
        }
    }
}
