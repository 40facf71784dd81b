use margay_api::slim::Object;
use margay_api::v3::BGPPeerSpec;
use rstest::rstest;
use serde_json::json;

use super::super::blocks::tests::block;
use super::super::cluster::ClusterChange;
use super::*;
use crate::kube::watch::Change;

const SURROUNDINGS: Surroundings = Surroundings {
    connected: Vec::new(),
    ipv6: true,
    announce: true,
    shown: Vec::new(),
};

/// Nodes `n1`…`n3` at 10.0.0.1…3, AS by annotation where given, label rack.
fn cluster(as_numbers: [Option<u32>; 3]) -> Cluster {
    let mut cluster = Cluster::default();
    for (i, as_number) in as_numbers.into_iter().enumerate() {
        let i = i + 1;
        let mut node = json!({
            "metadata": {"name": format!("n{i}"), "labels": {"rack": if i < 3 { "a" } else { "b" }}},
            "status": {"addresses": [{"type": "InternalIP", "address": format!("10.0.0.{i}")}]},
        });
        if let Some(as_number) = as_number {
            node["metadata"]["annotations"] = json!({"projectcalico.org/ASNumber": as_number.to_string()});
        }
        cluster.apply(ClusterChange::Node(Change::Put(serde_json::from_value(node).unwrap())));
    }
    cluster
}

fn add_peer(cluster: &mut Cluster, name: &str, created: &str, spec: serde_json::Value) {
    let object: Object<BGPPeerSpec> =
        serde_json::from_value(json!({"metadata": {"name": name, "creationTimestamp": created}, "spec": spec}))
            .unwrap();
    cluster.apply(ClusterChange::BgpPeer(Change::Put(object)));
}

fn configure(cluster: &mut Cluster, name: &str, spec: serde_json::Value) {
    let object = serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec})).unwrap();
    cluster.apply(ClusterChange::BgpConfiguration(Change::Put(object)));
}

fn plan_of(cluster: &Cluster, node: &str) -> BgpPlan {
    let plan = plan(cluster, cluster.nodes.named(node).unwrap(), &SURROUNDINGS);
    plan.config.validate().expect("what is made is valid");
    plan
}

/// `name address as passive?` of each peer.
fn peers(plan: &BgpPlan) -> Vec<String> {
    let show = |p: &PeerConfig| {
        let passive = if p.passive { " passive" } else { "" };
        format!(
            "{} {}:{} as {}{passive}",
            p.name.as_deref().unwrap_or("-"),
            p.address,
            p.port,
            p.remote_as
        )
    };
    plan.config.peers.iter().map(show).collect()
}

fn no_mesh(cluster: &mut Cluster) {
    configure(cluster, "default", json!({"nodeToNodeMeshEnabled": false}));
}

#[test]
fn without_any_configuration_every_pair_of_nodes_peers_and_the_higher_address_waits() {
    let cluster = cluster([None; 3]);
    let plan = plan_of(&cluster, "n2");
    assert_eq!(
        peers(&plan),
        ["mesh.n1 10.0.0.1:179 as 64512 passive", "mesh.n3 10.0.0.3:179 as 64512"]
    );
    assert_eq!(plan.config.local_as, 64512);
    assert_eq!(plan.config.router_id, Ipv4Addr::new(10, 0, 0, 2));
    assert_eq!(plan.config.peers[0].local_address, Some("10.0.0.2".parse().unwrap()));
}

#[test]
fn route_reflectors_are_outside_the_mesh() {
    let mut cluster = cluster([None; 3]);
    let mut reflector = cluster.nodes.named("n3").unwrap().clone();
    reflector
        .metadata
        .annotations
        .insert("projectcalico.org/RouteReflectorClusterID".into(), "244.0.0.1".into());
    cluster.apply(ClusterChange::Node(Change::Put(reflector)));
    assert_eq!(peers(&plan_of(&cluster, "n1")), ["mesh.n2 10.0.0.2:179 as 64512"]);
    assert!(peers(&plan_of(&cluster, "n3")).is_empty());
}

