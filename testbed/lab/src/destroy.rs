//! Destroying a lab, whatever state it is in.

use std::fs;
use std::path::Path;

use crate::error::LabError;
use crate::process::{find_by_args, host_servers, kill_and_wait};
use crate::state::{LabState, Lock, labs_dir};
use crate::{init, lab_names};

/// Destroys the lab called `name`: every process, namespace, link, mount and file of it. `false` when there was none.
pub fn destroy(name: &str) -> Result<bool, LabError> {
    if !nix::unistd::geteuid().is_root() {
        return Err(LabError::NotRoot);
    }
    let labs = labs_dir();
    if !lab_names(&labs).iter().any(|n| n == name) {
        return Ok(false);
    }
    let lock = Lock::take(&labs, name)?;
    clear(&labs.join(name))?;
    lock.remove(&labs, name);
    Ok(true)
}

/// Ends what belongs to the lab in `dir` and removes `dir`. Needs no readable state.
pub(super) fn clear(dir: &Path) -> Result<(), LabError> {
    let Ok(dir) = dir.canonicalize() else { return Ok(()) };
    let dir = dir.as_path();
    let mut processes = host_servers(dir);
    if let Ok(Some(state)) = LabState::read(dir) {
        processes.extend(state.mgmt_process);
        processes.extend(state.nodes.iter().filter_map(|n| n.process));
    }
    // A deploy that was killed may not have written down what it had just started.
    processes.extend(find_by_args(&[init::SUBCOMMAND, &dir.to_string_lossy()]));
    kill_and_wait(&processes).map_err(|e| LabError::step("ending the lab's processes", e))?;
    fs::remove_dir_all(dir).map_err(|e| LabError::io(format!("removing {}", dir.display()), e))
}
