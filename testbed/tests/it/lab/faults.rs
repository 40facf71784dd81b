//! Faulty topology files: each fault is one message with its place, its field and the way out, and nothing is made.

use super::harness::TestLab;

const HEAD: &str =
    "name: faulty\ntopology:\n  defaults: {kind: linux, image: alpine}\n  nodes:\n    a: {}\n    b: {}\n";

/// What `margay-lab deploy` says about the file, without the program's and the file's name.
fn told(text: &str) -> Vec<String> {
    let mut lab = TestLab::of_text("faulty", text);
    lab.destroyed = true;
    let error = lab.fails(&["deploy", "-t", &lab.file]);
    assert!(!lab.labs.exists(), "a faulty file must leave nothing");
    let error = error.strip_prefix("margay-lab: ").unwrap();
    error
        .lines()
        .map(|l| l.strip_prefix(lab.file.as_str()).unwrap_or(l).to_owned())
        .collect()
}

#[rstest::rstest]
#[case::unknown_kind(
    "name: x\ntopology:\n  nodes:\n    r1:\n      kind: arista_ceos\n      startup-config: r1.cfg\n",
    ":5:13: topology.nodes.r1.kind: unknown kind \"arista_ceos\"; known here: linux, bridge, frr (another router is kind linux \
     with its image; vendors' kinds need containerlab itself)"
)]
#[case::unknown_daemon(
    "name: x\ntopology:\n  nodes:\n    r1: {kind: frr, image: frr, extras: {frr: {daemons: [bgp]}}}\n",
    ":4:58: topology.nodes.r1.extras.frr.daemons: \"bgp\" is no daemon of FRR; known here: bgpd, ospfd, ospf6d, ripd, ripngd, \
     isisd, pimd, pim6d, ldpd, nhrpd, eigrpd, babeld, pbrd, bfdd, fabricd, vrrpd, pathd"
)]
#[case::open_brace(
    "name: x\ntopology:\n  nodes:\n    a:\n      kind: linux\n      image: alpine\n      exec: ['echo ${A']\n",
    ":7:1: has a ${ without its } on this line; close it, or write $${"
)]
#[case::far_from_any_field(
    "name: x\nmgmt: {k8s: 1}\ntopology: {nodes: {a: {kind: linux, image: alpine}}}\n",
    ":2:8: mgmt.k8s: unknown field; known here: network, bridge, ipv4-subnet, ipv6-subnet, ipv4-gw, ipv6-gw, ipv4-range, \
     ipv6-range, mtu, external-access, skip-when-unused, driver-opts, driver, macvlan-parent, macvlan-mode, macvlan-aux"
)]
#[case::host_kind(
    "name: x\ntopology:\n  nodes:\n    h: {kind: host}\n",
    ":4:15: topology.nodes.h.kind: kind host is refused: a lab here never touches the host's own network; use kind linux"
)]
#[case::unknown_image(
    "name: x\ntopology:\n  nodes:\n    s: {kind: linux, image: ghcr.io/nokia/srlinux}\n",
    ":4:29: topology.nodes.s.image: no program is known for image \"ghcr.io/nokia/srlinux\"; known here: frr, bird, gobgp, \
     netshoot, network-multitool, alpine, busybox, debian, ubuntu, margay/node"
)]
#[case::unknown_field(
    "name: x\ntopology:\n  nodes:\n    a: {kind: linux, image: alpine, bind: []}\n",
    ":4:37: topology.nodes.a.bind: unknown field; did you mean \"binds\"?"
)]
#[case::unknown_section(
    "name: x\ntopolgy: {}\ntopology: {nodes: {a: {kind: linux, image: alpine}}}\n",
    ":2:1: topolgy: unknown field; did you mean \"topology\"?"
)]
#[case::missing_bind(
    "name: x\ntopology:\n  nodes:\n    a: {kind: linux, image: alpine, binds: ['/nowhere/at/all:/x']}\n",
    ":4:45: topology.nodes.a.binds: /nowhere/at/all does not exist; create it or drop the bind"
)]
#[case::bad_subnet(
    "name: x\nmgmt: {ipv4-subnet: 10.0.0.300/24}\ntopology: {nodes: {a: {kind: linux, image: alpine}}}\n",
    ":2:21: mgmt.ipv4-subnet: \"10.0.0.300/24\" is wrong; write a subnet such as 172.20.20.0/24"
)]
#[case::bad_mgmt_address(
    "name: x\ntopology: {nodes: {a: {kind: linux, image: alpine, mgmt-ipv4: 10.0.0.1}}}\n",
    ":2:63: topology.nodes.a.mgmt-ipv4: 10.0.0.1 is not a host of 172.20.20.0/24; choose one, or change mgmt"
)]
#[case::no_name(
    "topology: {nodes: {a: {kind: linux, image: alpine}}}\n",
    ":1:1: name: missing; every lab needs a name of its own"
)]
fn one_fault_is_one_message(#[case] text: &str, #[case] want: &str) {
    assert_eq!(told(text), [want]);
}

