//! What NetworkPolicies do to packets.

use std::pin::Pin;

use serde_json::json;

use super::lab::Via::{Tcp, Udp};
use super::lab::{Lab, NEIGHBOUR};
use super::on_both_backends;

type Test<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;

on_both_backends!(
    selectors_and_default_deny,
    ports,
    blocks,
    egress,
    denied_until_known,
    many_endpoints_and_ports
);

fn selectors_and_default_deny(lab: &mut Lab) -> Test<'_> {
    Box::pin(async move {
        lab.begin(&[("shop", "a"), ("other", "b")]).await;
        for (name, app) in [("shop/web", "web"), ("shop/db", "db"), ("other/web", "web")] {
            lab.pod(name, app, json!([])).await;
        }
        let open = [
            ("shop/web", "shop/db", Tcp, 5432, true),
            ("other/web", "shop/db", Udp, 53, true),
            ("192.0.2.1", "shop/db", Tcp, 80, true),
        ];
        lab.expect(&open).await;

        lab.policy(
            "shop/default-deny",
            json!({"podSelector": {}, "policyTypes": ["Ingress"]}),
        );
        lab.settled().await;
        lab.expect(&[
            ("shop/web", "shop/db", Tcp, 5432, false),
            ("other/web", "shop/db", Udp, 53, false),
            ("192.0.2.1", "shop/db", Tcp, 80, false),
            ("shop/db", "other/web", Tcp, 80, true),
            ("shop/db", "192.0.2.1", Tcp, 80, true),
        ])
        .await;

        lab.policy(
            "shop/from-web",
            json!({"podSelector": {"matchLabels": {"app": "db"}}, "ingress": [
            {"from": [{"podSelector": {"matchLabels": {"app": "web"}}}], "ports": [{"port": 5432}]}]}),
        );
        lab.settled().await;
        lab.expect(&[
            ("shop/web", "shop/db", Tcp, 5432, true),
            ("shop/web", "shop/db", Tcp, 5433, false),
            ("shop/web", "shop/db", Udp, 5432, false),
            ("other/web", "shop/db", Tcp, 5432, false),
            ("10.0.1.200", "shop/db", Tcp, 5432, false),
            ("fd00:1::200", "shop/db", Tcp, 5432, false),
        ])
        .await;

        lab.policy("shop/from-web", json!({"podSelector": {"matchLabels": {"app": "db"}}, "ingress": [
            {"from": [{"namespaceSelector": {"matchLabels": {"team": "b"}}, "podSelector": {"matchLabels": {"app": "web"}}}]}]}));
        lab.settled().await;
        lab.expect(&[
            ("shop/web", "shop/db", Tcp, 5432, false),
            ("other/web", "shop/db", Tcp, 5432, true),
        ])
        .await;
        lab.namespace("other", "c");
        lab.settled().await;
        lab.expect(&[("other/web", "shop/db", Tcp, 5432, false)]).await;
        lab.namespace("other", "b");
        lab.settled().await;
        lab.expect(&[("other/web", "shop/db", Tcp, 5432, true)]).await;
        lab.relabel("other/web", "api");
        lab.settled().await;
        lab.expect(&[("other/web", "shop/db", Tcp, 5432, false)]).await;

        lab.no_policy("shop/from-web");
        lab.no_policy("shop/default-deny");
        lab.settled().await;
        lab.expect(&open).await;
    })
}

fn ports(lab: &mut Lab) -> Test<'_> {
    Box::pin(async move {
        lab.begin(&[("shop", "a")]).await;
        let named = |port| json!([{"name": "metrics", "containerPort": port}, {"name": "metrics", "containerPort": 53, "protocol": "UDP"}]);
        lab.pod("shop/a", "web", named(9100)).await;
        lab.pod("shop/b", "web", named(9200)).await;
        lab.pod("shop/none", "web", json!([])).await;
        lab.policy(
            "shop/ports",
            json!({"podSelector": {}, "ingress": [{"ports": [
            {"port": 8000, "endPort": 8010}, {"port": 443}, {"port": "metrics"}, {"protocol": "UDP", "port": 1}]}]}),
        );
        lab.settled().await;
        lab.expect(&[
            ("shop/a", "shop/b", Tcp, 7999, false),
            ("shop/a", "shop/b", Tcp, 8000, true),
            ("shop/a", "shop/b", Tcp, 8010, true),
            ("shop/a", "shop/b", Tcp, 8011, false),
            ("shop/a", "shop/b", Udp, 8000, false),
            ("shop/a", "shop/b", Tcp, 443, true),
            ("shop/b", "shop/a", Tcp, 9100, true),
            ("shop/b", "shop/a", Tcp, 9200, false),
            ("shop/a", "shop/b", Tcp, 9200, true),
            ("shop/a", "shop/b", Tcp, 9100, false),
            ("shop/a", "shop/b", Udp, 53, false),
            ("shop/a", "shop/b", Udp, 1, true),
            ("shop/a", "shop/none", Tcp, 9100, false),
            ("192.0.2.1", "shop/none", Tcp, 443, true),
        ])
        .await;

        lab.policy(
            "shop/ports",
            json!({"podSelector": {"matchLabels": {"app": "web"}}, "policyTypes": ["Egress"], "egress": [
            {"to": [{"podSelector": {}}], "ports": [{"port": "metrics"}, {"port": "metrics", "protocol": "UDP"}]},
            {"to": [{"ipBlock": {"cidr": "192.0.2.0/24"}}], "ports": [{"port": "metrics"}, {"port": 80}]}]}),
        );
        lab.settled().await;
        lab.expect(&[
            ("shop/b", "shop/a", Tcp, 9100, true),
            ("shop/b", "shop/a", Tcp, 9200, false),
            ("shop/a", "shop/b", Tcp, 9200, true),
            ("shop/a", "shop/b", Udp, 53, true),
            ("shop/a", "shop/none", Tcp, 9100, false),
            ("shop/a", "192.0.2.1", Tcp, 9100, false),
            ("shop/a", "192.0.2.1", Tcp, 80, true),
            ("192.0.2.1", "shop/a", Tcp, 80, true),
        ])
        .await;
    })
}

