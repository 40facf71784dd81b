//! Rules of assignment, one at a time.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use futures::executor::block_on;
use ipnetwork::IpNetwork;
use margay_api::v3::{AllowedUse, AssignmentMode, BlockAffinitySpec, IPAMBlockSpec, IPAMHandleSpec};
use margay_ipam::gc::Collector;
use margay_ipam::store::memory::Memory;
use margay_ipam::store::{Resource, Settings, Store};
use margay_ipam::{Allocator, Assigned, Attributes, Error, Request, block};
use serde_json::json;

use crate::harness::{pool, request, settings};

fn ips(assigned: &Assigned) -> Vec<String> {
    assigned
        .addresses
        .iter()
        .map(|assignment| assignment.address.to_string())
        .collect()
}

fn assign(allocator: &Allocator<Memory>, handle: &str, v4: usize, v6: usize) -> Result<Assigned, Error> {
    block_on(allocator.auto_assign(request(handle, v4, v6)))
}

fn one_pool(cidr: &str, block_size: u8) -> (Memory, Settings) {
    let settings = settings(vec![pool("main", cidr, block_size)]);
    (Memory::new(settings.clone()), settings)
}

#[test]
fn objects_are_as_calicos_plugin_writes_them() {
    let (memory, _) = one_pool("10.60.162.128/26", 26);
    let allocator = Allocator::new(memory.clone(), "ms-node");
    let attributes = |pod: &str| Attributes {
        pod: Some(pod.to_owned()),
        namespace: Some("ns0".to_owned()),
        ..Attributes::default()
    };
    for (handle, pod) in [("k8s-pod-network.cc1", "q1"), ("k8s-pod-network.cc2", "q2")] {
        let request = Request {
            handle: handle.to_owned(),
            attributes: attributes(pod),
            v4: 1,
            ..Request::default()
        };
        block_on(allocator.auto_assign(request)).unwrap();
    }

    let block = &memory.snapshot::<IPAMBlockSpec>()[0];
    assert_eq!(block.name, "10-60-162-128-26");
    let json = serde_json::to_value(&block.spec).unwrap();
    assert_eq!(json["affinity"], "host:ms-node");
    assert_eq!(json["cidr"], "10.60.162.128/26");
    assert_eq!(json["allocations"].as_array().unwrap().len(), 64);
    assert_eq!(json["allocations"][0], 0);
    assert_eq!(json["allocations"][1], 1);
    assert_eq!(json["unallocated"][0], 2);
    assert_eq!(json["attributes"][0]["handle_id"], "k8s-pod-network.cc1");
    assert_eq!(json["attributes"][0]["secondary"]["pod"], "q1");
    assert_eq!(json["attributes"][0]["secondary"]["namespace"], "ns0");
    assert_eq!(json["attributes"][0]["secondary"]["node"], "ms-node");
    let sequence = |value: &serde_json::Value| value.as_u64().unwrap();
    let last = sequence(&json["sequenceNumber"]);
    assert_eq!(sequence(&json["sequenceNumberForAllocation"]["0"]), last - 2);
    assert_eq!(sequence(&json["sequenceNumberForAllocation"]["1"]), last - 1);

    let affinity = &memory.snapshot::<BlockAffinitySpec>()[0];
    assert_eq!(affinity.name, "ms-node-10-60-162-128-26");
    assert_eq!(
        serde_json::to_value(&affinity.spec).unwrap(),
        json!({"cidr": "10.60.162.128/26", "deleted": false, "node": "ms-node", "state": "confirmed", "type": "host"})
    );
    let labels = affinity.spec.labels();
    assert_eq!(labels["projectcalico.org/affinity-type"], "host");
    assert_eq!(labels["projectcalico.org/ip-version"], "4");
    assert!(labels["projectcalico.org/hostname-hash"].starts_with("MDSHUSLGP5ZVV"));

    let handle = &memory.snapshot::<IPAMHandleSpec>()[0];
    assert_eq!(handle.name, "k8s-pod-network.cc1");
    assert_eq!(
        serde_json::to_value(&handle.spec).unwrap(),
        json!({"block": {"10.60.162.128/26": 1}, "deleted": false, "handleID": "k8s-pod-network.cc1"})
    );

    // After both are released: the block is kept, its queue turned, the handles gone.
    for handle in ["k8s-pod-network.cc1", "k8s-pod-network.cc2"] {
        assert_eq!(block_on(allocator.release_by_handle(handle)).unwrap().len(), 1);
        assert_eq!(block_on(allocator.release_by_handle(handle)).unwrap(), []);
    }
    let block = &memory.snapshot::<IPAMBlockSpec>()[0].spec;
    assert_eq!(block.unallocated, (2..64).chain(0..2).collect::<Vec<u32>>());
    assert!(block.attributes.is_empty() && memory.snapshot::<IPAMHandleSpec>().is_empty());
}

