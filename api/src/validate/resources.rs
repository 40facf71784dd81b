//! `projectcalico.org/v3` resources: syntax inside text fields, and faults across objects.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::{Violation, is_as_number, is_router_address};
use crate::cidr;
use crate::selector::Selector;
use crate::v3::{BGPConfigurationSpec, BGPPeerSpec, FelixConfigurationSpec, IPPoolSpec};

/// Everything that is wrong with a pool by itself.
pub fn ip_pool(spec: &IPPoolSpec) -> Vec<Violation> {
    let mut found = Vec::new();
    match spec.network() {
        Err(error) => found.push(Violation::new("spec.cidr", error.to_string())),
        Ok(network) => {
            let prefix = spec.block_prefix();
            let (least, most) = if network.is_ipv4() { (20, 32) } else { (116, 128) };
            if !(least..=most).contains(&prefix) {
                let message = format!(
                    "{prefix} is not between {least} and {most}, as blocks of an {} pool are",
                    family(network)
                );
                found.push(Violation::new("spec.blockSize", message));
            } else if prefix < network.prefix() {
                let message = format!(
                    "a block of /{prefix} does not fit into {network}; make the pool larger or the block smaller"
                );
                found.push(Violation::new("spec.blockSize", message));
            }
        }
    }
    selector(spec.node_selector.as_deref(), "spec.nodeSelector", &mut found);
    selector(spec.namespace_selector.as_deref(), "spec.namespaceSelector", &mut found);
    found
}

/// A pool and what decides which of two is older.
#[derive(Clone, Copy, Debug)]
pub struct PoolRef<'a> {
    /// The pool's name.
    pub name: &'a str,
    /// When it was created, RFC 3339; missing counts as newest.
    pub created: Option<&'a str>,
    /// The pool.
    pub spec: &'a IPPoolSpec,
}

/// Pools to treat as absent because they share addresses with an older one, by name. Of two of one age, the name that
/// sorts first stays. A pool that is absent itself puts no other aside; invalid CIDRs are left to [`ip_pool`].
pub fn overlapping_pools<'a>(pools: impl IntoIterator<Item = PoolRef<'a>>) -> BTreeMap<String, Violation> {
    let mut pools: Vec<_> = pools
        .into_iter()
        .filter_map(|pool| Some((pool, pool.spec.network().ok()?)))
        .collect();
    pools.sort_by_key(|(pool, _)| (pool.created.is_none(), pool.created, pool.name));
    let mut kept: Vec<(&str, IpNetwork)> = Vec::new();
    let mut absent = BTreeMap::new();
    for (pool, network) in pools {
        match kept.iter().find(|(_, other)| cidr::overlaps(network, *other)) {
            Some((name, other)) => {
                let message = format!(
                    "{network} overlaps {other} of the older IPPool {name}; until one of them is deleted, this one is not used"
                );
                absent.insert(pool.name.to_owned(), Violation::new("spec.cidr", message));
            }
            None => kept.push((pool.name, network)),
        }
    }
    absent
}

/// Everything that is wrong with a peer.
pub fn bgp_peer(spec: &BGPPeerSpec) -> Vec<Violation> {
    let mut found = Vec::new();
    let set = |text: &Option<String>| text.as_deref().is_some_and(|text| !text.is_empty());
    let asked_for = spec.as_number.is_some_and(|number| number != 0);
    match (
        set(&spec.peer_ip),
        set(&spec.peer_selector),
        set(&spec.local_workload_selector),
    ) {
        (false, false, false) => {
            found.push(Violation::new(
                "spec.peerIP",
                "must be set, with asNumber, to peer with a router; or set peerSelector to peer with nodes",
            ));
        }
        (true, true, _) => found.push(Violation::new(
            "spec.peerSelector",
            "cannot be set together with peerIP",
        )),
        (false, true, _) if asked_for => {
            found.push(Violation::new(
                "spec.asNumber",
                "must be empty when peerSelector is set: each node has its own",
            ));
        }
        (true, false, _) => {
            let given = spec.peer_ip.as_deref().unwrap_or_default();
            let wrong = match spec.peer_address() {
                None => Some("is not an address, nor <IPv4>:<port> or [<IPv6>]:<port>"),
                Some((address, _)) if !is_router_address(address) => {
                    Some("is not the address of one router; give a unicast address that is not link-local")
                }
                Some(_) => None,
            };
            if let Some(wrong) = wrong {
                found.push(Violation::new("spec.peerIP", format!("\"{given}\" {wrong}")));
            }
            match spec.as_number {
                Some(number) if asked_for => as_number(number, &mut found),
                _ => found.push(Violation::new("spec.asNumber", "must be set when peerIP is set")),
            }
        }
        _ => {}
    }
    if set(&spec.node) && set(&spec.node_selector) {
        found.push(Violation::new("spec.nodeSelector", "cannot be set together with node"));
    }
    selector(spec.node_selector.as_deref(), "spec.nodeSelector", &mut found);
    selector(spec.peer_selector.as_deref(), "spec.peerSelector", &mut found);
    selector(
        spec.local_workload_selector.as_deref(),
        "spec.localWorkloadSelector",
        &mut found,
    );
    found
}

