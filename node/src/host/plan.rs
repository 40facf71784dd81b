//! What the host side of this node must look like, and the changes that bring it there. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use ipnetwork::IpNetwork;
use margay_netlink::{Link, Op, Route, RouteKind};

/// Route protocol number of what this module installs: routes to local pods and the blackholes of own blocks. Routes of
/// any other number are never changed or removed here.
pub const ROUTE_PROTOCOL: u8 = 177;

/// The wanted state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Desired {
    /// Addresses behind each host side interface.
    pub pods: BTreeMap<String, Vec<IpAddr>>,
    /// Own blocks, and addresses held in blocks of others: what no pod has is dropped here and does not follow the default
    /// route out again.
    pub blocks: Vec<IpNetwork>,
    /// Prefix of the names of host side interfaces.
    pub interface_prefix: String,
    /// Interfaces whose MTU bounds that of pods, as a regular expression; `None` for all that packets leave by.
    pub mtu_interfaces: Option<String>,
    /// How often everything is looked at although nothing was heard of.
    pub refresh: Duration,
}

impl Default for Desired {
    fn default() -> Self {
        Self {
            pods: BTreeMap::new(),
            blocks: Vec::new(),
            interface_prefix: "mgy".to_owned(),
            mtu_interfaces: None,
            refresh: Duration::from_secs(90),
        }
    }
}

/// Changes to make.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// In order: removals first.
    pub ops: Vec<Op>,
    /// Settings below `/proc/sys`, in order.
    pub settings: Vec<(String, &'static str)>,
    /// Interfaces of known pods that do not exist or are down.
    pub missing: Vec<String>,
}

/// Compares. `links` are all links, `routes` the routes of [`ROUTE_PROTOCOL`] in the main table.
pub fn plan(desired: &Desired, links: &[Link], routes: &[Route]) -> Plan {
    let mut plan = Plan::default();
    let by_name: BTreeMap<_, _> = links.iter().map(|link| (link.name.as_str(), link)).collect();
    let mut wanted: BTreeMap<IpNetwork, Route> = BTreeMap::new();
    for block in &desired.blocks {
        wanted.insert(*block, Route::blackhole(*block).protocol(ROUTE_PROTOCOL));
    }
    for (name, addresses) in &desired.pods {
        let Some(link) = by_name.get(name.as_str()).filter(|link| link.up) else {
            plan.missing.push(name.clone());
            continue;
        };
        plan.settings.extend(margay_cni::host::settings(name));
        for address in addresses {
            // After the blocks: of a block of one address the pod's own route is the one to have.
            let network = IpNetwork::from(*address);
            wanted.insert(network, Route::on_link(network, link.index).protocol(ROUTE_PROTOCOL));
        }
    }
    let present: BTreeMap<_, _> = routes.iter().map(|route| (route.dst, route)).collect();
    for (network, route) in &present {
        if !wanted.contains_key(network) {
            plan.ops.push(Op::DeleteRoute((*route).clone()));
        }
    }
    for (network, route) in wanted {
        match present.get(&network) {
            Some(there) if same(there, &route) => {}
            // Replacing is safe only for what is surely ours: the kernel does not look at the protocol.
            Some(there) if there.kind == route.kind => plan.ops.push(Op::ReplaceRoute(route)),
            Some(there) => {
                plan.ops.push(Op::DeleteRoute((*there).clone()));
                plan.ops.push(Op::AddRoute(route));
            }
            None => plan.ops.push(Op::AddRoute(route)),
        }
    }
    plan
}

/// Settings of the whole node. `accept_ra` is the current value of each interface that has one.
///
/// With forwarding on, the kernel stops listening to router advertisements on interfaces with `accept_ra=1`; a node whose
/// own IPv6 default route comes from one would lose it.
pub fn node_settings(accept_ra: &BTreeMap<String, String>, interface_prefix: &str) -> Vec<(String, &'static str)> {
    let listening = accept_ra
        .iter()
        .filter(|(name, value)| !name.starts_with(interface_prefix) && *value == "1");
    let mut settings: Vec<_> = listening
        .map(|(name, _)| (format!("net/ipv6/conf/{name}/accept_ra"), "2"))
        .collect();
    for (path, value) in [
        ("net/ipv4/ip_forward", "1"),
        ("net/ipv6/conf/all/forwarding", "1"),
        ("net/ipv4/fib_multipath_hash_policy", "1"),
        ("net/ipv6/fib_multipath_hash_policy", "1"),
    ] {
        settings.push((path.to_owned(), value));
    }
    settings
}

/// The MTU for pods: the smallest of the interfaces that packets leave the node by. Tunnels of other software are none of
/// them, unless the pattern names them. A pattern that matches nothing bounds nothing.
pub fn pod_mtu(links: &[Link], interface_prefix: &str, pattern: Option<&str>) -> u32 {
    let pattern = pattern.and_then(|text| regex_lite::Regex::new(text).ok());
    let carries = |link: &&Link| match &pattern {
        Some(pattern) => pattern.is_match(&link.name),
        None => {
            !link.loopback
                && link.master.is_none()
                && !link.name.starts_with(interface_prefix)
                && !matches!(link.kind.as_deref(), Some("bridge" | "dummy" | "ipvlan" | "tun"))
        }
    };
    let mtus = links.iter().filter(|link| link.up).filter(carries).map(|link| link.mtu);
    mtus.filter(|mtu| *mtu >= 1280).min().unwrap_or(1500)
}

