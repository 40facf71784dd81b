use margay_api::slim::{Object, PodIp};
use margay_api::v3::IPAMBlockSpec;

use super::super::blocks::tests::block;
use super::super::cluster::ClusterChange;
use super::*;
use crate::endpoints::AttachmentKey;
use crate::kube::watch::Change;

/// A cluster and its feed; every change returns the updates it caused.
#[derive(Default)]
struct Bench {
    cluster: Cluster,
    feed: PolicyFeed,
    records: Vec<EndpointRecord>,
}

impl Bench {
    fn apply(&mut self, change: ClusterChange) -> Vec<Update> {
        let altered = self.cluster.apply(change);
        self.feed
            .round(&self.cluster, &altered, std::iter::empty(), self.records.iter())
            .updates
    }

    fn pod(&mut self, pod: Pod) -> Vec<Update> {
        self.apply(ClusterChange::Pod(Change::Put(pod)))
    }

    fn block(&mut self, block: Object<IPAMBlockSpec>) -> Vec<Update> {
        self.apply(ClusterChange::IpamBlock(Change::Put(block)))
    }
}

fn pod(name: &str, uid: &str, addresses: &[&str]) -> Pod {
    let mut pod = Pod::default();
    pod.metadata.namespace = "shop".into();
    pod.metadata.name = name.into();
    pod.metadata.uid = uid.into();
    pod.status.pod_ips = addresses.iter().map(|ip| PodIp { ip: ip.to_string() }).collect();
    pod
}

fn record(pod: &str, runtime_uid: &str, sequence: u64) -> EndpointRecord {
    EndpointRecord {
        key: AttachmentKey {
            network: "margay".into(),
            container: format!("c{sequence}"),
            ifname: "eth0".into(),
        },
        namespace: "shop".into(),
        pod: pod.into(),
        runtime_uid: runtime_uid.into(),
        pod_uid: runtime_uid.into(),
        interface: format!("mgy{pod}"),
        addresses: vec![format!("10.244.0.{sequence}").parse().unwrap()],
        mtu: 1500,
        handle: format!("margay.c{sequence}"),
        netns: String::new(),
        sequence,
    }
}

/// The addresses in an update of a workload, as text.
fn addresses(update: &Update) -> Vec<String> {
    let Update::Workload(_, Some(Workload { addresses, .. })) = update else {
        panic!("not a workload: {update:?}")
    };
    addresses.iter().map(ToString::to_string).collect()
}

#[test]
fn a_new_pods_address_is_known_from_its_block_before_its_status() {
    let mut bench = Bench::default();
    assert_eq!(addresses(&bench.pod(pod("a", "u1", &[]))[0]), Vec::<String>::new());
    let updates = bench.block(block("10.244.0.0/26", "node2", &[(5, "shop", "a", "node2")]));
    assert_eq!(updates.len(), 1);
    assert_eq!(addresses(&updates[0]), ["10.244.0.5"]);
    assert_eq!(
        addresses(&bench.pod(pod("a", "u1", &["10.244.0.5"]))[0]),
        ["10.244.0.5"],
        "not twice"
    );
}

#[test]
fn a_block_known_before_its_pod_counts_once_the_pod_comes() {
    let mut bench = Bench::default();
    bench.block(block("10.244.0.0/26", "node2", &[(5, "shop", "a", "node2")]));
    assert_eq!(addresses(&bench.pod(pod("a", "u1", &[]))[0]), ["10.244.0.5"]);
}

