//! The lab's API server, from outside: over HTTP, with both kubectls, and across a kill.

#![allow(clippy::unwrap_used, reason = "helpers of tests panic as tests do")]

mod client;
mod crud;
mod custom;
mod deletion;
mod kube_rs;
mod kubectl;
mod margay;
mod patches;
mod restart;
mod support;
mod table;
mod watches;

/// Not a test: the server that [`support::Child`] runs and kills.
#[test]
#[ignore = "runs until it is killed; started by other tests"]
fn server_in_a_process_of_its_own() {
    support::serve_until_killed();
}