/// Interfaces with our prefix that belong to no known pod.
pub fn unknown_interfaces<'a>(desired: &Desired, links: &'a [Link]) -> BTreeSet<&'a str> {
    let ours = links
        .iter()
        .filter(|link| link.name.starts_with(&desired.interface_prefix));
    ours.map(|link| link.name.as_str())
        .filter(|name| !desired.pods.contains_key(*name))
        .collect()
}

fn same(there: &Route, wanted: &Route) -> bool {
    let ways = |route: &Route| route.next_hops.iter().map(|hop| (hop.via, hop.oif)).collect::<Vec<_>>();
    // A blackhole of IPv6 reads back as going to the loopback.
    there.kind == wanted.kind && (there.kind == RouteKind::Blackhole || ways(there) == ways(wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, name: &str, up: bool) -> Link {
        Link {
            index,
            name: name.into(),
            up,
            mtu: 1500,
            ..Link::default()
        }
    }

    fn network(text: &str) -> IpNetwork {
        text.parse().unwrap()
    }

    fn desired() -> Desired {
        Desired {
            pods: BTreeMap::from([
                (
                    "mgya".to_owned(),
                    vec!["10.244.0.5".parse().unwrap(), "fd00::5".parse().unwrap()],
                ),
                ("mgyb".to_owned(), vec!["10.244.0.6".parse().unwrap()]),
            ]),
            blocks: vec![network("10.244.0.0/26")],
            ..Desired::default()
        }
    }

    fn pod_route(dst: &str, oif: u32) -> Route {
        Route::on_link(network(dst), oif).protocol(ROUTE_PROTOCOL)
    }

    fn texts(plan: &Plan) -> Vec<String> {
        plan.ops.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn from_nothing() {
        let plan = plan(&desired(), &[link(7, "mgya", true), link(8, "mgyb", false)], &[]);
        assert_eq!(
            texts(&plan),
            [
                "add blackhole route 10.244.0.0/26",
                "add route 10.244.0.5/32 dev #7",
                "add route fd00::5/128 dev #7"
            ]
        );
        assert_eq!(plan.missing, ["mgyb"], "an interface that is down takes no route");
        assert!(
            plan.settings
                .contains(&("net/ipv4/conf/mgya/proxy_arp".to_owned(), "1"))
        );
        assert!(!plan.settings.iter().any(|(path, _)| path.contains("mgyb")));
    }

    #[test]
    fn what_is_right_stays_and_what_is_ours_and_unwanted_goes() {
        let links = [link(7, "mgya", true), link(9, "mgyb", true)];
        let there = [
            Route::blackhole(network("10.244.0.0/26")).protocol(ROUTE_PROTOCOL),
            pod_route("10.244.0.5/32", 7),
            Route {
                metric: Some(1024),
                ..pod_route("fd00::5/128", 7)
            },
            pod_route("10.244.0.6/32", 3),
            pod_route("10.244.0.9/32", 3),
        ];
        assert_eq!(
            texts(&plan(&desired(), &links, &there)),
            ["delete route 10.244.0.9/32 dev #3", "set route 10.244.0.6/32 dev #9"]
        );
    }

    #[test]
    fn a_block_of_one_address_is_the_pods() {
        let mut desired = desired();
        desired.blocks = vec![network("10.244.0.6/32")];
        let blackhole = Route::blackhole(network("10.244.0.6/32")).protocol(ROUTE_PROTOCOL);
        let plan = plan(&desired, &[link(9, "mgyb", true)], &[blackhole]);
        assert_eq!(
            texts(&plan),
            ["delete blackhole route 10.244.0.6/32", "add route 10.244.0.6/32 dev #9"]
        );
    }

    #[test]
    fn router_advertisements_stay_heard() {
        let accept_ra =
            BTreeMap::from([("eth0", "1"), ("eth1", "0"), ("mgya", "1")].map(|(a, b)| (a.to_owned(), b.to_owned())));
        let settings = node_settings(&accept_ra, "mgy");
        assert_eq!(settings[0], ("net/ipv6/conf/eth0/accept_ra".to_owned(), "2"));
        assert!(
            !settings
                .iter()
                .any(|(path, _)| path.contains("eth1") || path.contains("mgya"))
        );
        assert!(settings.contains(&("net/ipv4/ip_forward".to_owned(), "1")));
    }

    #[test]
    fn the_narrowest_way_out_sets_the_mtu() {
        let mut links = vec![
            link(2, "eth0", true),
            link(3, "eth1", true),
            link(4, "mgya", true),
            link(5, "eth2", false),
        ];
        links[1].mtu = 1450;
        links[2].mtu = 1300;
        links[3].mtu = 1280;
        assert_eq!(pod_mtu(&links, "mgy", None), 1450);
        assert_eq!(pod_mtu(&links, "mgy", Some("^eth0$")), 1500);
        assert_eq!(pod_mtu(&[], "mgy", None), 1500);
        let mut tunnel = link(6, "tailscale0", true);
        (tunnel.kind, tunnel.mtu) = (Some("tun".to_owned()), 1280);
        links.push(tunnel);
        assert_eq!(pod_mtu(&links, "mgy", None), 1450);
        assert_eq!(pod_mtu(&links, "mgy", Some("^tailscale")), 1280);
    }
}
