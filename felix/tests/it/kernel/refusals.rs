//! What the kernel does not take: the part that it concerns is denied and told, everything else is in force.

use std::pin::Pin;
use std::time::Duration;

use margay_felix::dataplane::Backend;
use margay_felix::engine::BackendChoice;
use serde_json::{Value, json};

use super::lab::Via::Tcp;
use super::lab::{Lab, output};
use super::on_both_backends;

type Test<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;

on_both_backends!(
    one_full_set_denies_its_users_alone,
    rules_of_the_other_back_end_are_tried_again,
    a_set_in_use_keeps_no_other,
    a_policys_set_of_another_kind_is_avoided,
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
