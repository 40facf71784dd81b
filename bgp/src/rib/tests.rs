//! Cases worth a name; beside them a model that computes everything from scratch.

mod export;
mod graceful;
mod model;
mod recursion;

use std::collections::BTreeMap;

use bytes::BytesMut;
use proptest::prelude::*;

use super::*;
use crate::fib::{FibHop, LocalAddress, UnderlayRoute};
use crate::filter::{Action, Changes, Filter, PrefixRange, Rule};
use crate::wire::{self, Community, Message, MpReach, MpUnreach, Options};

const LOCAL_AS: u32 = 64512;

fn net(s: &str) -> IpNetwork {
    s.parse().unwrap()
}

fn ip(s: &str) -> IpAddr {
    s.parse().unwrap()
}

fn topology() -> Topology {
    let connected = |p: &str, oif| UnderlayRoute {
        prefix: net(p),
        via: None,
        oif,
    };
    let addr = |a: &str, oif| LocalAddress { addr: ip(a), oif };
    Topology {
        routes: vec![
            connected("192.0.2.0/25", 1),
            connected("192.0.2.128/25", 2),
            connected("fd00:1::/64", 1),
            UnderlayRoute {
                prefix: net("198.51.100.0/24"),
                via: Some(ip("192.0.2.200")),
                oif: 2,
            },
        ],
        addresses: vec![addr("192.0.2.100", 1), addr("192.0.2.250", 2), addr("fd00:1::100", 1)],
    }
}

fn rib() -> Rib {
    let mut rib = Rib::new(RibConfig {
        local_as: LOCAL_AS,
        router_id: [10, 9, 9, 9].into(),
        max_paths: 4,
        multipath_relax: true,
        graceful_restart: true,
        stale_routes_time: Duration::from_secs(60),
    });
    rib.set_topology(topology());
    rib
}

fn policy(number: u8, remote_as: u32) -> PeerPolicy {
    PeerPolicy {
        address: [192, 0, 2, number].into(),
        remote_as,
        families: Family::ALL.to_vec(),
        import: Some(Arc::new(Filter::accept_all())),
        export: Some(Arc::new(Filter::accept_all())),
        next_hop_ipv4: None,
        next_hop_ipv6: None,
        next_hop_self: false,
    }
}

fn up(number: u8, ibgp: bool) -> PeerUp {
    PeerUp {
        router_id: [10, 0, 0, number].into(),
        local_addr: ip("192.0.2.100"),
        families: Family::ALL.to_vec(),
        options: Options { as4: true, ibgp },
        graceful: None,
    }
}

fn announcement(prefix: IpNetwork, attributes: PathAttributes, next_hop: IpAddr) -> Update {
    let attributes = Some(attributes);
    match (prefix, next_hop) {
        (IpNetwork::V4(_), IpAddr::V4(hop)) => Update {
            attributes,
            next_hop: Some(hop),
            nlri: vec![prefix],
            ..Update::default()
        },
        _ => {
            let reach = MpReach {
                family: Family::of(&prefix),
                next_hop: next_hop.into(),
                nlri: vec![prefix],
            };
            Update {
                attributes,
                mp_reach: Some(reach),
                ..Update::default()
            }
        }
    }
}

fn withdrawal(prefix: IpNetwork) -> Update {
    match prefix {
        IpNetwork::V4(_) => Update {
            withdrawn: vec![prefix],
            ..Update::default()
        },
        IpNetwork::V6(_) => Update {
            mp_unreach: Some(MpUnreach {
                family: Family::Ipv6,
                nlri: vec![prefix],
            }),
            ..Update::default()
        },
    }
}

fn path(asns: &[u32]) -> PathAttributes {
    PathAttributes {
        origin: Origin::Igp,
        as_path: AsPath::sequence(asns),
        ..PathAttributes::default()
    }
}

/// What a peer believes after reading everything it was sent.
fn drain(rib: &mut Rib, id: PeerId, view: &mut BTreeMap<IpNetwork, (PathAttributes, IpAddr)>, ibgp: bool) {
    while rib.has_messages(id) {
        for bytes in rib.poll_messages(id, 3) {
            let mut buf = BytesMut::from(&bytes[..]);
            let (kind, body) = wire::frame(&mut buf).unwrap().unwrap();
            let Ok(Message::Update(update)) = Message::decode(kind, &body, Options { as4: true, ibgp }) else {
                panic!()
            };
            assert_eq!(update.faults, []);
            let unreach = update.mp_unreach.into_iter().flat_map(|u| u.nlri);
            for prefix in update.withdrawn.into_iter().chain(unreach) {
                assert!(
                    view.remove(&prefix).is_some(),
                    "{prefix} is withdrawn but was never announced"
                );
            }
            let Some(attributes) = update.attributes else { continue };
            for prefix in update.nlri {
                view.insert(prefix, (attributes.clone(), IpAddr::V4(update.next_hop.unwrap())));
            }
            if let Some(reach) = update.mp_reach {
                for prefix in reach.nlri {
                    view.insert(prefix, (attributes.clone(), reach.next_hop.addr));
                }
            }
        }
    }
}

