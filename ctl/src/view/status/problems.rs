//! What is wrong, each thing once, however many nodes say it.

use std::collections::{BTreeMap, BTreeSet};

use margay_api::control::{BgpPeer, BgpState, IpamBlock, NodeStatus};
use serde_json::{Value, json};

use crate::fleet::{Fleet, Report};
use crate::known::{Known, Pool, held_by};
use crate::output::Table;
use crate::view::bgp::{address, reason};
use crate::view::ipam::percent;
use crate::view::{counted, list};

/// Nodes that are named in a row.
const MOST_NODES: usize = 3;
/// Blocks of a node that is gone that are named.
const MOST_BLOCKS: usize = 3;

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Problem {
    /// Whether something does not work because of it; else it is only to be known.
    pub(super) down: bool,
    /// What it is about, as `agent` or `session`.
    part: String,
    message: String,
    /// The nodes, or other objects, that have it.
    places: BTreeSet<String>,
}

/// All problems: what is down first, then in order of part and words.
pub(super) fn problems(fleet: &Fleet) -> Vec<Problem> {
    let mut found = Found::default();
    for (node, result) in fleet.nodes() {
        match result {
            Ok(report) => found.report(node, report),
            Err(reason) => found.add(node, "agent", true, format!("does not answer: {reason}")),
        }
    }
    found.waiting(fleet);
    if let Some(known) = fleet.known() {
        let answered: BTreeSet<&str> = fleet.nodes().map(|(node, _)| node).collect();
        found.known(known, &answered);
    }
    found.sorted()
}

/// The first `most` of them.
pub(super) fn table(problems: &[Problem], most: usize) -> String {
    let mut table = Table::new(["WHERE", "PART", "STATE", "PROBLEM"]);
    for problem in problems.iter().take(most) {
        table.row([
            problem.place(),
            problem.part.clone(),
            if problem.down { "down" } else { "to know" }.to_owned(),
            problem.message.clone(),
        ]);
    }
    match problems.len().saturating_sub(most) {
        0 => table.to_string(),
        more => format!("{table}… and {more} more\n"),
    }
}

/// Errors that a node's parts have and its problems do not tell, with their parts.
pub(super) fn untold(status: &NodeStatus) -> impl Iterator<Item = (&'static str, &String)> {
    let errors = [
        ("dataplane", &status.dataplane.last_error),
        ("datastore", &status.datastore.last_error),
    ];
    errors
        .into_iter()
        .filter(|(part, _)| !status.problems.iter().any(|problem| problem.part == *part))
        .filter_map(|(part, error)| Some((part, error.as_ref()?)))
}

impl Problem {
    pub(super) fn json(&self) -> Value {
        json!({"where": self.places, "part": self.part, "down": self.down, "message": self.message})
    }

    fn place(&self) -> String {
        let named = list(self.places.iter().take(MOST_NODES));
        match self.places.len().saturating_sub(MOST_NODES) {
            0 => named,
            more => format!("{named} and {more} more"),
        }
    }
}

/// Problems by all but their places.
#[derive(Default)]
struct Found(BTreeMap<(bool, String, String), BTreeSet<String>>);

impl Found {
    fn add(&mut self, place: &str, part: &str, down: bool, message: String) {
        let places = self.0.entry((!down, part.to_owned(), message)).or_default();
        places.insert(place.to_owned());
    }

    fn sorted(self) -> Vec<Problem> {
        let problem = |((up, part, message), places): ((bool, _, _), _)| Problem {
            down: !up,
            part,
            message,
            places,
        };
        self.0.into_iter().map(problem).collect()
    }

    /// What an agent says.
    fn report(&mut self, node: &str, report: &Report) {
        let status = &report.status;
        let down: Vec<&BgpPeer> = report
            .peers
            .iter()
            .filter(|peer| peer.state != BgpState::Established)
            .collect();
        for peer in &down {
            self.add(node, "session", true, session(peer));
        }
        // These two are worth a person's getting up even while pods are served.
        let serious = ["dataplane", "datastore"];
        for problem in &status.problems {
            // The sessions have just said it, each with its own reason.
            if problem.part == "bgp" && !down.is_empty() {
                continue;
            }
            let is_down = !status.ready || serious.contains(&problem.part.as_str());
            self.add(node, &problem.part, is_down, problem.message.clone());
        }
        for (part, error) in untold(status) {
            self.add(node, part, true, error.clone());
        }
        if !status.ready && status.problems.is_empty() && untold(status).next().is_none() {
            self.add(node, "agent", true, "is not ready, and tells no reason".to_owned());
        }
    }

