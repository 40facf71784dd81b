//! Tests of the whole crate.

#![allow(clippy::unwrap_used, reason = "helpers of tests panic as tests do")]

mod behaviour;
mod crash;
mod harness;
mod rights;
mod simulation;