fn blocks(lab: &mut Lab) -> Test<'_> {
    Box::pin(async move {
        lab.begin(&[("shop", "a")]).await;
        lab.pod("shop/a", "web", json!([])).await;
        lab.pod("shop/b", "web", json!([])).await;
        let from = |peers: serde_json::Value| json!({"podSelector": {}, "ingress": [{"from": peers}]});
        lab.policy(
            "shop/blocks",
            from(json!([
            {"ipBlock": {"cidr": "192.0.2.0/24", "except": ["192.0.2.64/26", "192.0.2.77/32"]}},
            {"ipBlock": {"cidr": "2001:db8::/64", "except": ["2001:db8::40/122"]}}])),
        );
        lab.settled().await;
        lab.expect(&[
            ("192.0.2.1", "shop/a", Tcp, 80, true),
            ("192.0.2.77", "shop/a", Tcp, 80, false),
            ("203.0.113.5", "shop/a", Tcp, 80, false),
            ("2001:db8::1", "shop/a", Tcp, 80, true),
            ("2001:db8::77", "shop/a", Tcp, 80, false),
            ("2001:db8:1::5", "shop/a", Tcp, 80, false),
            ("shop/b", "shop/a", Tcp, 80, false),
        ])
        .await;
        // What one policy excepts another may allow; a /0 of one family says nothing of the other.
        lab.policy(
            "shop/more",
            from(json!([{"ipBlock": {"cidr": "0.0.0.0/0", "except": ["203.0.113.0/24"]}}])),
        );
        lab.settled().await;
        lab.expect(&[
            ("192.0.2.77", "shop/a", Tcp, 80, true),
            ("203.0.113.5", "shop/a", Tcp, 80, false),
            ("10.0.1.200", "shop/a", Tcp, 80, true),
            ("2001:db8::77", "shop/a", Tcp, 80, false),
            ("fd00:1::200", "shop/a", Tcp, 80, false),
        ])
        .await;
        // A block may contain pods, and overlap with a smaller one.
        lab.policy(
            "shop/more",
            from(
                json!([{"ipBlock": {"cidr": "10.0.1.0/24"}}, {"ipBlock": {"cidr": "10.0.1.2/32"}},
            {"ipBlock": {"cidr": "::/0"}}]),
            ),
        );
        lab.settled().await;
        lab.expect(&[
            ("shop/b", "shop/a", Tcp, 80, true),
            ("203.0.113.5", "shop/a", Tcp, 80, false),
            ("2001:db8:1::5", "shop/a", Tcp, 80, true),
        ])
        .await;
    })
}

