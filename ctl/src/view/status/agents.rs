//! The rows of agents.

use jiff::Timestamp;
use margay_api::control::{DataplaneStatus, DatastoreStatus, NodeStatus};

use super::problems::untold;
use crate::fleet::Fleet;
use crate::output::{Table, ago, duration};
use crate::view::unreachable;

pub(super) fn agents(fleet: &Fleet, now: Timestamp) -> Table<11> {
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
    let untold = untold(status).map(|(part, error)| format!("{part}: {error}"));
    told.chain(untold).collect::<Vec<_>>().join("; ")
}
