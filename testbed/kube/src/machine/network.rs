//! The network of a machine that is off: as it was before the machine was first switched on.
//!
//! The namespace belongs to the lab's node and outlives the machine, as cables do. What a machine's power took with it
//! on real hardware is taken away here: rules, sets, routes, addresses, links, tracked connections, settings.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use margay_lab::Lab;
use margay_lab::NodeState;

/// Kernel settings of a network namespace, by their paths below /proc/sys/net.
pub(super) type Settings = BTreeMap<String, String>;

/// Settings that tell a state or act when they are written.
const NO_SETTINGS: [&str; 4] = ["flush", "nf_conntrack_count", "stable_secret", "fib_info_count"];

/// Reads all settings of the node's network.
pub(super) fn settings(lab: &Lab, node: &NodeState) -> Result<Settings> {
    let read = || {
        let mut found = Settings::new();
        collect(Path::new("/proc/sys/net"), "", &mut found)?;
        Ok(found)
    };
    Ok(lab.in_node_network(node, read)?)
}

/// Takes away what a machine left in the node's network. `ports` are the interfaces that the topology gave it.
pub(super) fn reset(lab: &Lab, node: &NodeState, ports: &[String], settings: &Settings) -> Result<()> {
    let script = script(ports);
    let out = lab
        .in_node_network(node, || {
            Command::new("/bin/sh")
                .args(["-c", &script])
                .env("PATH", super::PATH)
                .stdin(Stdio::null())
                .output()
        })
        .context("resetting the network")?;
    if !out.status.success() {
        bail!(
            "resetting the network of {}: {}",
            node.name,
            String::from_utf8_lossy(&out.stderr).trim()
        );
    }
    let restore = || {
        for (key, value) in settings {
            let path = Path::new("/proc/sys/net").join(key);
            // Interfaces come and go with their settings.
            if fs::read_to_string(&path).is_ok_and(|now| now.trim_end() != value) {
                fs::write(&path, value).map_err(|e| io::Error::new(e.kind(), format!("{key}={value}: {e}")))?;
            }
        }
        Ok(())
    };
    lab.in_node_network(node, restore)
        .with_context(|| format!("putting back the settings of {}", node.name))
}

/// A shell script that empties a network but for its `ports`, which it leaves down: a cable without light.
fn script(ports: &[String]) -> String {
    let keep: Vec<&str> = ports.iter().map(String::as_str).chain(["lo"]).collect();
    let mut lines = vec![
        "set -e".to_owned(),
        "nft flush ruleset".to_owned(),
        // Tables of the old back end exist only where somebody used it.
        "for family in ip ip6; do".to_owned(),
        "  tables=/proc/net/${family}_tables_names; [ -r $tables ] || continue".to_owned(),
        "  tool=iptables-legacy; [ $family = ip ] || tool=ip6tables-legacy".to_owned(),
        "  for table in $(cat $tables); do".to_owned(),
        "    $tool -t $table -S | sed -n 's/^-P \\([A-Z]*\\) .*/\\1/p' | while read -r chain; do $tool -t $table -P $chain ACCEPT; done"
            .to_owned(),
        "    $tool -t $table -F; $tool -t $table -X".to_owned(),
        "  done".to_owned(),
        "done".to_owned(),
        "ipset destroy".to_owned(),
        format!(
            "for link in $(ip -o link show | sed 's/^[0-9]*: \\([^:@]*\\).*/\\1/'); do case $link in {}) ;; *) \
             ip link delete $link 2>/dev/null || ! ip link show $link >/dev/null 2>&1 || exit 1 ;; esac; done",
            keep.join("|")
        ),
    ];
    for port in ports {
        lines.push(format!("ip link set {port} down"));
    }
    lines.push("ip link set lo down".to_owned());
    for family in ["-4", "-6"] {
        lines.push(format!("ip {family} address flush scope global 2>/dev/null"));
        lines.push(format!("ip {family} route flush table all 2>/dev/null || true"));
        lines.push(format!(
            "ip {family} rule show | sed 's/:.*//' | while read -r p; do [ $p = 0 ] || [ $p = 32766 ] || [ $p = 32767 ] || \
             ip {family} rule delete priority $p; done"
        ));
    }
    lines.push("ip neighbour flush nud all 2>/dev/null || true".to_owned());
    lines.push("conntrack -F 2>/dev/null || true".to_owned());
    lines.join("\n")
}

fn collect(dir: &Path, prefix: &str, found: &mut Settings) -> io::Result<()> {
    for entry in fs::read_dir(dir)?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let key = if prefix.is_empty() {
            name.clone()
        } else {
            format!("{prefix}/{name}")
        };
        let path = entry.path();
        if path.is_dir() {
            collect(&path, &key, found)?;
        } else if !NO_SETTINGS.contains(&name.as_str()) && !fs::metadata(&path)?.permissions().readonly() {
            // Some can be written and not read.
            if let Ok(value) = fs::read_to_string(&path) {
                found.insert(key, value.trim_end().to_owned());
            }
        }
    }
    Ok(())
}
