//! The crate from outside.

mod cli;
mod manifests;