#[rstest]
#[case::for_all_nodes(json!({"peerIP": "10.1.1.1", "asNumber": 65201}), "n1", &["tor 10.1.1.1:179 as 65201"])]
#[case::by_name(json!({"node": "n1", "peerIP": "10.1.1.1", "asNumber": 65201}), "n1", &["tor 10.1.1.1:179 as 65201"])]
#[case::by_name_not_me(json!({"node": "n1", "peerIP": "10.1.1.1", "asNumber": 65201}), "n2", &[])]
#[case::by_label(json!({"nodeSelector": "rack == 'a'", "peerIP": "10.1.1.1", "asNumber": 65201}), "n2", &["tor 10.1.1.1:179 as 65201"])]
#[case::by_label_not_me(json!({"nodeSelector": "rack == 'a'", "peerIP": "10.1.1.1", "asNumber": 65201}), "n3", &[])]
#[case::with_a_port(json!({"peerIP": "10.1.1.1:1179", "asNumber": 65201}), "n1", &["tor 10.1.1.1:1179 as 65201"])]
#[case::over_ipv6(json!({"peerIP": "[fd00::1]:1179", "asNumber": 65201}), "n1", &["tor fd00::1:1179 as 65201"])]
#[case::a_node_is_not_its_own_peer(json!({"peerIP": "10.0.0.1", "asNumber": 64512}), "n1", &[])]
#[case::nodes_by_selector(json!({"nodeSelector": "rack == 'b'", "peerSelector": "rack == 'a'"}), "n3",
    &["tor.n1 10.0.0.1:179 as 64512 passive", "tor.n2 10.0.0.2:179 as 64512 passive"])]
#[case::the_other_end_of_it(json!({"nodeSelector": "rack == 'b'", "peerSelector": "rack == 'a'"}), "n1",
    &["tor.n3 10.0.0.3:179 as 64512"])]
fn a_bgp_peer_gives_sessions(#[case] spec: serde_json::Value, #[case] node: &str, #[case] expected: &[&str]) {
    let mut cluster = cluster([None; 3]);
    no_mesh(&mut cluster);
    add_peer(&mut cluster, "tor", "2026-01-01T00:00:00Z", spec);
    let plan = plan_of(&cluster, node);
    assert_eq!(peers(&plan), expected);
    assert_eq!(plan.faults, []);
}

#[rstest]
#[case::neither_ip_nor_selector(json!({"asNumber": 65201}), "peerIP")]
#[case::no_as(json!({"peerIP": "10.1.1.1"}), "asNumber")]
#[case::not_an_address(json!({"peerIP": "tor1", "asNumber": 65201}), "peerIP")]
#[case::not_supported(json!({"peerIP": "10.1.1.1", "asNumber": 65201, "ttlSecurity": 1}), "ttlSecurity")]
#[case::transition_as(json!({"peerIP": "10.1.1.1", "asNumber": 23456}), "asNumber")]
#[case::last_as(json!({"peerIP": "10.1.1.1", "asNumber": 4294967295u32}), "asNumber")]
#[case::link_local(json!({"peerIP": "fe80::1", "asNumber": 65201}), "peerIP")]
#[case::multicast(json!({"peerIP": "224.0.0.1", "asNumber": 65201}), "peerIP")]
#[case::unspecified(json!({"peerIP": "0.0.0.0", "asNumber": 65201}), "peerIP")]
#[case::bad_selector(json!({"nodeSelector": "rack = a", "peerIP": "10.1.1.1", "asNumber": 65201}), "nodeSelector")]
fn an_invalid_peer_is_left_out_and_named(#[case] spec: serde_json::Value, #[case] field: &str) {
    let mut cluster = cluster([None; 3]);
    no_mesh(&mut cluster);
    add_peer(&mut cluster, "bad", "2026-01-01T00:00:00Z", spec);
    add_peer(
        &mut cluster,
        "good",
        "2026-01-02T00:00:00Z",
        json!({"peerIP": "10.1.1.9", "asNumber": 65209}),
    );
    let plan = plan_of(&cluster, "n1");
    assert_eq!(peers(&plan), ["good 10.1.1.9:179 as 65209"]);
    assert_eq!(plan.faults.len(), 1);
    assert_eq!(
        (plan.faults[0].subject.name.as_str(), plan.faults[0].reason),
        ("bad", "BGPPeerInvalid")
    );
    assert!(plan.faults[0].message.contains(field), "{}", plan.faults[0].message);
}

#[test]
fn of_two_peers_at_one_address_the_newer_is_left_out() {
    let mut cluster = cluster([None; 3]);
    no_mesh(&mut cluster);
    add_peer(
        &mut cluster,
        "a-newer",
        "2026-02-01T00:00:00Z",
        json!({"peerIP": "10.1.1.1", "asNumber": 65202}),
    );
    add_peer(
        &mut cluster,
        "b-older",
        "2026-01-01T00:00:00Z",
        json!({"peerIP": "10.1.1.1", "asNumber": 65201}),
    );
    let plan = plan_of(&cluster, "n1");
    assert_eq!(peers(&plan), ["b-older 10.1.1.1:179 as 65201"]);
    assert_eq!(plan.faults[0].subject.name, "a-newer");
    assert!(
        plan.faults[0].message.contains("older BGPPeer b-older"),
        "{}",
        plan.faults[0].message
    );
}

