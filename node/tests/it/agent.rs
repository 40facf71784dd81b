//! The whole agent, in a network namespace of its own, before an API server that is not as it should be.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use margay_netlink::{Connection, Op};

use crate::rig::{Agent, Api, namespace};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_that_takes_its_time_is_no_silent_api_server() {
    let Some(netns) = namespace("a_list_that_takes_its_time_is_no_silent_api_server") else {
        return;
    };
    Connection::open_in(&netns).unwrap().apply(&Op::SetUp(1, true)).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let api = Api::start(&netns).await;
    // Leaves a snapshot, which soon is an old one.
    let first = Agent::start(&netns, dir.path(), &api);
    first.until_ready().await;
    first.stop();
    assert!(dir.path().join("state/cluster.json").exists());

    api.slow.send_replace(true);
    let lists = api.asked.load(Ordering::Relaxed);
    let second = Agent::start(&netns, dir.path(), &api);
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(9) {
        assert!(!second.is_ready().await, "it went by what it knew of old");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(
        api.asked.load(Ordering::Relaxed),
        lists + 1,
        "the list was asked for, and is waited for"
    );
    api.slow.send_replace(false);
    second.until_ready().await;
    second.stop();

    // The control: of an API server that is away the snapshot is made use of.
    api.gone.store(true, Ordering::Relaxed);
    let third = Agent::start(&netns, dir.path(), &api);
    third.until_ready().await;
    third.stop();
}
