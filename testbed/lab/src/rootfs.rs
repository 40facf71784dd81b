//! A node's root: the machine's own, under a layer that keeps every change to the node.
//!
//! `/` is an overlay of the host's root with its changes in a tmpfs that only the node's mount namespace sees. So a
//! node has the machine's programs, may write anywhere, and nothing it writes reaches the host or outlives it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::init::RootSpec;
use margay_clab::Bind;

/// Directories that start empty in every node, whatever the machine has there.
const PRIVATE: &[&str] = &[
    "/etc/frr",
    "/etc/bird",
    "/etc/gobgp",
    "/etc/cni",
    "/opt/cni",
    "/var/lib/cni",
    "/var/lib/margay",
    "/var/log",
];
/// Created below the node's own /run.
const RUN: &[&str] = &["netns", "lock", "frr", "bird", "margay"];
/// Files of the machine's FRR package that an FRR image has too.
const FRR_FILES: &[&str] = &["daemons", "vtysh.conf"];

/// Where the machine's root stays visible while the node's is completed. Inside the node's own /run.
const HOST: &str = "/run/.host";

/// Makes the node's root and moves there.
pub(crate) fn make(spec: &RootSpec, hostname: &str) -> anyhow::Result<()> {
    private_mounts()?;
    let resolv = fs::read("/etc/resolv.conf").unwrap_or_default();
    let scratch = spec.scratch.canonicalize().context("finding the node's directory")?;
    mount_fs("tmpfs", &scratch, "mode=755")?;
    let root = scratch.join("root");
    overlay(&scratch, "root", Path::new("/"), &root)?;
    for (i, point) in submounts().context("reading the machine's mounts")?.iter().enumerate() {
        let target = root.join(point.strip_prefix("/").unwrap_or(point));
        if ["/var", "/etc", "/opt", "/root", "/srv", "/usr"]
            .iter()
            .any(|p| point.starts_with(p))
        {
            overlay(&scratch, &format!("sub{i}"), point, &target)?;
        } else {
            // What cannot be bound (a stale network mount, say) is no use in a node either.
            let _ = bind(point, &target, MsFlags::MS_REC);
        }
    }
    mount_fs("proc", &root.join("proc"), "")?;
    mount_fs("sysfs", &root.join("sys"), "")?;
    mount_fs("tmpfs", &root.join("run"), "mode=755")?;
    mount_fs("tmpfs", &root.join("tmp"), "mode=1777")?;
    let sources = sources(spec)?;
    enter(&root)?;

    for dir in RUN {
        fs::create_dir_all(Path::new("/run").join(dir))?;
    }
    private_dirs(&on_host(&scratch))?;
    names(&spec.hosts, hostname, &resolv)?;
    for (path, text) in &spec.files {
        let parent = path.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(parent)
            .and_then(|()| fs::write(path, text))
            .with_context(|| format!("writing {}", path.display()))?;
    }
    for (source, target, read_only) in sources {
        user_bind(&on_host(&source), &target, read_only)
            .with_context(|| format!("bind {}:{}", source.display(), target.display()))?;
    }
    umount2(HOST, MntFlags::MNT_DETACH).context("leaving the machine's root")?;
    fs::remove_dir(HOST)?;
    Ok(())
}

/// Source, target and whether read-only, of everything to bind. Sources are resolved while the machine's root is `/`.
fn sources(spec: &RootSpec) -> anyhow::Result<Vec<(PathBuf, PathBuf, bool)>> {
    let shared = spec.shared.iter().map(|p| Bind {
        source: p.clone(),
        target: p.clone(),
        read_only: false,
    });
    shared
        .chain(spec.binds.iter().cloned())
        .map(|b| {
            let source = b
                .source
                .canonicalize()
                .with_context(|| b.source.display().to_string())?;
            Ok((source, b.target, b.read_only))
        })
        .collect()
}

/// From here on paths are the node's, so that links such as /var/run lead where they lead in the node.
fn enter(root: &Path) -> anyhow::Result<()> {
    let old = root.join("run/.host");
    fs::create_dir(&old)?;
    nix::unistd::pivot_root(root, &old).context("moving to the node's root")?;
    std::env::set_current_dir("/")?;
    Ok(())
}

fn on_host(path: &Path) -> PathBuf {
    Path::new(HOST).join(path.strip_prefix("/").unwrap_or(path))
}

