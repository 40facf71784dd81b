//! The parts of Kubernetes' agnhost image that network tests use, with its words and answers.

mod connect;
mod netexec;

pub use connect::{ConnectError, Protocol, connect};
pub use netexec::{Servers, serve};