#[test]
fn an_address_that_went_to_another_pod_leaves_the_old_one() {
    let mut bench = Bench::default();
    bench.block(block("10.244.0.0/26", "node2", &[(5, "shop", "a", "node2")]));
    bench.pod(pod("a", "u1", &["10.244.0.5"]));
    bench.pod(pod("b", "u2", &[]));
    let updates = bench.block(block("10.244.0.0/26", "node2", &[(5, "shop", "b", "node2")]));
    let by_name: BTreeMap<_, _> = updates
        .iter()
        .map(|update| match update {
            Update::Workload(id, _) => (id.name.to_string(), addresses(update)),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(by_name["a"], Vec::<String>::new());
    assert_eq!(by_name["b"], ["10.244.0.5"]);
}

#[test]
fn a_vanished_block_takes_its_addresses_along() {
    let mut bench = Bench::default();
    let block = block("10.244.0.0/26", "node2", &[(5, "shop", "a", "node2")]);
    bench.pod(pod("a", "u1", &[]));
    let key = ObjectKey {
        namespace: String::new(),
        name: block.metadata.name.clone(),
    };
    bench.block(block);
    let updates = bench.apply(ClusterChange::IpamBlock(Change::Gone(key)));
    assert_eq!(addresses(&updates[0]), Vec::<String>::new());
}

#[test]
fn a_deleted_pod_is_removed() {
    let mut bench = Bench::default();
    bench.pod(pod("a", "u1", &["10.244.0.5"]));
    let key = ObjectKey {
        namespace: "shop".into(),
        name: "a".into(),
    };
    let updates = bench.apply(ClusterChange::Pod(Change::Gone(key)));
    assert_eq!(updates, [Update::Workload(EndpointId::new("shop", "a"), None)]);
}

#[test]
fn a_static_pods_attachment_follows_its_mirror() {
    let mut bench = Bench {
        records: vec![record("etcd", "hash1", 7)],
        ..Bench::default()
    };
    let mut mirror = pod("etcd", "mirror-uid", &[]);
    mirror.metadata.annotations.insert(MIRROR.into(), "hash1".into());
    let uid = |updates: &[Update]| {
        updates.iter().find_map(|update| match update {
            Update::Attachment(_, Some(attachment)) => Some(attachment.uid.to_string()),
            _ => None,
        })
    };
    assert_eq!(uid(&bench.pod(mirror.clone())).as_deref(), Some("mirror-uid"));
    mirror.metadata.uid = "mirror-uid-2".into();
    assert_eq!(uid(&bench.pod(mirror.clone())).as_deref(), Some("mirror-uid-2"));
    mirror.metadata.annotations.insert(MIRROR.into(), "hash2".into());
    assert_eq!(
        uid(&bench.pod(mirror)).as_deref(),
        Some("hash1"),
        "another configuration is another pod"
    );
}

#[test]
fn of_two_sandboxes_of_a_pod_the_newer_one_lives() {
    let mut bench = Bench {
        records: vec![record("a", "u1", 8), record("a", "u1", 7)],
        ..Bench::default()
    };
    let updates = bench.pod(pod("a", "u1", &[]));
    let attached: Vec<_> = updates
        .iter()
        .filter_map(|update| match update {
            Update::Attachment(_, Some(attachment)) => Some(attachment.addresses[0].to_string()),
            _ => None,
        })
        .collect();
    assert_eq!(attached, ["10.244.0.8"]);
    bench.records.remove(0);
    let updates = bench.apply(ClusterChange::Pod(Change::Reset(vec![pod("a", "u1", &[])])));
    assert!(matches!(&updates[..], [Update::Attachment(_, Some(a))] if a.addresses[0].to_string() == "10.244.0.7"));
}

#[test]
fn every_interface_of_a_pods_sandbox_is_an_endpoint() {
    let further = |container: &str, sequence: u64| {
        let mut further = record("a", "u1", sequence);
        further.key.container = container.into();
        further.key.ifname = "net1".into();
        further.interface = "mgyfurther".into();
        further
    };
    let mut bench = Bench {
        // The older sandbox had a further interface, too.
        records: vec![
            record("a", "u1", 7),
            further("c7", 8),
            record("a", "u1", 9),
            further("c9", 10),
        ],
        ..Bench::default()
    };
    let mut shop = pod("a", "u1", &["10.244.0.9"]);
    shop.metadata.labels.insert("app".into(), "shop".into());
    let mut attached = BTreeMap::new();
    for update in bench.pod(shop.clone()) {
        match update {
            Update::Attachment(id, Some(attachment)) => _ = attached.insert(id, attachment.addresses[0].to_string()),
            Update::Workload(id, Some(workload)) if *id.name == *"a/net1" => {
                assert_eq!(workload.addresses, ["10.244.0.10".parse::<IpAddr>().unwrap()]);
                assert_eq!(
                    (&*workload.uid, workload.labels.get("app").map(String::as_str)),
                    ("u1", Some("shop"))
                );
            }
            Update::Workload(id, Some(_)) => assert_eq!(*id.name, *"a"),
            other => panic!("{other:?}"),
        }
    }
    let (own, more) = (EndpointId::new("shop", "a"), EndpointId::new("shop", "a/net1"));
    assert_eq!(
        attached,
        BTreeMap::from([(own, "10.244.0.9".into()), (more.clone(), "10.244.0.10".into())])
    );

    shop.metadata.labels.insert("app".into(), "till".into());
    let relabelled = bench.pod(shop.clone());
    assert_eq!(relabelled.len(), 2, "both follow the pod: {relabelled:?}");
    bench.records.pop();
    let gone = bench.apply(ClusterChange::Pod(Change::Reset(vec![shop])));
    assert_eq!(
        gone,
        [Update::Workload(more.clone(), None), Update::Attachment(more, None)]
    );
}

#[test]
fn pools_that_change_or_go_are_told() {
    let mut feed = PolicyFeed::default();
    let cluster = Cluster::default();
    let altered = Altered {
        pools: true,
        ..Altered::default()
    };
    let cidr: IpNetwork = "10.244.0.0/16".parse().unwrap();
    let mut round = |pools: Vec<(IpNetwork, Pool)>| {
        feed.round(&cluster, &altered, pools.into_iter(), std::iter::empty())
            .updates
    };
    let with = |nat_outgoing| Pool { nat_outgoing };
    assert_eq!(
        round(vec![(cidr, with(false))]),
        [Update::Pool(cidr, Some(with(false)))]
    );
    assert_eq!(round(vec![(cidr, with(false))]), []);
    assert_eq!(round(vec![(cidr, with(true))]), [Update::Pool(cidr, Some(with(true)))]);
    assert_eq!(round(vec![]), [Update::Pool(cidr, None)]);
}

/// Blocks of one round come in no particular order: what is gone must not take along what a new one has.
#[test]
fn a_block_that_another_one_replaces_leaves_that_ones_holders() {
    let mut bench = Bench::default();
    bench.pod(pod("a", "u1", &["10.244.0.0"]));
    bench.pod(pod("b", "u2", &[]));
    let old = block("10.244.0.0/28", "node2", &[(0, "shop", "a", "node2")]);
    let key = ObjectKey {
        namespace: String::new(),
        name: old.metadata.name.clone(),
    };
    bench.block(old);
    let new = block("10.244.0.0/26", "node2", &[(0, "shop", "b", "node2")]);
    let mut altered = bench.cluster.apply(ClusterChange::IpamBlock(Change::Put(new)));
    altered.merge(bench.cluster.apply(ClusterChange::IpamBlock(Change::Gone(key))));
    let round = bench
        .feed
        .round(&bench.cluster, &altered, std::iter::empty(), std::iter::empty());
    for update in &round.updates {
        let Update::Workload(id, _) = update else {
            panic!("{update:?}")
        };
        let expected: &[&str] = if *id.name == *"b" { &["10.244.0.0"] } else { &[] };
        assert_eq!(addresses(update), expected, "{id}");
    }
    assert_eq!(round.updates.len(), 2);
}

/// What a pod's status said once does not concern it for ever.
#[test]
fn only_pods_that_report_an_address_are_concerned_by_its_block() {
    let mut bench = Bench::default();
    bench.pod(pod("a", "u1", &["10.244.0.5"]));
    bench.pod(pod("a", "u1", &["10.244.0.6"]));
    bench.pod(pod("b", "u2", &[]));
    let updates = bench.block(block("10.244.0.0/26", "node2", &[(5, "shop", "b", "node2")]));
    assert_eq!(updates.len(), 1, "{updates:?}");
}
