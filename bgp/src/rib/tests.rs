//! The RIB against a model that computes everything from scratch, and cases worth a name.

mod export;
mod graceful;
mod recursion;

use std::collections::{BTreeMap, BTreeSet};

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
fn next_hops_resolve_through_statics_and_through_bgp_and_move_with_them() {
    let mut rib = rib();
    let (a, b) = (rib.add_peer(policy(1, 65001)), rib.add_peer(policy(2, LOCAL_AS)));
    let now = Instant::now();
    rib.peer_up(a, up(1, false), now);
    rib.peer_up(b, up(2, true), now);
    rib.update(b, announcement(net("10.1.0.0/16"), path(&[65009]), ip("203.0.113.7")));
    rib.update(b, announcement(net("10.2.0.0/16"), path(&[65009]), ip("198.51.100.5")));
    rib.process();
    let mut state = BTreeMap::new();
    fib(&mut rib, &mut state);
    assert_eq!(state.len(), 1, "203.0.113.7 is not reachable yet");
    assert_eq!(state[&net("10.2.0.0/16")], unicast(&[("192.0.2.200", 2)]));
    rib.update(a, announcement(net("203.0.113.0/24"), path(&[65001]), ip("192.0.2.1")));
    rib.process();
    fib(&mut rib, &mut state);
    assert_eq!(state[&net("10.1.0.0/16")], unicast(&[("192.0.2.1", 1)]));
    rib.update(
        a,
        announcement(net("203.0.113.0/25"), path(&[65001]), ip("192.0.2.130")),
    );
    rib.process();
    fib(&mut rib, &mut state);
    assert_eq!(
        state[&net("10.1.0.0/16")],
        unicast(&[("192.0.2.130", 2)]),
        "a longer match wins"
    );
    rib.peer_down(a, false, now);
    rib.process();
    fib(&mut rib, &mut state);
    assert_eq!(state.len(), 1);
}

#[test]
fn a_route_does_not_resolve_its_own_next_hop() {
    let mut rib = rib();
    let (a, b) = (rib.add_peer(policy(1, 65001)), rib.add_peer(policy(2, LOCAL_AS)));
    rib.peer_up(a, up(1, false), Instant::now());
    rib.peer_up(b, up(2, true), Instant::now());
    rib.update(b, announcement(net("203.0.113.0/24"), path(&[]), ip("203.0.113.9")));
    rib.process();
    let mut state = BTreeMap::new();
    fib(&mut rib, &mut state);
    assert!(state.is_empty());
    rib.update(a, announcement(net("203.0.113.0/24"), path(&[65001]), ip("192.0.2.1")));
    rib.process();
    fib(&mut rib, &mut state);
    assert_eq!(state[&net("203.0.113.0/24")], unicast(&[("192.0.2.1", 1)]));
}

#[test]
fn routes_that_only_lead_to_each_other_lead_nowhere() {
    let mut rib = rib();
    let (a, b) = (rib.add_peer(policy(1, 65001)), rib.add_peer(policy(2, LOCAL_AS)));
    let now = Instant::now();
    rib.peer_up(a, up(1, false), now);
    rib.peer_up(b, up(2, true), now);
    let (wide, narrow) = (net("203.0.113.0/24"), net("203.0.113.64/26"));
    rib.update(a, announcement(wide, path(&[65001]), ip("192.0.2.1")));
    // Longer, so that it only comes to bear when the one above goes.
    rib.update(b, announcement(wide, path(&[65002, 65003]), ip("203.0.113.70")));
    rib.update(b, announcement(narrow, path(&[65002]), ip("203.0.113.5")));
    rib.process();
    let mut state = BTreeMap::new();
    fib(&mut rib, &mut state);
    assert_eq!(state[&narrow], unicast(&[("192.0.2.1", 1)]));
    rib.update(a, withdrawal(wide));
    rib.process();
    fib(&mut rib, &mut state);
    assert!(state.is_empty(), "{state:?}");
}

