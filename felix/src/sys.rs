//! The crate's only unsafe code.
#![allow(unsafe_code)]

use std::io;

use netlink_sys::Socket;
use tokio::io::unix::AsyncFd;

/// Makes the runtime watch a socket.
pub(crate) fn watch(socket: Socket) -> io::Result<AsyncFd<Socket>> {
    // SAFETY: the `Socket` owns its descriptor, and as it is only lent out by reference from here on, the descriptor
    // stays the same and open until the `AsyncFd` is dropped.
    unsafe { AsyncFd::register(socket) }.map_err(Into::into)
}
