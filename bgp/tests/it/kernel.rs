//! The kernel's routing table as a forwarding plane.

use margay_bgp::fib::kernel::{KernelConfig, KernelFib};
use margay_bgp::fib::{Fib, FibBatch, FibChange, FibHop, FibRoute, Sources};
use margay_netlink::{Handle, NextHop, Op, Route};

use crate::lab::{Lab, can_run, net, open, routes};

fn change(prefix: &str, route: Option<FibRoute>) -> FibChange {
    FibChange {
        prefix: net(prefix),
        route,
    }
}

fn via(hops: &[(&str, u32)]) -> Option<FibRoute> {
    let hop = |(via, oif): &(&str, u32)| FibHop {
        via: via.parse().expect("an address"),
        oif: *oif,
    };
    Some(FibRoute::Unicast(hops.iter().map(hop).collect()))
}

#[test]
fn learnt_routes_bear_the_source_address_that_is_asked_for_and_there() {
    if !can_run("learnt_routes_bear_the_source_address_that_is_asked_for_and_there", &[]) {
        return;
    }
    let lab = Lab::new();
    let mut netlink = open(&lab.margay);
    let a = netlink.link_by_name("frr0").expect("a link").index;
    let b = netlink.link_by_name("bird0").expect("a link").index;
    let lo = netlink.link_by_name("lo").expect("a link").index;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let sources = || -> Vec<String> {
        let mut all: Vec<String> = routes(&lab.margay, 78)
            .iter()
            .map(|r| {
                format!(
                    "{} from {}",
                    r.dst,
                    r.src.map_or_else(|| "-".to_owned(), |s| s.to_string())
                )
            })
            .collect();
        all.sort();
        all
    };
    let address = |network: &str| margay_netlink::Addr::new(lo, net(network));
    let without = ["10.1.0.0/16 from -", "10.3.0.0/16 from -", "fd00:a::/48 from -"];
    let with = [
        "10.1.0.0/16 from 10.255.0.9",
        "10.3.0.0/16 from -",
        "fd00:a::/48 from fd00:ff::9",
    ];
    runtime.block_on(async {
        let config = KernelConfig {
            protocol: 78,
            ..KernelConfig::default()
        };
        let (asked, receiver) = tokio::sync::watch::channel(Sources::default());
        let new = || KernelFib::new(Handle::in_netns(&lab.margay).expect("a handle"), config).sources(receiver.clone());
        let mut fib = new();
        fib.start().await.expect("started");
        let changes = || {
            vec![
                change("10.1.0.0/16", via(&[("10.0.1.1", a), ("10.0.2.1", b)])),
                change("10.3.0.0/16", Some(FibRoute::Blackhole)),
                change("fd00:a::/48", via(&[("fd00:1::1", a), ("fd00:2::1", b)])),
            ]
        };
        fib.apply(FibBatch {
            changes: changes(),
            complete: true,
        })
        .await;
        assert_eq!(sources(), without);

        // Asked for, but not there: no route is lost.
        asked.send_replace(Sources {
            ipv4: "10.255.0.9".parse().ok(),
            ipv6: "fd00:ff::9".parse().ok(),
        });
        fib.changed().await;
        fib.catch_up().await;
        assert_eq!(sources(), without);

        // It comes, and goes, and comes again.
        for present in [true, false, true] {
            for network in ["10.255.0.9/32", "fd00:ff::9/128"] {
                let op = match present {
                    true => Op::AddAddr(address(network)),
                    false => Op::DeleteAddr(address(network)),
                };
                netlink.apply(&op).expect("an address of the loopback");
            }
            let wanted = if present { with } else { without };
            let begun = std::time::Instant::now();
            while sources() != wanted && begun.elapsed().as_secs() < 10 {
                let _ = tokio::time::timeout(std::time::Duration::from_millis(100), fib.changed()).await;
                fib.catch_up().await;
            }
            assert_eq!(
                sources(),
                wanted,
                "with the address {}",
                if present { "there" } else { "gone" }
            );
        }

        // A next life finds nothing to write.
        let mut fib = new();
        fib.start().await.expect("started");
        let mut events = Handle::in_netns(&lab.margay)
            .and_then(|h| h.monitor(margay_netlink::Groups::ROUTES))
            .expect("a monitor");
        fib.apply(FibBatch {
            changes: changes(),
            complete: true,
        })
        .await;
        let quiet = tokio::time::timeout(std::time::Duration::from_millis(200), events.next()).await;
        assert!(quiet.is_err(), "written again: {quiet:?}");
        fib.flush().await;
    });
    assert_eq!(sources(), Vec::<String>::new());
}