#[test]
fn connected_networks_stay_with_the_kernel() {
    let mut rib = rib();
    let a = rib.add_peer(policy(1, 65001));
    rib.peer_up(a, up(1, false), Instant::now());
    rib.update(a, announcement(net("192.0.2.128/25"), path(&[65001]), ip("192.0.2.1")));
    rib.process();
    let mut state = BTreeMap::new();
    fib(&mut rib, &mut state);
    assert!(state.is_empty());
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

// ---- The model ----

const PEERS: [(u8, u32); 4] = [(1, 65001), (2, 65002), (130, 65003), (4, LOCAL_AS)];
const PREFIXES: [&str; 6] = [
    "10.0.0.0/24",
    "10.0.1.0/24",
    "10.244.0.0/26",
    "203.0.113.0/24",
    "203.0.113.64/26",
    "fd00:9::/48",
];
const HOPS: [&str; 5] = ["192.0.2.1", "192.0.2.130", "198.51.100.5", "203.0.113.70", "100.64.0.1"];

#[derive(Clone, Debug)]
enum Op {
    Announce {
        peer: usize,
        prefix: usize,
        path: Vec<u32>,
        hop: usize,
        med: Option<u32>,
        pref: Option<u32>,
    },
    Withdraw {
        peer: usize,
        prefix: usize,
    },
    Down(usize),
    Up(usize),
    Networks(BTreeSet<usize>),
}

fn any_op() -> impl Strategy<Value = Op> {
    let asns = prop::collection::vec(prop_oneof![65001u32..65006, Just(LOCAL_AS)], 0..3);
    let small = || prop::option::of(0u32..3);
    prop_oneof![
        8 => (0..4usize, 0..6usize, asns, 0..5usize, small(), prop::option::of(99u32..102)).prop_map(
            |(peer, prefix, path, hop, med, pref)| Op::Announce { peer, prefix, path, hop, med, pref }
        ),
        3 => (0..4usize, 0..6usize).prop_map(|(peer, prefix)| Op::Withdraw { peer, prefix }),
        1 => (0..4usize).prop_map(Op::Down),
        2 => (0..4usize).prop_map(Op::Up),
        1 => prop::collection::btree_set(0..6usize, 0..2).prop_map(Op::Networks),
    ]
}

/// Neighbours and their interfaces.
type Hops = BTreeSet<(IpAddr, u32)>;

#[derive(Default)]
struct Model {
    routes: BTreeMap<(usize, usize), (PathAttributes, IpAddr)>,
    networks: BTreeSet<usize>,
    up: [bool; 4],
}

/// How the model reaches a next hop: interfaces only; 203.0.113.70 goes through whatever 203.0.113.* is.
impl Model {
    fn hops(&self, hop: IpAddr, depth: usize, of: usize) -> Option<(u32, Hops)> {
        match hop.to_string().as_str() {
            "192.0.2.1" | "fd00:1::1" => Some((0, [(hop, 1)].into())),
            "192.0.2.130" => Some((0, [(hop, 2)].into())),
            "198.51.100.5" => Some((1, [(ip("192.0.2.200"), 2)].into())),
            "203.0.113.70" if depth < 4 => {
                // The longest that is there, but nothing leads to a next hop inside of it except what is longer.
                for covering in [4, 3].into_iter().take_while(|c| *c != of) {
                    let found = self.decide(covering, depth + 1).2;
                    if self.networks.contains(&covering) {
                        return None;
                    }
                    if !found.is_empty() {
                        return (of != 4).then_some((10, found));
                    }
                }
                None
            }
            _ => None,
        }
    }

    /// The best source, all used sources, and the interfaces' next hops.
    fn decide(&self, prefix: usize, depth: usize) -> (Option<usize>, BTreeSet<usize>, Hops) {
        if self.networks.contains(&prefix) {
            return (Some(9), BTreeSet::new(), BTreeSet::new());
        }
        let mut left: Vec<(usize, &PathAttributes, u32, Hops)> = Vec::new();
        for ((peer, p), (attributes, hop)) in &self.routes {
            if *p == prefix
                && !attributes.as_path.contains(LOCAL_AS)
                && let Some((cost, hops)) = self.hops(*hop, depth, prefix)
            {
                left.push((*peer, attributes, cost, hops));
            }
        }
        let top = left.iter().map(|r| r.1.local_pref.unwrap_or(100)).max();
        left.retain(|r| Some(r.1.local_pref.unwrap_or(100)) == top);
        let short = left.iter().map(|r| r.1.as_path.length()).min();
        left.retain(|r| Some(r.1.as_path.length()) == short);
        let all = left.clone();
        left.retain(|r| {
            all.iter().all(|o| {
                o.1.as_path.neighbor_as() != r.1.as_path.neighbor_as() || o.1.med.unwrap_or(0) >= r.1.med.unwrap_or(0)
            })
        });
        if left.iter().any(|r| r.0 != 3) {
            left.retain(|r| r.0 != 3);
        }
        let near = left.iter().map(|r| r.2).min();
        left.retain(|r| Some(r.2) == near);
        let best = left.iter().map(|r| r.0).min_by_key(|p| PEERS[*p].0);
        let hops = left.iter().flat_map(|r| r.3.clone()).collect();
        (best, left.iter().map(|r| r.0).collect(), hops)
    }
}

fn run_against_model(ops: &[Op]) -> Result<(), TestCaseError> {
    let now = Instant::now();
    let mut rib = rib();
    let ids = PEERS.map(|(n, asn)| rib.add_peer(policy(n, asn)));
    let mut model = Model::default();
    let mut views: [BTreeMap<IpNetwork, (PathAttributes, IpAddr)>; 4] = Default::default();
    let mut state = BTreeMap::new();
    for op in ops {
        match op {
            Op::Announce {
                peer,
                prefix,
                path: asns,
                hop,
                med,
                pref,
            } => {
                let target = net(PREFIXES[*prefix]);
                let hop = if target.is_ipv6() {
                    ip("fd00:1::1")
                } else {
                    ip(HOPS[*hop])
                };
                let attributes = PathAttributes {
                    med: *med,
                    local_pref: *pref,
                    ..path(asns)
                };
                rib.update(ids[*peer], announcement(target, attributes.clone(), hop));
                if model.up[*peer] {
                    model.routes.insert((*peer, *prefix), (attributes, hop));
                }
            }
            Op::Withdraw { peer, prefix } => {
                rib.update(ids[*peer], withdrawal(net(PREFIXES[*prefix])));
                model.routes.remove(&(*peer, *prefix));
            }
            Op::Down(peer) => {
                rib.peer_down(ids[*peer], false, now);
                model.routes.retain(|(p, _), _| p != peer);
                model.up[*peer] = false;
                views[*peer].clear();
            }
            Op::Up(peer) if !model.up[*peer] => {
                let (number, asn) = PEERS[*peer];
                rib.peer_up(ids[*peer], up(number, asn == LOCAL_AS), now);
                model.up[*peer] = true;
            }
            Op::Up(_) => {}
            Op::Networks(networks) => {
                let list: Vec<Originated> = networks
                    .iter()
                    .map(|n| Originated {
                        prefix: net(PREFIXES[*n]),
                        blackhole: true,
                        communities: vec![],
                    })
                    .collect();
                rib.set_networks(&list);
                model.networks = networks.clone();
            }
        }
        rib.process();
        fib(&mut rib, &mut state);
        for (prefix, name) in PREFIXES.iter().enumerate() {
            let target = net(name);
            let (best, used, hops) = model.decide(prefix, 0);
            let expected = match best {
                Some(9) => Some(FibRoute::Blackhole),
                _ if hops.is_empty() => None,
                _ => Some(FibRoute::Unicast(
                    hops.iter().map(|(via, oif)| FibHop { via: *via, oif: *oif }).collect(),
                )),
            };
            prop_assert_eq!(state.get(&target), expected.as_ref(), "FIB of {} after {:?}", name, op);
            let route = rib.routes().into_iter().find(|r| r.prefix == target);
            let chosen: BTreeSet<IpAddr> = route
                .iter()
                .flat_map(|r| &r.paths)
                .filter(|p| p.used)
                .filter_map(|p| p.peer)
                .collect();
            let wanted: BTreeSet<IpAddr> = used.iter().map(|p| policy(PEERS[*p].0, 0).address).collect();
            prop_assert_eq!(chosen, wanted, "paths used for {} after {:?}", name, op);
            for (peer, view) in views.iter_mut().enumerate().filter(|(p, _)| model.up[*p]) {
                let ibgp = peer == 3;
                drain(&mut rib, ids[peer], view, ibgp);
                let sent = match best {
                    Some(from) if from != peer => Some(from),
                    _ => None,
                };
                let want_path = sent.map(|from| {
                    let learnt = if from == 9 {
                        AsPath::default()
                    } else {
                        model.routes[&(from, prefix)].0.as_path.clone()
                    };
                    if ibgp { learnt } else { learnt.prepended(LOCAL_AS) }
                });
                let have = view.get(&target).map(|(a, _)| a.as_path.clone());
                prop_assert_eq!(
                    have,
                    want_path,
                    "what peer {} was told of {} after {:?}",
                    peer,
                    name,
                    op
                );
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn the_rib_agrees_with_the_model(ops in prop::collection::vec(any_op(), 1..40)) {
        let mut all: Vec<Op> = (0..4).map(Op::Up).collect();
        all.extend(ops);
        run_against_model(&all)?;
    }
}