#[test]
fn steady_state_costs_two_writes_each_way() {
    let (memory, _) = one_pool("10.0.0.0/16", 26);
    let allocator = Allocator::new(memory.clone(), "n");
    assign(&allocator, "first", 1, 0).unwrap();
    let before = memory.writes();
    assign(&allocator, "second", 1, 0).unwrap();
    assert_eq!(memory.writes() - before, 2);
    block_on(allocator.release_by_handle("second")).unwrap();
    assert_eq!(memory.writes() - before, 4);
}

#[test]
fn a_full_block_leads_to_another_then_to_borrowing_then_to_an_error() {
    let (memory, mut settings) = one_pool("10.0.0.0/28", 30);
    let (a, b) = (Allocator::new(memory.clone(), "a"), Allocator::new(memory.clone(), "b"));
    assert_eq!(assign(&b, "b1", 1, 0).unwrap().addresses.len(), 1);
    let got = assign(&a, "a1", 13, 0).unwrap();
    assert_eq!(got.addresses.len(), 13);
    assert_eq!(got.addresses.iter().filter(|assignment| assignment.borrowed).count(), 1);
    let borrowed = block_on(a.blocks_of("a")).unwrap();
    assert_eq!((borrowed.owned.len(), borrowed.borrowed.len()), (3, 1));
    assert_eq!(block_on(b.allocations_of("a")).unwrap().len(), 13);

    let error = assign(&a, "a2", 3, 0).unwrap_err();
    assert_eq!(
        error.to_string(),
        "3 IPv4 address(es) wanted, 2 found: main has 16 of 16 addresses in use; add an IPPool"
    );
    assert_eq!(block_on(a.addresses_of("a2")).unwrap(), Vec::<IpAddr>::new());
    assert!(
        memory
            .snapshot::<IPAMHandleSpec>()
            .iter()
            .all(|stored| stored.spec.handle_id != "a2")
    );

    settings.config.strict_affinity = true;
    memory.set_settings(settings);
    let error = assign(&a, "a3", 1, 0).unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with("or set strictAffinity to false in IPAMConfiguration default"),
        "{error}"
    );

    let usage = &block_on(a.utilization()).unwrap()[0];
    assert_eq!(
        (usage.capacity, usage.blocks, usage.used, usage.borrowed),
        (16, 4, 14, 1)
    );
    assert_eq!(
        (
            usage.nodes["a"].blocks,
            usage.nodes["a"].used,
            usage.nodes["a"].borrowed
        ),
        (3, 13, 1)
    );
}

#[test]
fn a_node_claims_no_more_blocks_than_it_may() {
    let (memory, mut settings) = one_pool("10.0.0.0/24", 30);
    settings.config.strict_affinity = true;
    memory.set_settings(settings.clone());
    let allocator = Allocator::new(memory.clone(), "n");
    assert!(matches!(
        assign(&allocator, "h", 81, 0),
        Err(Error::Exhausted { found: 80, .. })
    ));
    assert_eq!(assign(&allocator, "h", 80, 0).unwrap().addresses.len(), 80);
    settings.config.max_blocks_per_host = 21;
    memory.set_settings(settings);
    assert_eq!(assign(&allocator, "i", 4, 0).unwrap().addresses.len(), 4);
    let error = assign(&allocator, "j", 1, 0).unwrap_err();
    assert!(matches!(error, Error::Exhausted { .. }), "{error}");
}

#[test]
fn half_a_dual_stack_success_is_rolled_back() {
    let (memory, mut settings) = one_pool("10.0.0.0/24", 26);
    let allocator = Allocator::new(memory.clone(), "n");
    let error = assign(&allocator, "h", 1, 1).unwrap_err();
    assert_eq!(
        error.to_string(),
        "no IPPool gives IPv6 addresses to pods of node n: there is none; create one"
    );
    assert!(memory.snapshot::<IPAMHandleSpec>().is_empty());
    assert!(
        memory
            .snapshot::<IPAMBlockSpec>()
            .iter()
            .all(|stored| block::is_empty(&stored.spec))
    );
    settings.pools.push(pool("six", "fd00::/64", 122));
    memory.set_settings(settings);
    let assigned = assign(&allocator, "h", 1, 1).unwrap();
    assert_eq!(
        assigned.addresses.iter().map(|a| a.pool.as_str()).collect::<Vec<_>>(),
        ["main", "six"]
    );
}

