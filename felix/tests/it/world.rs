//! Random clusters, edits to them, and connections in them.

use std::net::IpAddr;

use margay_api::slim::{NetworkPolicy, Pod};
use margay_felix::verdict::{Cluster, Connection, Peer, Protocol};
use serde_json::{Value, json};

use crate::rng::Rng;
use crate::spoil::spoil;

pub(crate) const NODES: [&str; 2] = ["node1", "node2"];
const NAMESPACES: [&str; 3] = ["red", "green", "blue"];
const APPS: [&str; 3] = ["web", "api", "db"];
const TEAMS: [&str; 2] = ["a", "b"];
const PORTS: [u16; 8] = [53, 80, 443, 8000, 8005, 8010, 8011, 9100];
const PORT_NAMES: [&str; 3] = ["http", "metrics", "dns"];
const OUTSIDE: [&str; 6] = [
    "192.0.2.1",
    "198.51.100.7",
    "10.0.1.200",
    "2001:db8::1",
    "fd00:1::200",
    "203.0.113.129",
];
/// In the spellings that API servers store, too.
const BLOCKS: [(&str, &[&str]); 13] = [
    ("0.0.0.0/0", &[]),
    ("0.0.0.0/0", &["10.0.0.0/8", "10.0.1.0/24"]),
    ("10.0.0.0/16", &["10.0.1.0/28", "10.0.1.4/30"]),
    ("10.0.1.0/24", &["10.0.1.0/29", "10.0.1.2/32"]),
    ("192.0.2.0/24", &["192.0.2.0/31"]),
    ("203.0.113.0/24", &["203.0.113.128/25", "203.0.113.0/26"]),
    ("::/0", &[]),
    ("::/0", &["fd00:1::/64"]),
    ("fd00:1::/64", &["fd00:1::4/126"]),
    ("010.000.001.77/024", &["10.0.1.9/29", "::ffff:10.0.1.32/123"]),
    ("::ffff:10.0.1.0/120", &["::ffff:a00:110/124"]),
    ("203.0.113.9/0", &["010.0.0.0/08"]),
    ("FD00:0001::77/064", &["fd00:1::000000/125"]),
];

