//! The unsafe part.
#![allow(unsafe_code)]

use std::io;

use netlink_sys::Socket;
use tokio::io::unix::AsyncFd;

/// Registers a socket with the runtime.
pub(crate) fn register(socket: Socket) -> io::Result<AsyncFd<Socket>> {
    // SAFETY: `Socket` owns an open descriptor, and while `AsyncFd` has it, it is neither replaced nor closed.
    unsafe { AsyncFd::register(socket) }.map_err(Into::into)
}
