//! The whole story on real routers, agents and pods, with the faults that an operator meets.

mod bad_input;
mod demo;
mod interrupted;
mod ipv6_only;
mod lab;
mod surroundings;

use std::{
    thread,
    time::{Duration, Instant},
};

use margay_agnhost::traffic::Tally;
use margay_testkit::shell::wait_for;
use serde_json::Value;

use lab::ClusterLab;
use margay_testkit::needs;

const READY: Duration = Duration::from_secs(60);

/// `make demo` notices when one rule of the result is missing, and names the cells.
#[test]
fn one_deleted_rule_fails_the_demo() {
    if !needs::root("one_deleted_rule_fails_the_demo") {
        return;
    }
    let lab = ClusterLab::empty("tamper");
    // The rule that lets checkout's packets into payments. The agent would put it back, so it is stopped first.
    let tamper = "node2:kill -STOP $(pidof margay-node); \
                  iptables-save -t filter | grep -m1 -e '^-A mgy-pi-payments.payments ' | sed 's/^-A/-D/' \
                  | xargs -r iptables";
    let output = lab.demo(&["run", "--tamper", tamper]);
    let words = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "the demo must fail: {words}");
    assert!(words.contains("1 cell(s) are not as expected"), "{words}");
    assert!(
        words.contains("checkout → payments:443: IPv4: expected allow, saw deny"),
        "it names the cell: {words}"
    );
    let down = lab.demo(&["down"]);
    assert!(down.status.success(), "{}", String::from_utf8_lossy(&down.stderr));
}

/// Agents killed with -9, away for 3 s and started again, one after the other, while packets flow.
#[test]
fn a_killed_agent_moves_no_packet() {
    if !needs::root("a_killed_agent_moves_no_packet") {
        return;
    }
    let lab = ClusterLab::up("kill");
    lab.apply("traffic.yaml");
    lab.shell
        .kubectl(&[
            "wait",
            "pod",
            "--all",
            "-n",
            "traffic",
            "--for=condition=Ready",
            "--timeout=60s",
        ])
        .unwrap();
    let [far, near, closed] = ["far", "near", "closed"].map(|pod| lab.pod_address("traffic", pod));
    // Policy must be in force before counting, or the first packets of `closed` would not be the test's subject.
    wait_for("open pods answer and the closed one does not", READY, || {
        let answered = |target: &str| lab.traffic(target, "new", "0.2s").map(|tally| tally.answered);
        anyhow::ensure!(answered(&far)? > 0 && answered(&near)? > 0 && answered(&closed)? == 0);
        Ok(())
    })
    .unwrap();

    let flows = [
        (&far, "established"),
        (&far, "new"),
        (&near, "established"),
        (&near, "new"),
        (&closed, "new"),
    ];
    let tallies: Vec<Tally> = thread::scope(|scope| {
        let counting: Vec<_> = flows
            .iter()
            .map(|(target, flow)| scope.spawn(|| lab.traffic(target, flow, "16s").unwrap()))
            .collect();
        for node in ["node1", "node3"] {
            lab.agent("kill", node);
            let killed = Instant::now();
            // The absence itself is the fault under test.
            while killed.elapsed() < Duration::from_secs(3) {
                thread::park_timeout(Duration::from_secs(3) - killed.elapsed());
            }
            lab.agent("start", node);
            lab.wait_agent_ready(node, READY);
        }
        counting.into_iter().map(|counting| counting.join().unwrap()).collect()
    });
    for (tally, (target, flow)) in tallies.iter().zip(flows) {
        println!(
            "{flow} packets to {target}: {} sent, {} answered, missing {:?}",
            tally.sent, tally.answered, tally.missing
        );
    }
    for tally in &tallies {
        assert!(tally.sent >= 3200, "200 a second for 16 s: {tally:?}");
    }
    for tally in &tallies[..4] {
        assert_eq!(tally.answered, tally.sent, "an allowed flow lost packets: {tally:?}");
    }
    assert_eq!(tallies[4].answered, 0, "a denied flow got through: {:?}", tallies[4]);

    // The control: the same counting notices a path that loses one packet in ten.
    let rule = |verb: &str| {
        format!("iptables -t raw {verb} PREROUTING -p udp -m statistic --mode nth --every 10 --packet 0 -j DROP")
    };
    lab.shell.in_node("node3", &["sh", "-c", &rule("-A")]).unwrap();
    let control = lab.traffic(&far, "established", "2s").unwrap();
    lab.shell.in_node("node3", &["sh", "-c", &rule("-D")]).unwrap();
    println!(
        "control: {} sent, {} answered, missing {:?}",
        control.sent, control.answered, control.missing
    );
    assert!(
        control.answered < control.sent,
        "the control must lose some: {control:?}"
    );
    assert!(control.answered > 0, "the control must not lose all: {control:?}");
}

