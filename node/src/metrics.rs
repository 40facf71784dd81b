//! Prometheus metrics, by the names that users of Calico and of BGP speakers know where there are any.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use margay_api::control::{BgpPeer, BgpState};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// What the agent saw at one moment.
#[derive(Debug, Clone, Default)]
pub struct Observation {
    /// The node.
    pub node: String,
    /// Local endpoints, and those of them whose policy is in force.
    pub endpoints: u64,
    /// Endpoints whose policy the kernel enforces.
    pub endpoints_programmed: u64,
    /// Policies that select a local endpoint.
    pub policies: u64,
    /// True once the kernel holds everything known.
    pub in_sync: bool,
    /// Chains in the kernel.
    pub chains: u64,
    /// Rules in the kernel.
    pub rules: u64,
    /// Address sets in the kernel.
    pub sets: u64,
    /// Members of all sets.
    pub set_members: u64,
    /// Times rules or sets were written, since the start.
    pub applied: u64,
    /// Times that failed.
    pub apply_failures: u64,
    /// Times foreign changes to rules were repaired.
    pub rule_repairs: u64,
    /// Host routes put back or corrected.
    pub route_repairs: u64,
    /// Nodes, pods, policies in the cluster.
    pub cluster: (u64, u64, u64),
    /// Blocks owned, addresses given out in them, addresses held in others' blocks.
    pub ipam: (u64, u64, u64),
    /// Whether every watch is connected.
    pub api_connected: bool,
    /// Sessions.
    pub peers: Vec<BgpPeer>,
    /// Routes learnt and in use.
    pub bgp_routes: u64,
    /// Whether the node is ready.
    pub ready: bool,
}

