//! Integration tests of the testbed, in one binary.

#![allow(clippy::unwrap_used, reason = "helpers of tests panic as tests do")]

mod addresses;
mod cluster;
mod lab;