/// Everything that is wrong with BGP settings.
pub fn bgp_configuration(spec: &BGPConfigurationSpec) -> Vec<Violation> {
    let mut found = Vec::new();
    for (field, blocks) in [
        ("serviceClusterIPs", &spec.service_cluster_ips),
        ("serviceExternalIPs", &spec.service_external_ips),
        ("serviceLoadBalancerIPs", &spec.service_load_balancer_ips),
    ] {
        for (index, block) in blocks.iter().flatten().enumerate() {
            if let Err(error) = cidr::parse(&block.cidr) {
                found.push(Violation::new(format!("spec.{field}[{index}].cidr"), error.to_string()));
            }
        }
    }
    if spec.listen_port == Some(0) {
        found.push(Violation::new("spec.listenPort", "must be between 1 and 65535"));
    }
    if let Some(number) = spec.as_number.filter(|number| *number != 0) {
        as_number(number, &mut found);
    }
    found
}

/// Fewest bits of the packet mark that rules can work with.
const LEAST_MARK_BITS: u32 = 8;

/// How the names of a host's own links usually start. Rules for pods that met those would cut off the node.
pub(crate) const HOST_LINKS: [&str; 21] = [
    "bond", "br", "cni", "docker", "dummy", "en", "eth", "flannel", "ib", "lo", "tap", "team", "tun", "usb", "veth",
    "virbr", "vlan", "vxlan", "wg", "wl", "ww",
];

/// What a prefix of pods' interfaces must be.
pub(crate) const INTERFACE_PREFIX: &str = "must be 1 to 4 of a-z and 0-9, a letter first, and nothing that names of a host's \
    own links (such as eth0, ens3, br0 or veth1) start with: set mgy, cali or pod, or leave it out";

/// Everything that is wrong with the policy engine's settings.
pub fn felix_configuration(spec: &FelixConfigurationSpec) -> Vec<Violation> {
    let mut found = Vec::new();
    for (field, mask) in [
        ("iptablesMarkMask", spec.iptables_mark_mask),
        ("nftablesMarkMask", spec.nftables_mark_mask),
    ] {
        if let Some(mask) = mask.filter(|mask| mask.count_ones() < LEAST_MARK_BITS) {
            let message = format!(
                "{mask:#x} has {} bits; rules need at least {LEAST_MARK_BITS}",
                mask.count_ones()
            );
            found.push(Violation::new(format!("spec.{field}"), message));
        }
    }
    if spec
        .interface_prefix
        .as_deref()
        .is_some_and(|prefix| !fits_pods(prefix))
    {
        found.push(Violation::new("spec.interfacePrefix", INTERFACE_PREFIX));
    }
    for (field, port) in [
        ("healthPort", spec.health_port),
        ("prometheusMetricsPort", spec.prometheus_metrics_port),
    ] {
        if port == Some(0) {
            found.push(Violation::new(format!("spec.{field}"), "must be between 1 and 65535"));
        }
    }
    for (field, host) in [
        ("healthHost", &spec.health_host),
        ("prometheusMetricsHost", &spec.prometheus_metrics_host),
    ] {
        let fits = |host: &str| host.is_empty() || host == "localhost" || host.parse::<IpAddr>().is_ok();
        if let Some(host) = host.as_deref().filter(|host| !fits(host)) {
            found.push(Violation::new(
                format!("spec.{field}"),
                format!("\"{host}\" is neither an address nor localhost"),
            ));
        }
    }
    found
}

