//! CHECK and STATUS.

use std::os::unix::net::UnixListener;

use margay_cni::protocol::{Answer, Failure, code};
use margay_netlink::{Addr, Op, Route};

use crate::agent::{Agent, ROUTE_PROTOCOL, attached};
use crate::node::{NODE_V4, NODE_V6, Node, Pod, datagram};

fn inside(pod: &Pod, op: Op) {
    pod.connection().apply(&op).expect("changes");
}

#[test]
fn check_names_what_is_broken_and_add_mends_it() {
    let Some(node) = Node::new("check_names_what_is_broken_and_add_mends_it") else {
        return;
    };
    let pod = node.pod("c1");
    let result = node.added(&pod);
    assert_eq!(node.check(&pod, &result).status, 0);

    // Numbers are looked up each time: some damage makes ADD start anew.
    let far = || pod.eth0().index;
    let near = || node.link("mgy16ff9610a79").index;
    let net = |text: &str| text.parse().expect("a network");
    let breaks: [(&str, &dyn Fn()); 9] = [
        ("address 10.244.0.5/32 is missing", &|| {
            inside(&pod, Op::DeleteAddr(Addr::new(far(), net("10.244.0.5/32"))));
        }),
        ("address fd00:10:244::5/128 is missing", &|| {
            inside(&pod, Op::DeleteAddr(Addr::new(far(), net("fd00:10:244::5/128"))));
        }),
        ("the route to 0.0.0.0/0 is missing", &|| {
            inside(&pod, Op::DeleteRoute(Route::on_link(net("0.0.0.0/0"), far())))
        }),
        ("the route to ::/0 is missing", &|| {
            inside(&pod, Op::DeleteRoute(Route::on_link(net("::/0"), far())))
        }),
        ("the interface is down", &|| inside(&pod, Op::SetUp(far(), false))),
        ("the MTU is 1300, not 1450", &|| inside(&pod, Op::SetMtu(far(), 1300))),
        ("host interface mgy16ff9610a79 is down", &|| {
            node.change(Op::SetUp(near(), false))
        }),
        (
            "the host has no route to 10.244.0.5/32 by way of mgy16ff9610a79",
            &|| {
                node.change(Op::DeleteRoute(
                    Route::on_link(net("10.244.0.5/32"), near()).protocol(ROUTE_PROTOCOL),
                ));
            },
        ),
        ("the interface is gone", &|| inside(&pod, Op::DeleteLink(far()))),
    ];
    for (fault, damage) in breaks {
        damage();
        let outcome = node.check(&pod, &result);
        let expected = format!("container c1, interface eth0: {fault}");
        assert_eq!(outcome.error(), (102, expected.as_str()), "{outcome:#?}");
        let result = node.added(&pod);
        assert_eq!(node.check(&pod, &result).status, 0, "mended: {fault}");
        for address in [NODE_V4, NODE_V6] {
            datagram(&pod.netns, &node.netns, address).unwrap_or_else(|error| panic!("{fault}: {address}: {error}"));
        }
    }
}

#[test]
fn check_asks_the_agent_and_needs_the_result_of_add() {
    let Some(mut node) = Node::new("check_asks_the_agent_and_needs_the_result_of_add") else {
        return;
    };
    let pod = node.pod("c1");
    let result = node.added(&pod);
    let outcome = node.call("CHECK", &pod, node.config());
    assert_eq!(outcome.error(), (7, "CHECK needs prevResult"));

    node.agent.will_attach(attached(&["10.244.0.6/32"]));
    let (code, msg) = (
        102,
        "address 10.244.0.5/32 is in prevResult, but the agent gave 10.244.0.6/32",
    );
    assert_eq!(
        node.check(&pod, &result).error(),
        (code, format!("container c1, interface eth0: {msg}").as_str())
    );
    let unknown = Failure::new(code::UNKNOWN_CONTAINER, "container c1 is not attached", "");
    node.agent.will_answer(Some(Answer::Error(unknown)));
    assert_eq!(node.check(&pod, &result).error(), (3, "container c1 is not attached"));
    node.agent.kill();
    assert_eq!(node.check(&pod, &result).error().0, 11);
}

#[test]
fn status_is_50_unless_the_agent_can_serve() {
    let Some(mut node) = Node::new("status_is_50_unless_the_agent_can_serve") else {
        return;
    };
    let status = |node: &Node| node.call_with(&[("CNI_COMMAND".into(), "STATUS".into())], &node.config().to_string());
    assert_eq!(status(&node).status, 0);
    for (code, expected) in [(code::TRY_AGAIN, 50), (code::NOT_AVAILABLE, 50), (code::LIMITED, 51)] {
        node.agent.will_answer(Some(Answer::Error(Failure::new(
            code,
            "no pool has free addresses",
            "Add one.",
        ))));
        assert_eq!(status(&node).error(), (expected, "no pool has free addresses"));
    }
    node.agent.kill();
    // The call finds the old agent at its end, and then the new one.
    let socket = node.dir.path().join("cni.sock");
    std::fs::remove_file(&socket).expect("was left behind");
    let old = UnixListener::bind(&socket).expect("listens");
    let (outcome, next) = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| status(&node));
        drop(old.accept().expect("the call comes"));
        drop(old);
        let next = Agent::start(&socket);
        (waiting.join().expect("returns"), next)
    });
    assert_eq!(outcome.status, 0, "{outcome:?}");
    drop(next);
    let outcome = status(&node);
    assert_eq!(outcome.error().0, 50);
    assert!(outcome.error().1.starts_with("the agent is not running"), "{outcome:?}");
}
