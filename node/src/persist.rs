//! Small files that survive a crash at any moment: written beside, synced, renamed; read with suspicion.
//!
//! Format: one header line `margay <kind> <version> <sha256 of the body>`, then JSON. A file that is cut, altered, of a
//! version we do not know or of another kind is an error that says so; it is never half believed.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

/// Why a state file could not be used.
#[derive(Debug, thiserror::Error)]
pub enum PersistError {
    /// Reading or writing failed.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process works with the folder.
    #[error("{}: held by another margay-node; stop that one first, or give this one a --state-dir of its own", path.display())]
    InUse {
        /// The lock in the folder.
        path: PathBuf,
    },
    /// The file is cut or altered.
    #[error("{}: damaged ({reason}); it is ignored, remove it to silence this", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        reason: String,
    },
    /// The file is of a format this program does not know: most likely written by a later one.
    #[error("{}: format version {found}, this program reads {known}; it is ignored", path.display())]
    UnknownVersion {
        /// The file.
        path: PathBuf,
        /// Version in the file.
        found: String,
        /// Version we read.
        known: u32,
    },
}

/// What a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Format {
    /// One word.
    pub kind: &'static str,
    /// Raised whenever an older program could misread the file.
    pub version: u32,
}

/// Writes `value` so that after a crash the file is either the old or the new one, whole. Mode 0600.
pub fn save<T: Serialize>(path: &Path, format: Format, value: &T) -> Result<(), PersistError> {
    let body = serde_json::to_vec(value).map_err(|e| PersistError::Damaged {
        path: path.to_owned(),
        reason: format!("cannot encode: {e}"),
    })?;
    let mut bytes = format!("margay {} {} {}\n", format.kind, format.version, digest(&body)).into_bytes();
    bytes.extend_from_slice(&body);
    replace_file(path, &bytes, 0o600).map_err(|source| PersistError::Io {
        path: path.to_owned(),
        source,
    })
}

/// Reads what [`save`] wrote; `None` when there is no file.
pub fn load<T: DeserializeOwned>(path: &Path, format: Format) -> Result<Option<T>, PersistError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => {
            return Err(PersistError::Io {
                path: path.to_owned(),
                source,
            });
        }
    };
    let damaged = |reason: &str| PersistError::Damaged {
        path: path.to_owned(),
        reason: reason.to_owned(),
    };
    let end = bytes
        .iter()
        .position(|b| *b == b'\n')
        .ok_or_else(|| damaged("no header line"))?;
    let header = std::str::from_utf8(&bytes[..end]).map_err(|_| damaged("header is not text"))?;
    let body = &bytes[end + 1..];
    let words: Vec<_> = header.split(' ').collect();
    let ["margay", kind, version, sum] = words[..] else {
        return Err(damaged("header is not ours"));
    };
    if kind != format.kind {
        return Err(damaged(&format!("it holds {kind}, not {}", format.kind)));
    }
    if version != format.version.to_string() {
        let (found, known) = (version.to_owned(), format.version);
        return Err(PersistError::UnknownVersion {
            path: path.to_owned(),
            found,
            known,
        });
    }
    if sum != digest(body) {
        return Err(damaged("checksum differs"));
    }
    serde_json::from_slice(body)
        .map(Some)
        .map_err(|e| damaged(&e.to_string()))
}

/// Removes a file; one that is not there is fine. The removal is durable on return.
pub fn remove(path: &Path) -> Result<(), PersistError> {
    let wrap = |source| PersistError::Io {
        path: path.to_owned(),
        source,
    };
    match fs::remove_file(path) {
        Ok(()) => sync_parent(path).map_err(wrap),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(wrap(source)),
    }
}

/// Makes a folder that only root may enter, with its parents.
pub fn private_dir(path: &Path) -> Result<(), PersistError> {
    let wrap = |source| PersistError::Io {
        path: path.to_owned(),
        source,
    };
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(wrap)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o700)).map_err(wrap)
}

/// Does what waits for the disk beside the threads that everything else runs on.
pub async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The process ends.
            Err(_) => std::future::pending().await,
        },
    }
}

/// Removes what a crash left in a folder of writes that never were renamed into place. Only for who has claimed it.
pub fn sweep(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let name = entry?.file_name();
        let text = name.to_string_lossy();
        if text.starts_with('.') && text.ends_with(".new") {
            fs::remove_file(path.join(&name))?;
        }
    }
    Ok(())
}

/// Claims a folder for this process, until the file that is returned is dropped or the process ends, however it ends.
///
/// # Errors
/// When another process has it, or the lock cannot be made.
pub fn claim_dir(path: &Path) -> Result<File, PersistError> {
    let path = path.join("lock");
    let wrap = |source| PersistError::Io {
        path: path.clone(),
        source,
    };
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(wrap)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(PersistError::InUse { path }),
        Err(TryLockError::Error(source)) => Err(wrap(source)),
    }
}

