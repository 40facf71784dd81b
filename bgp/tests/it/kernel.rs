//! The kernel's routing table as a forwarding plane.

use margay_bgp::fib::kernel::{KernelConfig, KernelFib};
use margay_bgp::fib::{Fib, FibBatch, FibChange, FibHop, FibRoute};
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
