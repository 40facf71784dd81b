//! What a cluster consists of, as its topology's labels and its nodes' addresses say. Pure.
//!
//! | label | on | means |
//! |---|---|---|
//! | `margay.io/kubernetes` | a node | `node`; or `control-plane`: a node that runs the control plane too |
//! | `margay.io/kubernetes-proxy` | the control plane | mode of kube-proxy: `iptables` (default) or `nftables` |
//! | `margay.io/kubernetes-services` | the control plane | Service ranges, one a family |
//! | `margay.io/kubernetes-pods` | the control plane | ranges of pods, one a family, for kube-proxy |
//! | `node-labels.margay.io/KEY` | a node | label KEY of the Node object |
//! | `annotations.margay.io/KEY` | a node | annotation KEY of the Node object |

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::{Context, Result, bail};
use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

const ROLE: &str = "margay.io/kubernetes";
const PROXY: &str = "margay.io/kubernetes-proxy";
const SERVICES: &str = "margay.io/kubernetes-services";
const PODS: &str = "margay.io/kubernetes-pods";
const NODE_LABELS: &str = "node-labels.margay.io/";
const ANNOTATIONS: &str = "annotations.margay.io/";

/// A cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// Nodes in the order of the topology.
    pub nodes: Vec<Node>,
    /// Service ranges, the first family's first.
    pub services: Vec<IpNetwork>,
    /// Ranges of pods.
    pub pods: Vec<IpNetwork>,
    /// Mode of kube-proxy.
    pub proxy: ProxyMode,
}

/// One node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Its name in the topology and in Kubernetes.
    pub name: String,
    /// Whether it runs the control plane too.
    pub control_plane: bool,
    /// Its addresses, at most one a family, the first family's first.
    pub addresses: Vec<IpAddr>,
    /// Labels of the Node object.
    pub labels: BTreeMap<String, String>,
    /// Annotations of the Node object.
    pub annotations: BTreeMap<String, String>,
}

/// How kube-proxy programs Services.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum ProxyMode {
    /// iptables rules.
    Iptables,
    /// nftables rules.
    Nftables,
    /// No kube-proxy at all.
    None,
}

/// A node of a topology: its name and labels.
pub type Labelled<'a> = (&'a str, &'a BTreeMap<String, String>);

