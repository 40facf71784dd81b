//! The rows of endpoints.

use margay_api::control::Endpoint;

use crate::fleet::Fleet;
use crate::output::Table;
use crate::view::list;

pub(super) fn endpoints(fleet: &Fleet) -> Table<7> {
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
