//! Control groups of a machine: one below the caller's own in each hierarchy, which the machine takes for the root.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::mount::{MsFlags, mount};

const CGROUPS: &str = "/sys/fs/cgroup";

/// One line of /proc/PID/cgroup.
#[derive(Debug, PartialEq, Eq)]
struct Membership {
    /// Controllers, or `name=…`; empty for version 2.
    controllers: String,
    /// Path from the hierarchy's root.
    path: String,
}

/// Makes a group called `name` in each hierarchy, writing each to `list` before it is made, and moves the calling
/// process there.
pub(super) fn join(name: &str, list: &Path) -> Result<()> {
    let table = fs::read_to_string("/proc/self/cgroup").context("reading /proc/self/cgroup")?;
    let groups: Vec<(PathBuf, bool)> = memberships(&table)
        .into_iter()
        .filter_map(|membership| {
            let root = hierarchy(&membership.controllers)?;
            let parent = root.join(membership.path.trim_start_matches('/'));
            Some((parent.join(name), membership.controllers == "cpuset"))
        })
        .collect();
    let lines: Vec<String> = groups.iter().map(|(path, _)| path.display().to_string()).collect();
    fs::write(list, lines.join("\n")).with_context(|| format!("writing {}", list.display()))?;
    for (group, cpuset) in &groups {
        enter(group, *cpuset).with_context(|| format!("joining {}", group.display()))?;
    }
    Ok(())
}

fn enter(group: &Path, cpuset: bool) -> io::Result<()> {
    fs::create_dir_all(group)?;
    if cpuset && let Some(parent) = group.parent() {
        // A group of this controller takes no process before it says where one may run.
        for file in ["cpuset.cpus", "cpuset.mems"] {
            fs::write(group.join(file), fs::read(parent.join(file))?)?;
        }
        fs::write(group.join("cgroup.clone_children"), "1")?;
    }
    // The caller itself, whatever its number is here.
    fs::write(group.join("cgroup.procs"), "0")
}

fn memberships(table: &str) -> Vec<Membership> {
    let read = |line: &str| {
        let mut fields = line.splitn(3, ':').skip(1);
        Some(Membership {
            controllers: fields.next()?.to_owned(),
            path: fields.next()?.to_owned(),
        })
    };
    table.lines().filter_map(read).collect()
}

/// Where the hierarchy of these controllers is mounted on the host.
fn hierarchy(controllers: &str) -> Option<PathBuf> {
    let root = Path::new(CGROUPS);
    let candidates = match controllers {
        "" => vec![root.join("unified"), root.to_owned()],
        named if named.starts_with("name=") => vec![root.join(&named[5..])],
        some => some
            .split(',')
            .map(|one| root.join(one))
            .chain([root.join(some)])
            .collect(),
    };
    candidates.into_iter().find(|dir| dir.join("cgroup.procs").exists())
}

/// Mounts the machine's view of its groups on `target`. The calling process is in a cgroup namespace of its own.
pub(super) fn mount_view(target: &Path) -> Result<()> {
    let table = fs::read_to_string("/proc/self/cgroup").context("reading /proc/self/cgroup")?;
    let found = memberships(&table);
    // Version 2 alone, or version 1 with what kubelet needs in it.
    if !found.iter().any(|m| m.controllers.split(',').any(|c| c == "memory")) {
        mount(Some("cgroup2"), target, Some("cgroup2"), MsFlags::empty(), None::<&str>).context("mounting cgroup2")?;
        return delegate(target);
    }
    mount(
        Some("cgroup"),
        target,
        Some("tmpfs"),
        MsFlags::empty(),
        Some("mode=755"),
    )
    .context("mounting cgroups")?;
    for membership in found.iter().filter(|m| !m.controllers.is_empty()) {
        let (dir, options) = match membership.controllers.strip_prefix("name=") {
            Some(name) => (name.to_owned(), format!("none,name={name}")),
            None => (membership.controllers.clone(), membership.controllers.clone()),
        };
        let point = target.join(dir);
        fs::create_dir_all(&point)?;
        mount(
            Some("cgroup"),
            &point,
            Some("cgroup"),
            MsFlags::empty(),
            Some(options.as_str()),
        )
        .with_context(|| format!("mounting cgroup {}", membership.controllers))?;
    }
    Ok(())
}

/// A group of version 2 with processes of its own gives its children no controllers: the machine's move to a leaf.
fn delegate(root: &Path) -> Result<()> {
    let leaf = root.join("init.scope");
    fs::create_dir_all(&leaf).context("making init.scope")?;
    fs::write(leaf.join("cgroup.procs"), "1").context("moving to init.scope")?;
    let controllers = fs::read_to_string(root.join("cgroup.controllers"))?;
    for controller in controllers.split_whitespace() {
        fs::write(root.join("cgroup.subtree_control"), format!("+{controller}"))
            .with_context(|| format!("delegating the controller {controller}"))?;
    }
    Ok(())
}

/// Removes the groups listed in `list`, with all below them. Their processes are dead or about to be.
///
/// # Errors
/// When one stays.
pub(super) fn remove(list: &Path) -> Result<()> {
    let Ok(text) = fs::read_to_string(list) else {
        return Ok(());
    };
    for group in text.lines().map(Path::new) {
        let gone = margay_lab::process::wait_until(Duration::from_secs(10), || {
            remove_tree(group);
            !group.exists()
        });
        if !gone {
            bail!(
                "the control group {} stays; a process in it does not die",
                group.display()
            );
        }
    }
    let _ = fs::remove_file(list);
    Ok(())
}

fn remove_tree(group: &Path) {
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path());
        }
    }
    // The kernel's own files in it need not be removed. A busy one is tried again.
    let _ = fs::remove_dir(group);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memberships_are_read() {
        let table = "9:name=systemd:/\n4:memory:/a:b\n1:cpu,cpuacct:/x\n0::/\n";
        let want = [
            ("name=systemd", "/"),
            ("memory", "/a:b"),
            ("cpu,cpuacct", "/x"),
            ("", "/"),
        ];
        let want = want.map(|(controllers, path)| Membership {
            controllers: controllers.to_owned(),
            path: path.to_owned(),
        });
        assert_eq!(memberships(table), want);
    }
}
