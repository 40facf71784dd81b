//! Links, addresses, routes, neighbours and network namespaces of a Linux kernel.
//!
//! This is the one crate that knows rtnetlink; no netlink type leaves it. It has no policy: callers pass their own route
//! protocol number, table and names.
//!
//! - [`Connection`] is synchronous: every call is one system call to send and one to read the answer.
//! - [`Handle`] (feature `tokio`, on by default) is the same for asynchronous code: cloneable, cancel-safe.
//! - [`Monitor`] streams what changes, and says so when it lost something ([`Event::Overrun`]).
//! - [`Netns`] makes, opens, enters and deletes network namespaces, always on a thread of its own.
//! - [`sysctl`] reads and writes `/proc/sys`.
//!
//! Changes of many objects go through [`Connection::batch`]: hundreds of messages a system call, one result each.

mod addr;
mod connection;
mod error;
#[cfg(feature = "tokio")]
mod handle;
mod link;
#[cfg(feature = "tokio")]
mod monitor;
mod neigh;
pub mod netns;
mod op;
mod route;
#[cfg(feature = "tokio")]
mod sys;
pub mod sysctl;
mod wire;

pub use addr::Addr;
pub use connection::Connection;
pub use error::{Error, Result};
#[cfg(feature = "tokio")]
pub use handle::Handle;
pub use ipnetwork::IpNetwork;
pub use link::{BridgeSpec, Link, Mac, VethSpec, check_name};
#[cfg(feature = "tokio")]
pub use monitor::{Event, Groups, Monitor};
pub use neigh::Neigh;
pub use netns::Netns;
pub use op::Op;
pub use route::{Family, NextHop, Route, RouteFilter, RouteKind, Scope, table};
