//! The crate from outside.

#![allow(clippy::unwrap_used, reason = "a test that fails here says where")]

mod agent;
mod cli;
mod host;
mod manifests;
mod rig;
mod uninstall;
