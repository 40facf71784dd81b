//! A cluster without IPv4.

use anyhow::ensure;
use margay_testkit::needs;
use margay_testkit::shell::wait_for;

use super::READY;
use super::lab::ClusterLab;

/// Pods of two nodes find each other by a mesh over IPv6, policy holds, and so do probes at an address that was moved.
#[test]
fn a_cluster_of_ipv6_alone_works() {
    if !needs::root("a_cluster_of_ipv6_alone_works") {
        return;
    }
    let mut lab = ClusterLab::of("ipv6", "ipv6-only");
    lab.deploy();
    lab.apply("ipv6_only.yaml");
    let ready = |node: &str| {
        let probe = [
            lab.shell.program("margay-node"),
            "health".to_owned(),
            "ready".to_owned(),
        ];
        lab.shell.in_node(node, &probe.each_ref().map(String::as_str))
    };
    for node in ["node1", "node3"] {
        wait_for(&format!("the agent of {node} is ready"), READY, || ready(node)).unwrap();
    }
    lab.apply("traffic.yaml");
    let wait = [
        "wait",
        "pod",
        "--all",
        "-n",
        "traffic",
        "--for=condition=Ready",
        "--timeout=60s",
    ];
    lab.shell.kubectl(&wait).unwrap();
    let [far, near, closed] = ["far", "near", "closed"].map(|pod| lab.pod_address("traffic", pod));
    for address in [&far, &near, &closed] {
        assert!(address.starts_with("fd00:10:246:"), "{address}");
    }
    let answered = |address: &str| {
        lab.traffic(&format!("[{address}]"), "new", "0.2s")
            .map(|tally| tally.answered)
    };
    wait_for("open pods answer and the closed one does not", READY, || {
        ensure!(answered(&far)? > 0 && answered(&near)? > 0 && answered(&closed)? == 0);
        Ok(())
    })
    .unwrap();

    let ids = ["node1", "node3"].map(|node| lab.status(node).unwrap()["bgp"]["routerId"].to_string());
    assert_ne!(ids[0], ids[1], "made of the nodes' names");
    // All addresses are those of both families; the fabric has one.
    for (url, word) in [
        ("http://[fd00:0:2::3]:9199/readyz", "ready"),
        ("http://[fd00:0:2::3]:9091/metrics", "felix_cluster_num_hosts 2"),
        ("http://127.0.0.1:9199/readyz", "ready"),
    ] {
        let text = lab
            .shell
            .in_node("node3", &["curl", "-sS", "-g", "--fail-with-body", url])
            .unwrap();
        assert!(text.contains(word), "{url}: {text}");
    }
}