/// For a segment: the machine's root as it is, with /proc of its own.
pub(crate) fn private_proc() -> anyhow::Result<()> {
    private_mounts()?;
    mount_fs("proc", Path::new("/proc"), "")
}

fn private_mounts() -> anyhow::Result<()> {
    mount(
        None::<&str>,
        "/",
        None::<&str>,
        MsFlags::MS_REC | MsFlags::MS_PRIVATE,
        None::<&str>,
    )
    .context("making mounts private")
}

fn mount_fs(kind: &str, target: &Path, options: &str) -> anyhow::Result<()> {
    mount(Some(kind), target, Some(kind), MsFlags::empty(), Some(options))
        .with_context(|| format!("mounting {kind} on {}", target.display()))
}

fn overlay(scratch: &Path, name: &str, lower: &Path, target: &Path) -> anyhow::Result<()> {
    let (upper, work) = (
        scratch.join(format!("{name}.upper")),
        scratch.join(format!("{name}.work")),
    );
    for dir in [upper.as_path(), work.as_path(), target] {
        fs::create_dir_all(dir)?;
    }
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        lower.display(),
        upper.display(),
        work.display()
    );
    mount(
        Some("overlay"),
        target,
        Some("overlay"),
        MsFlags::empty(),
        Some(options.as_str()),
    )
    .with_context(|| {
        format!(
            "an overlay of {} (the kernel needs overlayfs; try `modprobe overlay`)",
            lower.display()
        )
    })
}

fn bind(source: &Path, target: &Path, flags: MsFlags) -> anyhow::Result<()> {
    mount(
        Some(source),
        target,
        None::<&str>,
        MsFlags::MS_BIND | flags,
        None::<&str>,
    )
    .with_context(|| format!("binding {}", source.display()))
}

/// Mounts directly on the root file system that a node should see too.
fn submounts() -> std::io::Result<Vec<PathBuf>> {
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    let rows: Vec<(&str, &str, &str)> = table
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ');
            Some((fields.next()?, fields.next()?, fields.nth(2)?))
        })
        .collect();
    let root = rows
        .iter()
        .rev()
        .find(|(_, _, point)| *point == "/")
        .map(|(id, ..)| *id);
    let mut points: Vec<PathBuf> = rows
        .iter()
        .filter(|(_, parent, point)| Some(*parent) == root && *point != "/")
        .map(|(_, _, point)| PathBuf::from(point.replace("\\040", " ")))
        .filter(|p| !["/proc", "/sys", "/run", "/tmp"].iter().any(|own| p.starts_with(own)))
        .filter(|p| p.is_dir())
        .collect();
    points.dedup();
    Ok(points)
}

fn private_dirs(scratch: &Path) -> anyhow::Result<()> {
    for (i, dir) in PRIVATE.iter().enumerate() {
        let own = scratch.join(format!("private{i}"));
        fs::create_dir_all(&own)?;
        fs::create_dir_all(dir).with_context(|| format!("making {dir}"))?;
        if *dir == "/etc/frr" {
            for file in FRR_FILES {
                if let Ok(text) = fs::read(Path::new(dir).join(file)) {
                    fs::write(own.join(file), text)?;
                }
            }
        }
        bind(&own, Path::new(dir), MsFlags::empty())?;
    }
    Ok(())
}

/// /etc/hosts, /etc/hostname, and a resolv.conf that does not point into the machine's /run.
fn names(hosts: &str, hostname: &str, resolv: &[u8]) -> anyhow::Result<()> {
    let hostname = format!("{hostname}\n");
    for (file, text) in [
        ("hosts", hosts.as_bytes()),
        ("hostname", hostname.as_bytes()),
        ("resolv.conf", resolv),
    ] {
        let path = Path::new("/etc").join(file);
        let _ = fs::remove_file(&path);
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644))?;
    }
    Ok(())
}

fn user_bind(source: &Path, target: &Path, read_only: bool) -> anyhow::Result<()> {
    if source.is_dir() {
        fs::create_dir_all(target)?;
    } else if !target.exists() {
        fs::create_dir_all(target.parent().unwrap_or(Path::new("/")))?;
        fs::write(target, "")?;
    }
    bind(source, target, MsFlags::MS_REC)?;
    if read_only {
        let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        mount(None::<&str>, target, None::<&str>, flags, None::<&str>).context("making it read-only")?;
    }
    Ok(())
}