/// Counters that grow as requests are served.
#[derive(Debug, Clone)]
pub struct CniMetrics {
    requests: Family<RequestLabels, Counter<u64, AtomicU64>>,
    seconds: Family<CommandLabels, Histogram, fn() -> Histogram>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    command: String,
    code: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CommandLabels {
    command: String,
}

impl Default for CniMetrics {
    fn default() -> Self {
        Self {
            requests: Family::default(),
            seconds: Family::new_with_constructor(|| {
                Histogram::new([
                    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0,
                ])
            }),
        }
    }
}

impl CniMetrics {
    /// Counts a request; `code` is the CNI error code, 0 for success.
    pub fn count(&self, command: &str, code: u32, took: Duration) {
        let command = command.to_owned();
        self.requests
            .get_or_create(&RequestLabels {
                command: command.clone(),
                code,
            })
            .inc();
        self.seconds
            .get_or_create(&CommandLabels { command })
            .observe(took.as_secs_f64());
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PeerLabels {
    peer: String,
    name: String,
    remote_as: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StatusLabels {
    status: String,
    ip_version: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct NodeLabels {
    node: String,
}

/// OpenMetrics text.
pub fn render(seen: &Observation, cni: &CniMetrics) -> String {
    let mut registry = Registry::default();
    dataplane(&mut registry, seen);
    ipam(&mut registry, seen);
    bgp(&mut registry, seen);
    registry.register(
        "margay_cni_requests",
        "CNI requests served, by error code",
        cni.requests.clone(),
    );
    registry.register(
        "margay_cni_request_seconds",
        "Time to serve CNI requests",
        cni.seconds.clone(),
    );
    gauge(
        &mut registry,
        "margay_node_ready",
        "Whether /readyz succeeds",
        u64::from(seen.ready),
    );
    gauge(
        &mut registry,
        "margay_api_connected",
        "Whether every watch is connected",
        u64::from(seen.api_connected),
    );
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = encode(&mut text, &registry);
    text
}

fn dataplane(registry: &mut Registry, seen: &Observation) {
    let resync_state = if seen.in_sync { 3 } else { 1 };
    for (name, help, value) in [
        ("felix_active_local_endpoints", "Endpoints on this node", seen.endpoints),
        (
            "felix_active_local_endpoints_programmed",
            "Endpoints whose policy is in force",
            seen.endpoints_programmed,
        ),
        (
            "felix_active_local_policies",
            "Policies that select an endpoint of this node",
            seen.policies,
        ),
        (
            "felix_resync_state",
            "1 while the first snapshot is awaited, 3 in sync",
            resync_state,
        ),
        ("felix_iptables_chains", "Chains in the kernel", seen.chains),
        ("felix_iptables_rules", "Rules in the kernel", seen.rules),
        ("felix_ipsets_calico", "Address sets in the kernel", seen.sets),
        ("felix_ipset_members", "Members of all address sets", seen.set_members),
        ("felix_cluster_num_hosts", "Nodes in the cluster", seen.cluster.0),
        (
            "felix_cluster_num_workload_endpoints",
            "Pods in the cluster",
            seen.cluster.1,
        ),
        ("felix_cluster_num_policies", "Policies in the cluster", seen.cluster.2),
    ] {
        gauge(registry, name, help, value);
    }
    for (name, help, value) in [
        (
            "felix_int_dataplane_applies",
            "Times the kernel was brought in line",
            seen.applied,
        ),
        (
            "felix_int_dataplane_failures",
            "Times that failed and was retried",
            seen.apply_failures,
        ),
        (
            "felix_int_dataplane_repairs",
            "Foreign changes to rules or sets repaired",
            seen.rule_repairs,
        ),
        (
            "margay_host_route_repairs",
            "Host routes put back or corrected",
            seen.route_repairs,
        ),
    ] {
        counter(registry, name, help, value);
    }
}

fn ipam(registry: &mut Registry, seen: &Observation) {
    let labels = NodeLabels {
        node: seen.node.clone(),
    };
    for (name, help, value) in [
        ("ipam_blocks_per_node", "Blocks this node owns", seen.ipam.0),
        ("ipam_allocations_per_node", "Addresses given out in them", seen.ipam.1),
        (
            "ipam_allocations_borrowed_per_node",
            "Addresses this node holds in blocks of others",
            seen.ipam.2,
        ),
    ] {
        let family = Family::<NodeLabels, Gauge<i64>>::default();
        family.get_or_create(&labels).set(as_i64(value));
        registry.register(name, help, family);
    }
}

fn bgp(registry: &mut Registry, seen: &Observation) {
    let peers = Family::<StatusLabels, Gauge<i64>>::default();
    let up = Family::<PeerLabels, Gauge<i64>>::default();
    let received = Family::<PeerLabels, Gauge<i64>>::default();
    let sent = Family::<PeerLabels, Gauge<i64>>::default();
    for peer in &seen.peers {
        let ip_version = if peer.address.contains(':') { "IPv6" } else { "IPv4" }.to_owned();
        peers
            .get_or_create(&StatusLabels {
                status: peer.state.as_str().to_owned(),
                ip_version,
            })
            .inc();
        let labels = PeerLabels {
            peer: peer.address.clone(),
            name: peer.name.clone(),
            remote_as: peer.remote_as,
        };
        up.get_or_create(&labels)
            .set(i64::from(peer.state == BgpState::Established));
        received.get_or_create(&labels).set(as_i64(peer.prefixes_received));
        sent.get_or_create(&labels).set(as_i64(peer.prefixes_sent));
    }
    registry.register("bgp_peers", "Sessions by state", peers);
    registry.register("bgp_peer_up", "Whether the session is Established", up);
    registry.register(
        "bgp_peer_prefixes_received",
        "Prefixes received from the peer",
        received,
    );
    registry.register("bgp_peer_prefixes_sent", "Prefixes sent to the peer", sent);
    gauge(
        registry,
        "bgp_routes_imported",
        "Routes learnt and in use",
        seen.bgp_routes,
    );
}

fn gauge(registry: &mut Registry, name: &str, help: &str, value: u64) {
    let metric = Gauge::<i64>::default();
    metric.set(as_i64(value));
    registry.register(name, help, metric);
}

fn counter(registry: &mut Registry, name: &str, help: &str, value: u64) {
    let metric = Counter::<u64, AtomicU64>::default();
    metric.inc_by(value);
    registry.register(name, help, metric);
}

fn as_i64(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_people_know_are_there() {
        let peer = |address: &str, state| BgpPeer {
            address: address.into(),
            name: "tor1".into(),
            remote_as: 65201,
            state,
            prefixes_received: 4,
            ..BgpPeer::default()
        };
        let seen = Observation {
            node: "node1".into(),
            endpoints: 3,
            in_sync: true,
            applied: 7,
            ipam: (1, 3, 0),
            peers: vec![
                peer("10.1.1.1", BgpState::Established),
                peer("fd00::1", BgpState::Active),
            ],
            ..Observation::default()
        };
        let cni = CniMetrics::default();
        cni.count("ADD", 0, Duration::from_millis(12));
        cni.count("ADD", 11, Duration::from_secs(30));
        let text = render(&seen, &cni);
        for line in [
            "felix_active_local_endpoints 3",
            "felix_resync_state 3",
            "felix_int_dataplane_applies_total 7",
            "ipam_allocations_per_node{node=\"node1\"} 3",
            "bgp_peers{status=\"Established\",ip_version=\"IPv4\"} 1",
            "bgp_peers{status=\"Active\",ip_version=\"IPv6\"} 1",
            "bgp_peer_prefixes_received{peer=\"10.1.1.1\",name=\"tor1\",remote_as=\"65201\"} 4",
            "margay_cni_requests_total{command=\"ADD\",code=\"11\"} 1",
            "margay_cni_request_seconds_count{command=\"ADD\"} 2",
        ] {
            assert!(text.lines().any(|l| l == line), "missing {line} in\n{text}");
        }
    }
}
