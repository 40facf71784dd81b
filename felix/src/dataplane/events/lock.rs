//! The legacy tables tell nothing, but whoever changes them holds a lock file meanwhile. That it is let go tells that there
//! may be something to see; who only looked lets it go too.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::io::unix::AsyncFd;

use crate::sys::Files;

/// Where iptables has its lock.
pub(super) fn path() -> PathBuf {
    std::env::var_os("XTABLES_LOCKFILE").map_or_else(|| "/run/xtables.lock".into(), PathBuf::from)
}

/// Hears when somebody lets go of the lock.
#[derive(Debug)]
pub(in crate::dataplane) struct LockEvents {
    inotify: AsyncFd<Files>,
    path: PathBuf,
    /// Others let it go, and nobody was told yet.
    heard: bool,
}

impl LockEvents {
    /// Makes the file where there is none yet, as iptables does.
    pub(super) fn listen(path: PathBuf) -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        let events = Self {
            inotify: Files::watch(inotify)?,
            path,
            heard: false,
        };
        events.watch()?;
        Ok(events)
    }

    /// Whoever has let go before this was not us.
    pub(super) fn begin_own(&mut self) {
        self.heard |= self.take();
    }

    /// Whoever has let go since [`LockEvents::begin_own`] was us. Others who did so in these moments are found by the look
    /// that follows every write.
    pub(super) fn end_own(&mut self) {
        self.take();
    }

    pub(super) async fn changed_by_others(&mut self) {
        while !self.heard {
            let Ok(mut ready) = self.inotify.readable().await else {
                return std::future::pending().await;
            };
            ready.clear_ready();
            self.heard = self.take();
        }
        self.heard = false;
    }

    /// Takes what is queued; whether there was anything.
    fn take(&self) -> bool {
        let mut any = false;
        loop {
            match self.inotify.get_ref().inotify().read_events() {
                Ok(events) => {
                    any |= !events.is_empty();
                    let closed = AddWatchFlags::IN_CLOSE_WRITE | AddWatchFlags::IN_CLOSE_NOWRITE;
                    if events.iter().any(|event| !closed.contains(event.mask))
                        && let Err(error) = self.watch()
                    {
                        tracing::warn!(%error, path = %self.path.display(), "drift is found at refresh only");
                    }
                }
                Err(Errno::EINTR) => {}
                Err(_) => return any,
            }
        }
    }

    /// The file may be removed and made anew; what is watched already is watched once.
    fn watch(&self) -> io::Result<()> {
        OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(&self.path)?;
        let what = AddWatchFlags::IN_CLOSE | AddWatchFlags::IN_ATTRIB | AddWatchFlags::IN_MOVE_SELF;
        self.inotify.get_ref().inotify().add_watch(&self.path, what)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::time::Duration;

    use super::*;

    /// Runs a test in a folder of its own, where the lock is.
    fn with_lock(name: &str, test: impl AsyncFnOnce(PathBuf)) {
        let folder = std::env::temp_dir().join(format!("margay-lock-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(test(folder.join("lock")));
        std::fs::remove_dir_all(folder).unwrap();
    }

    async fn heard(events: &mut LockEvents) -> bool {
        let patience = Duration::from_millis(50);
        tokio::time::timeout(patience, events.changed_by_others()).await.is_ok()
    }

    #[test]
    fn hears_others_and_not_itself() {
        with_lock("others", async |path| {
            let mut events = LockEvents::listen(path.clone()).unwrap();
            assert!(!heard(&mut events).await, "that it was made is no news");
            drop(File::open(&path).unwrap());
            assert!(heard(&mut events).await);
            assert!(!heard(&mut events).await, "once");
            events.begin_own();
            drop(File::open(&path).unwrap());
            events.end_own();
            assert!(!heard(&mut events).await);
            drop(File::open(&path).unwrap());
            events.begin_own();
            events.end_own();
            assert!(heard(&mut events).await, "what came before is not forgotten");
        });
    }

    #[test]
    fn a_lock_that_is_made_anew_is_heard() {
        with_lock("anew", async |path| {
            let mut events = LockEvents::listen(path.clone()).unwrap();
            std::fs::remove_file(&path).unwrap();
            assert!(heard(&mut events).await);
            drop(File::open(&path).unwrap());
            assert!(heard(&mut events).await, "the file is there again, and heard");
            std::fs::rename(&path, path.with_extension("old")).unwrap();
            assert!(heard(&mut events).await);
            drop(File::open(&path).unwrap());
            assert!(heard(&mut events).await);
        });
    }
}
