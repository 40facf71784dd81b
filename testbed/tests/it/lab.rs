//! Labs from outside: what deploys, what is refused, and what is left behind.

mod faults;
mod harness;
mod pods;
mod routers;

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use harness::{TestLab, two_racks, wait};
use margay_testkit::needs;

const CONVERGED: Duration = Duration::from_secs(60);

/// A ping crosses both racks and both spines, over IPv4 and IPv6; afterwards nothing of the lab is left.
#[test]
fn two_racks_carry_packets_and_leave_no_trace() {
    if !needs::root_and(
        "two_racks_carry_packets_and_leave_no_trace",
        &["/usr/lib/frr/bgpd", "/usr/sbin/bird"],
    ) {
        return;
    }
    let mut lab = TestLab::new("two-racks", two_racks());
    let before = lab.look_at_host();
    println!("{}", lab.ok(&["deploy", "-t", &lab.file]));
    for (from, to) in [
        ("client", "10.1.3.13"),
        ("node3", "10.1.1.11"),
        ("node1", "10.9.0.10"),
        ("client", "fd00:0:1:3::13"),
        ("node3", "fd00:0:1:2::12"),
    ] {
        wait(&format!("a ping from {from} to {to}"), CONVERGED, || {
            lab.run_in(from, &["ping", "-c1", "-W1", to]).map(drop)
        });
    }
    wait("tor1 has both ways to node3's subnet", CONVERGED, || {
        let route = lab.run_in("tor1", &["ip", "route", "show", "10.1.3.0/24"])?;
        if route.matches("nexthop").count() == 2 {
            Ok(())
        } else {
            Err(route)
        }
    });
    wait("tor2 has both ways to node1's subnet", CONVERGED, || {
        let route = lab.run_in("tor2", &["ip", "route", "show", "10.1.1.0/24"])?;
        if route.matches("nexthop").count() == 2 {
            Ok(())
        } else {
            Err(route)
        }
    });
    assert_both_spines_carry(&lab);

    // The control: a path that is cut is noticed.
    lab.run_in("tor2", &["ip", "link", "set", "eth3", "down"]).unwrap();
    lab.run_in("client", &["ping", "-c1", "-W1", "10.1.3.13"])
        .expect_err("the cut must be noticed");

    // Processes, not namespaces, are looked for afterwards: the number of one that is gone is soon another's.
    let (members, namespaces) = lab.members();
    assert!(
        namespaces > 8 * 5,
        "every node has namespaces of its own, {namespaces} in all"
    );
    lab.destroy();
    let left: Vec<_> = members.into_iter().filter(|process| process.alive()).collect();
    assert!(left.is_empty(), "processes left in the lab's namespaces: {left:?}");
    lab.assert_nothing_left(&before);
    assert!(lab.processes().is_empty(), "processes left: {:?}", lab.processes());
    assert!(!lab.labs.exists(), "files left");
}

/// Many flows spread over both spines: the hash takes ports into account.
fn assert_both_spines_carry(lab: &TestLab) {
    let sent = |spine: &str| -> u64 {
        let path = format!(
            "/sys/class/net/{}/statistics/tx_packets",
            if spine == "spine1" { "eth1" } else { "eth2" }
        );
        lab.run_in("tor1", &["cat", &path]).unwrap().trim().parse().unwrap()
    };
    let before = (sent("spine1"), sent("spine2"));
    let server = lab.spawn_in(
        "node3",
        &["margay-agnhost", "netexec", "--http-port=8099", "--udp-port=-1"],
    );
    wait("node3 serves", CONVERGED, || {
        lab.run_in(
            "node1",
            &["margay-agnhost", "connect", "10.1.3.13:8099", "--timeout=1s"],
        )
        .map(drop)
    });
    let targets = ["10.1.3.13:8099"; 64];
    let answers = lab
        .run_in(
            "node1",
            &[&["margay-agnhost", "probe", "--timeout=10s"][..], &targets].concat(),
        )
        .unwrap();
    assert_eq!(answers.matches("\"seen\":\"10.1.1.11\"").count(), 64, "{answers}");
    let after = (sent("spine1"), sent("spine2"));
    let spread = (after.0 - before.0, after.1 - before.1);
    println!(
        "packets of 64 connections: {} to spine1, {} to spine2",
        spread.0, spread.1
    );
    assert!(
        spread.0 >= 64 && spread.1 >= 64,
        "both spines must carry packets: {spread:?}"
    );
    drop(server);
}

