//! What the kernel does not take: the part that it concerns is denied and told, everything else is in force.

use std::pin::Pin;
use std::time::Duration;

use margay_felix::dataplane::Backend;
use margay_felix::engine::{BackendChoice, EndpointState};
use margay_felix::model::Update;
use serde_json::{Value, json};

use super::lab::Via::Tcp;
use super::lab::{Lab, id, output};
use super::on_both_backends;

type Test<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;

on_both_backends!(
    one_full_set_denies_its_users_alone,
    rules_of_the_other_back_end_are_tried_again,
    a_set_in_use_keeps_no_other,
    a_policys_set_of_another_kind_is_avoided,
    a_refused_table_stops_no_other,
    a_refused_filter_keeps_what_was_in_force,
    a_family_that_nothing_judges_is_closed,
);

fn from_block(app: &str, cidr: &str, except: &[&str]) -> Value {
    json!({"podSelector": {"matchLabels": {"app": app}}, "ingress": [{"from": [{"ipBlock": {"cidr": cidr, "except": except}}]}]})
}

fn one_full_set_denies_its_users_alone(lab: &mut Lab) -> Test<'_> {
    Box::pin(async move {
        lab.config.rules.max_set_size = 4;
        lab.config.refresh_interval = Duration::from_millis(200);
        lab.restart().await;
        lab.begin(&[("shop", "a")]).await;
        lab.pod("shop/a", "full", json!([])).await;
        lab.pod("shop/b", "fits", json!([])).await;
        // 32 ranges in one batch with one.
        lab.policy("shop/a-full", from_block("full", "0.0.0.0/0", &["10.0.0.7/32"]));
        lab.policy("shop/b-fits", from_block("fits", "192.0.2.0/24", &[]));
        lab.settled().await;
        let expected = [
            ("192.0.2.1", "shop/a", Tcp, 80, false),
            ("203.0.113.5", "shop/a", Tcp, 80, false),
            ("192.0.2.1", "shop/b", Tcp, 80, true),
            ("203.0.113.5", "shop/b", Tcp, 80, false),
            ("shop/a", "192.0.2.1", Tcp, 80, true),
        ];
        lab.expect(&expected).await;
        let error = lab.engine.status().error.unwrap();
        assert!(
            error.starts_with("the policies that look at set mgy4-") && error.contains("full"),
            "{error}"
        );
        // What comes later is in force too, and so is what a restart finds.
        lab.pod("shop/c", "fits", json!([])).await;
        lab.expect(&[
            ("192.0.2.1", "shop/c", Tcp, 80, true),
            ("203.0.113.5", "shop/c", Tcp, 80, false),
        ])
        .await;
        lab.restart().await;
        lab.expect(&expected).await;
        assert_eq!(lab.engine.status().counters.repairs, 0, "nobody else changed anything");
        lab.policy("shop/a-full", from_block("full", "0.0.0.0/0", &["128.0.0.0/1"]));
        lab.settled().await;
        lab.expect(&[
            ("10.0.1.200", "shop/a", Tcp, 80, true),
            ("192.0.2.1", "shop/a", Tcp, 80, false),
        ])
        .await;
        assert_eq!(lab.engine.status().error, None);
    })
}

fn rules_of_the_other_back_end_are_tried_again(lab: &mut Lab) -> Test<'_> {
    Box::pin(async move {
        lab.begin(&[("shop", "a")]).await;
        lab.pod("shop/a", "web", json!([])).await;
        let old = lab.engine.status().backend;
        // Somebody else's jump keeps the kernel from removing our chain.
        lab.iptables("-N theirs");
        lab.iptables("-A theirs -j mgy-allow");
        lab.config.backend = match old {
            Backend::Nft => BackendChoice::Legacy,
            Backend::Legacy => BackendChoice::Nft,
        };
        lab.config.refresh_interval = Duration::from_millis(200);
        lab.restart().await;
        let error = lab.engine.status().error.unwrap();
        let told = format!("rules of an earlier run with iptables {old} judge packets too");
        assert!(error.starts_with(&told), "{error}");
        lab.settled().await;
        output(&format!("iptables-{old}"), &["-w", "10", "-F", "theirs"]);
        lab.condition("no error any more", |lab| lab.engine.status().error.is_none())
            .await;
        let left = output(&format!("iptables-{old}-save"), &[]);
        assert!(!left.contains("mgy"), "{left}");
    })
}

