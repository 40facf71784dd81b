//! Takes Margay off the node that this runs on: what it put there goes, whoever else's things stay.
//!
//! `look` finds what is there and `plan` says what of it goes, in which order. Here it is carried out, and looked at once
//! more: what is still there then is told. Whatever kills this half way, the next run goes on from what is left.

mod look;
mod plan;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use margay_felix::dataplane::Remains;
use margay_netlink::{Handle, Op};

use crate::persist::{self, PersistError};

use look::Look;
use plan::{Folder, Plan};

/// What to take away, and how.
#[derive(Debug, Clone)]
pub struct Uninstall {
    /// The runtime's folder of plugins.
    pub bin_dir: PathBuf,
    /// The runtime's folder of configurations.
    pub conf_dir: PathBuf,
    /// The agent's state directory.
    pub state_dir: PathBuf,
    /// The agent's folder of sockets.
    pub run_dir: PathBuf,
    /// Prefix of pods' interfaces of which no record is left.
    pub interface_prefix: String,
    /// Cut off pods that are attached.
    pub force: bool,
    /// Change nothing, tell only.
    pub dry_run: bool,
}

/// Takes Margay off the node, or tells what would go; one line on `out` for each thing.
///
/// # Errors
/// While an agent runs, and without `force` while pods are attached; nothing is changed then. And afterwards, naming what
/// could not be taken away or looked at.
pub async fn uninstall(what: &Uninstall, out: &mut impl Write) -> anyhow::Result<()> {
    let netlink = Handle::new().context("cannot talk to the kernel by netlink; this needs CAP_NET_ADMIN")?;
    // No agent starts while this works.
    let claim = claim(what);
    let looked = look::look(what, &netlink).await?;
    let plan = plan::plan(&looked.found, &what.interface_prefix);
    if what.dry_run {
        for line in plan.lines() {
            writeln!(out, "would remove {line}")?;
        }
        complain(&looked.unread())?;
    }
    let _claim = claim?;
    refuse_attached(&plan, what.force)?;
    if what.dry_run {
        return Ok(());
    }
    let stays = carry_out(&plan, &looked, &netlink, out).await?;
    let after = look::look(what, &netlink).await?;
    let mut complaints = after.unread();
    for line in plan::plan(&after.found, &what.interface_prefix).lines() {
        complaints.push(match stays.get(&line) {
            Some(why) => format!("{line} stays: {why}"),
            None => format!("{line} is there again: something made it meanwhile"),
        });
    }
    if plan.is_empty() && complaints.is_empty() {
        writeln!(out, "nothing of Margay is on this node")?;
    }
    complain(&complaints)
}

fn complain(complaints: &[String]) -> anyhow::Result<()> {
    if complaints.is_empty() {
        return Ok(());
    }
    bail!("not all of Margay is gone:\n  {}", complaints.join("\n  "));
}

/// Makes sure that no agent serves the node; none does while the file is held.
fn claim(what: &Uninstall) -> anyhow::Result<Option<File>> {
    let socket = what.run_dir.join("control.sock");
    let way_out =
        "take it off this node first (kubectl -n margay-system delete daemonset margay-node), then run this again";
    if UnixStream::connect(&socket).is_ok() {
        bail!(
            "an agent serves this node and answers at {}: {way_out}",
            socket.display()
        );
    }
    let claimed = if what.dry_run {
        persist::look_at_claim(&what.state_dir).map(|()| None)
    } else if what.state_dir.exists() {
        persist::claim_dir(&what.state_dir).map(Some)
    } else {
        Ok(None)
    };
    match claimed {
        Err(PersistError::InUse { path }) => bail!("an agent serves this node and holds {}: {way_out}", path.display()),
        claimed => Ok(claimed?),
    }
}

fn refuse_attached(plan: &Plan, force: bool) -> anyhow::Result<()> {
    if force || plan.attached.is_empty() {
        return Ok(());
    }
    bail!(
        "pods of this node are attached and would lose their network: {}. Drain the node first (kubectl drain NODE \
         --ignore-daemonsets --delete-emptydir-data) and delete DaemonSets that are not on the host's network, or give --force",
        plan.attached.join(", ")
    );
}

/// What stays, and why.
type Stays = BTreeMap<String, String>;

/// Pods lose their links before the rules that judge their packets go; where a link stays, so do the rules.
async fn carry_out(plan: &Plan, looked: &Look, netlink: &Handle, out: &mut impl Write) -> io::Result<Stays> {
    let mut stays = Stays::new();
    let mut note = |line: &str, result: Result<(), String>| match result {
        Ok(()) => writeln!(out, "removed {line}"),
        Err(why) => {
            stays.insert(line.to_owned(), why);
            Ok(())
        }
    };
    for path in &plan.files {
        note(&path.display().to_string(), gone(std::fs::remove_file(path)))?;
    }
    let links = plan.links.iter().map(|link| Op::DeleteLink(link.index)).collect();
    let mut open = None;
    for (link, result) in plan.links.iter().zip(netlink.batch(links).await) {
        let result = known_gone(result);
        open = open.or(result.is_err().then_some(&link.line));
        note(&link.line, result)?;
    }
    let routes = plan.routes.iter().map(|(route, _)| Op::DeleteRoute(route.clone()));
    for ((_, line), result) in plan.routes.iter().zip(netlink.batch(routes.collect()).await) {
        note(line, known_gone(result))?;
    }
    if let Some(link) = open {
        for line in &plan.filters {
            note(line, Err(format!("{link} stays, and this judges its packets")))?;
        }
    } else {
        let refused: Vec<_> = looked.filters.remove().await.iter().map(ToString::to_string).collect();
        let left = Remains::read().await.lines();
        for line in &plan.filters {
            let result = if left.contains(line) {
                Err(refused.join("; "))
            } else {
                Ok(())
            };
            note(line, result)?;
        }
    }
    for folder in &plan.folders {
        note(&folder.path.display().to_string(), remove_folder(folder))?;
    }
    Ok(stays)
}

fn remove_folder(folder: &Folder) -> Result<(), String> {
    for path in &folder.ours {
        gone(remove(path)).map_err(|why| format!("{}: {why}", path.display()))?;
    }
    if !folder.others.is_empty() {
        return Err(format!("it holds what is not Margay's: {}", folder.others.join(", ")));
    }
    gone(std::fs::remove_dir(&folder.path))
}

fn remove(path: &Path) -> io::Result<()> {
    if path.symlink_metadata()?.is_dir() {
        std::fs::remove_dir_all(path)
    } else {
        std::fs::remove_file(path)
    }
}

fn gone(result: io::Result<()>) -> Result<(), String> {
    match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.to_string()),
        _ => Ok(()),
    }
}

/// Routes go with their links.
fn known_gone(result: margay_netlink::Result<()>) -> Result<(), String> {
    match result {
        Err(error) if !error.is_not_found() => Err(error.to_string()),
        _ => Ok(()),
    }
}
