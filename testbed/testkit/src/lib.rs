//! What tests share: what a test needs to run, freshly built programs, commands as a user types them, and waiting for
//! a condition with a deadline.

pub mod needs;
pub mod programs;
pub mod shell;

use std::path::{Path, PathBuf};

/// The root of the repository that this was built from.
///
/// # Panics
/// If the repository is gone.
#[must_use]
pub fn repository() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    here.canonicalize()
        .unwrap_or_else(|e| panic!("the repository {} is gone: {e}", here.display()))
}