impl Spec {
    /// The cluster of a topology with these nodes. `addresses` tells the addresses of one.
    ///
    /// # Errors
    /// When the labels describe no cluster, or a node lacks an address.
    pub fn new(nodes: &[Labelled<'_>], addresses: impl Fn(&str) -> Result<Vec<IpAddr>>) -> Result<Spec> {
        let mut found = Vec::new();
        for (name, labels) in nodes {
            let control_plane = match labels.get(ROLE).map(String::as_str) {
                None => continue,
                Some("node") => false,
                Some("control-plane") => true,
                Some(other) => bail!("node {name}: label {ROLE} is {other:?}; write node or control-plane"),
            };
            let addresses = addresses(name)?;
            if addresses.is_empty() {
                bail!("node {name} has no address by which others reach it; give it one and a default route");
            }
            found.push(Node {
                name: (*name).to_owned(),
                control_plane,
                addresses,
                labels: prefixed(labels, NODE_LABELS),
                annotations: prefixed(labels, ANNOTATIONS),
            });
        }
        let masters: Vec<&str> = found
            .iter()
            .filter(|n| n.control_plane)
            .map(|n| n.name.as_str())
            .collect();
        let master = match masters[..] {
            [one] => one,
            [] => bail!("no node has the label {ROLE}: control-plane; a cluster needs one"),
            _ => bail!(
                "nodes {} are all labelled {ROLE}: control-plane; one is supported",
                masters.join(", ")
            ),
        };
        let labels = nodes
            .iter()
            .find(|(name, _)| *name == master)
            .map(|(_, labels)| *labels);
        let setting = |key: &str| labels.and_then(|labels| labels.get(key)).map(String::as_str);
        let proxy = match setting(PROXY) {
            None | Some("iptables") => ProxyMode::Iptables,
            Some("nftables") => ProxyMode::Nftables,
            Some("none") => ProxyMode::None,
            Some(other) => bail!("node {master}: label {PROXY} is {other:?}; write iptables, nftables or none"),
        };
        Ok(Spec {
            services: ranges(setting(SERVICES).unwrap_or("10.96.0.0/16,fd00:10:96::/112"), SERVICES)?,
            pods: ranges(setting(PODS).unwrap_or("10.244.0.0/16,fd00:10:244::/64"), PODS)?,
            nodes: found,
            proxy,
        })
    }

    /// The node that runs the control plane.
    pub fn control_plane(&self) -> &Node {
        let found = self.nodes.iter().find(|n| n.control_plane);
        found.unwrap_or(&self.nodes[0])
    }

    /// The node called `name`.
    ///
    /// # Errors
    /// When there is none; the error lists those there are.
    pub fn node(&self, name: &str) -> Result<&Node> {
        let names: Vec<&str> = self.nodes.iter().map(|n| n.name.as_str()).collect();
        let found = self.nodes.iter().find(|n| n.name == name);
        found.with_context(|| format!("the cluster has no node {name:?}; its nodes are {}", names.join(", ")))
    }

    /// The address of the cluster's DNS Service in each family: the tenth of each range, as everywhere.
    pub fn dns(&self) -> Vec<IpAddr> {
        self.services.iter().filter_map(|range| nth(*range, 10)).collect()
    }

    /// The address of the API server's own Service.
    pub fn kubernetes(&self) -> Vec<IpAddr> {
        self.services.iter().filter_map(|range| nth(*range, 1)).collect()
    }

    /// Where nodes reach the API server.
    pub fn api(&self) -> String {
        match self.control_plane().addresses[0] {
            IpAddr::V4(address) => format!("https://{address}:6443"),
            IpAddr::V6(address) => format!("https://[{address}]:6443"),
        }
    }
}

fn nth(range: IpNetwork, n: u32) -> Option<IpAddr> {
    match range {
        IpNetwork::V4(range) => range.nth(n).map(IpAddr::V4),
        IpNetwork::V6(range) => range.nth(u128::from(n)).map(IpAddr::V6),
    }
}

fn ranges(text: &str, label: &str) -> Result<Vec<IpNetwork>> {
    let parse = |part: &str| {
        part.trim()
            .parse()
            .with_context(|| format!("label {label}: {part:?} is no range such as 10.96.0.0/16"))
    };
    text.split(',').map(parse).collect()
}

fn prefixed(labels: &BTreeMap<String, String>, prefix: &str) -> BTreeMap<String, String> {
    let of = |(key, value): (&String, &String)| Some((key.strip_prefix(prefix)?.to_owned(), value.clone()));
    labels.iter().filter_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    fn spec(nodes: &[(&str, &[(&str, &str)])]) -> Result<Spec> {
        let owned: Vec<_> = nodes.iter().map(|(name, pairs)| (*name, labels(pairs))).collect();
        let borrowed: Vec<Labelled<'_>> = owned.iter().map(|(name, labels)| (*name, labels)).collect();
        Spec::new(&borrowed, |name| match name {
            "lost" => Ok(Vec::new()),
            _ => Ok(vec!["10.10.0.1".parse()?, "fd00::1".parse()?]),
        })
    }

    #[test]
    fn labels_make_a_cluster() {
        let spec = spec(&[
            ("tor1", &[]),
            (
                "node1",
                &[
                    (ROLE, "control-plane"),
                    (PROXY, "nftables"),
                    ("node-labels.margay.io/rack", "1"),
                    ("annotations.margay.io/projectcalico.org/ASNumber", "65301"),
                ],
            ),
            ("node2", &[(ROLE, "node"), (PROXY, "no say here")]),
        ])
        .unwrap();
        assert_eq!(spec.nodes.len(), 2);
        assert_eq!(spec.control_plane().name, "node1");
        assert_eq!(spec.proxy, ProxyMode::Nftables);
        assert_eq!(spec.nodes[0].labels, labels(&[("rack", "1")]));
        assert_eq!(
            spec.nodes[0].annotations,
            labels(&[("projectcalico.org/ASNumber", "65301")])
        );
        assert_eq!(spec.api(), "https://10.10.0.1:6443");
        assert_eq!(
            spec.dns(),
            ["10.96.0.10", "fd00:10:96::a"].map(|a| a.parse::<IpAddr>().unwrap())
        );
        assert!(spec.node("node3").unwrap_err().to_string().contains("node1, node2"));
    }

    #[rstest::rstest]
    #[case::no_control_plane(vec![("a", vec![(ROLE, "node")])], "needs one")]
    #[case::two_control_planes(vec![("a", vec![(ROLE, "control-plane")]), ("b", vec![(ROLE, "control-plane")])], "a, b")]
    #[case::unknown_role(vec![("a", vec![(ROLE, "master")])], "\"master\"")]
    #[case::no_address(vec![("lost", vec![(ROLE, "control-plane")])], "default route")]
    #[case::no_cidr(vec![("a", vec![(ROLE, "control-plane"), (SERVICES, "10.96.0.0/33")])], "10.96.0.0/33")]
    #[case::no_proxy_mode(vec![("a", vec![(ROLE, "control-plane"), (PROXY, "ipvs")])], "\"ipvs\"")]
    fn what_is_no_cluster_is_refused(#[case] nodes: Vec<(&str, Vec<(&str, &str)>)>, #[case] says: &str) {
        let nodes: Vec<_> = nodes.iter().map(|(name, labels)| (*name, labels.as_slice())).collect();
        let error = spec(&nodes).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
}