fn egress(lab: &mut Lab) -> Test<'_> {
    Box::pin(async move {
        lab.begin(&[("shop", "a"), ("other", "b")]).await;
        lab.pod("shop/a", "web", json!([])).await;
        lab.pod("shop/b", "db", json!([])).await;
        lab.pod("other/c", "db", json!([])).await;
        lab.policy(
            "shop/deny",
            json!({"podSelector": {"matchLabels": {"app": "web"}}, "policyTypes": ["Egress"]}),
        );
        lab.settled().await;
        lab.expect(&[
            ("shop/a", "shop/b", Tcp, 80, false),
            ("shop/a", "192.0.2.1", Tcp, 80, false),
            ("shop/a", "2001:db8::1", Udp, 80, false),
            ("shop/b", "shop/a", Tcp, 80, true),
            ("192.0.2.1", "shop/a", Tcp, 80, true),
        ])
        .await;
        lab.policy(
            "shop/allow",
            json!({"podSelector": {"matchLabels": {"app": "web"}}, "policyTypes": ["Egress"], "egress": [
            {"to": [{"podSelector": {"matchLabels": {"app": "db"}}}], "ports": [{"port": 5432}]},
            {"to": [{"ipBlock": {"cidr": "192.0.2.0/24"}}]}]}),
        );
        lab.settled().await;
        lab.expect(&[
            ("shop/a", "shop/b", Tcp, 5432, true),
            ("shop/a", "shop/b", Tcp, 80, false),
            ("shop/a", "other/c", Tcp, 5432, false),
            ("shop/a", "192.0.2.77", Udp, 9, true),
            ("shop/a", "203.0.113.5", Udp, 9, false),
        ])
        .await;
        // Both ends have a say.
        lab.policy(
            "shop/closed",
            json!({"podSelector": {"matchLabels": {"app": "db"}}, "policyTypes": ["Ingress"]}),
        );
        lab.settled().await;
        lab.expect(&[("shop/a", "shop/b", Tcp, 5432, false)]).await;
    })
}

fn denied_until_known(lab: &mut Lab) -> Test<'_> {
    Box::pin(async move {
        lab.begin(&[("shop", "a")]).await;
        lab.pod("shop/known", "web", json!([])).await;
        lab.wire("shop/new", "web", json!([])).await;
        let denied = [
            ("shop/known", "shop/new", Tcp, 80, false),
            ("shop/new", "shop/known", Tcp, 80, false),
            ("192.0.2.1", "shop/new", Tcp, 80, false),
            ("shop/new", "2001:db8::1", Tcp, 80, false),
            ("shop/new", "node", Tcp, 80, false),
            ("192.0.2.1", "shop/known", Tcp, 80, true),
        ];
        // Its interface is unknown; then known, but not what applies to it.
        lab.expect(&denied).await;
        lab.attach("shop/new");
        lab.settled().await;
        lab.expect(&denied).await;
        let error = lab
            .engine
            .wait_programmed(&super::lab::id("shop/new"), std::time::Duration::from_millis(1))
            .await
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "the policy of pod shop/new is not in force after 1ms: its pod is not known yet"
        );
        // Its policy arrives with it.
        lab.policy(
            "shop/udp-only",
            json!({"podSelector": {}, "ingress": [{"ports": [{"protocol": "UDP"}]}]}),
        );
        lab.tell_pod("shop/new");
        lab.programmed("shop/new").await;
        lab.expect(&[
            ("shop/known", "shop/new", Udp, 80, true),
            ("shop/known", "shop/new", Tcp, 80, false),
            ("shop/new", "2001:db8::1", Tcp, 80, true),
            (NEIGHBOUR[0], "shop/new", Tcp, 80, false),
        ])
        .await;
    })
}

fn many_endpoints_and_ports(lab: &mut Lab) -> Test<'_> {
    Box::pin(async move {
        lab.begin(&[("shop", "a")]).await;
        lab.pod("shop/a", "web", json!([])).await;
        // Interfaces that nobody is behind make the dispatch a tree.
        for i in 0..150u32 {
            let name = format!("crowd-{i}");
            let pod = json!({"metadata": {"namespace": "shop", "name": name, "uid": name, "labels": {"app": "crowd"}}, "spec": {"containers": []}});
            lab.tell(margay_felix::convert::pod(&serde_json::from_value(pod).unwrap()));
            let attachment = margay_felix::model::Attachment {
                uid: name.as_str().into(),
                interface: format!("mgy{:08x}", i.wrapping_mul(0x9e37_79b9)).into(),
                addresses: vec![format!("10.9.0.{i}").parse().unwrap()],
            };
            lab.tell(margay_felix::model::Update::Attachment(
                super::lab::id(&format!("shop/{name}")),
                Some(attachment),
            ));
        }
        lab.pod("shop/b", "web", json!([])).await;
        let ports: Vec<_> = (0..40)
            .map(|i| json!({"port": 1000 + 10 * i, "endPort": 1001 + 10 * i}))
            .collect();
        lab.policy(
            "shop/a-policy-with-a-name-too-long-for-a-chain",
            json!({"podSelector": {}, "ingress": [{"ports": ports}]}),
        );
        lab.settled().await;
        lab.expect(&[
            ("shop/a", "shop/b", Tcp, 1000, true),
            ("shop/b", "shop/a", Tcp, 1001, true),
            ("shop/b", "shop/a", Tcp, 1391, true),
            ("shop/b", "shop/a", Tcp, 1002, false),
            ("192.0.2.1", "shop/b", Tcp, 1200, true),
            ("192.0.2.1", "shop/b", Tcp, 1199, false),
        ])
        .await;
        let status = lab.engine.status();
        assert_eq!((status.endpoints.len(), status.policies[0].endpoints), (152, 152));
        assert_eq!(status.error, None);
    })
}
