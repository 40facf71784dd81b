//! The small cluster that the cases happen in.

use margay_api::slim;
use margay_felix::verdict::{Cluster, Connection, Decision, EvaluateError, Protocol, Verdict, evaluate};
use serde_json::{Value, json};

/// A verdict as the cases write it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expect {
    Allow,
    Deny,
}

/// A cluster with policies added to it.
///
/// | pod | labels | addresses | node | named ports |
/// |---|---|---|---|---|
/// | a/web | app=web | 10.0.0.1 fd00::1 | n1 | metrics TCP 9100, dns TCP 53, dns UDP 5353 |
/// | a/db | app=db | 10.0.0.2 fd00::2 | n2 | |
/// | b/web | app=web | 10.0.1.1 fd00::11 | n2 | metrics TCP 9200 |
/// | b/job | app=job | 10.0.1.2 | n1 | |
/// | a/agent | app=web | 192.168.0.1, the node's | n1 | metrics TCP 9100 |
///
/// Namespaces a (team=a) and b (team=b); nodes n1 192.168.0.1 and n2 192.168.0.2; outside: 203.0.113.9, 2001:db8::9.
pub(super) struct World(pub(super) Cluster);

impl World {
    pub(super) fn new() -> Self {
        let mut world = Self(Cluster::default());
        for (name, team) in [("a", "a"), ("b", "b")] {
            world.0.namespaces.push(from(json!({"metadata": {"name": name,
                "labels": {"kubernetes.io/metadata.name": name, "team": team}}})));
        }
        for (name, address) in [("n1", "192.168.0.1"), ("n2", "192.168.0.2")] {
            world.0.nodes.push(from(json!({"metadata": {"name": name},
                "status": {"addresses": [{"type": "InternalIP", "address": address}]}})));
        }
        let port = |name: &str, protocol: &str, number: u16| json!({"name": name, "protocol": protocol, "containerPort": number});
        let metrics = |number| json!([{"name": "metrics", "containerPort": number}]);
        let web = json!([
            port("metrics", "TCP", 9100),
            port("dns", "TCP", 53),
            port("dns", "UDP", 5353)
        ]);
        world.pod("a/web", "web", &["10.0.0.1", "fd00::1"], "n1", web);
        world.pod("a/db", "db", &["10.0.0.2", "fd00::2"], "n2", json!([]));
        world.pod("b/web", "web", &["10.0.1.1", "fd00::11"], "n2", metrics(9200));
        world.pod("b/job", "job", &["10.0.1.2"], "n1", json!([]));
        world.pod("a/agent", "web", &["192.168.0.1"], "n1", metrics(9100));
        world.find("a/agent").spec.host_network = true;
        world
    }

    pub(super) fn pod(&mut self, name: &str, app: &str, addresses: &[&str], node: &str, ports: Value) {
        let (namespace, name) = name.split_once('/').expect("namespace/name");
        let ips: Vec<Value> = addresses.iter().map(|ip| json!({"ip": ip})).collect();
        self.0.pods.push(from(json!({
            "metadata": {"namespace": namespace, "name": name, "labels": {"app": app}},
            "spec": {"nodeName": node, "containers": [{"name": "main", "ports": ports}]},
            "status": {"phase": "Running", "podIP": addresses[0], "podIPs": ips},
        })));
    }

    pub(super) fn find(&mut self, name: &str) -> &mut slim::Pod {
        let mut pods = self.0.pods.iter_mut();
        pods.find(|pod| format!("{}/{}", pod.metadata.namespace, pod.metadata.name) == name)
            .expect("a pod of the world")
    }

    /// Adds a policy, written as `spec` of a manifest.
    pub(super) fn policy(mut self, name: &str, spec: Value) -> Self {
        let (namespace, name) = name.split_once('/').expect("namespace/name");
        self.0.policies.push(from(
            json!({"metadata": {"namespace": namespace, "name": name}, "spec": spec}),
        ));
        self
    }

    pub(super) fn try_verdict(&self, from: &str, to: &str, protocol: Protocol) -> Result<Verdict, EvaluateError> {
        let connection = Connection {
            from: from.parse().expect("a peer"),
            to: to.parse().expect("a peer"),
            protocol,
        };
        evaluate(&self.0, &connection)
    }

    pub(super) fn verdict(&self, from: &str, to: &str, protocol: Protocol) -> Verdict {
        self.try_verdict(from, to, protocol)
            .expect("a connection that can exist")
    }

    #[track_caller]
    pub(super) fn check(&self, expectations: &[(&str, &str, Protocol, Expect)]) {
        for (from, to, protocol, expected) in expectations {
            let Verdict { allow, egress, ingress } = self.verdict(from, to, *protocol);
            let got = if allow { Expect::Allow } else { Expect::Deny };
            assert_eq!(
                got, *expected,
                "{from} -> {to} {protocol}: egress {egress}; ingress {ingress}"
            );
            assert_eq!(allow, egress.allows() && ingress.allows());
        }
    }
}

/// The text of both decisions.
pub(super) fn words(verdict: &Verdict) -> [String; 2] {
    [&verdict.egress, &verdict.ingress].map(Decision::to_string)
}

fn from<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).expect("a valid object")
}
