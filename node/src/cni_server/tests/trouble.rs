//! Parts that do not answer, names that clash or change.

use super::*;

fn further(container: &str) -> Attachment {
    Attachment {
        ifname: "net1".into(),
        ..attachment(container)
    }
}

fn renamed(container: &str) -> Attachment {
    Attachment {
        network: "renamed".into(),
        ..attachment(container)
    }
}

/// What is asked for, within a minute on the test's clock.
async fn soon<T>(asked: impl Future<Output = T>) -> T {
    let answer = tokio::time::timeout(Duration::from_secs(60), asked).await;
    answer.expect("an answer within a minute")
}

/// The same for what takes its time on purpose.
async fn soon_after<T>(asked: impl Future<Output = T>) -> T {
    let answer = tokio::time::timeout(Duration::from_secs(3600), asked).await;
    answer.expect("an end within an hour")
}

#[tokio::test(start_paused = true)]
async fn dels_do_not_wait_for_an_api_server_that_does_not_answer() {
    let bench = bench();
    let path = bench.dir.path().join("cni.sock");
    let server = tokio::spawn(serve(bind(&path).unwrap(), bench.attacher.clone()));
    attached(bench.ask(Request::Add(add("c0", "q1", "u1"))).await);
    bench.world.silent.lock().insert(Part::Release);
    let ask = async |request: Request| frame::decode_answer(&exchange(&path, &frame::encode_request(&request)).await);
    let names: Vec<_> = (0..200).map(|n| format!("c{n}")).collect();
    let dels = futures::future::join_all(names.iter().map(|name| ask(Request::Del(del(name)))));
    let (answers, status) = soon(async { futures::join!(dels, ask(Request::Status)) }).await;
    assert_eq!(status, Ok(Answer::Done));
    assert!(answers.iter().all(|answer| *answer == Ok(Answer::Done)), "{answers:?}");
    assert_eq!(bench.queue.pending().unwrap().0.len(), 200);
    assert_eq!(bench.held(), ["margay.c0"]);
    bench.world.silent.lock().clear();
    assert_eq!(bench.attacher.replay().await, 0);
    assert!(bench.held().is_empty());
    server.abort();
}

