//! What peers are told, and told again.

use super::*;

/// A peer with one route, and another that has been told of it.
fn told() -> (Rib, [PeerId; 2], BTreeMap<IpNetwork, (PathAttributes, IpAddr)>) {
    let mut rib = rib();
    let ids = [(1, 65001), (2, 65002)].map(|(n, asn)| {
        let id = rib.add_peer(policy(n, asn));
        rib.peer_up(id, up(n, false), Instant::now());
        id
    });
    rib.update(
        ids[0],
        announcement(net("10.1.0.0/16"), path(&[65001]), ip("192.0.2.1")),
    );
    rib.process();
    let mut view = BTreeMap::new();
    drain(&mut rib, ids[1], &mut view, false);
    assert_eq!(view.len(), 1);
    (rib, ids, view)
}

#[test]
fn a_refresh_says_everything_once_more_rfc2918() {
    let (mut rib, [_, b], _) = told();
    rib.refresh(b, Family::Ipv6);
    assert!(!rib.has_messages(b));
    rib.refresh(b, Family::Ipv4);
    let mut again = BTreeMap::new();
    drain(&mut rib, b, &mut again, false);
    assert_eq!(again.len(), 1);
}

#[test]
fn a_refresh_does_not_swallow_a_withdrawal() {
    let (mut rib, [a, b], mut view) = told();
    rib.update(a, withdrawal(net("10.1.0.0/16")));
    rib.process();
    rib.refresh(b, Family::Ipv4);
    drain(&mut rib, b, &mut view, false);
    assert_eq!(view, BTreeMap::new());
}

#[test]
fn a_refresh_does_not_swallow_what_a_tighter_filter_takes_back() {
    let (mut rib, [_, b], mut view) = told();
    rib.set_policy(
        b,
        PeerPolicy {
            export: None,
            ..policy(2, 65002)
        },
    );
    rib.refresh(b, Family::Ipv4);
    drain(&mut rib, b, &mut view, false);
    assert_eq!(view, BTreeMap::new());
}

#[test]
fn what_means_something_on_one_network_or_in_one_as_stays_there() {
    let mut rib = rib();
    let peers = [(1, 65001), (2, 65002), (4, LOCAL_AS)];
    let [a, b, c] = peers.map(|(n, asn)| {
        let id = rib.add_peer(policy(n, asn));
        rib.peer_up(id, up(n, asn == LOCAL_AS), Instant::now());
        id
    });
    let target = net("fd00:9::/48");
    let attributes = PathAttributes {
        ext_communities: vec![[0x00, 2, 0, 0, 0, 0, 0, 1], [0x40, 2, 0, 0, 0, 0, 0, 2]],
        ..path(&[65001])
    };
    let mut said = announcement(target, attributes, ip("fd00:1::1"));
    if let Some(reach) = &mut said.mp_reach {
        reach.next_hop.link_local = Some("fe80::1".parse().unwrap());
    }
    rib.update(a, said);
    rib.process();
    let mut views = [b, c].map(|id| (id, BTreeMap::new()));
    views
        .iter_mut()
        .for_each(|(id, view)| drain(&mut rib, *id, view, *id == c));
    let kinds = |view: &BTreeMap<IpNetwork, (PathAttributes, IpAddr)>| -> Vec<u8> {
        view[&target].0.ext_communities.iter().map(|c| c[0]).collect()
    };
    assert_eq!((kinds(&views[0].1), kinds(&views[1].1)), (vec![0], vec![0, 0x40]));
    rib.refresh(c, Family::Ipv6);
    let [bytes] = &rib.poll_messages(c, 1)[..] else {
        panic!()
    };
    let link_local = [0xfe, 0x80, 0, 0, 0, 0, 0, 0];
    assert!(!bytes.windows(8).any(|w| w == link_local), "{bytes:?}");
}

#[test]
fn routes_of_a_family_that_was_not_agreed_on_are_ignored() {
    let mut rib = rib();
    let a = rib.add_peer(policy(1, 65001));
    let families = vec![Family::Ipv6];
    rib.peer_up(
        a,
        PeerUp {
            families,
            ..up(1, false)
        },
        Instant::now(),
    );
    rib.update(a, announcement(net("10.1.0.0/16"), path(&[65001]), ip("192.0.2.1")));
    rib.process();
    assert_eq!(rib.routes(), []);
}

