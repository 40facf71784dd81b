//! The RIB against a model that computes everything from scratch.

use std::collections::BTreeSet;

use super::*;

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