/// A cluster in some state, and how to change it.
pub(crate) struct World {
    pub(crate) cluster: Cluster,
    pub(crate) rng: Rng,
    incarnations: usize,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let mut world = Self {
            cluster: Cluster::default(),
            rng: Rng::new(seed),
            incarnations: 0,
        };
        for (i, name) in NODES.iter().enumerate() {
            let addresses = json!([{"type": "InternalIP", "address": format!("172.16.0.{}", i + 1)},
                {"type": "InternalIP", "address": format!("fd00:2::{}", i + 1)}]);
            let node = json!({"metadata": {"name": name}, "status": {"addresses": addresses}});
            world.cluster.nodes.push(serde_json::from_value(node).unwrap());
        }
        for name in NAMESPACES {
            world.put_namespace(name);
        }
        for _ in 0..10 {
            world.put_pod();
        }
        for _ in 0..3 {
            world.put_policy();
        }
        world
    }

    /// Changes one object.
    pub(crate) fn edit(&mut self) {
        match self.rng.below(10) {
            0..=2 => self.put_policy(),
            3 => self.drop_policy(),
            4..=5 => self.relabel_pod(),
            6 => self.put_pod(),
            7 => self.drop_pod(),
            8 => {
                let name = *self.rng.pick(&NAMESPACES);
                self.put_namespace(name);
            }
            _ => self.age_pod(),
        }
    }

    /// A connection that concerns a pod, more often than not one that some rule talks about.
    pub(crate) fn connection(&mut self) -> Connection {
        let mut addresses: Vec<IpAddr> = self.cluster.pods.iter().flat_map(Pod::ips).collect();
        let pods = addresses.len();
        addresses.extend(OUTSIDE.iter().map(|text| text.parse::<IpAddr>().unwrap()));
        addresses.extend(
            self.cluster
                .nodes
                .iter()
                .flat_map(|n| [n.address(true).unwrap(), n.address(false).unwrap()]),
        );
        let from = self.rng.below(addresses.len());
        let to = if from < pods {
            self.rng.below(addresses.len())
        } else {
            self.rng.below(pods.max(1))
        };
        let port = if self.rng.chance(90) {
            *self.rng.pick(&PORTS)
        } else {
            self.rng.next() as u16
        };
        let protocol = match self.rng.below(10) {
            0..=5 => Protocol::Tcp(port),
            6..=7 => Protocol::Udp(port),
            8 => Protocol::Sctp(port),
            _ => Protocol::Icmp,
        };
        Connection {
            from: Peer::Address(addresses[from]),
            to: Peer::Address(addresses[to]),
            protocol,
        }
    }

    fn put_namespace(&mut self, name: &str) {
        let mut labels = self.labels();
        labels["kubernetes.io/metadata.name"] = json!(name);
        let namespace = serde_json::from_value(json!({"metadata": {"name": name, "labels": labels}})).unwrap();
        self.cluster.namespaces.retain(|n| n.metadata.name != name);
        // A pod's namespace may be unknown for a while.
        if self.rng.chance(95) {
            self.cluster.namespaces.push(namespace);
        }
    }

    /// A new pod, or another incarnation of one that is there.
    fn put_pod(&mut self) {
        let (namespace, name) = (*self.rng.pick(&NAMESPACES), format!("p{}", self.rng.below(6)));
        self.cluster
            .pods
            .retain(|p| !(p.metadata.namespace == namespace && p.metadata.name == name));
        self.incarnations += 1;
        let node = *self.rng.pick(&NODES);
        let host = self.rng.chance(5);
        let ips = if host {
            let node = self.cluster.nodes.iter().find(|n| n.metadata.name == node).unwrap();
            vec![node.address(true).unwrap().to_string()]
        } else {
            self.free_addresses()
        };
        let ports: Vec<Value> = (0..self.rng.below(3)).map(|_| self.container_port()).collect();
        let ips: Vec<Value> = ips.iter().map(|ip| json!({"ip": ip})).collect();
        let pod = json!({
            "metadata": {"namespace": namespace, "name": name, "uid": format!("u{}", self.incarnations), "labels": self.labels()},
            "spec": {"nodeName": node, "hostNetwork": host, "containers": [{"name": "c", "ports": ports}]},
            "status": {"phase": "Running", "podIP": ips.first().map(|ip| &ip["ip"]), "podIPs": ips},
        });
        self.cluster.pods.push(serde_json::from_value(pod).unwrap());
    }

    /// IPv4, IPv6 or both, that no live pod has.
    fn free_addresses(&mut self) -> Vec<String> {
        let live: Vec<IpAddr> = self
            .cluster
            .pods
            .iter()
            .filter(|p| !p.is_finished())
            .flat_map(Pod::ips)
            .collect();
        loop {
            let n = self.rng.below(40);
            let (v4, v6) = (format!("10.0.1.{n}"), format!("fd00:1::{n:x}"));
            if live.contains(&v4.parse().unwrap()) || live.contains(&v6.parse().unwrap()) {
                continue;
            }
            return match self.rng.below(10) {
                0 => vec![],
                1..=2 => vec![v6],
                3..=5 => vec![v4],
                _ => vec![v4, v6],
            };
        }
    }

    fn container_port(&mut self) -> Value {
        let protocol = *self.rng.pick(&["TCP", "TCP", "UDP", "SCTP"]);
        json!({"name": self.rng.pick(&PORT_NAMES), "containerPort": self.rng.pick(&PORTS), "protocol": protocol})
    }

    fn relabel_pod(&mut self) {
        let labels = serde_json::from_value(self.labels()).unwrap();
        if let Some(pod) = self.random_pod() {
            pod.metadata.labels = labels;
        }
    }

    /// Pods end, or are about to.
    fn age_pod(&mut self) {
        let phase = *self.rng.pick(&["Succeeded", "Failed", "Running"]);
        if let Some(pod) = self.random_pod() {
            match phase {
                "Running" => pod.metadata.deletion_timestamp = Some("2026-01-01T00:00:00Z".into()),
                _ => pod.status.phase = serde_json::from_value(json!(phase)).unwrap(),
            }
        }
    }

    fn drop_pod(&mut self) {
        if !self.cluster.pods.is_empty() {
            let at = self.rng.below(self.cluster.pods.len());
            self.cluster.pods.remove(at);
        }
    }

    fn random_pod(&mut self) -> Option<&mut Pod> {
        let at = self.rng.below(self.cluster.pods.len().max(1));
        self.cluster.pods.get_mut(at)
    }

    fn drop_policy(&mut self) {
        if !self.cluster.policies.is_empty() {
            let at = self.rng.below(self.cluster.policies.len());
            self.cluster.policies.remove(at);
        }
    }

    fn put_policy(&mut self) {
        let (namespace, name) = (*self.rng.pick(&NAMESPACES), format!("np{}", self.rng.below(3)));
        let mut spec = random_spec(&mut self.rng);
        if self.rng.chance(20) {
            spoil(&mut self.rng, &mut spec);
        }
        let policy = stored(namespace, &name, &spec);
        self.cluster
            .policies
            .retain(|p| p.metadata.full_name() != policy.metadata.full_name());
        self.cluster.policies.push(policy);
    }

    fn labels(&mut self) -> Value {
        let mut labels = json!({});
        if self.rng.chance(80) {
            labels["app"] = json!(self.rng.pick(&APPS));
        }
        if self.rng.chance(60) {
            labels["team"] = json!(self.rng.pick(&TEAMS));
        }
        labels
    }
}

