//! What a lab leaves on disk about itself: one directory per lab, `state.json` in it, written before each step.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::LabError;
use crate::process::ProcessId;
use margay_clab::{Mgmt, NodeKind};

/// Version of `state.json`.
pub(crate) const VERSION: u32 = 1;

/// How far a lab has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Deploy has begun and not ended; when no deploy runs, what exists is debris.
    Deploying,
    /// Everything the topology describes is there.
    Up,
}

/// Contents of `state.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LabState {
    /// Version of the file's format; another one's file is not read.
    pub version: u32,
    /// Name of the lab.
    pub name: String,
    /// Absolute path of the topology file.
    pub topology: PathBuf,
    /// How far it has come.
    pub phase: Phase,
    /// The management network.
    pub mgmt: Mgmt,
    /// The process that holds the management network's namespace.
    pub mgmt_process: Option<ProcessId>,
    /// Nodes in the order of the file.
    pub nodes: Vec<NodeState>,
}

/// A node as deployed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NodeState {
    /// Name in the topology.
    pub name: String,
    /// Name that containerlab would give the container.
    pub long_name: String,
    /// Machine or segment.
    pub kind: NodeKind,
    /// Image as written in the topology.
    pub image: String,
    /// Its process 1, once started.
    pub process: Option<ProcessId>,
    /// Address on the management network.
    pub mgmt_ipv4: Option<Ipv4Addr>,
    /// Address on the management network.
    pub mgmt_ipv6: Option<Ipv6Addr>,
    /// Labels of the topology.
    pub labels: BTreeMap<String, String>,
    /// Environment of commands in the node.
    pub env: BTreeMap<String, String>,
}

/// Directory under which labs keep their state, absolute and without links: `$MARGAY_LAB_DIR`, else /run/margay-lab.
pub fn labs_dir() -> PathBuf {
    labs_dir_of(std::env::var_os("MARGAY_LAB_DIR"))
}

/// The lab's own processes start in other directories, so that a relative path would mean another place to each; and
/// they are found by the path among their arguments, so that there must be only one.
fn labs_dir_of(given: Option<OsString>) -> PathBuf {
    let given = given.filter(|dir| !dir.is_empty());
    let dir = given.map_or_else(|| PathBuf::from("/run/margay-lab"), PathBuf::from);
    let dir = std::path::absolute(&dir).unwrap_or(dir);
    let real = dir.ancestors().find_map(|existing| {
        let rest = dir.strip_prefix(existing).ok()?;
        Some(
            existing
                .canonicalize()
                .ok()?
                .components()
                .chain(rest.components())
                .collect(),
        )
    });
    real.unwrap_or(dir)
}

/// Names of the labs that have a directory.
pub fn lab_names(labs: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(labs) else {
        return Vec::new();
    };
    let mut names: Vec<String> = entries
        .flatten()
        .filter(|e| e.path().is_dir())
        .filter_map(|e| e.file_name().into_string().ok())
        .collect();
    names.sort();
    names
}

impl LabState {
    /// Reads the state in `dir`; `None` when there is none.
    pub fn read(dir: &Path) -> Result<Option<LabState>, LabError> {
        let path = dir.join("state.json");
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(LabError::io(format!("reading {}", path.display()), error)),
        };
        let unusable = |why: String| {
            let what = format!("reading {}", path.display());
            LabError::step(what, format!("{why}; `margay-lab destroy` removes the lab"))
        };
        let state: LabState = serde_json::from_slice(&text).map_err(|e| unusable(e.to_string()))?;
        if state.version == VERSION {
            Ok(Some(state))
        } else {
            Err(unusable(format!(
                "it has version {}, this program knows {VERSION}",
                state.version
            )))
        }
    }

    /// Replaces the state in `dir` in one step.
    pub(crate) fn write(&self, dir: &Path) -> Result<(), LabError> {
        let text = serde_json::to_vec_pretty(self).map_err(|e| LabError::Step {
            what: "writing state.json".into(),
            detail: e.to_string(),
        })?;
        replace_file(&dir.join("state.json"), &text).map_err(|e| LabError::io("writing state.json", e))
    }
}

/// Replaces `path` by `text`: a reader sees the old contents or the new, never a part.
pub fn replace_file(path: &Path, text: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    fs::write(&new, text)?;
    fs::rename(&new, path)
}

/// Held while a lab is changed: a second deploy or destroy waits for the first.
#[derive(Debug)]
pub struct Lock(#[allow(dead_code, reason = "the lock lasts as long as the file is open")] File);

impl Lock {
    /// Waits for the lock of the lab called `name`.
    pub fn take(labs: &Path, name: &str) -> Result<Lock, LabError> {
        let path = labs.join(format!(".{name}.lock"));
        let take = || {
            fs::create_dir_all(labs)?;
            loop {
                let file = File::create(&path)?;
                file.lock()?;
                // A destroy that held it before us removed the file: then another could take a new one beside ours.
                let same = fs::metadata(&path).is_ok_and(|m| {
                    use std::os::unix::fs::MetadataExt;
                    file.metadata().is_ok_and(|own| own.ino() == m.ino())
                });
                if same {
                    return Ok(Lock(file));
                }
            }
        };
        take().map_err(|e: io::Error| LabError::io(format!("locking {}", path.display()), e))
    }

    /// Removes the lock's file, and the labs' directory when it is empty, then gives the lock up.
    pub fn remove(self, labs: &Path, name: &str) {
        let _ = fs::remove_file(labs.join(format!(".{name}.lock")));
        let _ = fs::remove_dir(labs);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_labs_directory_means_the_same_from_everywhere() {
        let here = std::env::current_dir().unwrap().canonicalize().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().canonicalize().unwrap();
        std::os::unix::fs::symlink(&real, real.join("link")).unwrap();
        fs::create_dir(real.join("sub")).unwrap();
        for other in ["link/labs", "link/link/labs", "sub/../labs"] {
            assert_eq!(labs_dir_of(Some(real.join(other).into())), real.join("labs"), "{other}");
        }
        assert_eq!(labs_dir_of(Some("some labs".into())), here.join("some labs"));
        assert_eq!(labs_dir_of(Some("/my labs".into())), Path::new("/my labs"));
        for unset in [None, Some(OsString::new())] {
            assert_eq!(labs_dir_of(unset), Path::new("/run/margay-lab"));
        }
    }
}
