//! Whether a test can run here. In CI it must; elsewhere one that cannot says so by name, in a line that begins with
//! `SKIPPED`, which `scripts/test` counts.

use std::path::Path;

/// Whether `test` can run: it needs root, and `programs` by their paths.
///
/// # Panics
/// In CI, where nothing may be skipped.
#[must_use]
#[track_caller]
pub fn root_and(test: &str, programs: &[&str]) -> bool {
    let missing = programs.iter().find(|p| !Path::new(p).exists());
    match (nix::unistd::geteuid().is_root(), missing) {
        (true, None) => true,
        (false, _) => skip(test, "root"),
        (true, Some(program)) => skip(test, program),
    }
}

/// Whether `test` can run: it needs root.
///
/// # Panics
/// In CI, where nothing may be skipped.
#[must_use]
#[track_caller]
pub fn root(test: &str) -> bool {
    root_and(test, &[])
}

/// Says that `test` lacks `what`; always `false`.
///
/// # Panics
/// In CI, where nothing may be skipped.
#[track_caller]
pub fn skip(test: &str, what: &str) -> bool {
    assert!(
        std::env::var_os("CI").is_none(),
        "{test} needs {what}, and CI must not skip it"
    );
    println!("SKIPPED {test}: needs {what}");
    false
}
