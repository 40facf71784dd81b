//! Each step of the decision process, in order.

use super::*;
use crate::wire::{AsPath, Origin, Segment};

fn attrs(path: &[u32]) -> PathAttributes {
    PathAttributes {
        origin: Origin::Igp,
        as_path: AsPath::sequence(path),
        ..PathAttributes::default()
    }
}

fn candidate(peer: u32, attributes: &PathAttributes) -> Candidate<'_> {
    let octet = peer as u8;
    Candidate {
        peer: PeerId(peer),
        attributes,
        local: false,
        ebgp: true,
        cost: 0,
        router_id: [10, 0, 0, octet].into(),
        address: [192, 0, 2, octet].into(),
    }
}

fn best(paths: Vec<Candidate<'_>>) -> u32 {
    select(paths, 1, true)[0].0
}

#[test]
fn nothing_is_chosen_from_nothing() {
    assert!(select(vec![], 4, true).is_empty());
}

#[test]
fn steps_of_rfc4271_9_1_2_2_in_order() {
    let short = attrs(&[1]);
    let long = attrs(&[2, 3]);
    let preferred = PathAttributes {
        local_pref: Some(101),
        ..long.clone()
    };
    assert_eq!(
        best(vec![candidate(1, &short), candidate(2, &preferred)]),
        2,
        "LOCAL_PREF before length"
    );
    assert_eq!(
        best(vec![candidate(1, &long), candidate(2, &short)]),
        2,
        "AS_PATH length"
    );
    let egp = PathAttributes {
        origin: Origin::Egp,
        ..short.clone()
    };
    assert_eq!(best(vec![candidate(1, &egp), candidate(2, &short)]), 2, "ORIGIN");
    let med = |m| PathAttributes {
        med: Some(m),
        ..attrs(&[1])
    };
    let (low, high) = (med(5), med(6));
    assert_eq!(
        best(vec![candidate(1, &high), candidate(2, &low)]),
        2,
        "MED of one neighbour"
    );
    let other = PathAttributes {
        med: Some(9),
        ..attrs(&[7])
    };
    assert_eq!(
        best(vec![candidate(1, &other), candidate(2, &low)]),
        1,
        "MED of different neighbours is no matter"
    );
    let internal = Candidate {
        ebgp: false,
        ..candidate(1, &short)
    };
    assert_eq!(best(vec![internal, candidate(2, &short)]), 2, "eBGP before iBGP");
    let far = Candidate {
        cost: 10,
        ..candidate(1, &short)
    };
    assert_eq!(best(vec![far, candidate(2, &short)]), 2, "cost of the next hop");
    assert_eq!(
        best(vec![candidate(2, &short), candidate(1, &short)]),
        1,
        "lowest identifier"
    );
    let local = Candidate {
        local: true,
        ..candidate(9, &long)
    };
    assert_eq!(best(vec![candidate(1, &preferred), local]), 9, "our own networks first");
}

#[test]
fn a_med_removes_a_path_before_the_identifier_can_save_it() {
    // Compared pair by pair these three go round in circles; as a set there is one answer.
    let a = PathAttributes {
        med: Some(10),
        ..attrs(&[1])
    };
    let b = PathAttributes {
        med: Some(5),
        ..attrs(&[1])
    };
    let c = attrs(&[2]);
    for order in [[1, 2, 3], [3, 2, 1], [2, 3, 1], [2, 1, 3]] {
        let by = |n| match n {
            1 => candidate(1, &a),
            2 => candidate(3, &b),
            _ => candidate(2, &c),
        };
        assert_eq!(best(order.into_iter().map(by).collect()), 2);
    }
}

#[test]
fn a_set_counts_one() {
    let path = AsPath(vec![Segment::Sequence(vec![4]), Segment::Set(vec![5, 6, 7])]);
    assert_eq!(
        (path.length(), path.neighbor_as(), path.origin_as()),
        (2, Some(4), Some(7))
    );
}

#[test]
fn multipath_across_ases_only_when_relaxed() {
    let (a, b) = (attrs(&[1, 9]), attrs(&[2, 9]));
    let paths = || vec![candidate(2, &b), candidate(1, &a), candidate(3, &a)];
    let ids = |s: SmallVec<[PeerId; 4]>| s.iter().map(|p| p.0).collect::<Vec<_>>();
    assert_eq!(ids(select(paths(), 8, true)), [1, 2, 3]);
    assert_eq!(ids(select(paths(), 8, false)), [1, 3]);
    assert_eq!(ids(select(paths(), 2, true)), [1, 2]);
    assert_eq!(ids(select(paths(), 1, true)), [1]);
    let longer = attrs(&[3, 4, 9]);
    assert_eq!(ids(select(vec![candidate(1, &longer), candidate(2, &a)], 8, true)), [2]);
}
