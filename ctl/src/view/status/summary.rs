//! What is told first: sums over all nodes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use margay_api::control::BgpState;
use serde_json::{Value, json};

use super::problems::Problem;
use crate::fleet::Fleet;
use crate::known::Pool;
use crate::view::counted;
use crate::view::ipam::{merged, percent};

/// Pools that are named with how full they are.
const MOST_POOLS: usize = 4;

/// The sums.
#[derive(Debug)]
pub(super) struct Summary {
    asked: String,
    /// Nodes that count, and those whose agent says that it is ready.
    nodes: (usize, usize),
    /// How many agents have which version.
    versions: BTreeMap<String, usize>,
    /// Sessions, and those that are up.
    sessions: (usize, usize),
    /// Endpoints, and those that wait for their policy.
    endpoints: (usize, usize),
    /// Policies that select an endpoint.
    policies: usize,
    /// Blocks, the addresses in them, and those given out.
    addresses: (usize, u64, u64),
    /// Pools, the fullest first.
    pools: Option<Vec<Pool>>,
    /// Problems, and those that something is down by.
    problems: (usize, usize),
}

impl Summary {
    pub(super) fn of(fleet: &Fleet, problems: &[Problem]) -> Self {
        let mut nodes: BTreeSet<&str> = fleet.nodes().map(|(node, _)| node).collect();
        let known = fleet.known().and_then(|known| known.nodes.as_deref().ok());
        let meant = known.unwrap_or_default().iter().filter(|node| node.counts);
        nodes.extend(meant.map(|node| node.name.as_str()));
        let reports = || fleet.reports().map(|(_, report)| report);
        let peers = || reports().flat_map(|report| &report.peers);
        let endpoints = || reports().flat_map(|report| &report.endpoints);
        let policies = endpoints().flat_map(|endpoint| endpoint.policy.ingress.iter().chain(&endpoint.policy.egress));
        let mut versions = BTreeMap::new();
        for report in reports() {
            *versions.entry(report.status.version.clone()).or_default() += 1;
        }
        let mut addresses = (0, 0, 0);
        for block in merged(fleet) {
            addresses = (addresses.0 + 1, addresses.1 + block.capacity, addresses.2 + block.used);
        }
        Self {
            asked: fleet.asked().to_owned(),
            nodes: (nodes.len(), reports().filter(|report| report.status.ready).count()),
            versions,
            sessions: (
                peers().count(),
                peers().filter(|peer| peer.state == BgpState::Established).count(),
            ),
            endpoints: (
                endpoints().count(),
                endpoints().filter(|endpoint| !endpoint.policy.in_force).count(),
            ),
            policies: policies.collect::<BTreeSet<_>>().len(),
            addresses,
            pools: fleet.known().and_then(|known| fullest(known.pools.as_deref().ok()?)),
            problems: (problems.len(), problems.iter().filter(|problem| problem.down).count()),
        }
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "asked": self.asked,
            "nodes": {"total": self.nodes.0, "ready": self.nodes.1},
            "versions": self.versions,
            "sessions": {"total": self.sessions.0, "up": self.sessions.1},
            "endpoints": {"total": self.endpoints.0, "waiting": self.endpoints.1},
            "policies": self.policies,
            "addresses": {"blocks": self.addresses.0, "capacity": self.addresses.1, "used": self.addresses.2},
            "problems": {"total": self.problems.0, "down": self.problems.1},
        })
    }

    fn versions(&self) -> String {
        match self.versions.iter().collect::<Vec<_>>().as_slice() {
            [] => "-".to_owned(),
            [(version, _)] => (*version).clone(),
            several => {
                let each: Vec<String> = several
                    .iter()
                    .map(|(version, nodes)| format!("{version} ({nodes} nodes)"))
                    .collect();
                each.join(", ")
            }
        }
    }

    fn pools(pools: &[Pool]) -> String {
        let named = pools.iter().take(MOST_POOLS);
        let mut named: Vec<String> = named.map(|pool| format!("{} {}", pool.name, percent(pool))).collect();
        match pools.len().saturating_sub(MOST_POOLS) {
            0 if pools.is_empty() => named.push("none".to_owned()),
            0 => {}
            more => named.push(format!("{more} more")),
        }
        named.join(", ")
    }
}

fn fullest(pools: &[Pool]) -> Option<Vec<Pool>> {
    let share = |pool: &Pool| u128::from(pool.used).saturating_mul(1_000_000).checked_div(pool.size);
    let mut pools: Vec<Pool> = pools.iter().filter(|pool| !pool.disabled).cloned().collect();
    pools.sort_by_key(|pool| std::cmp::Reverse(share(pool)));
    Some(pools)
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (nodes, ready) = self.nodes;
        let (sessions, up) = self.sessions;
        let (endpoints, waiting) = self.endpoints;
        let (blocks, capacity, used) = self.addresses;
        let (problems, down) = self.problems;
        let mut line = |name: &str, text: &str| writeln!(f, "{name:<11}{text}");
        line("Asked", &self.asked)?;
        line("Nodes", &format!("{ready} of {nodes} ready"))?;
        line("Version", &self.versions())?;
        line("Sessions", &format!("{up} of {sessions} up"))?;
        let enforced = match waiting {
            0 => String::new(),
            waiting => format!(", policy not in force yet for {waiting}"),
        };
        line("Endpoints", &format!("{endpoints}{enforced}"))?;
        line("Policies", &format!("{} in use", self.policies))?;
        line(
            "Addresses",
            &format!("{used} of {capacity} in {}", counted(blocks, "block", "blocks")),
        )?;
        if let Some(pools) = &self.pools {
            line("Pools", &Self::pools(pools))?;
        }
        match (down, problems - down) {
            (0, 0) => line("Problems", "none"),
            (0, notes) => line("Problems", &format!("nothing is down, {notes} to know")),
            (down, 0) => line("Problems", &format!("{down} down")),
            (down, notes) => line("Problems", &format!("{down} down, {notes} to know")),
        }
    }
}
