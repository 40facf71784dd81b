//! Integration tests of margayctl: what it prints, word for word.
#![allow(clippy::unwrap_used)]

mod agent;
mod agents;
mod api_server;
mod cluster;
mod completion;
mod eval;
mod lab;
mod payments;
mod transcript;
mod watch;
