//! `margayctl status`.

use jiff::Timestamp;
use margay_api::control::{DataplaneStatus, DatastoreStatus, Endpoint, NodeStatus};

use super::bgp::sessions;
use super::ipam::blocks;
use super::{list, unreachable};
use crate::fleet::{Fleet, Question};
use crate::output::{Format, Output, Table, ago, duration};
use crate::transport::Transport;

/// Agents, sessions, blocks and endpoints.
pub(crate) fn status(transport: &Transport, format: Format) -> anyhow::Result<Output> {
    let questions = [Question::STATUS, Question::PEERS, Question::BLOCKS, Question::ENDPOINTS];
    let now = Timestamp::now();
    let fleet = Fleet::ask(transport, &questions)?;
    Ok(fleet.output(format, false, |fleet| {
        let sections = [
            ("Agents", agents(fleet, now).to_string()),
            ("Sessions", sessions(fleet, now).to_string()),
            ("Blocks", blocks(fleet).to_string()),
            ("Endpoints", endpoints(fleet).to_string()),
        ];
        sections.map(|(title, table)| format!("{title}\n{table}")).join("\n")
    }))
}

fn agents(fleet: &Fleet, now: Timestamp) -> Table<11> {
    let mut table = Table::new([
        "NODE",
        "READY",
        "VERSION",
        "UPTIME",
        "SESSIONS",
        "ROUTES",
        "RULES",
        "PODS",
        "ADDRESSES",
        "API",
        "PROBLEM",
    ]);
    for (node, result) in fleet.nodes() {
        match result {
            Ok(report) => {
                let status = &report.status;
                table.row([
                    node.to_owned(),
                    if status.ready { "yes" } else { "no" }.to_owned(),
                    status.version.clone(),
                    duration(status.uptime_seconds),
                    format!("{}/{}", status.bgp.established, status.bgp.peers),
                    status.bgp.routes.to_string(),
                    rules(&status.dataplane),
                    status.dataplane.endpoints.to_string(),
                    format!("{}/{}", status.ipam.used, status.ipam.capacity),
                    api(&status.datastore, now),
                    problems(status),
                ]);
            }
            Err(reason) => table.row(unreachable(node, 1, reason)),
        }
    }
    table
}

/// Which back end, and whether the kernel has caught up.
fn rules(dataplane: &DataplaneStatus) -> String {
    let state = if dataplane.last_error.is_some() {
        "failed"
    } else if dataplane.in_sync && dataplane.revision == dataplane.in_force {
        "in sync"
    } else {
        "behind"
    };
    format!("{} {state}", dataplane.backend).trim_start().to_owned()
}

fn api(datastore: &DatastoreStatus, now: Timestamp) -> String {
    match (datastore.connected, datastore.synced) {
        (true, _) => "connected".to_owned(),
        (false, false) => "connecting".to_owned(),
        (false, true) => {
            let since = ago(datastore.lost_since.as_deref(), now);
            format!("lost {since}").trim_end().to_owned()
        }
    }
}

fn problems(status: &NodeStatus) -> String {
    let told = status
        .problems
        .iter()
        .map(|problem| format!("{}: {}", problem.part, problem.message));
    let untold = [
        ("dataplane", &status.dataplane.last_error),
        ("datastore", &status.datastore.last_error),
    ];
    let untold = untold
        .into_iter()
        .filter(|(part, _)| !status.problems.iter().any(|problem| problem.part == *part))
        .filter_map(|(part, error)| Some(format!("{part}: {}", error.as_ref()?)));
    told.chain(untold).collect::<Vec<_>>().join("; ")
}

fn endpoints(fleet: &Fleet) -> Table<7> {
    let mut table = Table::new(["NODE", "POD", "ADDRESSES", "INTERFACE", "POLICY", "INGRESS", "EGRESS"]);
    for (node, report) in fleet.reports() {
        for endpoint in &report.endpoints {
            table.row([
                node.to_owned(),
                format!("{}/{}", endpoint.namespace, endpoint.pod),
                list(&endpoint.addresses),
                endpoint.host_interface.clone(),
                in_force(endpoint),
                policies(&endpoint.policy.ingress),
                policies(&endpoint.policy.egress),
            ]);
        }
    }
    table
}

fn in_force(endpoint: &Endpoint) -> String {
    match (&endpoint.policy.reason, endpoint.policy.in_force) {
        (_, true) => "in force".to_owned(),
        (None, false) => "waiting".to_owned(),
        (Some(reason), false) => format!("waiting: {reason}"),
    }
}

fn policies(names: &[String]) -> String {
    if names.is_empty() {
        "open".to_owned()
    } else {
        list(names)
    }
}