fn a_set_in_use_keeps_no_other(lab: &mut Lab) -> Test<'_> {
    Box::pin(async move {
        lab.begin(&[("shop", "a")]).await;
        lab.pod("shop/a", "web", json!([])).await;
        for name in ["mgy4-a", "mgy4-b", "mgy4-c"] {
            output("ipset", &["create", name, "hash:net"]);
        }
        lab.iptables("-A FORWARD -m set --match-set mgy4-b src -j DROP");
        lab.config.refresh_interval = Duration::from_millis(100);
        lab.restart().await;
        let names = || -> Vec<String> {
            let saved = output("ipset", &["list", "-name"]);
            saved
                .lines()
                .filter(|name| ["mgy4-a", "mgy4-b", "mgy4-c"].contains(name))
                .map(str::to_owned)
                .collect()
        };
        assert_eq!(names(), ["mgy4-b"]);
        lab.iptables("-D FORWARD -m set --match-set mgy4-b src -j DROP");
        lab.condition("its end once it is free", |_| names().is_empty()).await;
        assert_eq!(lab.engine.status().counters.repairs, 0);
    })
}

/// `create -exist` would refuse for ever what somebody holds under our name.
fn a_policys_set_of_another_kind_is_avoided(lab: &mut Lab) -> Test<'_> {
    Box::pin(async move {
        lab.begin(&[("shop", "a")]).await;
        lab.pod("shop/a", "web", json!([])).await;
        lab.policy("shop/block", from_block("web", "192.0.2.0/24", &[]));
        lab.settled().await;
        let saved = lab.saved();
        let set = saved
            .iter()
            .find_map(|line| line.strip_suffix(" 192.0.2.0/24")?.strip_prefix("add "))
            .unwrap();
        lab.no_policy("shop/block");
        lab.settled().await;
        lab.engine.shutdown().await;
        output("ipset", &["create", set, "hash:ip,port"]);
        lab.iptables(&format!("-A INPUT -m set --match-set {set} src,src -j DROP"));
        lab.policy("shop/block", from_block("web", "192.0.2.0/24", &[]));
        lab.restart().await;
        lab.expect(&[
            ("192.0.2.1", "shop/a", Tcp, 80, true),
            ("203.0.113.5", "shop/a", Tcp, 80, false),
        ])
        .await;
        assert_eq!(lab.engine.status().error, None);
    })
}

/// Somebody leads packets into our chain where MASQUERADE has no meaning: the kernel refuses that table.
fn a_refused_table_stops_no_other(lab: &mut Lab) -> Test<'_> {
    Box::pin(async move {
        for rule in [
            "-t nat -N mgy-POSTROUTING",
            "-t nat -N theirs",
            "-t nat -A theirs -j mgy-POSTROUTING",
            "-t nat -A PREROUTING -j theirs",
        ] {
            lab.iptables(rule);
        }
        lab.begin(&[("shop", "a")]).await;
        lab.pool("10.0.1.0/24", true);
        lab.pool("fd00:1::/64", true);
        lab.pod("shop/a", "web", json!([])).await;
        lab.pod("shop/b", "db", json!([])).await;
        lab.policy("shop/block", from_block("web", "192.0.2.0/24", &[]));
        lab.settled().await;
        lab.expect(&[
            ("192.0.2.1", "shop/a", Tcp, 80, true),
            ("203.0.113.5", "shop/a", Tcp, 80, false),
            ("2001:db8::1", "shop/a", Tcp, 80, false),
            ("2001:db8::1", "shop/b", Tcp, 80, true),
        ])
        .await;
        let status = lab.engine.status();
        let error = status.error.unwrap();
        let told = "the kernel does not take the IPv4 table nat, so that for IPv4 natOutgoing may not be in force: ip";
        assert!(error.starts_with(told) && !error.contains("IPv6"), "{error}");
        assert!(status.counters.failed > 0);
        let masquerades = |lab: &Lab| {
            let saved = lab.saved();
            saved.iter().filter(|line| line.contains("MASQUERADE")).count()
        };
        assert_eq!(masquerades(lab), 1, "of IPv6");
        lab.iptables("-t nat -F theirs");
        lab.condition("no error any more", |lab| lab.engine.status().error.is_none())
            .await;
        assert_eq!(masquerades(lab), 2);
        assert_eq!(
            lab.engine.status().counters.repairs,
            0,
            "nobody else changed anything of ours"
        );
    })
}

/// Holds on to a chain of ours that is going to be unwanted.
fn hold(lab: &Lab, chain: &str) {
    lab.iptables("-N theirs");
    lab.iptables(&format!("-A theirs -j {chain}"));
}

