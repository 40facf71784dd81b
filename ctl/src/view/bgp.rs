//! `margayctl bgp`.

use jiff::Timestamp;
use margay_api::control::{BgpPeer, BgpRoute, BgpState, NextHop};

use super::{list, unreachable};
use crate::fleet::Fleet;
use crate::output::{Format, Output, Table, ago};

/// Sessions with what they carry.
pub(super) fn peers(fleet: &Fleet, format: Format, now: Timestamp) -> Output {
    fleet.output(format, false, |fleet| {
        let mut table = Table::new([
            "NODE", "PEER", "NAME", "AS", "STATE", "SINCE", "RECEIVED", "ACCEPTED", "SENT", "REASON",
        ]);
        for (node, result) in fleet.nodes() {
            let report = match result {
                Ok(report) => report,
                Err(reason) => {
                    table.row(unreachable(node, 4, reason));
                    continue;
                }
            };
            for peer in &report.peers {
                table.row([
                    node.to_owned(),
                    address(peer),
                    peer.name.clone(),
                    peer.remote_as.to_string(),
                    peer.state.as_str().to_owned(),
                    ago(peer.since.as_deref(), now),
                    peer.prefixes_received.to_string(),
                    peer.prefixes_accepted.to_string(),
                    peer.prefixes_sent.to_string(),
                    reason(peer),
                ]);
            }
        }
        table.to_string()
    })
}

/// Every path of every prefix.
pub(super) fn routes(fleet: &Fleet, format: Format) -> Output {
    fleet.output(format, false, |fleet| {
        let mut table = Table::new(["NODE", "PREFIX", "USED", "NEXT HOP", "AS PATH", "FROM", "WHY"]);
        for (node, result) in fleet.nodes() {
            let report = match result {
                Ok(report) => report,
                Err(reason) => {
                    table.row(unreachable(node, 2, reason));
                    continue;
                }
            };
            for route in &report.routes {
                table.row([
                    node.to_owned(),
                    route.prefix.clone(),
                    used(route),
                    list(route.next_hops.iter().map(next_hop)),
                    route.as_path.clone(),
                    route.source.clone(),
                    route.why.clone(),
                ]);
            }
        }
        table.to_string()
    })
}

/// Sessions for an overview.
pub(super) fn sessions(fleet: &Fleet, now: Timestamp) -> Table<7> {
    let mut table = Table::new(["NODE", "PEER", "NAME", "AS", "STATE", "SINCE", "REASON"]);
    for (node, report) in fleet.reports() {
        for peer in &report.peers {
            table.row([
                node.to_owned(),
                address(peer),
                peer.name.clone(),
                peer.remote_as.to_string(),
                peer.state.as_str().to_owned(),
                ago(peer.since.as_deref(), now),
                reason(peer),
            ]);
        }
    }
    table
}

pub(super) fn address(peer: &BgpPeer) -> String {
    match peer.port {
        None | Some(179) => peer.address.clone(),
        Some(port) if peer.address.contains(':') => format!("[{}]:{port}", peer.address),
        Some(port) => format!("{}:{port}", peer.address),
    }
}

/// Why the session is down.
pub(super) fn reason(peer: &BgpPeer) -> String {
    if peer.state == BgpState::Established {
        return String::new();
    }
    let reason = peer.reason.as_ref().or(peer.last_error.as_ref());
    reason.map_or_else(|| "the agent tells no reason".to_owned(), Clone::clone)
}

fn used(route: &BgpRoute) -> String {
    let used = match (route.best, route.multipath) {
        (true, false) => "yes",
        (true, true) => "shared",
        (false, _) => "no",
    };
    if route.stale {
        format!("{used}, stale")
    } else {
        used.to_owned()
    }
}

fn next_hop(hop: &NextHop) -> String {
    match (&hop.address, &hop.interface) {
        (Some(address), Some(interface)) => format!("{address}%{interface}"),
        (Some(address), None) => address.to_string(),
        (None, Some(interface)) => interface.clone(),
        (None, None) => String::new(),
    }
}