    /// Endpoints whose policy is not in force, by the reason.
    fn waiting(&mut self, fleet: &Fleet) {
        let mut reasons: BTreeMap<&str, (Vec<String>, BTreeSet<&str>)> = BTreeMap::new();
        for (node, report) in fleet.reports() {
            for endpoint in report.endpoints.iter().filter(|endpoint| !endpoint.policy.in_force) {
                let reason = endpoint.policy.reason.as_deref().unwrap_or("the agent tells no reason");
                let (pods, nodes) = reasons.entry(reason).or_default();
                pods.push(format!("{}/{}", endpoint.namespace, endpoint.pod));
                nodes.insert(node);
            }
        }
        for (reason, (pods, nodes)) in reasons {
            let who = match pods.as_slice() {
                [pod] => format!("{pod} waits for its policy"),
                pods => format!("{} endpoints wait for their policy, {} among them", pods.len(), pods[0]),
            };
            for node in nodes {
                self.add(node, "endpoint", false, format!("{who}: {reason}"));
            }
        }
    }

    /// What the API server knows.
    fn known(&mut self, known: &Known, answered: &BTreeSet<&str>) {
        let nodes = known.nodes.as_deref().unwrap_or_default();
        for node in nodes.iter().filter(|node| node.counts) {
            if !answered.contains(node.name.as_str()) {
                let way_out = "the agents' DaemonSet says why: kubectl describe daemonset margay-node";
                self.add(&node.name, "agent", true, format!("no agent's pod is on it; {way_out}"));
            }
            if let Some(reason) = &node.unready {
                self.add(&node.name, "node", true, format!("is not Ready: {reason}"));
            }
        }
        for (node, blocks) in known.gone() {
            self.add(node, "ipam", false, left_behind(node, &blocks));
        }
        for pool in known.pools.as_deref().unwrap_or_default() {
            if let Some((down, message)) = fullness(pool) {
                self.add(&format!("IPPool {}", pool.name), "ipam", down, message);
            }
        }
        for fault in known.faults() {
            self.add("margayctl", "api", false, fault);
        }
    }
}

/// No times in it: many nodes may say the same of one peer.
fn session(peer: &BgpPeer) -> String {
    let name = match peer.name.as_str() {
        "" => String::new(),
        name => format!("{name}, "),
    };
    let (address, remote_as, state) = (address(peer), peer.remote_as, peer.state.as_str());
    format!("with {address} ({name}AS {remote_as}) is {state}: {}", reason(peer))
}

fn left_behind(node: &str, blocks: &[&IpamBlock]) -> String {
    let named = list(blocks.iter().take(MOST_BLOCKS).map(|block| &block.cidr));
    let more = match blocks.len().saturating_sub(MOST_BLOCKS) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let addresses = counted(held_by(node, blocks), "address", "addresses");
    format!(
        "there is no such Node any more, and it still has {addresses} in {named}{more}: margay-controller releases what is \
         left behind, and its log says when"
    )
}

/// Whether a pool is full, or soon will be.
fn fullness(pool: &Pool) -> Option<(bool, String)> {
    let used = u128::from(pool.used);
    if pool.disabled || pool.size == 0 {
        None
    } else if used >= pool.size {
        Some((
            true,
            format!("all {} addresses are given out: add an IPPool", pool.size),
        ))
    } else if used.saturating_mul(10) >= pool.size.saturating_mul(9) {
        let (percent, size) = (percent(pool), pool.size);
        Some((
            false,
            format!("{percent} of {size} addresses are given out: add an IPPool in time"),
        ))
    } else if pool.free_blocks == 0 {
        let blocks = pool.blocks;
        let text = format!("all {blocks} blocks have an owner: a further node can only borrow. Add an IPPool");
        Some((false, text))
    } else {
        None
    }
}