/// A valid policy, as an API server would have stored it.
pub(crate) fn random_policy(rng: &mut Rng, namespace: &str, name: &str) -> NetworkPolicy {
    let spec = random_spec(rng);
    stored(namespace, name, &spec)
}

fn stored(namespace: &str, name: &str, spec: &Value) -> NetworkPolicy {
    let policy = json!({"metadata": {"namespace": namespace, "name": name}, "spec": spec});
    serde_json::from_value::<NetworkPolicy>(policy).unwrap().defaulted()
}

/// The spec of a valid policy.
pub(crate) fn random_spec(rng: &mut Rng) -> Value {
    let mut spec = json!({"podSelector": selector(rng)});
    if rng.chance(70) {
        spec["policyTypes"] = json!(*rng.pick(&[
            &["Ingress"] as &[&str],
            &["Egress"],
            &["Ingress", "Egress"],
            &["Egress", "Egress"]
        ]));
    }
    for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
        let rules: Vec<Value> = (0..rng.below(3)).map(|_| rule(rng, peers)).collect();
        spec[direction] = json!(rules);
    }
    spec
}

fn rule(rng: &mut Rng, peers: &str) -> Value {
    let mut rule = json!({});
    let count = rng.below(3);
    rule[peers] = (0..count).map(|_| peer(rng)).collect();
    let many = if rng.chance(5) { 20 } else { 3 };
    let count = rng.below(many);
    rule["ports"] = (0..count).map(|_| policy_port(rng)).collect();
    rule
}

fn peer(rng: &mut Rng) -> Value {
    match rng.below(4) {
        0 => json!({"podSelector": selector(rng)}),
        1 => json!({"namespaceSelector": selector(rng)}),
        2 => json!({"namespaceSelector": selector(rng), "podSelector": selector(rng)}),
        _ => {
            let (cidr, except) = *rng.pick(&BLOCKS);
            json!({"ipBlock": {"cidr": cidr, "except": except}})
        }
    }
}

fn policy_port(rng: &mut Rng) -> Value {
    let mut port = json!({});
    if rng.chance(60) {
        port["protocol"] = json!(*rng.pick(&["TCP", "UDP", "SCTP"]));
    }
    match rng.below(6) {
        0 => {}
        1 => port["port"] = json!(rng.pick(&PORT_NAMES)),
        2 => {
            let (first, last) = (*rng.pick(&PORTS), *rng.pick(&PORTS));
            port["port"] = json!(first.min(last));
            port["endPort"] = json!(first.max(last));
        }
        _ => port["port"] = json!(rng.pick(&PORTS)),
    }
    port
}

fn selector(rng: &mut Rng) -> Value {
    let some_of = |rng: &mut Rng, all: &[&str]| {
        let some = rng.some(all);
        if some.is_empty() {
            vec![all[0].to_owned()]
        } else {
            some.iter().map(ToString::to_string).collect()
        }
    };
    match rng.below(7) {
        0..=1 => json!({}),
        2 => json!({"matchLabels": {"app": rng.pick(&APPS)}}),
        3 => json!({"matchLabels": {"team": rng.pick(&TEAMS)}}),
        4 => json!({"matchExpressions": [{"key": "app", "operator": rng.pick(&["In", "NotIn"]),
            "values": some_of(rng, &APPS)}]}),
        5 => json!({"matchExpressions": [{"key": "team", "operator": rng.pick(&["Exists", "DoesNotExist"])}]}),
        _ => json!({"matchLabels": {"team": rng.pick(&TEAMS)}, "matchExpressions": [
            {"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": some_of(rng, &NAMESPACES)}]}),
    }
}
