//! What of what is on the node goes, and in which order. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use margay_cni::host::HOST_MAC;
use margay_netlink::{Link, Route, RouteKind, table};

/// What is on the node.
#[derive(Debug, Clone, Default)]
pub(super) struct Found {
    /// CNI configurations of ours, then the plugin.
    pub(super) files: Vec<PathBuf>,
    /// Of pods that were attached and not detached since.
    pub(super) records: Vec<Record>,
    /// All interfaces, whosoever.
    pub(super) links: Vec<Link>,
    /// Routes with protocol numbers of ours.
    pub(super) routes: Vec<Route>,
    /// What of ours is in the packet filters, a line each.
    pub(super) filters: Vec<String>,
    /// Folders of ours.
    pub(super) folders: Vec<Folder>,
}

/// A pod that was attached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    /// `namespace/name`.
    pub(super) pod: String,
    /// The host side of its link.
    pub(super) interface: String,
    /// Its network namespace is there.
    pub(super) lives: bool,
}

/// A folder of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Folder {
    pub(super) path: PathBuf,
    /// What Margay put into it, in the order in which it goes.
    pub(super) ours: Vec<PathBuf>,
    /// Names of what somebody else did.
    pub(super) others: Vec<String>,
}

/// What goes, part by part in this order: nothing starts any more, pods are cut off, and only then go the rules that judge
/// their packets; last what tells a next run which interfaces were pods'.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) files: Vec<PathBuf>,
    pub(super) links: Vec<PodLink>,
    /// With how each is told of.
    pub(super) routes: Vec<(Route, String)>,
    pub(super) filters: Vec<String>,
    pub(super) folders: Vec<Folder>,
    /// Pods that it would cut off, for people; interfaces whose pods are not known among them.
    pub(super) attached: Vec<String>,
}

/// The host side of a pod's link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PodLink {
    pub(super) index: u32,
    /// How it is told of.
    pub(super) line: String,
}

impl Plan {
    /// A line for each thing, in order.
    pub(super) fn lines(&self) -> Vec<String> {
        let files = self.files.iter().map(|path| path.display().to_string());
        let links = self.links.iter().map(|link| link.line.clone());
        let routes = self.routes.iter().map(|(_, line)| line.clone());
        let folders = self.folders.iter().map(|folder| folder.path.display().to_string());
        files
            .chain(links)
            .chain(routes)
            .chain(self.filters.iter().cloned())
            .chain(folders)
            .collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lines().is_empty()
    }
}

/// Plans. `prefix` is that of pods' interfaces.
pub(super) fn plan(found: &Found, prefix: &str) -> Plan {
    let pods: BTreeMap<&str, &str> = found
        .records
        .iter()
        .map(|record| (record.interface.as_str(), record.pod.as_str()))
        .collect();
    let mut plan = Plan {
        files: found.files.clone(),
        filters: found.filters.clone(),
        folders: found.folders.clone(),
        ..Plan::default()
    };
    let living = found.records.iter().filter(|record| record.lives);
    let mut attached: BTreeSet<String> = living.map(|record| record.pod.clone()).collect();
    for link in &found.links {
        let pod = pods.get(link.name.as_str()).copied();
        if !is_ours(link, pod.is_some(), prefix) {
            continue;
        }
        let whose = match pod {
            Some(pod) => format!("of pod {pod}"),
            None => "of a pod that no record names".to_owned(),
        };
        attached.insert(pod.map_or_else(|| format!("the one behind {}", link.name), str::to_owned));
        plan.links.push(PodLink {
            index: link.index,
            line: format!("interface {} {whose}", link.name),
        });
    }
    plan.attached = attached.into_iter().collect();
    let names: BTreeMap<u32, &str> = found
        .links
        .iter()
        .map(|link| (link.index, link.name.as_str()))
        .collect();
    plan.routes = found
        .routes
        .iter()
        .map(|route| (route.clone(), line(route, &names)))
        .collect();
    plan
}

/// Whether an interface is the host side of a pod's link: one that a record names, or with all that the plugin gives to one.
fn is_ours(link: &Link, recorded: bool, prefix: &str) -> bool {
    let is_hash = |rest: &str| rest.len() == 11 && rest.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let named = link.name.strip_prefix(prefix).is_some_and(is_hash);
    link.kind.as_deref() == Some("veth") && (recorded || (named && link.mac == Some(HOST_MAC)))
}

