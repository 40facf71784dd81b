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
