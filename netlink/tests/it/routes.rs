//! Routes and batches.

use std::net::IpAddr;

use margay_netlink::{Connection, Family, NextHop, Op, Route, RouteFilter, RouteKind};

use crate::kernel::{Pair, net};

const OURS: u8 = 77;

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn ours(connection: &mut Connection) -> Vec<Route> {
    connection
        .routes(RouteFilter {
            protocol: Some(OURS),
            ..RouteFilter::default()
        })
        .expect("lists")
}

#[test]
fn every_kind_of_route_reads_as_it_was_written() {
    let Some(pair) = Pair::new("every_kind_of_route_reads_as_it_was_written") else {
        return;
    };
    let mut connection = Connection::open_in(&pair.here).expect("connects");
    let near = pair.near.index;
    let mut narrow = Route::unicast(net("10.9.0.0/16"))
        .hop(NextHop::via_dev(ip("10.0.0.2"), near))
        .metric(50);
    narrow.mtu = Some(1300);
    narrow.src = Some(ip("10.0.0.1"));
    let routes = [
        narrow,
        Route::unicast(net("0.0.0.0/0")).hop(NextHop::via_dev(ip("10.0.0.2"), near)),
        Route::unicast(net("10.8.0.0/16"))
            .hop(NextHop::via_dev(ip("10.0.0.2"), near).weight(3))
            .hop(NextHop::via_dev(ip("10.0.0.3"), near)),
        Route::unicast(net("10.7.0.0/16")).hop(NextHop::via_dev(ip("192.168.9.9"), near).onlink()),
        Route::unicast(net("10.6.0.0/16")).hop(NextHop::via_dev(ip("fd00::2"), near)),
        Route::on_link(net("10.5.0.1/32"), near),
        Route::blackhole(net("10.4.0.0/26")),
        Route::unicast(net("10.3.0.0/16"))
            .hop(NextHop::via_dev(ip("10.0.0.2"), near))
            .table(7000),
        Route::unicast(net("fd09::/48"))
            .hop(NextHop::via_dev(ip("fd00::2"), near))
            .metric(1024),
        Route::unicast(net("fd08::/48"))
            .hop(NextHop::via_dev(ip("fd00::2"), near))
            .hop(NextHop::via_dev(ip("fd00::3"), near))
            .metric(1024),
        Route::blackhole(net("fd07::/122")).metric(1024),
        Route::on_link(net("fd06::1/128"), near).metric(1024),
    ]
    .map(|route| route.protocol(OURS));
    let ops: Vec<Op> = routes.iter().cloned().map(Op::ReplaceRoute).collect();
    connection.apply_all(&ops).expect("adds routes");

    let found = ours(&mut connection);
    for route in &routes {
        assert!(found.contains(route), "{route}: not among {found:#?}");
    }
    assert_eq!(found.len(), routes.len());
    connection
        .apply_all(&ops)
        .expect("replacing them by themselves is fine");
    assert_eq!(ours(&mut connection).len(), routes.len());

    let filter = RouteFilter {
        protocol: Some(OURS),
        family: Some(Family::V6),
        ..RouteFilter::default()
    };
    assert_eq!(connection.routes(filter).expect("lists").len(), 4);
    let filter = RouteFilter {
        table: Some(7000),
        ..RouteFilter::default()
    };
    assert_eq!(connection.routes(filter).expect("lists"), [routes[7].clone()]);
    let filter = RouteFilter {
        table: Some(7001),
        ..RouteFilter::default()
    };
    assert_eq!(connection.routes(filter).expect("a table without routes is empty"), []);

    for route in &routes {
        connection.apply(&Op::DeleteRoute(route.clone())).expect("deletes");
        assert!(
            connection
                .apply(&Op::DeleteRoute(route.clone()))
                .expect_err("is gone")
                .is_not_found()
        );
    }
    assert_eq!(ours(&mut connection), []);
}

