//! Pods' network namespaces: files that hold them open, as container runtimes make them.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::CloneFlags;

use margay_lab::enter::{Target, run_in};

/// Makes a network namespace with its loopback up, held by a file under `dir`.
pub(crate) fn create(dir: &Path, id: &str) -> io::Result<PathBuf> {
    fs::create_dir_all(dir)?;
    let path = dir.join(format!("pod-{}", &id[..16.min(id.len())]));
    File::create(&path)?;
    let held = path.clone();
    run_in(&Target::default(), CloneFlags::CLONE_NEWNET, move || {
        let flags = MsFlags::MS_BIND;
        mount(
            Some("/proc/thread-self/ns/net"),
            &held,
            None::<&str>,
            flags,
            None::<&str>,
        )?;
        let up = std::process::Command::new("ip")
            .args(["link", "set", "lo", "up"])
            .status()?;
        if up.success() {
            Ok(())
        } else {
            Err(io::Error::other("`ip link set lo up` failed"))
        }
    })?;
    Ok(path)
}

/// Lets a network namespace go; fine when it is gone already.
pub(crate) fn delete(path: &Path) -> io::Result<()> {
    if !path.exists() {
        return Ok(());
    }
    // Not mounted: a runner died between the two steps of creating it.
    let _ = umount2(path, MntFlags::MNT_DETACH);
    fs::remove_file(path)
}
