//! The parts of Kubernetes' agnhost image that network tests use, with its words and answers, and what counts packets.

pub mod arrivals;
mod connect;
mod netexec;
pub mod probe;
pub mod sweep;
pub mod traffic;

pub use connect::{ConnectError, Protocol, connect};
pub use netexec::{Servers, serve};
