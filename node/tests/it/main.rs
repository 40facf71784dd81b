//! The crate from outside.

mod cli;
mod host;
mod manifests;
