//! Finds what of Margay is on the node. Changes nothing.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context;
use margay_felix::dataplane::Remains;
use margay_netlink::{Handle, Netns, Route, RouteFilter};

use super::Uninstall;
use super::plan::{Folder, Found, Record};
use crate::agent::bgp_config;
use crate::endpoints::EndpointStore;
use crate::{host, install};

/// What there is.
pub(super) struct Look {
    pub(super) found: Found,
    /// What goes from the packet filters, to be told to.
    pub(super) filters: Remains,
}

impl Look {
    /// What could not be looked at.
    pub(super) fn unread(&self) -> Vec<String> {
        let unread = self.filters.unread().iter();
        unread
            .map(|error| format!("it is not known what packet filters hold: {error}"))
            .collect()
    }
}

pub(super) async fn look(what: &Uninstall, netlink: &Handle) -> anyhow::Result<Look> {
    let filters = Remains::read().await;
    let found = Found {
        files: [configurations(&what.conf_dir)?, plugin(&what.bin_dir)?].concat(),
        records: records(&what.state_dir.join("endpoints"))?,
        links: netlink.links().await.context("cannot list interfaces")?,
        routes: routes(netlink).await.context("cannot list routes")?,
        filters: filters.lines(),
        folders: [
            folder(&what.run_dir, &["cni.sock", "control.sock"])?,
            folder(
                &what.state_dir,
                &["endpoints", "cni-dels", "bgp.json", "cluster.json", "lock"],
            )?,
        ]
        .into_iter()
        .flatten()
        .collect(),
    };
    Ok(Look { found, filters })
}

/// Of both families and all tables, ours by their protocol numbers.
async fn routes(netlink: &Handle) -> margay_netlink::Result<Vec<Route>> {
    let mut routes = Vec::new();
    for protocol in [host::ROUTE_PROTOCOL, bgp_config::ROUTE_PROTOCOL] {
        let filter = RouteFilter {
            protocol: Some(protocol),
            ..RouteFilter::default()
        };
        routes.extend(netlink.routes(filter).await?);
    }
    Ok(routes)
}

fn records(dir: &Path) -> anyhow::Result<Vec<Record>> {
    let (records, _) = EndpointStore::read(dir)?;
    let record = |record: &crate::endpoints::EndpointRecord| Record {
        pod: format!("{}/{}", record.namespace, record.pod),
        interface: record.interface.clone(),
        lives: Netns::open(&record.netns).is_ok(),
    };
    Ok(records.values().map(record).collect())
}

/// Configurations of ours, and drafts of them.
fn configurations(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let names = names(dir)?;
    let mut ours: Vec<String> = Vec::new();
    for name in names.iter().filter(|name| name.ends_with(".conflist")) {
        let path = dir.join(name);
        let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        if install::is_ours(&bytes) {
            ours.push(name.clone());
        }
    }
    let is_ours = |name: &str| ours.iter().any(|ours| ours == name) || name == install::DEFAULT_CONF_NAME;
    let drafts = names.iter().filter(|name| draft_of(name).is_some_and(is_ours));
    Ok(ours.iter().chain(drafts).map(|name| dir.join(name)).collect())
}

fn plugin(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let is_ours = |name: &&String| *name == install::PLUGIN || draft_of(name) == Some(install::PLUGIN);
    Ok(names(dir)?.iter().filter(is_ours).map(|name| dir.join(name)).collect())
}

/// A folder of ours; in it `known` is, in the order in which it goes.
fn folder(path: &Path, known: &[&str]) -> anyhow::Result<Option<Folder>> {
    if !path.exists() {
        return Ok(None);
    }
    let names = names(path)?;
    let is_known = |name: &str| known.contains(&name);
    let (drafts, others): (Vec<_>, Vec<_>) = names
        .iter()
        .filter(|name| !is_known(name))
        .partition(|name| draft_of(name).is_some_and(is_known));
    let there = known.iter().filter(|known| names.iter().any(|name| name == *known));
    Ok(Some(Folder {
        ours: drafts
            .into_iter()
            .map(String::as_str)
            .chain(there.copied())
            .map(|name| path.join(name))
            .collect(),
        others: others.into_iter().cloned().collect(),
        path: path.to_owned(),
    }))
}

/// What `persist::replace_file` was about to put in place of a file when it was killed.
fn draft_of(name: &str) -> Option<&str> {
    let (of, process) = name.strip_prefix('.')?.strip_suffix(".new")?.rsplit_once('.')?;
    process.bytes().all(|byte| byte.is_ascii_digit()).then_some(of)
}

/// The names in a folder, sorted; none where there is no folder.
fn names(dir: &Path) -> anyhow::Result<Vec<String>> {
    let read = || -> io::Result<Vec<OsString>> { fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name())).collect() };
    let mut names = match read() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        read => read.with_context(|| format!("cannot list {}", dir.display()))?,
    };
    names.sort();
    Ok(names
        .into_iter()
        .map(|name| name.to_string_lossy().into_owned())
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_the_runtimes_folders_only_ours_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let ours = r#"{"name":"n","plugins":[{"type":"margay"},{"type":"portmap"}]}"#;
        for (name, text) in [
            ("10-margay.conflist", ours),
            ("20-renamed.conflist", ours),
            (".20-renamed.conflist.7.new", "{"),
            (".10-margay.conflist.77.new", "{"),
            (
                "05-theirs.conflist",
                r#"{"plugins":[{"type":"calico"},{"type":"margay"}]}"#,
            ),
            (".05-theirs.conflist.7.new", ours),
            ("odd.conflist", "margay"),
            ("margay.conf", ours),
            ("margay", ""),
            (".margay.1.new", ""),
            ("margay-ipvlan", ""),
        ] {
            fs::write(dir.path().join(name), text).unwrap();
        }
        let found = |paths: anyhow::Result<Vec<PathBuf>>| -> Vec<String> {
            let name = |path: &PathBuf| path.strip_prefix(dir.path()).unwrap().display().to_string();
            paths.unwrap().iter().map(name).collect()
        };
        assert_eq!(
            found(configurations(dir.path())),
            [
                "10-margay.conflist",
                "20-renamed.conflist",
                ".10-margay.conflist.77.new",
                ".20-renamed.conflist.7.new"
            ]
        );
        assert_eq!(found(plugin(dir.path())), [".margay.1.new", "margay"]);
        assert!(configurations(&dir.path().join("absent")).unwrap().is_empty());
    }

    #[test]
    fn what_somebody_else_put_into_a_folder_of_ours_is_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["lock", "notes.txt", ".bgp.json.5.new", "bgp.json"] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        let found = folder(dir.path(), &["endpoints", "bgp.json", "lock"]).unwrap().unwrap();
        let ours: Vec<_> = [".bgp.json.5.new", "bgp.json", "lock"]
            .map(|name| dir.path().join(name))
            .into();
        assert_eq!((found.ours, found.others), (ours, vec!["notes.txt".to_owned()]));
        assert!(folder(&dir.path().join("absent"), &[]).unwrap().is_none());
    }
}
