//! What is deployed, for people and for programs.

use serde_json::{Value, json};

use crate::Lab;
use crate::process::ProcessId;
use margay_clab::NodeKind;

/// The labs as containerlab's `inspect -o json` prints them: lab name → list of nodes.
pub fn inspect_json(labs: &[Lab]) -> Value {
    let of = |lab: &Lab| -> Vec<Value> {
        lab.state
            .nodes
            .iter()
            .map(|n| {
                json!({
                    "lab_name": lab.state.name,
                    "absLabPath": lab.state.topology,
                    "name": n.long_name,
                    "node": n.name,
                    "pid": n.process.map(|p| p.pid),
                    "kind": kind(n.kind),
                    "image": n.image,
                    "state": state(n.process),
                    "ipv4_address": n.mgmt_ipv4.map(|a| format!("{a}/{}", lab.state.mgmt.ipv4.prefix())),
                    "ipv6_address": n.mgmt_ipv6.map(|a| format!("{a}/{}", lab.state.mgmt.ipv6.prefix())),
                    "labels": n.labels,
                })
            })
            .collect()
    };
    Value::Object(
        labs.iter()
            .map(|lab| (lab.state.name.clone(), Value::from(of(lab))))
            .collect(),
    )
}

/// The labs as a table.
pub fn inspect_table(labs: &[Lab]) -> String {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::UTF8_BORDERS_ONLY);
    table.set_header(["Lab", "Node", "Kind", "Image", "State", "Management address"]);
    for lab in labs {
        for n in &lab.state.nodes {
            let address = n.mgmt_ipv4.map_or_else(|| "-".to_owned(), |a| a.to_string());
            table.add_row([
                &lab.state.name,
                &n.name,
                kind(n.kind),
                &n.image,
                state(n.process),
                &address,
            ]);
        }
    }
    table.to_string()
}

fn kind(kind: NodeKind) -> &'static str {
    match kind {
        NodeKind::Linux => "linux",
        NodeKind::Bridge => "bridge",
    }
}

fn state(process: Option<ProcessId>) -> &'static str {
    if process.is_some_and(ProcessId::alive) {
        "running"
    } else {
        "dead"
    }
}