fn fib(rib: &mut Rib, state: &mut BTreeMap<IpNetwork, FibRoute>) {
    while let Some(batch) = rib.poll_fib() {
        for change in batch.changes {
            match change.route {
                Some(route) => state.insert(change.prefix, route),
                None => state.remove(&change.prefix),
            };
        }
    }
}

fn unicast(hops: &[(&str, u32)]) -> FibRoute {
    FibRoute::Unicast(
        hops.iter()
            .map(|(via, oif)| FibHop {
                via: ip(via),
                oif: *oif,
            })
            .collect(),
    )
}

#[test]
fn two_ases_share_the_load_and_the_survivor_takes_over() {
    let mut rib = rib();
    let (a, b) = (rib.add_peer(policy(1, 65001)), rib.add_peer(policy(130, 65002)));
    let now = Instant::now();
    rib.peer_up(a, up(1, false), now);
    rib.peer_up(b, up(130, false), now);
    let prefix = net("10.244.0.0/26");
    rib.update(a, announcement(prefix, path(&[65001, 65100]), ip("192.0.2.1")));
    rib.update(b, announcement(prefix, path(&[65002, 65100]), ip("192.0.2.130")));
    rib.process();
    let mut state = BTreeMap::new();
    fib(&mut rib, &mut state);
    assert_eq!(state[&prefix], unicast(&[("192.0.2.1", 1), ("192.0.2.130", 2)]));
    rib.peer_down(a, false, now);
    rib.process();
    fib(&mut rib, &mut state);
    assert_eq!(state[&prefix], unicast(&[("192.0.2.130", 2)]));
}

#[test]
fn our_own_networks_are_not_taken_from_others() {
    let mut rib = rib();
    let a = rib.add_peer(policy(1, 65001));
    rib.peer_up(a, up(1, false), Instant::now());
    let own = net("10.244.1.0/26");
    rib.update(a, announcement(own, path(&[65001]), ip("192.0.2.1")));
    rib.process();
    let mut state = BTreeMap::new();
    fib(&mut rib, &mut state);
    assert!(state.contains_key(&own));
    rib.set_networks(&[Originated {
        prefix: own,
        blackhole: false,
        communities: vec![],
    }]);
    rib.update(a, announcement(net("10.244.1.7/32"), path(&[65001]), ip("192.0.2.1")));
    rib.process();
    fib(&mut rib, &mut state);
    assert_eq!(
        state.keys().copied().collect::<Vec<_>>(),
        [net("10.244.1.7/32")],
        "borrowed addresses are accepted"
    );
    let rejected: Vec<_> = rib
        .routes()
        .iter()
        .flat_map(|r| r.paths.clone())
        .filter_map(|p| p.rejected)
        .collect();
    assert_eq!(rejected, [Rejected::OwnNetwork]);
    rib.set_networks(&[]);
    rib.process();
    fib(&mut rib, &mut state);
    assert!(state.contains_key(&own), "once given up it may come from a peer");
}

#[test]
fn import_filters_change_and_reject() {
    let mut rib = rib();
    let rule = |prefix, action, set| Rule {
        prefixes: vec![PrefixRange {
            prefix: net(prefix),
            ge: None,
            le: Some(32),
        }],
        source: None,
        communities: vec![],
        as_path_prefix: vec![],
        action,
        set,
    };
    let filter = Filter {
        rules: vec![
            rule(
                "10.1.0.0/16",
                Action::Accept,
                Changes {
                    local_pref: Some(50),
                    ..Changes::default()
                },
            ),
            rule("10.0.0.0/8", Action::Accept, Changes::default()),
        ],
        default: Action::Reject,
    };
    let a = rib.add_peer(PeerPolicy {
        import: Some(Arc::new(filter)),
        ..policy(1, 65001)
    });
    let b = rib.add_peer(policy(2, 65002));
    rib.peer_up(a, up(1, false), Instant::now());
    rib.peer_up(b, up(2, false), Instant::now());
    for prefix in ["10.1.1.0/24", "10.2.1.0/24", "172.16.0.0/16"] {
        rib.update(a, announcement(net(prefix), path(&[65001]), ip("192.0.2.1")));
        rib.update(b, announcement(net(prefix), path(&[65002, 65003]), ip("192.0.2.2")));
    }
    rib.process();
    let mut state = BTreeMap::new();
    fib(&mut rib, &mut state);
    assert_eq!(
        state[&net("10.1.1.0/24")],
        unicast(&[("192.0.2.2", 1)]),
        "less preferred"
    );
    assert_eq!(state[&net("10.2.1.0/24")], unicast(&[("192.0.2.1", 1)]), "shorter");
    assert_eq!(state[&net("172.16.0.0/16")], unicast(&[("192.0.2.2", 1)]), "rejected");
}
