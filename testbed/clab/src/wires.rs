//! Links of a topology.

use std::collections::BTreeMap;

use crate::fault::Findings;
use crate::plan::{End, LinkPlan, NodePlan, known_keys};
use crate::yaml::{Mark, Yaml};

/// Containerlab's default MTU of a link.
const DEFAULT_MTU: u32 = 9500;
/// Longest interface name the kernel takes.
const MAX_NAME: usize = 15;

/// Reads `topology.links`.
///
/// Ends at a node that is among `names` but not `nodes` are passed over: that node's own faults say enough.
pub(crate) fn read(yaml: Option<&Yaml>, nodes: &[NodePlan], names: &[&str], findings: &mut Findings) -> Vec<LinkPlan> {
    let Some(yaml) = yaml else { return Vec::new() };
    let Some(items) = yaml.items() else {
        findings.fault(yaml.mark, "topology.links", format!("is {}; write a list", yaml.kind()));
        return Vec::new();
    };
    let mut reader = Reader {
        nodes,
        names,
        used: BTreeMap::new(),
        findings,
    };
    items
        .iter()
        .enumerate()
        .filter_map(|(i, item)| reader.link(item, &format!("topology.links[{i}]")))
        .collect()
}

struct Reader<'a> {
    nodes: &'a [NodePlan],
    names: &'a [&'a str],
    /// Ends seen so far and their lines.
    used: BTreeMap<End, u64>,
    findings: &'a mut Findings,
}

impl Reader<'_> {
    fn link(&mut self, yaml: &Yaml, path: &str) -> Option<LinkPlan> {
        known_keys(
            yaml,
            path,
            &["type", "endpoints", "mtu", "labels", "vars"],
            self.findings,
        );
        if let Some(kind) = yaml.get("type")
            && kind.text().as_deref() != Some("veth")
        {
            let name = kind.text().unwrap_or_default();
            let why = match name.as_str() {
                "host" | "mgmt-net" | "macvlan" | "vxlan" | "vxlan-stitch" => {
                    "is refused: a lab here never touches the host's own network; use type veth"
                }
                _ => "is refused; use type veth between two nodes",
            };
            self.findings
                .fault(kind.mark, format!("{path}.type"), format!("{name:?} {why}"));
            return None;
        }
        let mtu = mtu(yaml, path, self.findings);
        let field = format!("{path}.endpoints");
        let Some(endpoints) = yaml.get("endpoints") else {
            self.findings
                .fault(yaml.mark, field, "missing; write endpoints: [\"a:eth1\", \"b:eth1\"]");
            return None;
        };
        let ends: Vec<Option<End>> = endpoints
            .items()
            .unwrap_or_default()
            .iter()
            .map(|e| endpoint(e, &field, self.findings).filter(|end| self.check(end, e.mark, &field)))
            .collect();
        match <[Option<End>; 2]>::try_from(ends) {
            Ok([Some(a), Some(b)]) => Some(LinkPlan { ends: [a, b], mtu }),
            Ok(_) => None,
            Err(ends) => {
                self.findings.fault(
                    endpoints.mark,
                    field,
                    format!("a link has two ends, this one {}", ends.len()),
                );
                None
            }
        }
    }

    fn check(&mut self, end: &End, mark: Mark, field: &str) -> bool {
        let End { node, interface } = end;
        let before = self.findings.faults.len();
        let found = self.nodes.iter().find(|n| n.name == *node);
        if matches!(node.as_str(), "host" | "mgmt-net" | "macvlan" | "vxlan") {
            self.findings.fault(
                mark,
                field,
                format!("{node:?} is refused: a lab here never touches the host's own network; link two nodes"),
            );
        } else if !self.names.contains(&node.as_str()) {
            let names = self.names.join(", ");
            self.findings.fault(
                mark,
                field,
                format!("no node {node:?} in topology.nodes; nodes: {names}"),
            );
        }
        if let Some(why) = unusable_name(interface) {
            self.findings.fault(
                mark,
                field,
                format!("interface {interface:?} {why}; use one such as eth1"),
            );
        }
        if interface == "eth0" && found.is_some_and(|n| n.mgmt.is_some()) {
            self.findings.fault(
                mark,
                field,
                format!("eth0 of {node} is its management interface; use eth1, or give the node network-mode: none"),
            );
        }
        if let Some(line) = self.used.insert(end.clone(), mark.line) {
            self.findings.fault(
                mark,
                field,
                format!("{node}:{interface} is already an end of the link on line {line}; use another interface"),
            );
        }
        self.findings.faults.len() == before && found.is_some()
    }
}

fn unusable_name(interface: &str) -> Option<String> {
    if interface.len() > MAX_NAME {
        return Some(format!(
            "has {} characters and the kernel takes {MAX_NAME}",
            interface.len()
        ));
    }
    let bad =
        interface.is_empty() || interface.contains(['/', ' ', '\t', ':']) || [".", "..", "lo"].contains(&interface);
    bad.then(|| "cannot be an end of a link".to_owned())
}

fn mtu(yaml: &Yaml, path: &str, findings: &mut Findings) -> u32 {
    let Some(value) = yaml.get("mtu") else {
        return DEFAULT_MTU;
    };
    let text = value.text().unwrap_or_default();
    match text.parse() {
        Ok(mtu @ 68..=65535) => mtu,
        _ => {
            findings.fault(
                value.mark,
                format!("{path}.mtu"),
                format!("{text:?} is not an MTU; use 68 to 65535"),
            );
            DEFAULT_MTU
        }
    }
}

/// `"node:interface"`, or `{node: …, interface: …}`.
fn endpoint(yaml: &Yaml, field: &str, findings: &mut Findings) -> Option<End> {
    if let Some(text) = yaml.text() {
        let Some((node, interface)) = text.split_once(':') else {
            findings.fault(
                yaml.mark,
                field,
                format!("{text:?} is not an end of a link; write node:interface"),
            );
            return None;
        };
        return Some(End {
            node: node.to_owned(),
            interface: interface.to_owned(),
        });
    }
    known_keys(yaml, field, &["node", "interface"], findings);
    match (
        yaml.get("node").and_then(Yaml::text),
        yaml.get("interface").and_then(Yaml::text),
    ) {
        (Some(node), Some(interface)) => Some(End { node, interface }),
        _ => {
            findings.fault(yaml.mark, field, "an end of a link needs node and interface");
            None
        }
    }
}