fn as_number(number: u32, found: &mut Vec<Violation>) {
    if !is_as_number(number) {
        let message = format!("{number} is reserved (RFC 6793, 7300); use the number of a real AS");
        found.push(Violation::new("spec.asNumber", message));
    }
}

/// See [`INTERFACE_PREFIX`]. 11 more characters follow in the name of an interface, which has room for 15.
fn fits_pods(prefix: &str) -> bool {
    (1..=4).contains(&prefix.len())
        && prefix.starts_with(|c: char| c.is_ascii_lowercase())
        && prefix.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        && !HOST_LINKS
            .iter()
            .any(|link| link.starts_with(prefix) || prefix.starts_with(link))
}

fn selector(text: Option<&str>, field: &str, found: &mut Vec<Violation>) {
    if let Some(Err(error)) = text.map(Selector::parse) {
        found.push(Violation::new(field, error.to_string()));
    }
}

fn family(network: IpNetwork) -> &'static str {
    if network.is_ipv4() { "IPv4" } else { "IPv6" }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pool(spec: serde_json::Value) -> IPPoolSpec {
        serde_json::from_value(spec).unwrap()
    }

    fn lines(found: Vec<Violation>) -> Vec<String> {
        found.iter().map(Violation::to_string).collect()
    }

    #[test]
    fn pools_are_checked_by_themselves() {
        for good in [
            json!({"cidr": "10.0.0.0/16"}),
            json!({"cidr": "10.0.0.0/26", "blockSize": 32, "nodeSelector": "has(rack)"}),
            json!({"cidr": "fd00::/64"}),
            json!({"cidr": "fd00::/64", "blockSize": 116, "nodeSelector": ""}),
        ] {
            assert_eq!(lines(ip_pool(&pool(good))), Vec::<String>::new());
        }
        for (bad, line) in [
            (
                json!({"cidr": "10.1.2.0/16"}),
                "spec.cidr: \"10.1.2.0/16\" has host bits set; write 10.1.0.0/16",
            ),
            (
                json!({"cidr": "ten"}),
                "spec.cidr: \"ten\" is not a CIDR such as 10.0.0.0/16 or fd00::/64",
            ),
            (
                json!({"cidr": "10.0.0.0/16", "blockSize": 19}),
                "spec.blockSize: 19 is not between 20 and 32, as blocks of an IPv4 pool are",
            ),
            (
                json!({"cidr": "fd00::/64", "blockSize": 26}),
                "spec.blockSize: 26 is not between 116 and 128, as blocks of an IPv6 pool are",
            ),
            (
                json!({"cidr": "10.0.0.0/27"}),
                "spec.blockSize: a block of /26 does not fit into 10.0.0.0/27; make the pool larger or the block smaller",
            ),
            (
                json!({"cidr": "10.0.0.0/16", "nodeSelector": "rack = 'a'"}),
                "spec.nodeSelector: selector `rack = 'a'`, column 6: expected `==`, `!=`, `in`, `not in`, `contains`, `starts with` or `ends with`, found `=`",
            ),
        ] {
            assert_eq!(lines(ip_pool(&pool(bad))), [line]);
        }
    }

    #[test]
    fn of_overlapping_pools_the_older_stays() {
        let wide = pool(json!({"cidr": "10.0.0.0/8"}));
        let (inside, inner) = (
            pool(json!({"cidr": "10.1.0.0/16"})),
            pool(json!({"cidr": "10.1.1.0/24"})),
        );
        let apart = pool(json!({"cidr": "192.168.0.0/16"}));
        let absent = overlapping_pools([
            PoolRef {
                name: "wide",
                created: Some("2026-01-02T00:00:00Z"),
                spec: &wide,
            },
            PoolRef {
                name: "inside",
                created: Some("2026-01-01T00:00:00Z"),
                spec: &inside,
            },
            PoolRef {
                name: "inner",
                created: None,
                spec: &inner,
            },
            PoolRef {
                name: "apart",
                created: None,
                spec: &apart,
            },
        ]);
        assert_eq!(absent.keys().collect::<Vec<_>>(), ["inner", "wide"]);
        assert_eq!(
            absent["wide"].to_string(),
            "spec.cidr: 10.0.0.0/8 overlaps 10.1.0.0/16 of the older IPPool inside; until one of them is deleted, this one is not used"
        );
    }

    #[test]
    fn peers_need_an_address_or_a_selector() {
        let fields = |spec| -> Vec<String> {
            bgp_peer(&serde_json::from_value(spec).unwrap())
                .into_iter()
                .map(|v| v.field)
                .collect()
        };
        assert_eq!(
            fields(json!({"peerIP": "10.0.0.1", "asNumber": 65000})),
            Vec::<String>::new()
        );
        assert_eq!(
            fields(json!({"peerIP": "[fd00::1]:1790", "asNumber": 65000, "node": "n"})),
            Vec::<String>::new()
        );
        assert_eq!(fields(json!({"peerSelector": "all()"})), Vec::<String>::new());
        assert_eq!(fields(json!({"asNumber": 65000})), ["spec.peerIP"]);
        assert_eq!(fields(json!({"peerIP": "10.0.0.1"})), ["spec.asNumber"]);
        assert_eq!(fields(json!({"peerIP": "10.0.0.1:0", "asNumber": 1})), ["spec.peerIP"]);
        assert_eq!(fields(json!({"peerIP": "tor1", "asNumber": 1})), ["spec.peerIP"]);
        for nobody in [
            "fe80::1",
            "224.0.0.1",
            "ff02::1",
            "0.0.0.0",
            "[::]:179",
            "255.255.255.255",
        ] {
            assert_eq!(fields(json!({"peerIP": nobody, "asNumber": 1})), ["spec.peerIP"]);
        }
        for reserved in [23456, u32::MAX] {
            assert_eq!(
                fields(json!({"peerIP": "10.0.0.1", "asNumber": reserved})),
                ["spec.asNumber"]
            );
        }
        assert_eq!(
            fields(json!({"peerSelector": "all()", "asNumber": 1})),
            ["spec.asNumber"]
        );
        assert_eq!(
            fields(json!({"peerSelector": "all()", "peerIP": "10.0.0.1"})),
            ["spec.peerSelector"]
        );
        assert_eq!(
            fields(json!({"peerSelector": "a ==", "node": "n", "nodeSelector": "b"})),
            ["spec.nodeSelector", "spec.nodeSelector", "spec.peerSelector"]
        );
    }

    #[test]
    fn masks_and_prefixes_are_checked() {
        let spec = FelixConfigurationSpec {
            iptables_mark_mask: Some(0x7f),
            interface_prefix: Some("toolong".into()),
            health_port: Some(0),
            health_host: Some("not a host".into()),
            ..Default::default()
        };
        let fields: Vec<String> = felix_configuration(&spec).into_iter().map(|v| v.field).collect();
        assert_eq!(
            fields,
            [
                "spec.iptablesMarkMask",
                "spec.interfacePrefix",
                "spec.healthPort",
                "spec.healthHost"
            ]
        );
    }
    #[test]
    fn a_prefix_meets_no_link_of_the_hosts_own() {
        let lines = |prefix: &str| {
            let interface_prefix = Some(prefix.to_owned());
            lines(felix_configuration(&FelixConfigurationSpec {
                interface_prefix,
                ..Default::default()
            }))
        };
        for good in ["mgy", "cali", "pod", "p", "k8s0", "ns"] {
            assert_eq!(lines(good), Vec::<String>::new(), "{good}");
        }
        for bad in [
            "", "e", "en", "eth", "eth0", "eno1", "l", "br", "veth", "dock", "b", "Pod", "1ab", "a-b", "a+", "é",
            "abcde",
        ] {
            assert_eq!(
                lines(bad),
                [format!("spec.interfacePrefix: {INTERFACE_PREFIX}")],
                "{bad}"
            );
        }
    }
}