#[test]
fn pools_are_chosen_by_selector_mode_use_and_name() {
    let mut pools = vec![
        pool("a-other-rack", "10.1.0.0/24", 26),
        pool("b-disabled", "10.2.0.0/24", 26),
        pool("c-manual", "10.3.0.0/24", 26),
        pool("d-services", "10.4.0.0/24", 26),
        pool("e-good", "10.5.0.0/24", 26),
        pool("f-overlap", "10.5.0.0/25", 26),
    ];
    pools[0].spec.node_selector = Some("rack == 'two'".to_owned());
    pools[1].spec.disabled = Some(true);
    pools[2].spec.assignment_mode = Some(AssignmentMode::Manual);
    pools[3].spec.allowed_uses = Some(vec![AllowedUse::LoadBalancer]);
    let mut settings = settings(pools);
    settings.node_labels.insert("rack".to_owned(), "one".to_owned());
    let memory = Memory::new(settings.clone());
    let allocator = Allocator::new(memory.clone(), "n");
    assert_eq!(assign(&allocator, "h", 1, 0).unwrap().addresses[0].pool, "e-good");
    let named = |name: &str| Request {
        v4_pools: vec![name.to_owned()],
        ..request(name, 1, 0)
    };
    assert_eq!(
        block_on(allocator.auto_assign(named("c-manual"))).unwrap().addresses[0].pool,
        "c-manual"
    );
    for (name, message) in [
        (
            "a-other-rack",
            "IPPool a-other-rack was asked for, but it does not select the node (nodeSelector)",
        ),
        ("b-disabled", "IPPool b-disabled was asked for, but it is disabled"),
        (
            "d-services",
            "IPPool d-services was asked for, but it is not for workloads (allowedUses)",
        ),
        (
            "nowhere",
            "IPPool nowhere was asked for, but no IPv4 pool has that name",
        ),
    ] {
        assert_eq!(
            block_on(allocator.auto_assign(named(name))).unwrap_err().to_string(),
            message
        );
    }
    settings.pools.truncate(3);
    memory.set_settings(settings);
    assert_eq!(
        assign(&allocator, "i", 1, 0).unwrap_err().to_string(),
        "no IPPool gives IPv4 addresses to pods of node n: a-other-rack does not select the node (nodeSelector), b-disabled is disabled, c-manual is only for pods that name it"
    );
}

#[test]
fn reserved_addresses_are_passed_over() {
    let (memory, mut settings) = one_pool("10.0.0.0/29", 29);
    settings.reserved = vec!["10.0.0.0/31".parse().unwrap(), "10.0.0.7/32".parse().unwrap()];
    memory.set_settings(settings);
    let allocator = Allocator::new(memory, "n");
    assert_eq!(
        ips(&assign(&allocator, "h", 5, 0).unwrap()),
        ["10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6"]
    );
    assert!(assign(&allocator, "i", 1, 0).is_err());
    let error = block_on(allocator.assign_ip("10.0.0.7".parse().unwrap(), "i", &Attributes::default())).unwrap_err();
    assert_eq!(
        error.to_string(),
        "10.0.0.7 cannot be assigned: 10.0.0.7/32 is reserved"
    );
}

#[test]
fn an_address_can_be_asked_for() {
    let (memory, mut settings) = one_pool("10.0.0.0/24", 26);
    let allocator = Allocator::new(memory.clone(), "a");
    let ip: IpAddr = "10.0.0.70".parse().unwrap();
    let ask = |allocator: &Allocator<Memory>, ip: IpAddr, handle: &str| {
        block_on(allocator.assign_ip(
            ip,
            handle,
            &Attributes {
                pod: Some("p".into()),
                namespace: Some("ns".into()),
                ..Default::default()
            },
        ))
    };
    let got = ask(&allocator, ip, "h").unwrap();
    assert_eq!(
        (got.address, got.block.to_string(), got.borrowed),
        (ip, "10.0.0.64/26".to_owned(), false)
    );
    assert_eq!(ask(&allocator, ip, "h").unwrap().address, ip);
    assert_eq!(
        ask(&allocator, ip, "i").unwrap_err().to_string(),
        "10.0.0.70 is in use by pod ns/p"
    );
    assert_eq!(block_on(allocator.addresses_of("h")).unwrap(), [ip]);
    let outside = ask(&allocator, "10.9.0.1".parse().unwrap(), "i").unwrap_err();
    assert_eq!(outside.to_string(), "10.9.0.1 cannot be assigned: it is in no IPPool");

    let other = Allocator::new(memory.clone(), "b");
    assert!(ask(&other, "10.0.0.71".parse().unwrap(), "j").unwrap().borrowed);
    settings.config.strict_affinity = true;
    memory.set_settings(settings);
    let strict = ask(&other, "10.0.0.72".parse().unwrap(), "j").unwrap_err();
    assert_eq!(
        strict.to_string(),
        "10.0.0.72 cannot be assigned: its block 10.0.0.64/26 belongs to host:a, and strictAffinity is on"
    );
    assert!(
        memory
            .snapshot::<IPAMHandleSpec>()
            .iter()
            .all(|stored| stored.spec.handle_id != "i")
    );
}

