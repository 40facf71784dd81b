//! The crate's only unsafe code.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};

use netlink_sys::Socket;
use nix::sys::inotify::Inotify;
use tokio::io::unix::AsyncFd;

/// Makes the runtime watch a socket.
pub(crate) fn watch(socket: Socket) -> io::Result<AsyncFd<Socket>> {
    // SAFETY: the `Socket` owns its descriptor, and as it is only lent out by reference from here on, the descriptor
    // stays the same and open until the `AsyncFd` is dropped.
    unsafe { AsyncFd::register(socket) }.map_err(Into::into)
}

/// What tells of changes to files, as the runtime wants it.
#[derive(Debug)]
pub(crate) struct Files(Inotify);

impl Files {
    /// Makes the runtime watch it.
    pub(crate) fn watch(inotify: Inotify) -> io::Result<AsyncFd<Self>> {
        // SAFETY: the `Inotify` owns its descriptor, which stays the same and open until it is dropped with the `AsyncFd`, as
        // it is only lent out by reference.
        unsafe { AsyncFd::register(Self(inotify)) }.map_err(Into::into)
    }

    pub(crate) fn inotify(&self) -> &Inotify {
        &self.0
    }
}

impl AsRawFd for Files {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}