#[test]
fn a_peer_goes_before_the_mesh() {
    let mut cluster = cluster([None; 3]);
    add_peer(
        &mut cluster,
        "special",
        "2026-01-01T00:00:00Z",
        json!({"peerIP": "10.0.0.2:1179", "asNumber": 64512}),
    );
    let plan = plan_of(&cluster, "n1");
    assert_eq!(
        peers(&plan),
        ["special 10.0.0.2:1179 as 64512", "mesh.n3 10.0.0.3:179 as 64512"]
    );
    assert_eq!(plan.faults, []);
}

#[test]
fn external_peers_off_the_nodes_networks_are_multihop() {
    let mut cluster = cluster([Some(65301), None, None]);
    no_mesh(&mut cluster);
    add_peer(
        &mut cluster,
        "far",
        "2026-01-01T00:00:00Z",
        json!({"peerIP": "192.0.2.1", "asNumber": 65201}),
    );
    add_peer(
        &mut cluster,
        "near",
        "2026-01-01T00:00:00Z",
        json!({"peerIP": "10.1.1.1", "asNumber": 65201}),
    );
    add_peer(
        &mut cluster,
        "same-as",
        "2026-01-01T00:00:00Z",
        json!({"peerIP": "192.0.2.2", "asNumber": 65301}),
    );
    let surroundings = Surroundings {
        connected: vec!["10.1.1.0/31".parse().unwrap()],
        ..SURROUNDINGS
    };
    let plan = plan(&cluster, cluster.nodes.named("n1").unwrap(), &surroundings);
    let multihop: BTreeMap<_, _> = plan
        .config
        .peers
        .iter()
        .map(|p| (p.name.clone().unwrap(), p.multihop))
        .collect();
    assert_eq!(multihop["far"], Some(255));
    assert_eq!(multihop["near"], None);
    assert_eq!(multihop["same-as"], None);
}

#[rstest]
#[case::last_as("ASNumber", "4294967295")]
#[case::transition_as("ASNumber", "0.23456")]
#[case::unspecified("IPv4Address", "0.0.0.0/24")]
#[case::broadcast("IPv4Address", "255.255.255.255")]
#[case::link_local("IPv6Address", "fe80::1/64")]
fn an_annotation_that_no_router_can_have_is_ignored_and_named(#[case] key: &str, #[case] value: &str) {
    let mut cluster = cluster([None; 3]);
    let expected = peers(&plan_of(&cluster, "n1"));
    let mut node = cluster.nodes.named("n2").unwrap().clone();
    let key = format!("projectcalico.org/{key}");
    node.metadata.annotations.insert(key.clone(), value.to_owned());
    cluster.apply(ClusterChange::Node(Change::Put(node)));
    assert_eq!(peers(&plan_of(&cluster, "n1")), expected);
    let own = plan_of(&cluster, "n2");
    assert_eq!((own.config.local_as, own.config.peers.len()), (64512, 2));
    assert_eq!(own.faults.len(), 1);
    assert_eq!(own.faults[0].subject.name, "n2");
    assert!(own.faults[0].message.contains(&key), "{}", own.faults[0].message);
}

#[test]
fn a_session_that_the_speaker_would_refuse_is_left_out_alone() {
    let cluster = cluster([None; 3]);
    let plan = plan_of(&cluster, "n1");
    let mut bad = PeerConfig::new("10.1.1.1".parse().unwrap(), 0);
    bad.name = Some("odd".to_owned());
    let mut peers = plan.config.peers.clone();
    peers.insert(0, bad);
    let mut faults = Vec::new();
    let me = cluster.nodes.named("n1").unwrap();
    assert_eq!(sound(&plan.config, me, peers, &mut faults), plan.config.peers);
    assert_eq!(faults.len(), 1);
    let told = &faults[0].message;
    assert!(
        told.contains("odd with 10.1.1.1") && told.contains("remote_as"),
        "{told}"
    );
}

