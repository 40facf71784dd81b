//! Events.

use std::time::Duration;

use margay_netlink::{Event, Groups, Handle, Monitor, NextHop, Op, Route};
use tokio::time::timeout;

use crate::kernel::{Pair, net};

async fn wait(monitor: &mut Monitor, wanted: impl Fn(&Event) -> bool) {
    let found = async {
        while let Some(event) = monitor.next().await {
            if wanted(&event) {
                return;
            }
        }
        panic!("the stream ended");
    };
    timeout(Duration::from_secs(10), found).await.expect("the event comes");
}

#[tokio::test]
async fn changes_of_links_addresses_and_routes_are_told() {
    let Some(pair) = Pair::new("changes_of_links_addresses_and_routes_are_told") else {
        return;
    };
    let handle = Handle::in_netns(&pair.here).expect("connects");
    let mut monitor = handle
        .monitor(Groups::LINKS | Groups::ADDRS | Groups::ROUTES)
        .expect("watches");
    let near = pair.near.index;

    let route = Route::unicast(net("10.9.0.0/16")).hop(NextHop::via_dev("10.0.0.2".parse().expect("ip"), near));
    handle.route_replace(route.clone()).await.expect("adds");
    wait(&mut monitor, |event| *event == Event::Route(route.clone())).await;
    handle.route_del(route.clone()).await.expect("deletes");
    wait(&mut monitor, |event| *event == Event::RouteGone(route.clone())).await;
    handle
        .add_addr(margay_netlink::Addr::new(near, net("10.1.0.1/32")))
        .await
        .expect("adds");
    wait(
        &mut monitor,
        |event| matches!(event, Event::Addr(addr) if addr.network == net("10.1.0.1/32")),
    )
    .await;
    handle.delete_link(near).await.expect("deletes");
    wait(
        &mut monitor,
        |event| matches!(event, Event::LinkGone(link) if link.name == "near"),
    )
    .await;
}

#[tokio::test]
async fn lost_events_are_told_and_the_stream_goes_on() {
    let Some(pair) = Pair::new("lost_events_are_told_and_the_stream_goes_on") else {
        return;
    };
    let handle = Handle::in_netns(&pair.here).expect("connects");
    let mut monitor = handle.monitor(Groups::ROUTES).expect("watches");
    let ops: Vec<Op> = (0..20_000u32)
        .map(|i| {
            let dst = net(&format!("10.{}.{}.{}/32", 100 + (i >> 16), (i >> 8) & 255, i & 255));
            Op::ReplaceRoute(Route::on_link(dst, pair.near.index))
        })
        .collect();
    assert!(handle.batch(ops).await.iter().all(Result::is_ok));
    wait(&mut monitor, |event| *event == Event::Overrun).await;
    let route = Route::blackhole(net("10.99.0.0/16"));
    handle.route_replace(route.clone()).await.expect("adds");
    wait(&mut monitor, |event| *event == Event::Route(route.clone())).await;
}
