//! Routers as public labs make them: by containerlab's own kind, and by `exec`.

use std::time::Duration;

use margay_testkit::needs;

use super::harness::{TestLab, wait};

const CONVERGED: Duration = Duration::from_secs(60);
const FRR: &[&str] = &["/usr/lib/frr/bgpd"];

/// Kind `frr`: the configuration is in the topology, `extras` says which daemons run.
#[test]
fn the_kind_frr_runs_the_daemons_that_are_asked_for() {
    if !needs::root_and("the_kind_frr_runs_the_daemons_that_are_asked_for", FRR) {
        return;
    }
    let text = r#"
name: frr01
topology:
  groups:
    routers: {kind: frr, image: "quay.io/frrouting/frr:containerlab-10.7.1", extras: {frr: {daemons: [ospfd]}}}
    hosts: {kind: linux, image: "wbitt/network-multitool:3.22.2"}
  nodes:
    router1:
      group: routers
      startup-config: |
        hostname __clabNodeName__
        interface eth3
         ip address 192.168.11.1/24
         ip ospf area 0
        router ospf
    router2: {kind: frrouting, image: frr, hostname: second}
    PC1:
      group: hosts
      exec: [ip link set eth1 up, ip addr add 192.168.11.2/24 dev eth1]
  links:
    - endpoints: ["PC1:eth1", "router1:eth3"]
    - type: veth
      endpoints:
        - {node: router1, interface: eth4, mac: "02:00:00:00:00:14", ipv4: 10.0.0.0/31}
        - {node: router2, interface: eth4, ipv6: "fd00:4::2/64"}
      labels: {colour: red}
    - endpoints: ["router1:eth5", "router2:eth5"]
      ipv4: [10.0.5.0/31, 10.0.5.1/31]
"#;
    let mut lab = TestLab::of_text("frr01", text);
    let deployed = lab.run(&["deploy", "-t", &lab.file]);
    let words = String::from_utf8_lossy(&deployed.stderr).into_owned();
    assert!(deployed.status.success(), "{words}");
    assert!(
        words.contains("topology.links[1].labels: has no effect here"),
        "link labels are told: {words}"
    );
    wait("router1's interface is in the area", CONVERGED, || {
        let told = lab.run_in("router1", &["vtysh", "-c", "show ip ospf interface"])?;
        told.contains("eth3").then_some(()).ok_or(told)
    });
    wait("PC1 reaches router1", CONVERGED, || {
        lab.run_in("PC1", &["ping", "-c1", "-W1", "192.168.11.1"]).map(drop)
    });
    let runs = |node: &str, daemon: &str| lab.run_in(node, &["pgrep", "-x", daemon]).is_ok();
    assert!(runs("router1", "ospfd") && !runs("router1", "bgpd"));
    assert!(runs("router2", "bgpd") && runs("router2", "ospfd"), "unset means all");
    assert_eq!(lab.run_in("router2", &["hostname"]).unwrap(), "second\n");
    assert_eq!(
        lab.run_in("router1", &["vtysh", "-c", "show running-config"])
            .unwrap()
            .matches("hostname router1")
            .count(),
        1
    );

    let shown = |node: &str, interface: &str| lab.run_in(node, &["ip", "address", "show", interface]).unwrap();
    let eth4 = shown("router1", "eth4");
    assert!(
        eth4.contains("02:00:00:00:00:14") && eth4.contains("10.0.0.0/31"),
        "{eth4}"
    );
    assert!(shown("router2", "eth4").contains("fd00:4::2/64"));
    lab.run_in("router1", &["ping", "-c1", "-W2", "10.0.5.1"]).unwrap();
    lab.destroy();
}

/// `cmd` in place of what the image runs, and everything else by `exec`.
#[test]
fn frr_starts_by_exec_as_in_its_image() {
    if !needs::root_and("frr_starts_by_exec_as_in_its_image", FRR) {
        return;
    }
    let text = r#"
name: made-by-exec
topology:
  nodes:
    router0:
      kind: linux
      image: frrouting/frr:v8.4.0
      cmd: bash
      exec:
        - ip addr add 10.0.1.1/24 dev net0
        - sed -i -e 's/bgpd=no/bgpd=yes/g' /etc/frr/daemons
        - /usr/lib/frr/frrinit.sh start
        - vtysh -c 'conf t' -c 'log file /etc/frr/frr.log' -c 'router bgp 65000' -c 'neighbor 10.0.1.2 remote-as external'
    server0: {kind: linux, image: "nicolaka/netshoot:v0.11", exec: [ip addr add 10.0.1.2/24 dev net0]}
  links:
    - endpoints: ["router0:net0", "server0:net0"]
"#;
    let mut lab = TestLab::of_text("made-by-exec", text);
    let deployed = lab.run(&["deploy", "-t", &lab.file]);
    let words = String::from_utf8_lossy(&deployed.stderr).into_owned();
    assert!(deployed.status.success() && !words.contains("failed"), "{words}");
    let told = lab.run_in("router0", &["vtysh", "-c", "show bgp summary"]).unwrap();
    assert!(told.contains("10.0.1.2"), "{told}");
    lab.run_in("router0", &["test", "-f", "/etc/frr/frr.log"]).unwrap();
    lab.destroy();
}
