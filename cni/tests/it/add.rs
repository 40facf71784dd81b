//! ADD.

use margay_cni::protocol::{Answer, Failure, Request};
use margay_netlink::{BridgeSpec, Connection, NextHop, Op, Route, RouteFilter, VethSpec};
use serde_json::json;

use crate::agent::{ROUTE_PROTOCOL, attached};
use crate::node::{NODE_V4, NODE_V6, Node, datagram, variables};

const HOST_INTERFACE: &str = "mgy16ff9610a79";
const POD_V4: &str = "10.244.0.5";
const POD_V6: &str = "fd00:10:244::5";

#[test]
fn the_first_packet_passes_as_soon_as_add_returns() {
    let test = "the_first_packet_passes_as_soon_as_add_returns";
    // Each direction and family on a fresh pod, so that no earlier packet has warmed anything up.
    for (address, out) in [(NODE_V4, true), (NODE_V6, true), (POD_V4, false), (POD_V6, false)] {
        let Some(node) = Node::new(test) else { return };
        let pod = node.pod("c1");
        let (from, to) = if out {
            (&pod.netns, &node.netns)
        } else {
            (&node.netns, &pod.netns)
        };
        assert!(datagram(from, to, address).is_err(), "control: nothing passes before");
        node.added(&pod);
        let source = datagram(from, to, address).unwrap_or_else(|error| panic!("{address}: {error}"));
        let expected = match (out, source.is_ipv4()) {
            (true, true) => POD_V4,
            (true, false) => POD_V6,
            (false, true) => NODE_V4,
            (false, false) => NODE_V6,
        };
        assert_eq!(source.to_string(), expected);
    }
}

#[test]
fn the_agent_is_told_all_and_the_result_says_what_was_made() {
    let Some(node) = Node::new("the_agent_is_told_all_and_the_result_says_what_was_made") else {
        return;
    };
    let pod = node.pod("c1");
    let mut config = node.config();
    config["mtu"] = 1400.into();
    config["capabilities"] = json!({"mac": true, "ips": true});
    config["runtimeConfig"] = json!({"mac": "0a:58:0a:f4:00:05", "ips": ["10.244.0.5/26"]});
    let outcome = node.call("ADD", &pod, config);

    let asked = node.agent.asked();
    let [Request::Add(add)] = asked.as_slice() else {
        panic!("{asked:?}")
    };
    assert_eq!(
        serde_json::to_value(add).expect("serializes"),
        json!({
            "containerId": "c1", "network": "margay", "ifname": "eth0", "netns": pod.path(),
            "pod": {"namespace": "ns0", "name": "q1", "uid": "u-1", "infraContainerId": "x"},
            "hwAddr": "0a:58:0a:f4:00:05", "mtu": 1400, "ips": ["10.244.0.5"],
        })
    );
    assert_eq!(
        outcome.document,
        json!({
            "cniVersion": "1.1.0",
            "interfaces": [
                {"name": HOST_INTERFACE, "mac": "ee:ee:ee:ee:ee:ee", "mtu": 1450},
                {"name": "eth0", "mac": "0a:58:0a:f4:00:05", "sandbox": pod.path(), "mtu": 1450},
            ],
            "ips": [
                {"interface": 1, "address": "10.244.0.5/32", "gateway": "169.254.1.1"},
                {"interface": 1, "address": "fd00:10:244::5/128", "gateway": "fe80::ecee:eeff:feee:eeee"},
            ],
            "routes": [
                {"dst": "0.0.0.0/0", "gw": "169.254.1.1"},
                {"dst": "::/0", "gw": "fe80::ecee:eeff:feee:eeee"},
            ],
            "dns": {},
        })
    );
    assert_eq!(pod.eth0().mac.expect("has one").to_string(), "0a:58:0a:f4:00:05");
    assert_eq!((pod.eth0().mtu, node.link(HOST_INTERFACE).mtu), (1450, 1450));
    let addrs = Connection::open_in(&node.netns)
        .expect("connects")
        .addrs()
        .expect("lists");
    assert!(
        addrs.iter().all(|addr| !addr.tentative),
        "the router's address can be used: {addrs:?}"
    );
    assert!(
        pod.connection()
            .addrs()
            .expect("lists")
            .iter()
            .all(|addr| !addr.tentative)
    );
    let filter = RouteFilter {
        protocol: Some(ROUTE_PROTOCOL),
        ..RouteFilter::default()
    };
    let routes = Connection::open_in(&node.netns)
        .expect("connects")
        .routes(filter)
        .expect("lists");
    let destinations: Vec<String> = routes.iter().map(|route| route.dst.to_string()).collect();
    assert_eq!(destinations, ["10.244.0.5/32", "fd00:10:244::5/128"]);
}