fn a_refused_filter_keeps_what_was_in_force(lab: &mut Lab) -> Test<'_> {
    Box::pin(async move {
        lab.begin(&[("shop", "a")]).await;
        for name in ["shop/a", "shop/b", "shop/c"] {
            lab.pod(name, "web", json!([])).await;
        }
        let client = |port: u16| json!({"podSelector": {"matchLabels": {"app": "web"}}, "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "client"}}}], "ports": [{"port": port}]}]});
        lab.policy("shop/p", client(80));
        lab.settled().await;
        hold(lab, &format!("mgy-tw-{}", lab.at("shop/c").interface));
        lab.tell(Update::Attachment(id("shop/c"), None));
        lab.policy("shop/p", client(81));
        let told = "the kernel does not take the IPv4 table filter, so that for IPv4 policy does not change and new pods do not start";
        lab.condition("a refusal", |lab| {
            lab.engine.status().error.is_some_and(|error| error.starts_with(told))
        })
        .await;
        let states = lab.engine.status().endpoints;
        assert!(
            states.iter().all(|endpoint| endpoint.state == EndpointState::Stale),
            "{states:?}"
        );
        // b is let in at another port than the rules of before say, and not let in at that.
        lab.relabel("shop/b", "client");
        let [v4, v6] = &lab.at("shop/a").addresses[..] else {
            panic!()
        };
        let (v4, v6) = (v4.to_string(), v6.to_string());
        let in_force = |lab: &Lab| {
            lab.saved()
                .iter()
                .any(|line| line.starts_with("add mgy6-") && line.contains("fd00:1::2"))
        };
        lab.condition("IPv6 to go on", in_force).await;
        lab.expect(&[
            ("shop/b", &v6, Tcp, 81, true),
            ("shop/b", &v6, Tcp, 80, false),
            ("shop/b", &v4, Tcp, 81, false),
            ("shop/b", &v4, Tcp, 80, false),
        ])
        .await;
        // A pod that comes now does not start, and nothing passes to it.
        lab.wire("shop/d", "other", json!([])).await;
        lab.tell_pod("shop/d");
        lab.attach("shop/d");
        let error = lab
            .engine
            .wait_programmed(&id("shop/d"), Duration::from_millis(500))
            .await;
        let error = error.unwrap_err().to_string();
        assert!(error.contains(told), "{error}");
        lab.expect(&[
            ("192.0.2.1", "shop/d", Tcp, 80, false),
            ("shop/d", "192.0.2.1", Tcp, 80, false),
        ])
        .await;
        lab.iptables("-F theirs");
        lab.programmed("shop/d").await;
        lab.expect(&[
            ("shop/b", "shop/a", Tcp, 81, true),
            ("shop/b", "shop/a", Tcp, 80, false),
            ("shop/d", "192.0.2.1", Tcp, 80, true),
        ])
        .await;
        assert_eq!(lab.engine.status().error, None);
    })
}

fn a_family_that_nothing_judges_is_closed(lab: &mut Lab) -> Test<'_> {
    Box::pin(async move {
        lab.begin(&[("shop", "a")]).await;
        lab.pod("shop/a", "web", json!([])).await;
        lab.pod("shop/b", "web", json!([])).await;
        lab.engine.shutdown().await;
        for table in ["raw", "nat", "filter"] {
            lab.iptables(&format!("-t {table} -F"));
            lab.iptables(&format!("-t {table} -X"));
        }
        lab.iptables("-N mgy-old");
        hold(lab, "mgy-old");
        lab.restart().await;
        let error = lab.engine.status().error.unwrap();
        let told = "nothing passes from or to pods by IPv4, as the rules that were there do not judge it";
        assert!(error.contains(told), "{error}");
        let v6 = lab.at("shop/b").addresses[1].to_string();
        lab.expect(&[
            ("shop/a", "192.0.2.1", Tcp, 80, false),
            ("192.0.2.1", "shop/a", Tcp, 80, false),
            ("shop/a", "2001:db8::1", Tcp, 80, true),
            ("shop/a", &v6, Tcp, 80, true),
        ])
        .await;
        lab.iptables("-F theirs");
        lab.condition("no error any more", |lab| lab.engine.status().error.is_none())
            .await;
        lab.expect(&[
            ("shop/a", "192.0.2.1", Tcp, 80, true),
            ("192.0.2.1", "shop/a", Tcp, 80, true),
            ("shop/a", "shop/b", Tcp, 80, true),
        ])
        .await;
        let closed = lab.saved().into_iter().find(|line| line.contains("closed"));
        assert_eq!(closed, None);
    })
}
