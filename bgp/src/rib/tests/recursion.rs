//! Next hops behind other routes, and routes that lead to each other's.

use super::*;

/// Process until nothing is left to do, if that ever happens; the forwarding plane then.
fn settled(rib: &mut Rib) -> BTreeMap<IpNetwork, FibRoute> {
    let mut state = BTreeMap::new();
    for _ in 0..50 {
        rib.process();
        fib(rib, &mut state);
    }
    assert!(rib.dirty.is_empty(), "still swinging");
    state
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
fn a_better_path_through_a_route_that_leads_back_is_not_used() {
    let mut rib = rib();
    let (a, b) = (rib.add_peer(policy(1, 65001)), rib.add_peer(policy(2, LOCAL_AS)));
    rib.peer_up(a, up(1, false), Instant::now());
    rib.peer_up(b, up(2, true), Instant::now());
    let (wide, narrow) = (net("203.0.113.0/24"), net("203.0.113.64/26"));
    rib.update(a, announcement(wide, path(&[65001, 65003]), ip("192.0.2.1")));
    rib.update(b, announcement(wide, path(&[65002]), ip("203.0.113.70")));
    rib.update(b, announcement(narrow, path(&[65002]), ip("203.0.113.5")));
    let direct = unicast(&[("192.0.2.1", 1)]);
    assert_eq!(
        settled(&mut rib),
        [(wide, direct.clone()), (narrow, direct.clone())].into()
    );
    let unreachable = rib.routes()[0].paths.iter().filter(|p| !p.reachable).count();
    assert_eq!(unreachable, 1, "status tells which path is not usable");
    // Nobody led back any more, so the better path serves.
    rib.update(b, announcement(narrow, path(&[65002]), ip("192.0.2.130")));
    let moved = unicast(&[("192.0.2.130", 2)]);
    assert_eq!(settled(&mut rib), [(wide, moved.clone()), (narrow, moved)].into());
}

#[test]
fn the_route_with_a_way_of_its_own_carries_the_other() {
    let mut rib = rib();
    let (a, b) = (rib.add_peer(policy(1, 65001)), rib.add_peer(policy(2, LOCAL_AS)));
    rib.peer_up(a, up(1, false), Instant::now());
    rib.peer_up(b, up(2, true), Instant::now());
    let (wide, narrow) = (net("203.0.113.0/24"), net("203.0.113.64/26"));
    rib.update(a, announcement(narrow, path(&[65001, 65003]), ip("192.0.2.1")));
    rib.update(b, announcement(narrow, path(&[65002]), ip("203.0.113.5")));
    rib.update(b, announcement(wide, path(&[65002]), ip("203.0.113.70")));
    let direct = unicast(&[("192.0.2.1", 1)]);
    assert_eq!(settled(&mut rib), [(wide, direct.clone()), (narrow, direct)].into());
}

#[test]
fn two_routes_over_each_others_next_hop_do_not_swing_above_a_static_one() {
    let mut rib = rib();
    let b = rib.add_peer(policy(2, LOCAL_AS));
    rib.peer_up(b, up(2, true), Instant::now());
    let (lower, upper) = (net("198.51.100.0/26"), net("198.51.100.64/26"));
    rib.update(b, announcement(lower, path(&[65002]), ip("198.51.100.70")));
    rib.update(b, announcement(upper, path(&[65002]), ip("198.51.100.5")));
    assert_eq!(settled(&mut rib), [(upper, unicast(&[("192.0.2.200", 2)]))].into());
}

#[test]
fn next_hops_that_no_path_names_are_forgotten() {
    let mut rib = rib();
    let b = rib.add_peer(policy(2, LOCAL_AS));
    rib.peer_up(b, up(2, true), Instant::now());
    for hop in 0..5000u16 {
        let [high, low] = hop.to_be_bytes();
        rib.update(
            b,
            announcement(net("10.1.0.0/16"), path(&[65002]), [203, 0, high, low].into()),
        );
        rib.process();
    }
    assert!(rib.resolver.known() < 2000, "{}", rib.resolver.known());
}

const PREFIXES: [&str; 5] = [
    "203.0.113.0/24",
    "203.0.113.64/26",
    "203.0.113.128/25",
    "198.51.100.0/25",
    "198.51.100.64/26",
];
const HOPS: [&str; 7] = [
    "192.0.2.1",
    "192.0.2.130",
    "203.0.113.5",
    "203.0.113.70",
    "203.0.113.130",
    "198.51.100.5",
    "198.51.100.70",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// The answer comes to rest, and does not depend on how it came about.
    #[test]
    fn the_same_routes_end_in_the_same_answer(
        steps in prop::collection::vec((0..2usize, 0..5usize, prop::option::weighted(0.8, (0..7usize, 1..3usize))), 1..30)
    ) {
        let start = || {
            let mut rib = rib();
            let ids = [1, 2].map(|n| rib.add_peer(policy(n, LOCAL_AS)));
            (1..).zip(ids).for_each(|(n, id)| rib.peer_up(id, up(n, true), Instant::now()));
            (rib, ids)
        };
        let say = |rib: &mut Rib, id, prefix: usize, said: &Option<(usize, usize)>| match said {
            Some((hop, length)) => {
                let asns = vec![65001; *length];
                rib.update(id, announcement(net(PREFIXES[prefix]), path(&asns), ip(HOPS[*hop])));
            }
            None => rib.update(id, withdrawal(net(PREFIXES[prefix]))),
        };
        let ((mut one, ids), mut last, mut state) = (start(), BTreeMap::new(), BTreeMap::new());
        for (peer, prefix, said) in &steps {
            say(&mut one, ids[*peer], *prefix, said);
            one.process();
            prop_assert!(one.dirty.is_empty());
            fib(&mut one, &mut state);
            last.insert((*peer, *prefix), *said);
        }
        let (mut other, ids) = start();
        for ((peer, prefix), said) in last.iter().rev() {
            say(&mut other, ids[*peer], *prefix, said);
        }
        prop_assert_eq!(&state, &settled(&mut other));
    }
}
