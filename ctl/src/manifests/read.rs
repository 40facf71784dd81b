//! Finding and reading the files.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::ManifestError;

/// A manifest file's text.
pub(super) struct File {
    /// The path as a user would name it.
    pub(super) name: Arc<str>,
    /// Its content.
    pub(super) text: String,
}

/// The files that `paths` name, in the order given, each once.
pub(super) fn files(paths: &[PathBuf]) -> Result<Vec<File>, ManifestError> {
    let mut found = Vec::new();
    for path in paths {
        if stat(path)?.is_dir() {
            let before = found.len();
            walk(path, &mut BTreeSet::new(), &mut found)?;
            if found.len() == before {
                return Err(ManifestError::Empty(path.clone()));
            }
        } else {
            found.push(path.clone());
        }
    }
    let mut seen = BTreeSet::new();
    found.retain(|path| seen.insert(fs::canonicalize(path).unwrap_or_else(|_| path.clone())));
    found.iter().map(|path| read(path)).collect()
}

/// `seen` keeps a link to a folder above from leading round and round.
fn walk(folder: &Path, seen: &mut BTreeSet<PathBuf>, found: &mut Vec<PathBuf>) -> Result<(), ManifestError> {
    let failed = |error| ManifestError::Read {
        path: folder.to_owned(),
        error,
    };
    if !seen.insert(fs::canonicalize(folder).map_err(failed)?) {
        return Ok(());
    }
    let mut entries = fs::read_dir(folder)
        .map_err(failed)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(failed)?;
    entries.sort();
    for entry in entries {
        if stat(&entry)?.is_dir() {
            walk(&entry, seen, found)?;
        } else if is_manifest(&entry) {
            found.push(entry);
        }
    }
    Ok(())
}

fn is_manifest(path: &Path) -> bool {
    path.extension()
        .is_some_and(|extension| ["yaml", "yml", "json"].iter().any(|known| extension == *known))
}

fn stat(path: &Path) -> Result<fs::Metadata, ManifestError> {
    fs::metadata(path).map_err(|error| ManifestError::Read {
        path: path.to_owned(),
        error,
    })
}

fn read(path: &Path) -> Result<File, ManifestError> {
    let text = fs::read_to_string(path).map_err(|error| ManifestError::Read {
        path: path.to_owned(),
        error,
    })?;
    Ok(File {
        name: path.display().to_string().into(),
        text,
    })
}
