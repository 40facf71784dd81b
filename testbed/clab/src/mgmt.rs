//! The management network: its subnets, and the address of each node in it.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnetwork::{Ipv4Network, Ipv6Network};

use crate::fault::Findings;
use crate::plan::{Definitions, Mgmt, NodeKind, NodePlan};
use crate::schema;
use crate::yaml::{Mark, Yaml};

const IPV4_SUBNET: &str = "172.20.20.0/24";
const IPV6_SUBNET: &str = "3fff:172:20:20::/64";
/// Reads the `mgmt` section; absent fields have containerlab's defaults.
pub(crate) fn read(yaml: Option<&Yaml>, findings: &mut Findings) -> Mgmt {
    if let Some(yaml) = yaml {
        schema::MGMT.read(yaml, "mgmt", findings);
    }
    let ipv4: Ipv4Network = field(
        yaml,
        "ipv4-subnet",
        IPV4_SUBNET,
        "a subnet such as 172.20.20.0/24",
        findings,
    );
    let ipv6: Ipv6Network = field(
        yaml,
        "ipv6-subnet",
        IPV6_SUBNET,
        "a subnet such as 3fff:172:20:20::/64",
        findings,
    );
    if let Some(value) = yaml.and_then(|y| y.get("ipv4-subnet")).filter(|_| ipv4.prefix() > 29) {
        findings.fault(
            value.mark,
            "mgmt.ipv4-subnet",
            format!("{ipv4} has no room for nodes; use /29 or larger"),
        );
    }
    let first4 = ipv4.nth(1).unwrap_or_else(|| ipv4.network());
    let first6 = Ipv6Addr::from(u128::from(ipv6.network()) | 1);
    let ipv4_gw: Ipv4Addr = field(yaml, "ipv4-gw", &first4.to_string(), "an address", findings);
    let ipv6_gw: Ipv6Addr = field(yaml, "ipv6-gw", &first6.to_string(), "an address", findings);
    for (key, inside) in [("ipv4-gw", ipv4.contains(ipv4_gw)), ("ipv6-gw", ipv6.contains(ipv6_gw))] {
        if let Some(value) = yaml.and_then(|y| y.get(key)).filter(|_| !inside) {
            findings.fault(
                value.mark,
                format!("mgmt.{key}"),
                "is outside of the subnet; use an address inside it",
            );
        }
    }
    let mtu = field(yaml, "mtu", "1500", "a number of bytes", findings);
    Mgmt {
        ipv4,
        ipv4_gw,
        ipv6,
        ipv6_gw,
        mtu,
    }
}

/// Gives each machine its management addresses: the ones it asks for, then the free ones in the order of the file.
pub(crate) fn assign(mgmt: &Mgmt, definitions: &Definitions, nodes: &mut [NodePlan], findings: &mut Findings) {
    let mut taken4: BTreeMap<Ipv4Addr, String> = BTreeMap::from([(mgmt.ipv4_gw, "the gateway".to_owned())]);
    let mut taken6: BTreeMap<Ipv6Addr, String> = BTreeMap::from([(mgmt.ipv6_gw, "the gateway".to_owned())]);
    let mut asked: BTreeMap<String, (Option<Ipv4Addr>, Option<Ipv6Addr>)> = BTreeMap::new();
    for (name, _, layer) in &definitions.nodes {
        let mut want = (None, None);
        if let Some(text) = layer.text("mgmt-ipv4") {
            let usable =
                |a: &Ipv4Addr| mgmt.ipv4.contains(*a) && *a != mgmt.ipv4.network() && *a != mgmt.ipv4.broadcast();
            let at = At {
                node: name,
                key: "mgmt-ipv4",
                mark: text.mark,
            };
            want.0 = claim(&at, &text.value, usable, &mgmt.ipv4.to_string(), &mut taken4, findings);
        }
        if let Some(text) = layer.text("mgmt-ipv6") {
            let usable = |a: &Ipv6Addr| mgmt.ipv6.contains(*a) && *a != mgmt.ipv6.network();
            let at = At {
                node: name,
                key: "mgmt-ipv6",
                mark: text.mark,
            };
            want.1 = claim(&at, &text.value, usable, &mgmt.ipv6.to_string(), &mut taken6, findings);
        }
        asked.insert(name.clone(), want);
    }
    let mut free4 = mgmt
        .ipv4
        .iter()
        .skip(1)
        .filter(|a| *a != mgmt.ipv4.broadcast() && !taken4.contains_key(a));
    let mut free6 = mgmt.ipv6.iter().skip(1).filter(|a| !taken6.contains_key(a));
    for node in nodes
        .iter_mut()
        .filter(|n| n.kind == NodeKind::Linux && n.mgmt.is_some())
    {
        let (want4, want6) = asked.get(&node.name).copied().unwrap_or_default();
        match (want4.or_else(|| free4.next()), want6.or_else(|| free6.next())) {
            (Some(v4), Some(v6)) => node.mgmt = Some((v4, v6)),
            _ => {
                let mark = definitions
                    .nodes
                    .iter()
                    .find(|(n, ..)| *n == node.name)
                    .map_or(Mark::default(), |d| d.1);
                let field = format!("topology.nodes.{}", node.name);
                findings.fault(
                    mark,
                    field,
                    format!("no address left in {}; widen mgmt.ipv4-subnet", mgmt.ipv4),
                );
            }
        }
    }
}

struct At<'a> {
    node: &'a str,
    key: &'a str,
    mark: Mark,
}

fn claim<A: FromStr + Copy + Ord>(
    at: &At<'_>,
    text: &str,
    usable: impl Fn(&A) -> bool,
    subnet: &str,
    taken: &mut BTreeMap<A, String>,
    findings: &mut Findings,
) -> Option<A> {
    let field = format!("topology.nodes.{}.{}", at.node, at.key);
    let Some(address) = text.parse::<A>().ok() else {
        findings.fault(
            at.mark,
            field,
            format!("{text:?} is not an address; use one of {subnet}"),
        );
        return None;
    };
    if !usable(&address) {
        findings.fault(
            at.mark,
            field,
            format!("{text} is not a host of {subnet}; choose one, or change mgmt"),
        );
        return None;
    }
    if let Some(owner) = taken.get(&address) {
        findings.fault(
            at.mark,
            field,
            format!("{text} already belongs to {owner}; choose another of {subnet}"),
        );
        return None;
    }
    taken.insert(address, format!("node {}", at.node));
    Some(address)
}

fn field<T: FromStr>(yaml: Option<&Yaml>, key: &str, default: &str, want: &str, findings: &mut Findings) -> T
where
    T::Err: std::fmt::Display,
{
    let fallback = || {
        default
            .parse::<T>()
            .unwrap_or_else(|e| panic!("default of mgmt.{key} must parse: {e}"))
    };
    let Some(value) = yaml.and_then(|y| y.get(key)) else {
        return fallback();
    };
    let text = value.text().unwrap_or_default();
    match text.parse() {
        Ok(parsed) => parsed,
        Err(_) => {
            findings.fault(
                value.mark,
                format!("mgmt.{key}"),
                format!("{text:?} is wrong; write {want}"),
            );
            fallback()
        }
    }
}
