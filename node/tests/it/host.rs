//! The host side against a kernel, in a network namespace of its own.

use std::collections::BTreeMap;
use std::time::Duration;

use margay_netlink::{Handle, Op, Route, RouteFilter, RouteKind, VethSpec};
use margay_node::host::{self, Desired, HostState, ROUTE_PROTOCOL};
use tokio::sync::watch;

use crate::rig::namespace;

/// A pair of links, both up.
async fn pod_link(handle: &Handle, name: &str, peer_name: &str) {
    let spec = VethSpec {
        name,
        peer_name,
        ..VethSpec::default()
    };
    handle.create_veth(spec).await.unwrap();
    for name in [name, peer_name] {
        let link = handle.link_by_name(name).await.unwrap();
        handle.set_up(link.index, true).await.unwrap();
    }
}

async fn own_routes(handle: &Handle) -> Vec<String> {
    let filter = RouteFilter {
        protocol: Some(ROUTE_PROTOCOL),
        ..RouteFilter::default()
    };
    let mut routes: Vec<_> = handle
        .routes(filter)
        .await
        .unwrap()
        .iter()
        .map(|route| {
            let black = if route.kind == RouteKind::Blackhole {
                "blackhole "
            } else {
                ""
            };
            format!("{black}{}", route.dst)
        })
        .collect();
    routes.sort();
    routes
}

async fn until_routes(handle: &Handle, wanted: &[&str]) {
    let mut last = Vec::new();
    for _ in 0..1000 {
        last = own_routes(handle).await;
        if last == wanted {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("routes are {last:?}, wanted {wanted:?}");
}

async fn soon<F: Future>(what: F) -> F::Output {
    let patience = Duration::from_secs(30);
    tokio::time::timeout(patience, what).await.expect("within 30 s")
}

#[tokio::test(flavor = "multi_thread")]
async fn routes_are_made_repaired_and_taken_away_and_others_are_left_alone() {
    let Some(netns) = namespace("routes_are_made_repaired_and_taken_away_and_others_are_left_alone") else {
        return;
    };
    let handle = Handle::in_netns(&netns).unwrap();
    pod_link(&handle, "mgya", "pod").await;
    let foreign = Route::blackhole("10.244.0.64/26".parse().unwrap());
    let stale = Route::blackhole("10.9.0.0/26".parse().unwrap()).protocol(ROUTE_PROTOCOL);
    handle.apply(Op::AddRoute(foreign.clone())).await.unwrap();
    handle.apply(Op::AddRoute(stale)).await.unwrap();
    assert_eq!(
        host::blackholes(&handle).await.unwrap(),
        ["10.9.0.0/26".parse().unwrap()]
    );

    let (desired, wish) = watch::channel(None);
    let (sender, mut state) = watch::channel(HostState::default());
    let task = tokio::spawn(host::run(handle.clone(), wish, sender));
    // Nothing is touched before it is known what shall be.
    tokio::task::yield_now().await;
    assert_eq!(own_routes(&handle).await, ["blackhole 10.9.0.0/26"]);

    desired.send_replace(Some(Desired {
        pods: BTreeMap::from([
            ("mgya".to_owned(), vec!["10.244.0.5".parse().unwrap()]),
            ("mgyb".to_owned(), vec!["10.244.0.6".parse().unwrap()]),
        ]),
        blocks: vec!["10.244.0.0/26".parse().unwrap()],
        ..Desired::default()
    }));
    until_routes(&handle, &["10.244.0.5/32", "blackhole 10.244.0.0/26"]).await;
    soon(state.wait_for(|state| state.missing == ["mgyb"])).await.unwrap();
    let proxies = netns
        .run(|| margay_netlink::sysctl::read("net/ipv4/conf/mgya/proxy_arp"))
        .unwrap()
        .unwrap();
    assert_eq!(proxies, "1");

    // An intruder deletes a route; a pod's link appears late.
    let filter = RouteFilter {
        protocol: Some(ROUTE_PROTOCOL),
        ..RouteFilter::default()
    };
    let ours = handle.routes(filter).await.unwrap();
    let victim = ours.into_iter().find(|route| route.kind == RouteKind::Unicast).unwrap();
    handle.apply(Op::DeleteRoute(victim)).await.unwrap();
    until_routes(&handle, &["10.244.0.5/32", "blackhole 10.244.0.0/26"]).await;
    soon(state.wait_for(|state| state.repairs == 1)).await.unwrap();
    pod_link(&handle, "mgyb", "podb").await;
    until_routes(&handle, &["10.244.0.5/32", "10.244.0.6/32", "blackhole 10.244.0.0/26"]).await;

    desired.send_replace(Some(Desired::default()));
    until_routes(&handle, &[]).await;
    let others = handle
        .routes(RouteFilter {
            protocol: Some(4),
            ..RouteFilter::default()
        })
        .await
        .unwrap();
    assert!(
        others.iter().any(|route| route.dst == foreign.dst),
        "somebody else's route is gone"
    );
    drop(desired);
    task.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_route_in_the_way_is_reported_and_kept() {
    let Some(netns) = namespace("a_foreign_route_in_the_way_is_reported_and_kept") else {
        return;
    };
    let handle = Handle::in_netns(&netns).unwrap();
    handle
        .apply(Op::AddRoute(Route::blackhole("10.244.0.0/26".parse().unwrap())))
        .await
        .unwrap();
    let (desired, wish) = watch::channel(None);
    let (sender, mut state) = watch::channel(HostState::default());
    tokio::spawn(host::run(handle.clone(), wish, sender));
    desired.send_replace(Some(Desired {
        blocks: vec!["10.244.0.0/26".parse().unwrap()],
        ..Desired::default()
    }));
    let told = soon(state.wait_for(|state| !state.errors.is_empty()))
        .await
        .unwrap()
        .errors
        .clone();
    assert!(
        told[0].contains("somebody else's route to 10.244.0.0/26 is in the way"),
        "{told:?}"
    );
    assert!(own_routes(&handle).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_events_is_few_rounds() {
    let Some(netns) = namespace("a_flood_of_events_is_few_rounds") else {
        return;
    };
    let handle = Handle::in_netns(&netns).unwrap();
    let (desired, wish) = watch::channel(Some(Desired::default()));
    let (sender, mut state) = watch::channel(HostState::default());
    tokio::spawn(host::run(handle.clone(), wish, sender));
    soon(state.wait_for(|state| state.rounds > 0)).await.unwrap();
    let begun = tokio::time::Instant::now();
    for i in 0..30 {
        pod_link(&handle, &format!("mgy{i}"), &format!("pod{i}")).await;
    }
    soon(state.wait_for(|state| state.unknown.len() == 30)).await.unwrap();
    let (rounds, tenths) = (state.borrow().rounds, begun.elapsed().as_millis() as u64 / 100);
    assert!(rounds <= tenths + 3, "{rounds} rounds in {tenths} tenths of a second");
    drop(desired);
}
