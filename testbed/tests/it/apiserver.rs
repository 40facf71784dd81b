//! The lab's API server, from outside: over HTTP, with both kubectls, and across a kill.

mod http;
mod support;

use support::{Child, start};

/// Not a test: the server that [`Child`] runs and kills.
#[test]
#[ignore = "runs until it is killed; started by other tests"]
fn server_in_a_process_of_its_own() {
    support::serve_until_killed();
}
