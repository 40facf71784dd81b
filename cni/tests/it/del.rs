//! DEL.

use margay_cni::protocol::{Answer, Request};
use margay_cni::queue::Queue;
use margay_netlink::BridgeSpec;

use crate::node::{NODE_V4, Node, datagram, variables};

#[test]
fn del_removes_the_link_and_tells_the_agent_as_often_as_it_is_called() {
    let Some(node) = Node::new("del_removes_the_link_and_tells_the_agent_as_often_as_it_is_called") else {
        return;
    };
    let pod = node.pod("c1");
    assert_eq!(node.del(&pod).status, 0, "without an ADD");
    node.added(&pod);
    for _ in 0..2 {
        let outcome = node.del(&pod);
        assert_eq!((outcome.status, outcome.document), (0, serde_json::Value::Null));
        assert!(node.links().is_empty() && pod.links().is_empty());
    }
    let asked = node.agent.asked();
    assert_eq!(
        asked
            .iter()
            .filter(|request| matches!(request, Request::Del(_)))
            .count(),
        3
    );
    assert_eq!(node.queued(), 0);
}

#[test]
fn del_works_when_the_namespace_is_gone_or_not_named() {
    let Some(node) = Node::new("del_works_when_the_namespace_is_gone_or_not_named") else {
        return;
    };
    let plain = node.dir.path().join("left-over");
    std::fs::write(&plain, "").expect("writes");
    for netns in ["/run/netns/no-such", "", plain.to_str().expect("is text")] {
        let mut env = variables("DEL", &node.pod("c1"));
        env.retain(|(key, _)| key != "CNI_NETNS");
        env.push(("CNI_NETNS".into(), netns.into()));
        let outcome = node.call_with(&env, &node.config().to_string());
        assert_eq!(outcome.status, 0, "{netns}: {:#}", outcome.document);
        assert_eq!(node.agent.asked_names(), ["Del"], "{netns}");
    }
}

#[test]
fn without_an_agent_the_del_waits_on_disk() {
    let Some(mut node) = Node::new("without_an_agent_the_del_waits_on_disk") else {
        return;
    };
    let pod = node.pod("c1");
    node.added(&pod);
    node.agent.kill();
    for _ in 0..2 {
        assert_eq!(node.del(&pod).status, 0);
    }
    assert!(
        node.links().is_empty(),
        "the link is gone although the agent does not know"
    );
    let (waiting, unusable) = Queue::new(node.queue_dir()).pending().expect("reads");
    assert!(unusable.is_empty());
    let [entry] = waiting.as_slice() else {
        panic!("{waiting:?}")
    };
    assert_eq!(entry.del.attachment.container_id, "c1");
    assert_eq!(entry.del.pod.as_ref().expect("is named").name, "q1");

    // What waits is the agent's: it settles it before it serves the attachment again.
    node.restart_agent();
    node.added(&pod);
    assert_eq!(node.agent.asked_names(), ["Add"]);
    assert_eq!(node.queued(), 1);
}

#[test]
fn a_del_that_the_agent_could_not_finish_stays_written_down() {
    let Some(node) = Node::new("a_del_that_the_agent_could_not_finish_stays_written_down") else {
        return;
    };
    let pod = node.pod("c1");
    node.added(&pod);
    node.agent.will_queue_dels(Queue::new(node.queue_dir()));
    for _ in 0..2 {
        assert_eq!(node.del(&pod).status, 0);
        assert_eq!(node.queued(), 1, "the address is lost for ever without it");
    }
    node.added(&pod);
    assert_eq!(node.queued(), 1);
}

#[test]
fn a_del_that_can_be_neither_sent_nor_kept_fails() {
    let Some(mut node) = Node::new("a_del_that_can_be_neither_sent_nor_kept_fails") else {
        return;
    };
    node.agent.kill();
    std::fs::write(node.queue_dir(), "in the way").expect("writes");
    let outcome = node.del(&node.pod("c1"));
    let (code, msg) = outcome.error();
    assert_eq!(code, 11);
    assert!(msg.starts_with("the agent is not running"), "{msg}");
    let details = outcome.document["details"].as_str().expect("says more");
    assert!(
        details.starts_with("The DEL could not be kept for later either: "),
        "{details}"
    );
}

#[test]
fn what_is_not_ours_stays() {
    let Some(node) = Node::new("what_is_not_ours_stays") else {
        return;
    };
    let pod = node.pod("c1");
    pod.connection()
        .create_bridge(&BridgeSpec {
            name: "eth0",
            ..BridgeSpec::default()
        })
        .expect("makes it");
    assert_eq!(node.del(&pod).status, 0);
    assert_eq!(pod.links(), ["eth0"]);

    // A runtime that names the host's own namespace must not cost it an interface.
    let victim = node.pod("c2");
    node.added(&victim);
    let mut env = variables("DEL", &victim);
    env.retain(|(key, _)| key != "CNI_NETNS" && key != "CNI_IFNAME");
    env.push(("CNI_NETNS".into(), "/proc/self/ns/net".into()));
    env.push(("CNI_IFNAME".into(), "mgy16ff9610a79".into()));
    assert_eq!(node.call_with(&env, &node.config().to_string()).status, 0);
    datagram(&victim.netns, &node.netns, NODE_V4).expect("passes");
}

#[test]
fn a_changed_configuration_does_not_keep_a_pod_from_going() {
    let Some(node) = Node::new("a_changed_configuration_does_not_keep_a_pod_from_going") else {
        return;
    };
    let pod = node.pod("c1");
    node.added(&pod);
    let mut config = node.config();
    config["colour"] = "red".into();
    node.agent.will_answer(Some(Answer::Done));
    assert_eq!(node.call("DEL", &pod, config).status, 0);
    assert!(pod.links().is_empty());
}
