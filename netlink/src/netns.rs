//! Network namespaces.
//!
//! The namespace belongs to a thread, so nothing here changes the caller's: each switch happens on a thread of its own.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::Path;
use std::sync::Arc;
use std::thread;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::stat::fstat;
use nix::sys::statfs::{NSFS_MAGIC, fstatfs};

use crate::error::{Error, Result};

/// An open network namespace: it lives at least as long as this value and its clones.
#[derive(Debug, Clone)]
pub struct Netns {
    fd: Arc<OwnedFd>,
}

impl Netns {
    /// The namespace of the calling thread.
    pub fn current() -> Result<Self> {
        Self::open(OWN)
    }

    /// A new namespace with no name, which goes when the last of its users does. Its loopback is down.
    pub fn create() -> Result<Self> {
        on_thread("create a network namespace", || {
            unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| Error::Io {
                operation: "create a network namespace".into(),
                errno,
            })?;
            Self::current()
        })?
    }

    /// A new namespace bound to a file, which is made for it and must not exist; its directory must. It lives until
    /// [`Netns::delete`].
    pub fn create_at(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let operation = format!("create network namespace {}", path.display());
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(path)
            .map_err(|e| Error::io(&operation, e))?;
        let made = Self::create().and_then(|netns| netns.bind(path).map(|()| netns));
        if made.is_err() {
            // Best effort: the error that is reported is the first one.
            let _ = fs::remove_file(path);
        }
        made
    }

    /// Opens the namespace that a file is bound to, such as `/run/netns/x` or `/proc/7/ns/net`.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let operation = || format!("open network namespace {}", path.display());
        let file = File::open(path).map_err(|e| Error::io(operation(), e))?;
        let kind = fstatfs(&file)
            .map_err(|errno| Error::Io {
                operation: operation(),
                errno,
            })?
            .filesystem_type();
        if kind != NSFS_MAGIC {
            let reason = "is not a network namespace: nothing is bound to the file";
            return Err(Error::invalid(path.display().to_string(), reason));
        }
        Ok(Self {
            fd: Arc::new(file.into()),
        })
    }

    /// Opens the namespace of a process.
    pub fn of_pid(pid: u32) -> Result<Self> {
        Self::open(format!("/proc/{pid}/ns/net"))
    }

    /// Removes the name of a namespace; it goes when its users have. Fine if there is none, or only the empty file.
    pub fn delete(path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let operation = || format!("delete network namespace {}", path.display());
        match umount2(path, MntFlags::MNT_DETACH) {
            Ok(()) | Err(Errno::ENOENT | Errno::EINVAL) => {}
            Err(errno) => {
                return Err(Error::Io {
                    operation: operation(),
                    errno,
                });
            }
        }
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io(operation(), error)),
            _ => Ok(()),
        }
    }

    /// Runs `work` in this namespace on a thread of its own and waits for it. Sockets that it opens and threads and
    /// processes that it starts belong to the namespace. A panic of `work` is passed on.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        const OPERATION: &str = "enter a network namespace";
        on_thread(OPERATION, || {
            setns(self.as_fd(), CloneFlags::CLONE_NEWNET).map_err(|errno| Error::Io {
                operation: OPERATION.into(),
                errno,
            })?;
            Ok(work())
        })?
    }

    /// A number that identifies the namespace as long as it lives (the inode of `/proc/…/ns/net`).
    pub fn id(&self) -> Result<u64> {
        let stat = fstat(self.as_fd()).map_err(|errno| Error::Io {
            operation: "identify a namespace".into(),
            errno,
        })?;
        Ok(stat.st_ino)
    }

    fn bind(&self, path: &Path) -> Result<()> {
        // By way of the thread that holds it, because some kernels refuse to bind from a descriptor under /proc/self/fd.
        self.run(|| mount(Some(OWN), path, None::<&str>, MsFlags::MS_BIND, None::<&str>))?
            .map_err(|errno| Error::Io {
                operation: format!("bind network namespace {}", path.display()),
                errno,
            })
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for Netns {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

/// Runs `work` in a namespace: see [`Netns::run`].
pub fn run_in<T: Send>(netns: &Netns, work: impl FnOnce() -> T + Send) -> Result<T> {
    netns.run(work)
}

const OWN: &str = "/proc/thread-self/ns/net";

fn on_thread<T: Send>(operation: &str, work: impl FnOnce() -> T + Send) -> Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new()
            .name("netns".into())
            .spawn_scoped(scope, work)
            .map_err(|e| Error::io(format!("{operation}: start a thread"), e))?;
        thread.join().or_else(|panic| std::panic::resume_unwind(panic))
    })
}
