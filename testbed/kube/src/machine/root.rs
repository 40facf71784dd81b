//! A machine's root: the host's programs under a layer that forgets, with the machine's disk and devices in it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::{MachineSpec, PROGRAMS, cgroups};

/// What a machine keeps when it is switched off; everything else begins anew.
const KEPT: [&str; 5] = ["/etc/cni", "/etc/kubernetes", "/opt/cni", "/var/lib", "/var/log"];

/// Settings of the host's kernel, not of a namespace, that kubelet insists on: a machine sees these values, and writes
/// them nowhere.
const SHOWN: [(&str, &str); 6] = [
    ("kernel/keys/root_maxbytes", "25000000"),
    ("kernel/keys/root_maxkeys", "1000000"),
    ("kernel/panic", "10"),
    ("kernel/panic_on_oops", "1"),
    ("vm/overcommit_memory", "1"),
    ("vm/panic_on_oom", "0"),
];

/// Where the host's root stays visible until the machine's is complete.
const HOST: &str = "run/.host";

/// Makes the root and moves there. The calling process is the first of the machine's namespaces.
pub(super) fn make(spec: &MachineSpec) -> Result<()> {
    mount(
        None::<&str>,
        "/",
        None::<&str>,
        MsFlags::MS_REC | MsFlags::MS_PRIVATE,
        None::<&str>,
    )
    .context("making mounts private")?;
    let scratch = spec.scratch.as_path();
    filesystem("tmpfs", scratch, "mode=755")?;
    let root = overlay(scratch)?;
    filesystem("proc", &root.join("proc"), "")?;
    filesystem("sysfs", &root.join("sys"), "")?;
    filesystem("tmpfs", &root.join("run"), "mode=755")?;
    filesystem("tmpfs", &root.join("tmp"), "mode=1777")?;
    bind(Path::new("/dev"), &root.join("dev"), MsFlags::MS_REC)?;
    cgroups::mount_view(&root.join("sys/fs/cgroup"))?;
    for kept in KEPT {
        let source = spec.disk.join(kept.trim_start_matches('/'));
        fs::create_dir_all(&source).with_context(|| format!("making {}", source.display()))?;
        bind(&source, &inside(&root, kept), MsFlags::empty())?;
    }
    bind(&spec.programs, &inside(&root, PROGRAMS), MsFlags::empty())?;
    for dir in ["run/lock", "run/netns"] {
        fs::create_dir_all(root.join(dir))?;
    }
    names(&root, spec)?;
    shown(&root, scratch)?;

    let old = root.join(HOST);
    fs::create_dir(&old)?;
    nix::unistd::pivot_root(root.as_path(), &old).context("moving to the machine's root")?;
    std::env::set_current_dir("/")?;
    let old = Path::new("/").join(HOST);
    umount2(&old, MntFlags::MNT_DETACH).context("leaving the host's root")?;
    fs::remove_dir(&old)?;
    // Containers with mount propagation expect a shared root.
    mount(
        None::<&str>,
        "/",
        None::<&str>,
        MsFlags::MS_REC | MsFlags::MS_SHARED,
        None::<&str>,
    )
    .context("sharing mounts")
}

fn overlay(scratch: &Path) -> Result<PathBuf> {
    let [upper, work, root] = ["upper", "work", "root"].map(|name| scratch.join(name));
    for dir in [&upper, &work, &root] {
        fs::create_dir_all(dir)?;
    }
    let options = format!("lowerdir=/,upperdir={},workdir={}", upper.display(), work.display());
    mount(
        Some("overlay"),
        &root,
        Some("overlay"),
        MsFlags::empty(),
        Some(options.as_str()),
    )
    .context("an overlay of the host's root (the kernel needs overlayfs; try `modprobe overlay`)")?;
    Ok(root)
}

fn names(root: &Path, spec: &MachineSpec) -> Result<()> {
    fs::write("/proc/sys/kernel/hostname", &spec.hostname).context("setting the host name")?;
    let hostname = format!("{}\n", spec.hostname);
    for (file, text) in [
        ("hosts", spec.hosts.as_str()),
        ("hostname", &hostname),
        // The lab has no name server but the cluster's own.
        ("resolv.conf", "options timeout:1 attempts:1\n"),
    ] {
        let path = root.join("etc").join(file);
        let _ = fs::remove_file(&path);
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

fn shown(root: &Path, scratch: &Path) -> Result<()> {
    let dir = scratch.join("shown");
    fs::create_dir_all(&dir)?;
    for (key, value) in SHOWN {
        let file = dir.join(key.replace('/', "."));
        fs::write(&file, format!("{value}\n"))?;
        let setting = root.join("proc/sys").join(key);
        if setting.exists() {
            bind(&file, &setting, MsFlags::empty())?;
        }
    }
    Ok(())
}

fn inside(root: &Path, path: &str) -> PathBuf {
    root.join(path.trim_start_matches('/'))
}

fn filesystem(kind: &str, target: &Path, options: &str) -> Result<()> {
    mount(Some(kind), target, Some(kind), MsFlags::empty(), Some(options))
        .with_context(|| format!("mounting {kind} on {}", target.display()))
}

fn bind(source: &Path, target: &Path, flags: MsFlags) -> Result<()> {
    if source.is_dir() {
        fs::create_dir_all(target).with_context(|| format!("making {}", target.display()))?;
    }
    mount(
        Some(source),
        target,
        None::<&str>,
        MsFlags::MS_BIND | flags,
        None::<&str>,
    )
    .with_context(|| format!("binding {} on {}", source.display(), target.display()))
}