/// A deploy killed at any moment is healed: by destroy, or by the next deploy.
#[test]
fn a_killed_deploy_is_healed() {
    if !needs::root_and("a_killed_deploy_is_healed", &["/usr/lib/frr/bgpd", "/usr/sbin/bird"]) {
        return;
    }
    let mut lab = TestLab::new("killed", two_racks());
    let before = lab.look_at_host();
    for (round, millis) in [0u64, 20, 60, 120, 250, 400].into_iter().enumerate() {
        let mut deploy = lab
            .command(&["deploy", "-t", &lab.file])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let begun = Instant::now();
        // The moment of the kill is what varies.
        while begun.elapsed() < Duration::from_millis(millis) {
            std::thread::park_timeout(Duration::from_millis(1));
        }
        deploy.kill().unwrap();
        deploy.wait().unwrap();
        println!(
            "killed after {millis} ms: {} processes left behind",
            lab.processes().len()
        );
        if round % 2 == 0 {
            lab.destroy();
            lab.wait_empty();
            lab.assert_nothing_left(&before);
        } else {
            lab.ok(&["deploy", "--reconfigure", "-t", &lab.file]);
            assert_eq!(lab.run_in("node1", &["hostname"]).unwrap().trim(), "node1");
            lab.destroy();
        }
    }
    lab.assert_nothing_left(&before);
}

/// A deploy that fails midway takes back what it made.
#[test]
fn a_failing_deploy_leaves_nothing() {
    if !needs::root_and("a_failing_deploy_leaves_nothing", &["/usr/sbin/bird"]) {
        return;
    }
    let text = "name: broken\ntopology:\n  nodes:\n    a: {kind: linux, image: alpine}\n    \
                b: {kind: linux, image: bird, binds: ['bird.conf:/etc/bird.conf']}\n  \
                links:\n    - endpoints: ['a:eth1', 'b:eth1']\n";
    let mut lab = TestLab::of_text("broken", text);
    std::fs::write(lab.dir.path().join("bird.conf"), "protocol nonsense;\n").unwrap();
    let before = lab.look_at_host();
    let error = lab.fails(&["deploy", "-t", &lab.file]);
    assert!(
        error.contains("starting bird in node b") && error.contains("syntax error"),
        "{error}"
    );
    assert!(lab.processes().is_empty() && !lab.labs.exists());
    lab.assert_nothing_left(&before);
    lab.destroyed = true;
}