/// The addresses of a node that is gone go back to the pool; those of the others stay.
#[test]
fn a_deleted_nodes_addresses_are_released() {
    if !needs::root("a_deleted_nodes_addresses_are_released") {
        return;
    }
    let lab = ClusterLab::up("release");
    lab.apply("traffic.yaml");
    lab.shell
        .kubectl(&[
            "wait",
            "pod",
            "--all",
            "-n",
            "traffic",
            "--for=condition=Ready",
            "--timeout=60s",
        ])
        .unwrap();
    let nodes_of_blocks = || -> Vec<String> {
        let text = lab.shell.kubectl(&["get", "blockaffinities", "-o", "json"]).unwrap();
        let affinities: Value = serde_json::from_str(&text).unwrap();
        let items = affinities["items"].as_array().unwrap().iter();
        items
            .map(|affinity| affinity["spec"]["node"].as_str().unwrap().to_owned())
            .collect()
    };
    assert!(
        nodes_of_blocks().contains(&"node3".to_owned()),
        "{:?}",
        nodes_of_blocks()
    );
    // The machine dies first; then somebody says so to the API.
    lab.agent("kill", "node3");
    lab.shell
        .in_node("node3", &["sh", "-c", "pkill -9 -f '[m]argay-lab kubelet'"])
        .unwrap();
    lab.shell.kubectl(&["delete", "node", "node3"]).unwrap();
    wait_for("node3's blocks are released", READY, || {
        let nodes = nodes_of_blocks();
        anyhow::ensure!(!nodes.contains(&"node3".to_owned()), "{nodes:?}");
        Ok(())
    })
    .unwrap();
    assert!(
        nodes_of_blocks().contains(&"node1".to_owned()),
        "a living node lost its block: {:?}",
        nodes_of_blocks()
    );
    let blocks: Value =
        serde_json::from_str(&lab.shell.kubectl(&["get", "ipamblocks", "-o", "json"]).unwrap()).unwrap();
    let of_node3 = blocks["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|b| b["spec"]["affinity"] == "host:node3")
        .count();
    assert_eq!(of_node3, 0, "{blocks}");
}

/// What a new user types at the end of the demo works.
#[test]
fn margayctl_shows_the_lab() {
    if !needs::root("margayctl_shows_the_lab") {
        return;
    }
    let lab = ClusterLab::up("ctl");
    wait_for("margayctl shows every node and a session", READY, || {
        let status = lab.ctl(&["status", "--all"])?;
        for word in ["node1", "node2", "node3", "Established"] {
            anyhow::ensure!(status.contains(word), "margayctl status lacks {word}:\n{status}");
        }
        let peers: Value = serde_json::from_str(&lab.ctl(&["bgp", "peers", "-o", "json"])?)?;
        anyhow::ensure!(peers.to_string().contains("10.1.3.1"), "{peers}");
        Ok(())
    })
    .unwrap();
    // Metrics are off until they are asked for.
    let metrics = ["curl", "-sS", "--fail-with-body", "http://127.0.0.1:9091/metrics"];
    lab.shell
        .in_node("node1", &metrics)
        .expect_err("nobody asked for metrics");
    let patch = r#"{"spec": {"prometheusMetricsEnabled": true}}"#;
    lab.shell
        .kubectl(&["patch", "felixconfiguration", "default", "--type=merge", "-p", patch])
        .unwrap();
    wait_for("the metrics tell of the cluster and of the sessions", READY, || {
        let text = lab.shell.in_node("node1", &metrics)?;
        for line in [
            "felix_cluster_num_hosts 3",
            r#"bgp_peers{status="Established",ip_version="IPv4"} 1"#,
            r#"bgp_peers{status="Established",ip_version="IPv6"} 1"#,
        ] {
            anyhow::ensure!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
        Ok(())
    })
    .unwrap();
    // A session that is down says why.
    lab.shell
        .in_node(
            "tor1",
            &[
                "vtysh",
                "-c",
                "conf t",
                "-c",
                "router bgp 65201",
                "-c",
                "neighbor 10.1.1.11 shutdown",
            ],
        )
        .unwrap();
    wait_for("the reason of the session that is down is shown", READY, || {
        let words = lab.ctl(&["status"])?;
        anyhow::ensure!(words.to_lowercase().contains("shutdown"), "{words}");
        Ok(())
    })
    .unwrap();
}