#[tokio::test]
async fn with_the_api_server_known_away_a_del_is_written_down_at_once() {
    let bench = bench();
    attached(bench.ask(Request::Add(add("c1", "q1", "u1"))).await);
    bench
        .health
        .set("datastore", Condition::NotReady("no route to host".into()));
    assert_eq!(bench.ask(Request::Del(del("c1"))).await, Answer::Done);
    assert_eq!(bench.held(), ["margay.c1"], "not even tried");
    assert_eq!(bench.queue.pending().unwrap().0.len(), 1);
    assert_eq!(*bench.world.deleted.lock(), ["mgy16ff9610a79"]);
    // A single watch that fails looks the same: addresses must not stay taken for ever.
    assert_eq!(bench.attacher.replay().await, 0);
    assert!(bench.held().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_del_does_not_wait_for_the_clusters_settings() {
    let bench = bench();
    bench.world.silent.lock().insert(Part::Prefix);
    let unknown = Del {
        pod: Some(pod_named("q1", "u1")),
        ..del("c9")
    };
    assert_eq!(soon(bench.ask(Request::Del(unknown))).await, Answer::Done);
    assert_eq!(bench.queue.pending().unwrap().0.len(), 1);
    let failure = failure(bench.ask(Request::Add(add("c1", "q1", "u1"))).await);
    assert!(
        failure.retryable && failure.msg.contains("settings are not known"),
        "{}",
        failure.msg
    );
    assert!(bench.held().is_empty(), "no address is taken for nothing");
}

#[tokio::test(start_paused = true)]
async fn an_add_ends_in_time_although_a_part_does_not_answer() {
    for part in [Part::Policy, Part::Connections] {
        let bench = bench();
        bench.world.silent.lock().insert(part);
        let failure = failure(soon(bench.ask(Request::Add(add("c1", "q1", "u1")))).await);
        assert!(failure.retryable, "{part:?}: {}", failure.msg);
        assert!(bench.records().is_empty(), "{part:?}");
        bench.world.silent.lock().clear();
        assert_eq!(bench.ask(Request::Del(del("c1"))).await, Answer::Done);
        assert!(bench.held().is_empty(), "{part:?}");
    }
}

#[tokio::test]
async fn a_host_interface_that_is_another_pods_is_refused() {
    let bench = bench();
    attached(bench.ask(Request::Add(add("c1", "q1", "u1"))).await);
    let record = bench.endpoints.lock().iter().next().unwrap().clone();
    let mut other = record.clone();
    (other.key.container, other.pod) = ("c2".into(), "q2".into());
    assert_eq!(bench.ask(Request::Del(del("c1"))).await, Answer::Done);
    // As if q2's name had the hash of q1's.
    EndpointStore::put(&bench.endpoints, other).await.unwrap();
    let failure = failure(bench.ask(Request::Add(add("c3", "q1", "u1"))).await);
    assert_eq!(failure.code, code::REFUSED);
    let expected = "pod ns0/q1: its host interface would be mgy16ff9610a79, which is that of pod ns0/q2";
    assert_eq!(failure.msg, expected);
    assert!(bench.held().is_empty());
    bench.world.deleted.lock().clear();
    let del = Del {
        pod: Some(pod_named("q1", "u1")),
        ..del("c3")
    };
    assert_eq!(bench.ask(Request::Del(del)).await, Answer::Done);
    assert!(bench.world.deleted.lock().is_empty(), "the other pod's link stays");
}

#[tokio::test]
async fn two_interfaces_of_a_container_are_two_attachments() {
    let bench = bench();
    let own = attached(bench.ask(Request::Add(add("c1", "q1", "u1"))).await);
    let more = Add {
        attachment: further("c1"),
        ..add("c1", "q1", "u1")
    };
    let more = attached(bench.ask(Request::Add(more)).await);
    assert_ne!(more.interface, own.interface);
    assert_eq!(bench.held(), ["margay.c1", "margay.c1.net1"]);
    let check = |attachment| {
        Request::Check(Check {
            attachment,
            netns: "/run/netns/x".into(),
        })
    };
    assert_eq!(attached(bench.ask(check(attachment("c1"))).await), own);
    assert_eq!(attached(bench.ask(check(further("c1"))).await), more);
    let gone = Del {
        attachment: further("c1"),
        ..del("c1")
    };
    assert_eq!(bench.ask(Request::Del(gone)).await, Answer::Done);
    assert_eq!(bench.held(), ["margay.c1"]);
    assert_eq!(*bench.world.deleted.lock(), [more.interface]);
}

#[tokio::test]
async fn a_pod_of_a_network_that_was_renamed_is_found_and_released() {
    let bench = bench();
    bench.pod("q2", "u2");
    attached(bench.ask(Request::Add(add("c1", "q1", "u1"))).await);
    attached(bench.ask(Request::Add(add("c2", "q2", "u2"))).await);
    let gone = |container| Del {
        attachment: renamed(container),
        ..del(container)
    };
    let check = Request::Check(Check {
        attachment: renamed("c1"),
        netns: "/run/netns/x".into(),
    });
    attached(bench.ask(check).await);
    assert_eq!(bench.ask(Request::Del(gone("c1"))).await, Answer::Done);
    assert_eq!(bench.held(), ["margay.c2"]);
    assert_eq!(*bench.world.deleted.lock(), ["mgy16ff9610a79"]);

    // What the plugin wrote down has the new name, and must not lose the old one half way.
    bench.queue.push(&gone("c2")).unwrap();
    *bench.world.api_fails.lock() = Some("no connection".into());
    assert_eq!(bench.attacher.replay().await, 1);
    assert!(bench.records().is_empty());
    *bench.world.api_fails.lock() = None;
    assert_eq!(bench.attacher.replay().await, 0);
    assert!(bench.held().is_empty() && bench.queue.pending().unwrap().0.is_empty());
}

#[tokio::test]
async fn names_that_no_handle_can_have_are_refused_with_the_field() {
    let bench = bench();
    for (network, ifname, field) in [
        (
            "pod_network",
            "eth0",
            "name of the network configuration \"pod_network\"",
        ),
        ("pods", "net_1", "CNI_IFNAME \"net_1\""),
        ("pods-", "eth0", "name of the network configuration \"pods-\""),
    ] {
        let add = Add {
            attachment: Attachment {
                network: network.into(),
                ifname: ifname.into(),
                ..attachment("c1")
            },
            ..add("c1", "q1", "u1")
        };
        let failure = failure(bench.ask(Request::Add(add)).await);
        assert!(!failure.retryable && failure.msg.contains(field), "{}", failure.msg);
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_killed_add_left_is_released_once_it_is_surely_nobodys() {
    let bench = bench();
    let held = |last: u8, handle: &str, pod: &str, sequence| Allocation {
        address: IpAddr::from([10, 244, 0, last]),
        handle: Some(handle.into()),
        attributes: [("namespace", "ns0"), ("pod", pod), ("node", "node1")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
        sequence: Some(sequence),
    };
    attached(bench.ask(Request::Add(add("c1", "q1", "u1"))).await);
    bench.pods.set(
        &ObjectKey {
            namespace: "ns0".into(),
            name: "q1".into(),
        },
        None,
    );
    bench.pod("q2", "u2");
    bench.queue.push(&del("c3")).unwrap();
    let tunnel = Allocation {
        attributes: BTreeMap::from([("node".to_owned(), "node1".to_owned())]),
        ..held(5, "tunnel", "", 1)
    };
    let look = |sequence| {
        vec![
            held(1, "margay.c1", "q1", 1),   // its sandbox lives, the Pod object does not
            held(2, "margay.c2", "q2", 1),   // an ADD may be at it
            held(3, "margay.c3", "gone", 1), // its DEL waits
            held(4, "margay.c4", "gone", 1),
            tunnel.clone(),
            held(6, "margay.c6", "gone", sequence), // taken between the looks
        ]
    };
    *bench.world.looks.lock() = [look(1), look(2)].into();
    soon_after(bench.attacher.reclaim()).await;
    assert_eq!(*bench.world.reclaimed.lock(), [IpAddr::from([10, 244, 0, 4])]);

    // Before all is in sync nothing is looked at.
    *bench.world.looks.lock() = [look(1), look(1)].into();
    bench.health.set(
        "dataplane",
        Condition::NotReady("waiting for the cluster's state".into()),
    );
    let waiting = tokio::time::timeout(Duration::from_secs(3600), bench.attacher.reclaim());
    assert!(waiting.await.is_err() && bench.world.looks.lock().len() == 2);
}
