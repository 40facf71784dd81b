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