#[test]
fn every_version_of_the_specification_gets_its_result() {
    let Some(node) = Node::new("every_version_of_the_specification_gets_its_result") else {
        return;
    };
    let pod = node.pod("c1");
    for version in ["0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
        let mut config = node.config();
        config["cniVersion"] = version.into();
        let outcome = node.call("ADD", &pod, config);
        assert_eq!((outcome.status, &outcome.document["cniVersion"]), (0, &json!(version)));
        let ip = &outcome.document["ips"][1];
        assert_eq!(ip.get("version").is_some(), version.starts_with('0'), "{ip}");
    }
}

#[test]
fn one_family_alone_works() {
    let Some(node) = Node::new("one_family_alone_works") else {
        return;
    };
    for (container, address, peer) in [("c4", "10.244.0.9/32", NODE_V4), ("c6", "fd00:10:244::9/128", NODE_V6)] {
        node.agent.will_attach(attached(&[address]));
        let pod = node.pod(container);
        let result = node.added(&pod);
        assert_eq!(result["routes"].as_array().expect("a list").len(), 1);
        let source = datagram(&pod.netns, &node.netns, peer).expect("passes");
        assert_eq!(format!("{source}/{}", if source.is_ipv4() { 32 } else { 128 }), address);
        assert_eq!(node.del(&pod).status, 0);
    }
}

#[test]
fn adding_twice_changes_nothing_and_says_the_same() {
    let Some(node) = Node::new("adding_twice_changes_nothing_and_says_the_same") else {
        return;
    };
    let pod = node.pod("c1");
    let first = node.added(&pod);
    let (near, far) = (node.link(HOST_INTERFACE), pod.eth0());
    assert_eq!(node.added(&pod), first);
    assert_eq!((node.link(HOST_INTERFACE), pod.eth0()), (near, far));
    assert_eq!(node.agent.asked_names(), ["Add", "Add"]);
}

#[test]
fn what_an_interrupted_add_left_is_completed_or_replaced() {
    let Some(node) = Node::new("what_an_interrupted_add_left_is_completed_or_replaced") else {
        return;
    };
    let pod = node.pod("c1");
    let spec = |mtu| VethSpec {
        name: HOST_INTERFACE,
        peer_name: "eth0",
        peer_netns: Some(&pod.netns),
        mac: Some(margay_cni::host::HOST_MAC),
        mtu: Some(mtu),
        ..VethSpec::default()
    };
    let mut host = Connection::open_in(&node.netns).expect("connects");
    // Right after the pair was made.
    let made = host.create_veth(&spec(1450)).expect("makes it");
    node.added(&pod);
    assert_eq!(node.link(HOST_INTERFACE).index, made.index, "it was completed");
    datagram(&pod.netns, &node.netns, NODE_V4).expect("passes");
    // The answer has changed in between.
    assert_eq!(node.del(&pod).status, 0);
    let made = host.create_veth(&spec(1300)).expect("makes it");
    node.added(&pod);
    assert_ne!(node.link(HOST_INTERFACE).index, made.index, "it was replaced");
    datagram(&pod.netns, &node.netns, NODE_V4).expect("passes");
}

#[test]
fn the_newer_sandbox_of_a_pod_takes_the_interface_over() {
    let Some(node) = Node::new("the_newer_sandbox_of_a_pod_takes_the_interface_over") else {
        return;
    };
    let (old, new) = (node.pod("old"), node.pod("new"));
    node.added(&old);
    node.added(&new);
    assert_eq!((old.links(), new.links()), (vec![], vec!["eth0".to_owned()]));
    assert_eq!(node.del(&old).status, 0);
    datagram(&new.netns, &node.netns, NODE_V4).expect("the old one's DEL does not concern the new one");
}