/// Segments, environment, binds, labels, private files, exit codes, names: what a file can say is so in the node.
#[test]
fn nodes_are_as_the_file_says() {
    if !needs::root_and("nodes_are_as_the_file_says", &[]) {
        return;
    }
    let text = r#"
name: small
mgmt: {ipv4-subnet: 192.168.77.0/24, ipv6-subnet: "fd77::/64"}
topology:
  defaults:
    kind: linux
    env: {WHO: defaults, ALSO: "yes"}
  kinds:
    linux: {image: alpine:3}
  nodes:
    a:
      env: {WHO: "${WHO_IS:=node}"}
      mgmt-ipv4: 192.168.77.50
      binds: [shared:/data:ro, "__clabNodeDir__/own:/own"]
      sysctls: {net.ipv4.ip_default_ttl: 77}
      exec: ["ip address add 10.0.0.1/24 dev eth1", "sh -c 'echo \"$WHO __clabNodeName__\" >/tmp/who'"]
    b:
      network-mode: none
      exec: ["ip address add 10.0.0.2/24 dev eth0", "false"]
    segment: {kind: bridge}
  links:
    - endpoints: ["a:eth1", "segment:p1"]
    - type: veth
      mtu: 1400
      endpoints: [{node: b, interface: eth0}, {node: segment, interface: p2}]
"#;
    let mut lab = TestLab::of_text("small", text);
    std::fs::create_dir(lab.dir.path().join("shared")).unwrap();
    std::fs::write(lab.dir.path().join("shared/file"), "of the host\n").unwrap();
    let deployed = lab.run(&["deploy", "-t", &lab.file]);
    assert!(deployed.status.success());
    let warnings = String::from_utf8_lossy(&deployed.stderr).into_owned();
    assert!(
        warnings.contains("node b: exec `false` failed: exit status: 1\n"),
        "{warnings}"
    );
    let a = |words: &[&str]| lab.run_in("a", words).unwrap();
    wait("the segment carries packets", CONVERGED, || {
        lab.run_in("a", &["ping", "-c1", "-W2", "10.0.0.2"]).map(drop)
    });
    assert_eq!(a(&["cat", "/tmp/who"]), "node a\n");
    assert_eq!(a(&["sh", "-c", "echo $ALSO"]), "yes\n");
    assert_eq!(a(&["cat", "/data/file"]), "of the host\n");
    lab.run_in("a", &["touch", "/data/file"])
        .expect_err("the bind is read-only");
    assert_eq!(a(&["cat", "/proc/sys/net/ipv4/ip_default_ttl"]), "77\n");
    assert!(a(&["ip", "-br", "address", "show", "eth0"]).contains("192.168.77.50/24"));
    assert!(a(&["cat", "/etc/hosts"]).contains("192.168.77.50 a clab-small-a\n"));
    assert!(
        lab.run_in("b", &["ip", "link", "show", "eth0"])
            .unwrap()
            .contains("mtu 1400")
    );
    // What a node writes stays in it.
    a(&[
        "sh",
        "-c",
        "echo x >/etc/margay-test; echo x >/tmp/margay-test; echo x >/margay-test; echo x >/own/margay-test",
    ]);
    for file in ["/etc/margay-test", "/tmp/margay-test", "/margay-test"] {
        assert!(!std::path::Path::new(file).exists(), "{file} reached the host");
    }
    assert_eq!(
        std::fs::read_to_string(lab.labs.join("small/nodes/a/own/margay-test")).unwrap(),
        "x\n"
    );
    let code = lab
        .run(&["exec", "-t", &lab.file, "a", "--", "sh", "-c", "exit 42"])
        .status
        .code();
    assert_eq!(code, Some(42));
    let inspected: serde_json::Value =
        serde_json::from_str(&lab.ok(&["inspect", "-t", &lab.file, "-o", "json"])).unwrap();
    let first = &inspected["small"][0];
    assert_eq!(
        (first["name"].as_str(), first["state"].as_str()),
        (Some("clab-small-a"), Some("running"))
    );
    assert_eq!(first["ipv4_address"], "192.168.77.50/24");
    let again = lab.fails(&["deploy", "-t", &lab.file]);
    assert!(again.contains("lab small is already deployed"), "{again}");
    let nobody = lab.fails(&["exec", "-t", &lab.file, "c", "--", "true"]);
    assert!(
        nobody.contains("lab small has no node c; nodes: a, b, segment"),
        "{nobody}"
    );
    // A node whose first process is killed is gone whole.
    let pid = first["pid"].as_u64().unwrap().to_string();
    assert!(Command::new("kill").args(["-9", &pid]).status().unwrap().success());
    wait("the dead node is told", CONVERGED, || {
        let told = lab.run(&["exec", "-t", &lab.file, "a", "--", "true"]);
        let told = String::from_utf8_lossy(&told.stderr).into_owned();
        if told.contains("node a is not running") {
            Ok(())
        } else {
            Err(told)
        }
    });
    lab.destroy();
    lab.ok(&["destroy", "-t", &lab.file]);
}