#[test]
fn a_restart_writes_only_differences_and_leaves_others_alone() {
    if !can_run("a_restart_writes_only_differences_and_leaves_others_alone", &[]) {
        return;
    }
    let lab = Lab::new();
    let mut netlink = open(&lab.margay);
    let a = netlink.link_by_name("frr0").expect("a link").index;
    let b = netlink.link_by_name("bird0").expect("a link").index;
    let config = KernelConfig {
        protocol: 78,
        ..KernelConfig::default()
    };
    let foreign = Route::unicast(net("10.50.0.0/16"))
        .hop(NextHop::via_dev("10.0.1.1".parse().expect("an address"), a))
        .protocol(79)
        .metric(32);
    netlink.apply(&Op::ReplaceRoute(foreign)).expect("a foreign route");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let prefixes = || {
        let mut all: Vec<String> = routes(&lab.margay, 78).iter().map(|r| r.dst.to_string()).collect();
        all.sort();
        all
    };
    runtime.block_on(async {
        let new = || KernelFib::new(Handle::in_netns(&lab.margay).expect("a handle"), config);
        let mut fib = new();
        let started = fib.start().await.expect("started");
        assert!(!started.restored);
        let silent = new().forwarding_kept(true).start().await.expect("started");
        assert!(silent.restored, "a restart, even if no peer had told a route");
        assert!(
            started
                .topology
                .routes
                .iter()
                .any(|r| r.prefix == net("10.0.1.0/24") && r.via.is_none())
        );
        assert!(
            started
                .topology
                .routes
                .iter()
                .any(|r| r.prefix == net("10.50.0.0/16") && r.via.is_some())
        );
        let changes = vec![
            change("10.1.0.0/16", via(&[("10.0.1.1", a), ("10.0.2.1", b)])),
            change("10.2.0.0/16", via(&[("10.0.1.1", a)])),
            change("10.3.0.0/16", Some(FibRoute::Blackhole)),
            change("fd00:a::/48", via(&[("fd00:1::1", a), ("fd00:2::1", b)])),
            change("fd00:b::/48", Some(FibRoute::Blackhole)),
        ];
        fib.apply(FibBatch {
            changes,
            complete: true,
        })
        .await;
        let all = [
            "10.1.0.0/16",
            "10.2.0.0/16",
            "10.3.0.0/16",
            "fd00:a::/48",
            "fd00:b::/48",
        ];
        assert_eq!(prefixes(), all);
        // Many to one, one to many, blackhole to way, way to blackhole.
        let changes = vec![
            change("10.1.0.0/16", via(&[("10.0.2.1", b)])),
            change("10.2.0.0/16", Some(FibRoute::Blackhole)),
            change("10.3.0.0/16", via(&[("10.0.1.1", a), ("10.0.2.1", b)])),
            change("fd00:a::/48", via(&[("fd00:2::1", b)])),
            change("fd00:b::/48", via(&[("fd00:1::1", a), ("fd00:2::1", b)])),
        ];
        fib.apply(FibBatch {
            changes,
            complete: true,
        })
        .await;
        assert_eq!(prefixes(), all);
        let seen = |p: &str| crate::lab::hops(&lab.margay, 78, p);
        assert_eq!(seen("10.1.0.0/16"), ["10.0.2.1"]);
        assert_eq!(seen("10.2.0.0/16"), Vec::<String>::new());
        assert_eq!(seen("10.3.0.0/16"), ["10.0.1.1", "10.0.2.1"]);
        assert_eq!(seen("fd00:a::/48"), ["fd00:2::1"]);
        assert_eq!(seen("fd00:b::/48"), ["fd00:1::1", "fd00:2::1"]);

        // A second life: what is there stays until the wish is complete.
        let mut fib = new();
        assert!(fib.start().await.expect("started").restored);
        let mut events = Handle::in_netns(&lab.margay)
            .and_then(|h| h.monitor(margay_netlink::Groups::ROUTES))
            .expect("a monitor");
        let keep = vec![change("10.1.0.0/16", via(&[("10.0.2.1", b)]))];
        fib.apply(FibBatch {
            changes: keep,
            complete: false,
        })
        .await;
        assert_eq!(prefixes(), all);
        fib.apply(FibBatch {
            changes: vec![change("10.2.0.0/16", None)],
            complete: false,
        })
        .await;
        assert_eq!(prefixes(), all, "nothing is deleted before all is known");
        fib.apply(FibBatch {
            changes: vec![],
            complete: true,
        })
        .await;
        assert_eq!(prefixes(), ["10.1.0.0/16"]);
        let mut touched = Vec::new();
        let quiet = std::time::Duration::from_millis(200);
        while let Ok(Some(event)) = tokio::time::timeout(quiet, events.next()).await {
            if let margay_netlink::Event::Route(r) | margay_netlink::Event::RouteGone(r) = event {
                touched.push(r.dst);
            }
        }
        assert!(touched.contains(&net("10.3.0.0/16")), "the control: deletions are seen");
        assert!(
            !touched.contains(&net("10.1.0.0/16")),
            "a route that is right is not written again"
        );
        // A third life, with another metric: the route has a successor, and goes.
        let metric = config.metric + 1;
        let other = KernelConfig { metric, ..config };
        let mut fib = KernelFib::new(Handle::in_netns(&lab.margay).expect("a handle"), other);
        assert!(fib.start().await.expect("started").restored);
        fib.apply(FibBatch {
            changes: vec![change("10.1.0.0/16", via(&[("10.0.2.1", b)]))],
            complete: true,
        })
        .await;
        let metrics: Vec<_> = routes(&lab.margay, 78).iter().map(|r| r.metric).collect();
        assert_eq!(metrics, [Some(metric)]);
        fib.flush().await;
    });
    assert_eq!(prefixes(), Vec::<String>::new());
    assert_eq!(routes(&lab.margay, 79).len(), 1, "others' routes are left alone");
}
