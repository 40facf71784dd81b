//! Programs of this workspace that a test runs. They belong to other packages, so that cargo does not build them for
//! the test by itself: a stale one must not be what is tested.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use crate::repository;

/// Set by who has just built all programs.
const BUILT: &str = "MARGAY_PROGRAMS_BUILT";

/// The directory of the programs, built from the sources as they are now.
///
/// # Panics
/// If they cannot be built; the compiler's words are printed.
#[must_use]
pub fn dir() -> PathBuf {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    DIR.get_or_init(|| {
        let own = std::env::current_exe().expect("a test has a path");
        // A test lies in `deps`, one level below the programs.
        let dir = own.ancestors().nth(2).expect("a test lies in deps").to_owned();
        if std::env::var_os(BUILT).is_none() {
            build(dir.ends_with("release"));
        }
        dir
    })
    .clone()
}

/// The program called `name`.
///
/// # Panics
/// As [`dir`], and if there is no such program.
#[must_use]
pub fn path(name: &str) -> PathBuf {
    let path = dir().join(name);
    assert!(
        path.is_file(),
        "{} is not built: is it a program of this workspace?",
        path.display()
    );
    path
}

/// All of them, as `make build` does: to build fewer would build what they share anew, with other features.
fn build(release: bool) {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .args(["build", "--locked", "--quiet", "--workspace", "--bins"])
        .args(release.then_some("--release"))
        .current_dir(repository());
    let output = command.output().expect("cargo runs where tests run");
    assert!(
        output.status.success(),
        "building the programs that tests run: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}