#[test]
fn without_a_policy_nothing_passes_over_ebgp_rfc8212() {
    let mut rib = rib();
    let closed = PeerPolicy {
        import: None,
        export: None,
        ..policy(1, 65001)
    };
    let a = rib.add_peer(closed.clone());
    rib.peer_up(a, up(1, false), Instant::now());
    rib.set_networks(&[Originated {
        prefix: net("10.244.1.0/26"),
        blackhole: true,
        communities: vec![],
    }]);
    rib.update(a, announcement(net("10.0.0.0/8"), path(&[65001]), ip("192.0.2.1")));
    rib.process();
    let (mut state, mut view) = (BTreeMap::new(), BTreeMap::new());
    fib(&mut rib, &mut state);
    drain(&mut rib, a, &mut view, false);
    assert_eq!(
        state.into_iter().collect::<Vec<_>>(),
        [(net("10.244.1.0/26"), FibRoute::Blackhole)]
    );
    assert!(view.is_empty());
    let counts = rib.counts()[&a].clone();
    assert_eq!((counts.received, counts.accepted), (1, 0));
    // Opening up needs no word from the peer.
    rib.set_policy(a, policy(1, 65001));
    rib.process();
    let mut state = BTreeMap::new();
    fib(&mut rib, &mut state);
    drain(&mut rib, a, &mut view, false);
    assert!(state.contains_key(&net("10.0.0.0/8")) && view.contains_key(&net("10.244.1.0/26")));
    // And closing again withdraws.
    rib.set_policy(a, closed);
    rib.process();
    drain(&mut rib, a, &mut view, false);
    assert!(view.is_empty());
}

#[test]
fn well_known_communities_and_ibgp_rules_limit_where_a_route_goes() {
    let mut rib = rib();
    let now = Instant::now();
    let peers = [(1, 65001), (2, 65002), (3, LOCAL_AS), (4, LOCAL_AS)];
    let ids = peers.map(|(n, asn)| rib.add_peer(policy(n, asn)));
    for (id, (n, asn)) in ids.iter().zip(peers) {
        rib.peer_up(*id, up(n, asn == LOCAL_AS), now);
    }
    let with = |c| PathAttributes {
        communities: vec![c],
        ..path(&[65001])
    };
    rib.update(
        ids[0],
        announcement(net("10.1.0.0/16"), with(Community::NO_EXPORT), ip("192.0.2.1")),
    );
    rib.update(
        ids[0],
        announcement(net("10.2.0.0/16"), with(Community::NO_ADVERTISE), ip("192.0.2.1")),
    );
    rib.update(
        ids[0],
        announcement(net("10.3.0.0/16"), path(&[65001]), ip("192.0.2.1")),
    );
    rib.update(ids[2], announcement(net("10.4.0.0/16"), path(&[]), ip("192.0.2.3")));
    rib.process();
    let mut told = ids.map(|id| {
        let mut view = BTreeMap::new();
        drain(&mut rib, id, &mut view, id == ids[2] || id == ids[3]);
        view
    });
    let keys = |v: &BTreeMap<IpNetwork, _>| v.keys().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(keys(&told[0]), ["10.4.0.0/16"]);
    assert_eq!(keys(&told[1]), ["10.3.0.0/16", "10.4.0.0/16"]);
    assert_eq!(keys(&told[2]), ["10.1.0.0/16", "10.3.0.0/16"]);
    assert_eq!(keys(&told[3]), ["10.1.0.0/16", "10.3.0.0/16"]);
    let (attributes, next_hop) = told[1].remove(&net("10.3.0.0/16")).unwrap();
    assert_eq!(
        (attributes.as_path.to_string(), next_hop),
        ("64512 65001".into(), ip("192.0.2.100"))
    );
    let (attributes, next_hop) = told[3].remove(&net("10.3.0.0/16")).unwrap();
    assert_eq!((attributes.local_pref, next_hop), (Some(100), ip("192.0.2.1")));
}

#[test]
fn ipv6_over_an_ipv4_session_gets_an_address_of_the_same_interface() {
    let mut rib = rib();
    let a = rib.add_peer(policy(1, 65001));
    rib.peer_up(a, up(1, false), Instant::now());
    rib.set_networks(&[Originated {
        prefix: net("fd00:10:244::/64"),
        blackhole: false,
        communities: vec![],
    }]);
    rib.process();
    let mut view = BTreeMap::new();
    drain(&mut rib, a, &mut view, false);
    assert_eq!(view[&net("fd00:10:244::/64")].1, ip("fd00:1::100"));
    // Without such an address nothing can be said, and status tells why.
    let mut bare = topology();
    bare.addresses.retain(|a| a.addr.is_ipv4());
    rib.set_topology(bare);
    rib.process();
    drain(&mut rib, a, &mut view, false);
    assert!(view.is_empty());
    assert_eq!(rib.counts()[&a].no_next_hop, [Family::Ipv6]);
}