#[test]
fn blocks_of_an_earlier_block_size_are_not_overlapped() {
    for (old, new) in [(26, 28), (28, 26)] {
        let (memory, _) = one_pool("10.0.0.0/25", old);
        let allocator = Allocator::new(memory.clone(), "a");
        let held = assign(&allocator, "h", 2, 0).unwrap().addresses[1].address;
        memory.set_settings(settings(vec![pool("main", "10.0.0.0/25", new)]));
        let ask = |ip, handle| block_on(allocator.assign_ip(ip, handle, &Attributes::default()));
        assert!(matches!(ask(held, "i"), Err(Error::Taken { .. })), "/{old} to /{new}");
        let own = memory.snapshot::<IPAMBlockSpec>()[0].spec.cidr.parse().unwrap();
        // An address beside it, of the block that would have to be made.
        let IpAddr::V4(v4) = held else { panic!("{held}") };
        let beside = Ipv4Addr::from(u32::from(v4) ^ 16).into();
        match ask(beside, "j") {
            Ok(got) => assert_eq!((got.block, old), (own, 26)),
            Err(error) => assert!(
                old == 28 && error.to_string().contains("one of another blockSize"),
                "{error}"
            ),
        }
        assign(&allocator, "k", 20, 0).unwrap();
        let blocks = memory.snapshot::<IPAMBlockSpec>();
        let networks: Vec<IpNetwork> = blocks.iter().map(|stored| stored.spec.cidr.parse().unwrap()).collect();
        for (at, one) in networks.iter().enumerate() {
            for other in &networks[at + 1..] {
                assert!(!margay_api::cidr::overlaps(*one, *other), "{one} and {other}");
            }
        }
    }
}

#[test]
fn an_address_is_released_only_from_whom_it_was_seen_with() {
    let (memory, _) = one_pool("10.0.0.0/30", 30);
    let allocator = Allocator::new(memory.clone(), "a");
    let ip = assign(&allocator, "old", 1, 0).unwrap().addresses[0].address;
    let seen = block::allocations(&memory.snapshot::<IPAMBlockSpec>()[0].spec)[0].clone();
    block_on(allocator.release_by_handle("old")).unwrap();
    assert_eq!(assign(&allocator, "new", 4, 0).unwrap().addresses.len(), 4);
    assert_eq!(
        block_on(allocator.release_ip(ip, Some("old"), seen.sequence)).unwrap(),
        None
    );
    assert_eq!(block_on(allocator.release_ip(ip, None, seen.sequence)).unwrap(), None);
    assert!(block_on(allocator.release_ip(ip, Some("new"), None)).unwrap().is_some());
    assert_eq!(block_on(allocator.addresses_of("new")).unwrap().len(), 3);
}

#[test]
fn a_deleted_node_leaves_only_what_others_borrowed() {
    let (memory, _) = one_pool("10.0.0.0/29", 30);
    let (a, b) = (Allocator::new(memory.clone(), "a"), Allocator::new(memory.clone(), "b"));
    assign(&a, "a1", 2, 0).unwrap();
    assign(&b, "b1", 5, 0).unwrap();
    let released = block_on(b.release_node("a", async || true)).unwrap();
    assert_eq!((released.addresses.len(), released.blocks.len()), (2, 1));
    assert_eq!(memory.snapshot::<BlockAffinitySpec>().len(), 1);
    let blocks = memory.snapshot::<IPAMBlockSpec>();
    assert_eq!(blocks.iter().filter(|stored| stored.spec.affinity.is_none()).count(), 1);
    assert_eq!(memory.snapshot::<IPAMHandleSpec>().len(), 1);
    assert_eq!(
        block_on(b.release_node("a", async || true)).unwrap(),
        Default::default()
    );
    // The borrowed address was the last of the ownerless block, which goes with it.
    block_on(b.release_by_handle("b1")).unwrap();
    assert_eq!(memory.snapshot::<IPAMBlockSpec>().len(), 1);
}

