//! Kernel settings under `/proc/sys`. Those under `net/` are the ones of the calling thread's network namespace: use
//! [`crate::Netns::run`] to reach another's.

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use crate::error::{Error, Result};

/// Reads a setting by its path below `/proc/sys`, with slashes: `net/ipv4/conf/eth0.5/forwarding`.
pub fn read(path: &str) -> Result<String> {
    let text = fs::read_to_string(full(path)?).map_err(|e| failed("read", path, e))?;
    Ok(text.trim_end().to_owned())
}

/// Writes a setting.
pub fn write(path: &str, value: &str) -> Result<()> {
    let full = full(path)?;
    // Opened without O_CREAT: a setting that does not exist is not to become a "permission denied".
    let mut file = fs::OpenOptions::new()
        .write(true)
        .open(full)
        .map_err(|e| failed("write", path, e))?;
    io::Write::write_all(&mut file, value.as_bytes()).map_err(|e| failed(&format!("write {value:?} to"), path, e))
}

/// Writes a setting unless it has the value already. Says whether it wrote.
pub fn ensure(path: &str, value: &str) -> Result<bool> {
    if read(path)? == value {
        return Ok(false);
    }
    write(path, value).map(|()| true)
}

fn full(path: &str) -> Result<PathBuf> {
    let relative = Path::new(path);
    if path.is_empty() || relative.components().any(|part| !matches!(part, Component::Normal(_))) {
        return Err(Error::invalid(
            format!("setting {path:?}"),
            "is not a path below /proc/sys, like net/ipv4/ip_forward",
        ));
    }
    Ok(Path::new("/proc/sys").join(relative))
}

fn failed(verb: &str, path: &str, source: io::Error) -> Error {
    match source.kind() {
        io::ErrorKind::NotFound => Error::NotFound {
            object: format!("setting {path}"),
        },
        io::ErrorKind::ReadOnlyFilesystem => Error::io(
            format!("{verb} setting {path}: /proc/sys is mounted read-only here; remount it or run privileged"),
            source,
        ),
        _ => Error::io(format!("{verb} setting {path}"), source),
    }
}