/// Whether a process has claimed a folder. Nothing is made.
///
/// # Errors
/// When one has, or the lock cannot be read.
pub fn look_at_claim(path: &Path) -> Result<(), PersistError> {
    let path = path.join("lock");
    let locked = match File::open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        opened => opened
            .map_err(TryLockError::Error)
            .and_then(|file| file.try_lock_shared()),
    };
    match locked {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(PersistError::InUse { path }),
        Err(TryLockError::Error(source)) => Err(PersistError::Io { path, source }),
    }
}

/// Puts `bytes` in place of whatever `path` was, in one step, durable on return.
pub fn replace_file(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let name = path
        .file_name()
        .ok_or_else(|| io::Error::other("path has no file name"))?;
    let mut beside = std::ffi::OsString::from(".");
    beside.push(name);
    beside.push(format!(".{}.new", std::process::id()));
    let beside = path.with_file_name(beside);
    let written = (|| {
        // A leftover of a crashed predecessor with our pid must not lend us its mode.
        let _ = fs::remove_file(&beside);
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&beside)?;
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&beside, path)?;
        sync_parent(path)
    })();
    if written.is_err() {
        let _ = fs::remove_file(&beside);
    }
    written
}

fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

fn digest(body: &[u8]) -> String {
    Sha256::digest(body).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORMAT: Format = Format {
        kind: "blocks",
        version: 1,
    };

    fn saved() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("blocks.json");
        save(&path, FORMAT, &vec!["10.244.0.0/26", "10.244.0.64/26"]).unwrap();
        (dir, path)
    }

    #[test]
    fn what_was_saved_is_loaded() {
        let (_dir, path) = saved();
        let loaded: Option<Vec<String>> = load(&path, FORMAT).unwrap();
        assert_eq!(loaded.unwrap(), ["10.244.0.0/26", "10.244.0.64/26"]);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_missing_file_is_nothing() {
        let dir = tempfile::tempdir().unwrap();
        assert!(load::<Vec<String>>(&dir.path().join("none"), FORMAT).unwrap().is_none());
        remove(&dir.path().join("none")).unwrap();
    }

    #[test]
    fn a_file_cut_at_any_byte_is_refused() {
        let (_dir, path) = saved();
        let whole = fs::read(&path).unwrap();
        for length in 0..whole.len() {
            fs::write(&path, &whole[..length]).unwrap();
            let error = load::<Vec<String>>(&path, FORMAT).unwrap_err();
            assert!(
                matches!(error, PersistError::Damaged { .. }),
                "cut at {length}: {error}"
            );
        }
        fs::write(&path, &whole).unwrap();
        assert!(
            load::<Vec<String>>(&path, FORMAT).unwrap().is_some(),
            "the whole file is good"
        );
    }

    #[test]
    fn an_altered_byte_is_refused() {
        let (_dir, path) = saved();
        let mut bytes = fs::read(&path).unwrap();
        let last = bytes.len() - 4;
        bytes[last] ^= 1;
        fs::write(&path, bytes).unwrap();
        let error = load::<Vec<String>>(&path, FORMAT).unwrap_err().to_string();
        assert!(error.contains("checksum differs"), "{error}");
    }

    #[test]
    fn a_later_version_and_another_kind_are_named() {
        let (_dir, path) = saved();
        let error = load::<Vec<String>>(&path, Format { version: 2, ..FORMAT })
            .unwrap_err()
            .to_string();
        assert!(error.contains("format version 1, this program reads 2"), "{error}");
        let error = load::<Vec<String>>(
            &path,
            Format {
                kind: "bgp",
                version: 1,
            },
        )
        .unwrap_err()
        .to_string();
        assert!(error.contains("it holds blocks, not bgp"), "{error}");
    }

    #[test]
    fn a_folder_has_one_holder() {
        let dir = tempfile::tempdir().unwrap();
        let first = claim_dir(dir.path()).unwrap();
        let error = claim_dir(dir.path()).unwrap_err().to_string();
        assert!(error.contains("held by another margay-node"), "{error}");
        assert!(matches!(look_at_claim(dir.path()), Err(PersistError::InUse { .. })));
        drop(first);
        look_at_claim(dir.path()).unwrap();
        claim_dir(dir.path()).unwrap();
    }

    #[test]
    fn drafts_of_a_crash_are_swept_away_and_nothing_else() {
        let (dir, path) = saved();
        fs::write(dir.path().join(".cluster.json.7.new"), "half").unwrap();
        fs::write(dir.path().join("new"), "").unwrap();
        sweep(dir.path()).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
        assert!(path.exists());
    }

    #[test]
    fn nothing_is_left_beside_the_file() {
        let (dir, path) = saved();
        save(&path, FORMAT, &vec!["x"]).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        remove(&path).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