#[test]
fn a_pending_claim_of_another_node_counts_for_nothing() {
    let (memory, _) = one_pool("10.0.0.0/30", 30);
    let pending = BlockAffinitySpec {
        cidr: "10.0.0.0/30".into(),
        node: "a".into(),
        ..Default::default()
    };
    block_on(memory.create(pending, "a")).unwrap();
    let b = Allocator::new(memory.clone(), "b");
    assert!(!assign(&b, "h", 1, 0).unwrap().addresses[0].borrowed);
    // Its node finds that it lost, withdraws, and borrows.
    let a = Allocator::new(memory.clone(), "a");
    assert!(assign(&a, "i", 1, 0).unwrap().addresses[0].borrowed);
    assert_eq!(memory.snapshot::<BlockAffinitySpec>().len(), 1);
}

#[test]
fn a_block_deleted_by_hand_is_claimed_anew() {
    let (memory, _) = one_pool("10.0.0.0/24", 26);
    let allocator = Allocator::new(memory.clone(), "a");
    let network = assign(&allocator, "h", 1, 0).unwrap().addresses[0].block;
    let block = memory.snapshot::<IPAMBlockSpec>().remove(0);
    block_on(memory.delete(&block)).unwrap();
    assert_eq!(assign(&allocator, "i", 1, 0).unwrap().addresses[0].block, network);
    assert_eq!(
        block_on(allocator.ensure_block(margay_ipam::Family::V4)).unwrap(),
        network
    );
    block_on(allocator.release_by_handle("h")).unwrap();
    assert_eq!(memory.snapshot::<IPAMHandleSpec>().len(), 1);
}

#[test]
fn an_empty_block_of_a_pool_no_longer_selected_is_given_up() {
    let (memory, mut settings) = one_pool("10.0.0.0/24", 26);
    let allocator = Allocator::new(memory.clone(), "a");
    assign(&allocator, "h", 1, 0).unwrap();
    block_on(allocator.release_by_handle("h")).unwrap();
    settings.pools[0].spec.node_selector = Some("has(gpu)".to_owned());
    settings.pools.push(pool("other", "10.1.0.0/24", 26));
    memory.set_settings(settings);
    assert_eq!(assign(&allocator, "i", 1, 0).unwrap().addresses[0].pool, "other");
    assert_eq!(memory.snapshot::<IPAMBlockSpec>().len(), 1);
}

#[test]
fn objects_that_others_marked_as_deleted_do_not_count() {
    let (memory, _) = one_pool("10.0.0.0/30", 30);
    let mut marked = IPAMBlockSpec {
        cidr: "10.0.0.0/30".into(),
        deleted: true,
        ..Default::default()
    };
    marked.affinity = Some("host:b".into());
    marked.allocations = vec![None; 4];
    marked.unallocated = vec![0, 1, 2, 3];
    block_on(memory.create(marked, "b")).unwrap();
    let handle = IPAMHandleSpec {
        handle_id: "h".into(),
        deleted: true,
        ..Default::default()
    };
    block_on(memory.create(handle, "b")).unwrap();
    let a = Allocator::new(memory.clone(), "a");
    assert!(block_on(a.recover()).is_ok());
    let got = block_on(a.assign_ip("10.0.0.1".parse().unwrap(), "h", &Attributes::default())).unwrap();
    assert!(!got.borrowed);
    assert!(
        memory
            .snapshot::<IPAMHandleSpec>()
            .iter()
            .all(|stored| !stored.spec.deleted)
    );
}

#[test]
fn a_handle_names_its_pods_node_whoever_writes_it() {
    let (memory, _) = one_pool("10.0.0.0/24", 26);
    let (a, controller) = (
        Allocator::new(memory.clone(), "a"),
        Allocator::new(memory.clone(), "controller"),
    );
    let marks = || {
        let handles = memory.snapshot::<IPAMHandleSpec>();
        handles
            .iter()
            .map(|stored| stored.annotations.clone())
            .collect::<Vec<_>>()
    };
    let of_a = [BTreeMap::from([("margay.io/node".to_owned(), "a".to_owned())])];
    assign(&a, "h", 1, 0).unwrap();
    assert_eq!(marks(), of_a);
    assign(&a, "h", 1, 0).unwrap();
    assert_eq!(marks(), of_a);
    let handle = memory.snapshot::<IPAMHandleSpec>().remove(0);
    block_on(memory.delete(&handle)).unwrap();
    let mut collector = Collector::default();
    for _ in 0..2 {
        block_on(collector.pass(&controller)).unwrap();
    }
    assert_eq!(marks(), of_a);
}
