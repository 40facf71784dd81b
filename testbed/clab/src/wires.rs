//! Links of a topology.

use std::collections::BTreeMap;

use ipnetwork::IpNetwork;

use crate::fault::Findings;
use crate::plan::{End, EndSetup, LinkPlan, NodePlan};
use crate::schema;
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
            // The fields of other types would only add to that.
            return None;
        }
        schema::LINK.read(yaml, path, self.findings);
        let mtu = mtu(yaml, path, self.findings);
        let field = format!("{path}.endpoints");
        let Some(endpoints) = yaml.get("endpoints") else {
            self.findings
                .fault(yaml.mark, field, "missing; write endpoints: [\"a:eth1\", \"b:eth1\"]");
            return None;
        };
        let ends: Vec<Option<(End, EndSetup)>> = endpoints
            .items()
            .unwrap_or_default()
            .iter()
            .map(|e| endpoint(e, &field, self.findings).filter(|(end, _)| self.check(end, e.mark, &field)))
            .collect();
        match <[Option<(End, EndSetup)>; 2]>::try_from(ends) {
            Ok([Some((a, mut first)), Some((b, mut second))]) => {
                for key in ["ipv4", "ipv6"] {
                    self.addresses_in_order(yaml, key, path, [&mut first, &mut second]);
                }
                Some(LinkPlan {
                    ends: [a, b],
                    setup: [first, second],
                    mtu,
                })
            }
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

    /// A link's own `ipv4` and `ipv6`: an address for each end, in their order; an empty one is none.
    fn addresses_in_order(&mut self, yaml: &Yaml, key: &str, path: &str, setups: [&mut EndSetup; 2]) {
        let Some(value) = yaml.get(key) else { return };
        let field = format!("{path}.{key}");
        let items = value.items().unwrap_or_default();
        if !(1..=2).contains(&items.len()) {
            self.findings.fault(
                value.mark,
                field,
                "write a list with an address for each end, such as [10.0.0.0/31, 10.0.0.1/31]",
            );
            return;
        }
        for (item, setup) in items.iter().zip(setups) {
            if item.text().is_some_and(|text| text.is_empty()) {
                continue;
            }
            setup.addresses.extend(address(item, key, &field, self.findings));
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

/// `"node:interface"`, or `{node: …, interface: …}` with what else an end can have.
fn endpoint(yaml: &Yaml, field: &str, findings: &mut Findings) -> Option<(End, EndSetup)> {
    if let Some(text) = yaml.text() {
        let Some((node, interface)) = text.split_once(':') else {
            findings.fault(
                yaml.mark,
                field,
                format!("{text:?} is not an end of a link; write node:interface"),
            );
            return None;
        };
        let end = End {
            node: node.to_owned(),
            interface: interface.to_owned(),
        };
        return Some((end, EndSetup::default()));
    }
    schema::ENDPOINT.read(yaml, field, findings);
    let mut setup = EndSetup::default();
    if let Some(value) = yaml.get("mac") {
        let text = value.text().unwrap_or_default().replace('-', ":").to_lowercase();
        match is_mac(&text) {
            true => setup.mac = Some(text),
            false => findings.fault(
                value.mark,
                format!("{field}.mac"),
                format!("{text:?} is not an interface's address; write one such as 02:00:00:00:00:01"),
            ),
        }
    }
    for key in ["ipv4", "ipv6"] {
        if let Some(value) = yaml.get(key) {
            let field = format!("{field}.{key}");
            setup.addresses.extend(address(value, key, &field, findings));
        }
    }
    match (
        yaml.get("node").and_then(Yaml::text),
        yaml.get("interface").and_then(Yaml::text),
    ) {
        (Some(node), Some(interface)) => Some((End { node, interface }, setup)),
        _ => {
            findings.fault(yaml.mark, field, "an end of a link needs node and interface");
            None
        }
    }
}

/// Six bytes in hexadecimal, of which the first says that one interface alone has them.
fn is_mac(text: &str) -> bool {
    let bytes: Vec<Option<u8>> = text
        .split(':')
        .map(|byte| u8::from_str_radix(byte, 16).ok().filter(|_| byte.len() == 2))
        .collect();
    bytes.len() == 6 && bytes.iter().all(Option::is_some) && bytes[0].is_some_and(|first| first & 1 == 0)
}

fn address(yaml: &Yaml, family: &str, field: &str, findings: &mut Findings) -> Option<IpNetwork> {
    let text = yaml.text().unwrap_or_default();
    let parsed = text.parse::<IpNetwork>().ok();
    let found = parsed.filter(|a| text.contains('/') && a.is_ipv4() == (family == "ipv4"));
    if found.is_none() {
        findings.fault(
            yaml.mark,
            field,
            format!(
                "{text:?} is no {family} address with the length of its prefix; write one such as {}",
                match family {
                    "ipv4" => "10.0.0.1/24",
                    _ => "fd00::1/64",
                }
            ),
        );
    }
    found
}