#[test]
fn a_session_is_the_same_whatever_others_there_are() {
    let mut cluster = cluster([None; 3]);
    no_mesh(&mut cluster);
    let spec = |ip: &str| json!({"peerIP": ip, "asNumber": 65201});
    add_peer(&mut cluster, "v4", "2026-01-01T00:00:00Z", spec("10.1.1.1"));
    let alone = plan_of(&cluster, "n1").config.peers;
    assert_eq!(alone[0].families, [Family::Ipv4, Family::Ipv6]);
    add_peer(&mut cluster, "v6", "2026-01-01T00:00:00Z", spec("fd00::1"));
    let mut slow = spec("10.1.1.2");
    slow["maxRestartTime"] = json!("10m");
    add_peer(&mut cluster, "slow", "2026-01-01T00:00:00Z", slow);
    let config = plan_of(&cluster, "n1").config;
    assert_eq!(config.peers[0], alone[0]);
    let times: Vec<_> = config.peers.iter().map(|peer| peer.restart_time).collect();
    assert_eq!(times, [None, Some(600), None]);
    assert_eq!(config.graceful_restart.restart_time, 120);
}

#[test]
fn two_nodes_with_both_families_have_a_session_for_each() {
    let mut cluster = cluster([None; 3]);
    for name in ["n1", "n2"] {
        let mut node = cluster.nodes.named(name).unwrap().clone();
        let key = "projectcalico.org/IPv6Address".to_owned();
        node.metadata.annotations.insert(key, format!("fd00::{}", &name[1..]));
        cluster.apply(ClusterChange::Node(Change::Put(node)));
    }
    let peers = plan_of(&cluster, "n1").config.peers;
    let families: Vec<_> = peers
        .iter()
        .map(|p| (p.address.to_string(), p.families.clone()))
        .collect();
    let expected = [
        ("10.0.0.2", vec![Family::Ipv4]),
        ("10.0.0.3", vec![Family::Ipv4, Family::Ipv6]),
        ("fd00::2", vec![Family::Ipv6]),
    ];
    assert_eq!(families, expected.map(|(a, f)| (a.to_owned(), f)));
}

#[test]
fn blocks_of_a_deleted_pool_stay_as_they_are() {
    let mut cluster = cluster([None; 3]);
    for cidr in ["10.244.0.0/26", "10.99.0.0/26"] {
        cluster.apply(ClusterChange::IpamBlock(Change::Put(block(cidr, "n1", &[]))));
    }
    let surroundings = Surroundings {
        shown: vec!["10.244.0.0/26".parse().unwrap()],
        ..SURROUNDINGS
    };
    let plan = plan(&cluster, cluster.nodes.named("n1").unwrap(), &surroundings);
    let networks: Vec<_> = plan.config.networks.iter().map(|n| n.prefix.to_string()).collect();
    assert_eq!(networks, ["10.244.0.0/26"]);
}

#[test]
fn own_blocks_and_borrowed_addresses_go_out_once_pods_can_be_served() {
    let mut cluster = cluster([None; 3]);
    for block in [
        block("10.244.0.0/26", "n1", &[]),
        block("10.244.0.64/26", "n2", &[(3, "shop", "a", "n1")]),
        block("10.99.0.0/26", "n1", &[]),
    ] {
        cluster.apply(ClusterChange::IpamBlock(Change::Put(block)));
    }
    let pools = json!([
        {"metadata": {"name": "shown"}, "spec": {"cidr": "10.244.0.0/16", "disabled": true}},
        {"metadata": {"name": "hidden"}, "spec": {"cidr": "10.99.0.0/16", "disableBGPExport": true}},
    ]);
    cluster.apply(ClusterChange::IpPool(Change::Reset(
        serde_json::from_value(pools).unwrap(),
    )));
    let node = cluster.nodes.named("n1").unwrap();
    let networks = |announce| -> Vec<String> {
        let plan = plan(
            &cluster,
            node,
            &Surroundings {
                announce,
                ..SURROUNDINGS
            },
        );
        plan.config
            .networks
            .iter()
            .map(|network| network.prefix.to_string())
            .collect()
    };
    assert_eq!(networks(true), ["10.244.0.0/26", "10.244.0.67/32"]);
    assert!(networks(false).is_empty());
    let config = plan_of(&cluster, "n1").config;
    let refused: Vec<_> = config.filters[IMPORT].rules[0]
        .prefixes
        .iter()
        .map(|range| range.prefix.to_string())
        .collect();
    assert_eq!(refused, ["10.99.0.0/26", "10.244.0.0/26", "10.244.0.67/32"]);
    assert_eq!(config.filters[IMPORT].default, Action::Accept);
    assert_eq!(config.filters[EXPORT].default, Action::Reject);
    assert!(
        config
            .peers
            .iter()
            .all(|peer| peer.import.is_some() && peer.export.is_some())
    );
}