#[rstest::rstest]
#[case::used_twice(
    "[{endpoints: ['a:eth1', 'b:eth1']}, {endpoints: ['a:eth1', 'b:eth2']}]",
    ":8:59: topology.links[1].endpoints: a:eth1 is already an end of the link on line 8; use another interface"
)]
#[case::unknown_node(
    "[{endpoints: ['a:eth1', 'c:eth1']}]",
    ":8:34: topology.links[0].endpoints: no node \"c\" in topology.nodes; nodes: a, b"
)]
#[case::long_name(
    "[{endpoints: ['a:eth1', 'b:ethernet-one-two']}]",
    ":8:34: topology.links[0].endpoints: interface \"ethernet-one-two\" has 16 characters and the kernel takes 15; use one \
     such as eth1"
)]
#[case::management(
    "[{endpoints: ['a:eth0', 'b:eth1']}]",
    ":8:24: topology.links[0].endpoints: eth0 of a is its management interface; use eth1, or give the node network-mode: none"
)]
#[case::address_without_prefix(
    "[{endpoints: ['a:eth1', 'b:eth1'], ipv4: [10.0.0.1, 10.0.0.2/24]}]",
    ":8:52: topology.links[0].ipv4: \"10.0.0.1\" is no ipv4 address with the length of its prefix; write one such as 10.0.0.1/24"
)]
#[case::group_address(
    "[{endpoints: [{node: a, interface: eth1, mac: '01:00:00:00:00:01'}, 'b:eth1']}]",
    ":8:56: topology.links[0].endpoints.mac: \"01:00:00:00:00:01\" is not an interface's address; write one such as \
     02:00:00:00:00:01"
)]
#[case::one_end(
    "[{endpoints: ['a:eth1']}]",
    ":8:23: topology.links[0].endpoints: a link has two ends, this one 1"
)]
#[case::host(
    "[{endpoints: ['a:eth1', 'host:eth1']}]",
    ":8:34: topology.links[0].endpoints: \"host\" is refused: a lab here never touches the host's own network; link two nodes"
)]
fn one_faulty_link_is_one_message(#[case] links: &str, #[case] want: &str) {
    assert_eq!(told(&format!("{HEAD}\n  links: {links}\n")), [want]);
}

#[test]
fn all_faults_are_told_together_in_the_order_of_the_file() {
    let text = "name: x\nmgmt: {mtu: big}\ntopology:\n  nodes:\n    a: {kind: linux}\n    b: {kind: srl}\n  \
                links:\n    - endpoints: ['a:eth1', 'c:eth1']\n";
    let told = told(text);
    let fields: Vec<&str> = told.iter().map(|l| l.split(": ").nth(1).unwrap()).collect();
    assert_eq!(
        fields,
        [
            "mgmt.mtu",
            "topology.nodes.a.image",
            "topology.nodes.b.kind",
            "topology.links[0].endpoints"
        ],
        "{told:#?}"
    );
}

#[test]
fn what_is_no_yaml_is_said_so() {
    let told = told("name: [x\n").join("\n");
    assert!(told.contains("not YAML") && told.contains('1'), "{told}");
}