/// A route in the words of `ip route`.
fn line(route: &Route, names: &BTreeMap<u32, &str>) -> String {
    let mut line = String::from("route ");
    if route.kind != RouteKind::Unicast {
        line += &format!("{:?} ", route.kind).to_lowercase();
    }
    line += &route.dst.to_string();
    for hop in route.next_hops.iter().filter(|_| route.kind == RouteKind::Unicast) {
        line += &hop.via.map(|via| format!(" via {via}")).unwrap_or_default();
        let device = hop.oif.map(|index| match names.get(&index) {
            Some(name) => format!(" dev {name}"),
            None => format!(" dev #{index}"),
        });
        line += &device.unwrap_or_default();
    }
    if route.table != table::MAIN {
        line += &format!(" table {}", route.table);
    }
    line + &format!(" proto {}", route.protocol)
}

#[cfg(test)]
mod tests {
    use margay_netlink::{Mac, NextHop};

    use super::*;

    fn veth(index: u32, name: &str, mac: Mac) -> Link {
        Link {
            index,
            name: name.into(),
            kind: Some("veth".into()),
            mac: Some(mac),
            ..Link::default()
        }
    }

    fn record(pod: &str, interface: &str, lives: bool) -> Record {
        Record {
            pod: pod.into(),
            interface: interface.into(),
            lives,
        }
    }

    const OTHER_MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);

    #[test]
    fn only_interfaces_that_are_surely_pods_go() {
        let mut dummy = veth(7, "mgy00000000003", HOST_MAC);
        dummy.kind = Some("dummy".into());
        let found = Found {
            records: vec![record("shop/checkout", "net16ff9610a79", false)],
            links: vec![
                veth(1, "net16ff9610a79", OTHER_MAC),
                veth(2, "mgy00000000001", HOST_MAC),
                veth(3, "mgy00000000002", OTHER_MAC),
                veth(4, "mgyuplink", HOST_MAC),
                veth(5, "mgy0000000000G", HOST_MAC),
                veth(6, "cali0000000000", HOST_MAC),
                dummy,
            ],
            ..Found::default()
        };
        assert_eq!(
            plan(&found, "mgy").lines(),
            [
                "interface net16ff9610a79 of pod shop/checkout",
                "interface mgy00000000001 of a pod that no record names"
            ]
        );
    }

    #[test]
    fn pods_with_an_interface_or_a_namespace_are_attached() {
        let found = Found {
            records: vec![
                record("a/gone", "mgy00000000001", false),
                record("a/cut", "mgy00000000002", true),
                record("a/whole", "mgy00000000003", true),
                record("a/unbound", "mgy00000000004", false),
            ],
            links: vec![
                veth(3, "mgy00000000003", HOST_MAC),
                veth(4, "mgy00000000004", HOST_MAC),
                veth(5, "mgy00000000005", HOST_MAC),
            ],
            ..Found::default()
        };
        assert_eq!(
            plan(&found, "mgy").attached,
            ["a/cut", "a/unbound", "a/whole", "the one behind mgy00000000005"]
        );
    }

    #[test]
    fn everything_is_told_in_the_order_in_which_it_goes() {
        let dst = |text: &str| text.parse().unwrap();
        let found = Found {
            files: vec!["/etc/cni/net.d/10-margay.conflist".into(), "/opt/cni/bin/margay".into()],
            links: vec![veth(4, "mgy00000000001", HOST_MAC), veth(2, "eth0", OTHER_MAC)],
            routes: vec![
                Route::on_link(dst("10.244.0.5/32"), 4).protocol(177),
                Route::blackhole(dst("fd00::/122")).hop(NextHop::dev(1)).protocol(177),
                Route::unicast(dst("10.244.1.0/26"))
                    .hop(NextHop::via_dev("10.1.1.1".parse().unwrap(), 2))
                    .hop(NextHop::via_dev("10.1.2.1".parse().unwrap(), 9))
                    .table(100)
                    .protocol(178),
            ],
            filters: vec!["set mgy4-pools".into()],
            folders: vec![Folder {
                path: "/var/lib/margay".into(),
                ours: vec!["/var/lib/margay/lock".into()],
                others: Vec::new(),
            }],
            ..Found::default()
        };
        assert_eq!(
            plan(&found, "mgy").lines(),
            [
                "/etc/cni/net.d/10-margay.conflist",
                "/opt/cni/bin/margay",
                "interface mgy00000000001 of a pod that no record names",
                "route 10.244.0.5/32 dev mgy00000000001 proto 177",
                "route blackhole fd00::/122 proto 177",
                "route 10.244.1.0/26 via 10.1.1.1 dev eth0 via 10.1.2.1 dev #9 table 100 proto 178",
                "set mgy4-pools",
                "/var/lib/margay",
            ]
        );
        assert!(plan(&Found::default(), "mgy").is_empty());
    }
}