#[test]
fn a_node_without_blocks_refuses_nothing() {
    let cluster = cluster([None; 3]);
    assert!(plan_of(&cluster, "n1").config.filters[IMPORT].rules.is_empty());
}

#[test]
fn settings_of_the_node_go_before_those_of_the_cluster() {
    let mut cluster = cluster([Some(65301), None, None]);
    configure(&mut cluster, "default", json!({"asNumber": 64999, "listenPort": 1179}));
    configure(
        &mut cluster,
        "node.n2",
        json!({"listenPort": 2179, "logSeverityScreen": "Debug"}),
    );
    assert_eq!(plan_of(&cluster, "n1").log_level, None);
    assert_eq!(plan_of(&cluster, "n2").log_level, Some(LogLevel::Debug));
    let first = plan_of(&cluster, "n1").config;
    assert_eq!((first.local_as, first.listen[0].port()), (65301, 1179));
    let second = plan_of(&cluster, "n2").config;
    assert_eq!(second.local_as, 64999);
    assert_eq!(
        second.listen,
        ["0.0.0.0:2179".parse().unwrap(), "[::]:2179".parse().unwrap()]
    );
}

#[test]
fn nodes_are_dialled_where_they_listen() {
    let mut cluster = cluster([None; 3]);
    configure(&mut cluster, "default", json!({"listenPort": 1179}));
    configure(&mut cluster, "node.n2", json!({"listenPort": 2179}));
    let expected = ["10.0.0.2:2179", "10.0.0.3:1179"];
    let dialled = |cluster: &Cluster| -> Vec<String> {
        let peers = plan_of(cluster, "n1").config.peers;
        peers.iter().map(|p| format!("{}:{}", p.address, p.port)).collect()
    };
    assert_eq!(dialled(&cluster), expected);
    configure(
        &mut cluster,
        "default",
        json!({"listenPort": 1179, "nodeToNodeMeshEnabled": false}),
    );
    add_peer(
        &mut cluster,
        "all",
        "2026-01-01T00:00:00Z",
        json!({"peerSelector": "all()"}),
    );
    assert_eq!(dialled(&cluster), expected);
}

#[test]
fn a_reserved_as_number_of_the_cluster_is_ignored() {
    let mut cluster = cluster([None; 3]);
    configure(&mut cluster, "default", json!({"asNumber": 23456, "listenPort": 1179}));
    let plan = plan_of(&cluster, "n1");
    assert_eq!((plan.config.local_as, plan.config.listen[0].port()), (64512, 1179));
    assert!(
        plan.faults[0].message.contains("asNumber"),
        "{}",
        plan.faults[0].message
    );
}

/// Nodes that have IPv6 addresses alone, and blocks of such.
#[test]
fn a_cluster_of_ipv6_alone_has_a_mesh() {
    let mut cluster = Cluster::default();
    for i in 1..=3 {
        let node = json!({
            "metadata": {"name": format!("n{i}")},
            "status": {"addresses": [{"type": "InternalIP", "address": format!("fd00::{i}")}]},
        });
        cluster.apply(ClusterChange::Node(Change::Put(serde_json::from_value(node).unwrap())));
    }
    let pool = json!({"metadata": {"name": "six"}, "spec": {"cidr": "fd00:10:244::/48"}});
    cluster.apply(ClusterChange::IpPool(Change::Put(
        serde_json::from_value(pool).unwrap(),
    )));
    cluster.apply(ClusterChange::IpamBlock(Change::Put(block(
        "fd00:10:244::/122",
        "n1",
        &[],
    ))));
    let plan = plan_of(&cluster, "n1");
    assert_eq!(
        peers(&plan),
        ["mesh.n2 fd00::2:179 as 64512", "mesh.n3 fd00::3:179 as 64512"]
    );
    let peer = &plan.config.peers[0];
    assert_eq!(peer.local_address, Some("fd00::1".parse().unwrap()));
    assert!(plan.config.listen.contains(&"[::]:179".parse().unwrap()));
    let networks: Vec<_> = plan
        .config
        .networks
        .iter()
        .map(|network| network.prefix.to_string())
        .collect();
    assert_eq!(networks, ["fd00:10:244::/122"]);
    // RFC 6286: an identifier must differ within an AS, and not be zero.
    let ids: std::collections::BTreeSet<_> = ["n1", "n2", "n3"]
        .map(|node| plan_of(&cluster, node).config.router_id)
        .into_iter()
        .collect();
    assert_eq!(ids.len(), 3, "{ids:?}");
    assert!(!ids.contains(&Ipv4Addr::UNSPECIFIED));
}