#[test]
fn replacing_changes_the_next_hops_of_the_same_route() {
    let Some(pair) = Pair::new("replacing_changes_the_next_hops_of_the_same_route") else {
        return;
    };
    let mut connection = Connection::open_in(&pair.here).expect("connects");
    for (dst, one, two) in [
        ("10.9.0.0/16", "10.0.0.2", "10.0.0.3"),
        ("fd09::/48", "fd00::2", "fd00::3"),
    ] {
        let hop = |to: &str| NextHop::via_dev(ip(to), pair.near.index);
        let base = Route::unicast(net(dst)).protocol(OURS).metric(20);
        for route in [
            base.clone().hop(hop(one)),
            base.clone().hop(hop(one)).hop(hop(two)),
            base.clone().hop(hop(two)),
            {
                Route {
                    kind: RouteKind::Blackhole,
                    ..base.clone()
                }
            },
        ] {
            connection.apply(&Op::ReplaceRoute(route.clone())).expect("replaces");
            assert_eq!(ours(&mut connection), [route]);
        }
        connection
            .apply(&Op::DeleteRoute(Route {
                kind: RouteKind::Blackhole,
                ..base
            }))
            .expect("deletes");
    }
}

#[test]
fn refusals_name_the_route_and_the_reason() {
    let Some(pair) = Pair::new("refusals_name_the_route_and_the_reason") else {
        return;
    };
    let mut connection = Connection::open_in(&pair.here).expect("connects");
    let cases = [
        (
            Route::unicast(net("10.9.0.0/16")).hop(NextHop::via(ip("203.0.113.1"))),
            "set route 10.9.0.0/16 via 203.0.113.1: Network is unreachable (Nexthop has invalid gateway)",
        ),
        (
            Route::unicast(net("10.9.0.0/16")).hop(NextHop::dev(4711)),
            "set route 10.9.0.0/16 dev #4711: No such device",
        ),
        (
            Route::unicast(net("10.9.0.0/16")),
            "route 10.9.0.0/16: has no next hop; add one or make it a blackhole",
        ),
        (
            Route::blackhole(net("10.9.0.1/16")),
            "blackhole route 10.9.0.1/16: has host bits; use 10.9.0.0/16",
        ),
        (
            Route::unicast(net("fd09::/48")).hop(NextHop::via(ip("10.0.0.2"))),
            "route fd09::/48 via 10.0.0.2: an IPv6 destination needs an IPv6 next hop",
        ),
    ];
    for (route, message) in cases {
        let error = connection
            .apply(&Op::ReplaceRoute(route))
            .expect_err(message)
            .to_string();
        assert!(error.starts_with(message), "{error}\nexpected {message}");
    }
}

#[test]
fn batch_gives_one_result_for_each_of_thousands() {
    let Some(pair) = Pair::new("batch_gives_one_result_for_each_of_thousands") else {
        return;
    };
    let mut connection = Connection::open_in(&pair.here).expect("connects");
    let ops: Vec<Op> = (0..5000u32)
        .map(|i| {
            let dst = net(&format!("10.{}.{}.0/24", 100 + i / 256, i % 256));
            let route = Route::unicast(dst).protocol(OURS);
            Op::ReplaceRoute(match i % 10 {
                3 => route.hop(NextHop::via(ip("203.0.113.1"))),
                7 => route,
                _ => route.hop(NextHop::via_dev(ip("10.0.0.2"), pair.near.index)),
            })
        })
        .collect();
    let results = connection.batch(&ops);
    assert_eq!(results.len(), ops.len());
    for (i, result) in results.iter().enumerate() {
        assert_eq!(result.is_err(), matches!(i % 10, 3 | 7), "operation {i}: {result:?}");
    }
    assert_eq!(ours(&mut connection).len(), 4000);

    // All refused: the answers must fit the receive buffer.
    let refused: Vec<Op> = ops
        .iter()
        .cloned()
        .map(|op| match op {
            Op::ReplaceRoute(route) => Op::DeleteRoute(Route {
                protocol: OURS + 1,
                ..route
            }),
            other => other,
        })
        .collect();
    assert!(
        connection
            .batch(&refused)
            .iter()
            .all(|result| result.as_ref().is_err_and(|e| e.is_not_found()))
    );
    assert_eq!(ours(&mut connection).len(), 4000);
}