#[test]
fn without_an_agent_add_is_to_be_retried_and_makes_nothing() {
    let Some(mut node) = Node::new("without_an_agent_add_is_to_be_retried_and_makes_nothing") else {
        return;
    };
    node.agent.kill();
    let pod = node.pod("c1");
    let outcome = node.add(&pod);
    let (code, msg) = outcome.error();
    assert_eq!(code, 11);
    assert!(
        msg.starts_with("the agent is not running: nothing listens on /"),
        "{msg}"
    );
    assert!(
        outcome.document["details"]
            .as_str()
            .expect("says what to do")
            .contains("margay-node")
    );
    assert!(node.links().is_empty() && pod.links().is_empty());
}

#[test]
fn the_agents_refusal_is_passed_on() {
    let Some(node) = Node::new("the_agents_refusal_is_passed_on") else {
        return;
    };
    let pod = node.pod("c1");
    for (failure, code) in [
        (Failure::refused("pool v4 is full", "Add an IPPool."), 100),
        (Failure::try_again("pod ns0/q1 is not known yet", "Wait."), 11),
        (
            Failure {
                retryable: true,
                ..Failure::refused("busy", "Wait.")
            },
            11,
        ),
    ] {
        node.agent.will_answer(Some(Answer::Error(failure.clone())));
        let outcome = node.add(&pod);
        assert_eq!(outcome.error(), (code, failure.msg.as_str()));
        assert_eq!(outcome.document["details"], failure.details);
        assert_eq!(node.agent.asked_names(), ["Add"], "nothing to take back");
        assert!(node.links().is_empty() && pod.links().is_empty());
    }
}

#[test]
fn an_add_that_fails_late_takes_everything_back() {
    let Some(node) = Node::new("an_add_that_fails_late_takes_everything_back") else {
        return;
    };
    let pod = node.pod("c1");

    // Somebody else's interface in the pod.
    pod.connection()
        .create_bridge(&BridgeSpec {
            name: "eth0",
            ..BridgeSpec::default()
        })
        .expect("makes it");
    let outcome = node.add(&pod);
    let (code, msg) = outcome.error();
    assert_eq!(code, 4);
    assert!(
        msg.contains("has an interface eth0 already, and not from this plugin"),
        "{msg}"
    );
    assert_eq!(node.agent.asked_names(), ["Add", "Del"]);
    assert_eq!((node.links().len(), pod.links().len()), (0, 1));
    pod.connection().delete_link_by_name("eth0").expect("deletes");

    // Somebody else's route on the host.
    let theirs = Route::unicast("10.244.0.5/32".parse().expect("a network")).hop(NextHop::dev(1));
    node.change(Op::AddRoute(theirs.clone()));
    let outcome = node.add(&pod);
    let (code, msg) = outcome.error();
    assert_eq!(
        (code, msg),
        (
            101,
            "the host has a route to 10.244.0.5/32 already, which is not of this plugin"
        )
    );
    assert_eq!(node.agent.asked_names(), ["Add", "Del"]);
    assert!(node.links().is_empty() && pod.links().is_empty());
    let routes = Connection::open_in(&node.netns)
        .expect("connects")
        .routes(RouteFilter::default())
        .expect("lists");
    assert!(routes.contains(&theirs), "it was left alone: {routes:?}");
    node.change(Op::DeleteRoute(theirs));
    node.added(&pod);
}

#[test]
fn a_plugin_killed_while_it_waits_leaves_nothing_in_the_way() {
    let Some(node) = Node::new("a_plugin_killed_while_it_waits_leaves_nothing_in_the_way") else {
        return;
    };
    let pod = node.pod("c1");
    let mut config = node.config();
    let silent = node.dir.path().join("silent.sock");
    let listener = std::os::unix::net::UnixListener::bind(&silent).expect("listens");
    config["socket"] = silent.to_str().expect("is text").into();
    let mut child = node
        .netns
        .run(|| {
            std::process::Command::new(env!("CARGO_BIN_EXE_margay-cni"))
                .env_clear()
                .envs(variables("ADD", &pod))
                .stdin(std::process::Stdio::piped())
                .spawn()
                .expect("starts")
        })
        .expect("enters");
    use std::io::Write;
    child
        .stdin
        .take()
        .expect("is piped")
        .write_all(config.to_string().as_bytes())
        .expect("writes");
    let waiting = listener.accept().expect("it asks");
    child.kill().expect("kills");
    child.wait().expect("ends");
    drop(waiting);
    node.added(&pod);
    datagram(&pod.netns, &node.netns, NODE_V4).expect("passes");
}
