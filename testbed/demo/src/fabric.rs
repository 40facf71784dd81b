//! What the routers say they learnt, in their own words, and whether both ways to a block carry packets.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use margay_testkit::shell::{Shell, wait_for};

/// A router of the topology, and how a person asks it for its routes.
#[derive(Debug, Clone, Copy)]
pub struct Router {
    /// Name in the topology.
    pub name: &'static str,
    /// The commands that print its BGP routes: IPv4, then IPv6.
    pub ask: [&'static [&'static str]; 2],
}

const FRR: [&[&str]; 2] = [
    &["vtysh", "-c", "show ip route bgp"],
    &["vtysh", "-c", "show ipv6 route bgp"],
];
const BIRD: [&[&str]; 2] = [
    &[
        "birdc",
        "show",
        "route",
        "table",
        "master4",
        "where",
        "source = RTS_BGP",
    ],
    &[
        "birdc",
        "show",
        "route",
        "table",
        "master6",
        "where",
        "source = RTS_BGP",
    ],
];

/// The routers of `two-racks.clab.yml`.
pub const ROUTERS: [Router; 4] = [
    Router { name: "tor1", ask: FRR },
    Router {
        name: "tor2",
        ask: BIRD,
    },
    Router {
        name: "spine1",
        ask: FRR,
    },
    Router {
        name: "spine2",
        ask: FRR,
    },
];

/// The cluster's nodes of `two-racks.clab.yml`.
pub const NODES: [&str; 3] = ["node1", "node2", "node3"];

/// IPAM blocks by node of the topology, as the cluster's BlockAffinities say.
///
/// # Errors
/// If the API server does not answer or an affinity lacks its node or block.
pub fn blocks(shell: &Shell) -> Result<BTreeMap<String, Vec<String>>> {
    let affinities: Value = serde_json::from_str(&shell.kubectl(&["get", "blockaffinities", "-o", "json"])?)?;
    let mut blocks: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for affinity in affinities["items"].as_array().into_iter().flatten() {
        let spec = &affinity["spec"];
        if spec["state"] == "confirmed" {
            let node = spec["node"].as_str().context("a BlockAffinity without spec.node")?;
            let block = spec["cidr"].as_str().context("a BlockAffinity without spec.cidr")?;
            blocks.entry(node.to_owned()).or_default().push(block.to_owned());
        }
    }
    // An API server that was given has nodes of its own.
    blocks.retain(|node, _| NODES.contains(&node.as_str()));
    Ok(blocks)
}

/// What `router` answers to `ask`, which must name every block.
///
/// # Errors
/// If it is not so within `limit`; the error carries the router's last words.
pub fn words_naming(shell: &Shell, router: &str, ask: &[&str], blocks: &[String], limit: Duration) -> Result<String> {
    wait_for(&format!("{router} learns every node's block"), limit, || {
        let words = shell.in_node(router, ask)?;
        let missing: Vec<_> = blocks.iter().filter(|block| !words.contains(block.as_str())).collect();
        ensure!(missing.is_empty(), "it lacks {missing:?}; it says:\n{words}");
        Ok(words)
    })
}

/// The interfaces over which `node`'s kernel forwards to `destination`, one per next hop.
///
/// # Errors
/// If the node does not answer or has no route.
pub fn next_hops(shell: &Shell, node: &str, destination: &str) -> Result<Vec<String>> {
    let family = if destination.contains(':') { "-6" } else { "-4" };
    let routes: Value =
        serde_json::from_str(&shell.in_node(node, &["ip", "-j", family, "route", "show", destination])?)?;
    let mut interfaces = Vec::new();
    for route in routes.as_array().into_iter().flatten() {
        match route["nexthops"].as_array() {
            Some(hops) => interfaces.extend(hops.iter().filter_map(|hop| hop["dev"].as_str())),
            None => interfaces.extend(route["dev"].as_str()),
        }
    }
    if interfaces.is_empty() {
        bail!("{node} has no route to {destination}");
    }
    Ok(interfaces.into_iter().map(str::to_owned).collect())
}

/// Packets sent so far over each of `node`'s interfaces.
///
/// # Errors
/// If the node does not answer.
pub fn packets_sent(shell: &Shell, node: &str, interfaces: &[String]) -> Result<BTreeMap<String, u64>> {
    let links: Value = serde_json::from_str(&shell.in_node(node, &["ip", "-j", "-s", "link"])?)?;
    let mut sent = BTreeMap::new();
    for link in links.as_array().into_iter().flatten() {
        let name = link["ifname"].as_str().unwrap_or_default();
        if interfaces.iter().any(|wanted| wanted == name) {
            let packets = link["stats64"]["tx"]["packets"]
                .as_u64()
                .context("a link without counters")?;
            sent.insert(name.to_owned(), packets);
        }
    }
    Ok(sent)
}

/// The address `node` uses as its source towards `destination`.
///
/// # Errors
/// If the node does not answer or has no route there.
pub fn source_towards(shell: &Shell, node: &str, destination: IpAddr) -> Result<IpAddr> {
    let destination = destination.to_string();
    let routes: Value = serde_json::from_str(&shell.in_node(node, &["ip", "-j", "route", "get", &destination])?)?;
    let source = routes[0]["prefsrc"]
        .as_str()
        .with_context(|| format!("{node} has no route to {destination}"))?;
    Ok(source.parse()?)
}

/// All global addresses of `node`.
///
/// # Errors
/// If the node does not answer.
pub fn addresses(shell: &Shell, node: &str) -> Result<Vec<IpAddr>> {
    let links: Value = serde_json::from_str(&shell.in_node(node, &["ip", "-j", "addr"])?)?;
    let infos = links
        .as_array()
        .into_iter()
        .flatten()
        .flat_map(|link| link["addr_info"].as_array())
        .flatten();
    Ok(infos
        .filter(|info| info["scope"] == "global")
        .filter_map(|info| info["local"].as_str()?.parse().ok())
        .collect())
}
