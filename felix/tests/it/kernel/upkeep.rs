//! Living with others in the kernel's tables, and with one's own past.

use std::pin::Pin;
use std::time::Duration;

use margay_felix::dataplane::Backend;
use margay_felix::engine::BackendChoice;
use serde_json::json;

use super::lab::Via::Tcp;
use super::lab::{Lab, output};
use super::on_both_backends;

type Test<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;

on_both_backends!(
    nothing_before_in_sync,
    the_check_can_fail,
    foreign_rules_stay,
    drift_is_repaired,
    a_restart_writes_nothing,
    leftovers_go,
    other_back_end_is_left,
    the_kernels_refusal_is_told_and_retried,
    changes_by_others_are_heard,
    a_flush_is_repaired_and_counted,
    what_was_written_is_looked_at_again,
);

/// Longer than any test: what happens sooner does not come of the refresh.
const NEVER: Duration = Duration::from_secs(1 << 28);

const FROM_WEB: fn(u16) -> serde_json::Value = |port| json!({"podSelector": {}, "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "web"}}}], "ports": [{"port": port}]}]});

async fn two_pods(lab: &mut Lab) {
    lab.begin(&[("shop", "a")]).await;
    lab.pod("shop/a", "web", json!([])).await;
    lab.pod("shop/b", "db", json!([])).await;
    lab.policy("shop/from-web", FROM_WEB(80));
    lab.settled().await;
}

fn nothing_before_in_sync(lab: &mut Lab) -> Test<'_> {
    Box::pin(async move {
        let empty = lab.saved();
        lab.namespace("shop", "a");
        lab.wire("shop/a", "web", json!([])).await;
        lab.tell_pod("shop/a");
        lab.attach("shop/a");
        let endpoint = super::lab::id("shop/a");
        let error = lab
            .engine
            .wait_programmed(&endpoint, Duration::from_millis(100))
            .await
            .unwrap_err();
        assert!(
            error.to_string().ends_with("the cluster's state is not complete yet"),
            "{error}"
        );
        assert_eq!(lab.saved(), empty);
        lab.engine.in_sync();
        lab.programmed("shop/a").await;
        assert_ne!(lab.saved(), empty);
    })
}

/// Without our hooks the packets that were denied pass, and the probes tell.
fn the_check_can_fail(lab: &mut Lab) -> Test<'_> {
    Box::pin(async move {
        two_pods(lab).await;
        lab.expect(&[("shop/b", "shop/a", Tcp, 80, false)]).await;
        lab.engine.shutdown().await;
        for tool in ["iptables", "ip6tables"] {
            let tool = format!("{tool}-{}", lab.engine.status().backend);
            output(&tool, &["-w", "10", "-F", "FORWARD"]);
        }
        lab.expect(&[("shop/b", "shop/a", Tcp, 80, true)]).await;
    })
}

fn foreign_rules_stay(lab: &mut Lab) -> Test<'_> {
    Box::pin(async move {
        for rule in [
            "-N KUBE-FORWARD",
            "-A KUBE-FORWARD -m comment --comment kubernetes -j ACCEPT",
            "-A FORWARD -j KUBE-FORWARD",
            "-A INPUT -s 203.0.113.9 -j DROP",
            "-t nat -A POSTROUTING -s 10.200.0.0/16 -j MASQUERADE",
            "-t mangle -A PREROUTING -j MARK --set-mark 0x1",
            "-t raw -A PREROUTING -s 203.0.113.10 -j DROP",
        ] {
            lab.iptables(rule);
        }
        output("ipset", &["create", "theirs", "hash:ip"]);
        let is_ours = |line: &String| line.contains("mgy");
        let before = lab.saved();
        lab.pool("10.0.1.0/24", true);
        two_pods(lab).await;
        lab.expect(&[
            ("shop/a", "shop/b", Tcp, 80, true),
            ("shop/b", "shop/a", Tcp, 80, false),
        ])
        .await;
        let after: Vec<_> = lab.saved().into_iter().filter(|line| !is_ours(line)).collect();
        let foreign = |lines: &[String]| -> Vec<String> {
            lines
                .iter()
                .filter(|line| line.starts_with("-A") || line.contains("theirs") || line.contains("KUBE"))
                .cloned()
                .collect()
        };
        assert_eq!(foreign(&after), foreign(&before));
        assert_eq!(foreign(&before).len(), 8);
        let saved = lab.saved();
        let first = |prefix: &str| saved.iter().find(|line| line.starts_with(prefix)).unwrap().clone();
        assert!(
            is_ours(&first("-A FORWARD ")) && is_ours(&first("-A INPUT ")),
            "ours come first"
        );
        assert!(!is_ours(&first("-A POSTROUTING ")), "and masquerade last");
    })
}

fn drift_is_repaired(lab: &mut Lab) -> Test<'_> {
    Box::pin(async move {
        lab.config.refresh_interval = Duration::from_millis(200);
        lab.restart().await;
        two_pods(lab).await;
        let right = lab.saved();
        let set = right
            .iter()
            .find_map(|line| line.strip_prefix("add mgy4-")?.strip_suffix(" 10.0.1.1"))
            .unwrap();
        let set = format!("mgy4-{set}");
        let backend = lab.engine.status().backend;
        let iptables = format!("iptables-{backend}");
        let damages: [(&str, &[&str]); 8] = [
            (&iptables, &["-w", "-F", "mgy-FORWARD"]),
            (&iptables, &["-w", "-F", "FORWARD"]),
            (&iptables, &["-w", "-I", "mgy-pi-shop.from-web", "-j", "DROP"]),
            (&iptables, &["-w", "-D", "mgy-pi-shop.from-web", "1"]),
            (&iptables, &["-w", "-t", "raw", "-F"]),
            (&iptables, &["-w", "-A", "INPUT", "-j", "mgy-allow"]),
            ("ipset", &["del", &set, "10.0.1.1"]),
            ("ipset", &["add", &set, "203.0.113.0/24"]),
        ];
        for (repaired, (tool, damage)) in damages.iter().enumerate() {
            output(tool, damage);
            lab.condition(&format!("repair of {damage:?}"), |lab| lab.saved() == right)
                .await;
            lab.condition("count", |lab| lab.engine.status().counters.repairs > repaired as u64)
                .await;
        }
        output("ipset", &["create", "mgy4-stale", "hash:net"]);
        lab.condition("removal of a stale set", |lab| lab.saved() == right)
            .await;
        // Somebody else wants to be first.
        lab.iptables("-I FORWARD 1 -s 203.0.113.9 -j ACCEPT");
        let first = |lab: &Lab| {
            lab.saved()
                .into_iter()
                .find(|line| line.starts_with("-A FORWARD "))
                .unwrap()
        };
        lab.condition("being first again", |lab| first(lab).contains("mgy-FORWARD"))
            .await;
        lab.expect(&[
            ("shop/a", "shop/b", Tcp, 80, true),
            ("shop/b", "shop/a", Tcp, 80, false),
        ])
        .await;
    })
}

fn a_restart_writes_nothing(lab: &mut Lab) -> Test<'_> {
    Box::pin(async move {
        lab.pool("10.0.1.0/24", true);
        two_pods(lab).await;
        // Members and rules that change together give the set another name, which must last.
        lab.relabel("shop/b", "web");
        lab.policy("shop/from-web", FROM_WEB(81));
        lab.settled().await;
        let saved = lab.saved();
        assert!(
            saved
                .iter()
                .any(|line| line.starts_with("create mgy4-") && line.contains("-1 hash:net")),
            "{saved:#?}"
        );
        lab.restart().await;
        assert_eq!(lab.saved(), saved);
        assert_eq!(lab.engine.status().counters.writes, 0);
        lab.expect(&[
            ("shop/a", "shop/b", Tcp, 81, true),
            ("shop/a", "shop/b", Tcp, 80, false),
        ])
        .await;
        // The control: what is not right is written.
        lab.policy("shop/from-web", FROM_WEB(82));
        lab.restart().await;
        assert_eq!(lab.engine.status().counters.writes, 2, "one table of each family");
        lab.expect(&[
            ("shop/a", "shop/b", Tcp, 82, true),
            ("shop/a", "shop/b", Tcp, 81, false),
        ])
        .await;
    })
}

fn leftovers_go(lab: &mut Lab) -> Test<'_> {
    Box::pin(async move {
        lab.begin(&[("shop", "a")]).await;
        lab.pod("shop/a", "web", json!([])).await;
        let right = lab.saved();
        lab.engine.shutdown().await;
        lab.iptables("-N mgy-old");
        lab.iptables("-N mgy-older");
        output("ipset", &["create", "mgy4-old", "hash:net"]);
        lab.iptables("-A mgy-old -m set --match-set mgy4-old src -j mgy-older");
        lab.iptables("-A FORWARD -j mgy-old");
        lab.iptables("-t nat -N mgy-POSTROUTING");
        lab.iptables("-t nat -A POSTROUTING -j mgy-POSTROUTING");
        lab.restart().await;
        let kept = |lines: Vec<String>| lines.into_iter().filter(|l| l.contains("mgy")).collect::<Vec<_>>();
        assert_eq!(kept(lab.saved()), kept(right));
    })
}

fn other_back_end_is_left(lab: &mut Lab) -> Test<'_> {
    Box::pin(async move {
        two_pods(lab).await;
        let old = lab.engine.status().backend;
        lab.iptables("-A FORWARD -s 203.0.113.9 -j DROP");
        lab.config.backend = match old {
            Backend::Nft => BackendChoice::Legacy,
            Backend::Legacy => BackendChoice::Nft,
        };
        lab.restart().await;
        assert_ne!(lab.engine.status().backend, old);
        let left = output(&format!("iptables-{old}-save"), &[]);
        assert!(!left.contains("mgy"), "{left}");
        assert!(left.contains("-A FORWARD -s 203.0.113.9/32 -j DROP"), "{left}");
        lab.expect(&[
            ("shop/a", "shop/b", Tcp, 80, true),
            ("shop/b", "shop/a", Tcp, 80, false),
        ])
        .await;
        // The host's own rule tells where to be, where nobody says.
        lab.config.backend = BackendChoice::Auto;
        lab.restart().await;
        assert_eq!(lab.engine.status().backend, old);
    })
}

fn the_kernels_refusal_is_told_and_retried(lab: &mut Lab) -> Test<'_> {
    Box::pin(async move {
        two_pods(lab).await;
        lab.engine.shutdown().await;
        // A set of the right name and the wrong kind, which somebody's rule holds on to.
        lab.no_policy("shop/from-web");
        lab.restart().await;
        output("ipset", &["create", "mgy4-pools", "hash:ip,port"]);
        lab.iptables("-A FORWARD -m set --match-set mgy4-pools src,src -j DROP");
        lab.pool("10.0.1.0/24", true);
        lab.condition("an error", |lab| lab.engine.status().error.is_some())
            .await;
        let status = lab.engine.status();
        assert!(status.error.unwrap().contains("mgy4-pools"), "names the object");
        lab.expect(&[("shop/a", "shop/b", Tcp, 80, true)]).await;
        lab.iptables("-D FORWARD -m set --match-set mgy4-pools src,src -j DROP");
        output("ipset", &["destroy", "mgy4-pools"]);
        lab.condition("no error any more", |lab| lab.engine.status().error.is_none())
            .await;
        assert!(lab.engine.status().counters.failed > 0);
        assert!(lab.saved().iter().any(|line| line.contains("MASQUERADE")));
    })
}

/// Nothing waits for a refresh: nft tells of changes, and whoever changes legacy tables holds their lock.
fn changes_by_others_are_heard(lab: &mut Lab) -> Test<'_> {
    Box::pin(async move {
        (lab.config.refresh_interval, lab.config.post_write_check) = (NEVER, Duration::ZERO);
        lab.restart().await;
        two_pods(lab).await;
        let right = lab.saved();
        for damage in ["-F mgy-FORWARD", "-D mgy-pi-shop.from-web 1", "-t raw -F"] {
            lab.iptables(damage);
            lab.condition(&format!("repair of {damage}"), |lab| lab.saved() == right)
                .await;
        }
        // As kube-proxy does when it starts second.
        lab.iptables("-I FORWARD -s 203.0.113.9 -j ACCEPT");
        let first = |lab: &Lab| {
            let saved = lab.saved();
            let first = saved.iter().find(|line| line.starts_with("-A FORWARD "));
            first.is_some_and(|line| line.contains("mgy-FORWARD"))
        };
        lab.condition("being first again", first).await;
        lab.expect(&[
            ("shop/a", "shop/b", Tcp, 80, true),
            ("shop/b", "shop/a", Tcp, 80, false),
        ])
        .await;
    })
}

fn a_flush_is_repaired_and_counted(lab: &mut Lab) -> Test<'_> {
    Box::pin(async move {
        (lab.config.refresh_interval, lab.config.post_write_check) = (NEVER, Duration::ZERO);
        lab.restart().await;
        two_pods(lab).await;
        let ours = |lab: &Lab| {
            lab.saved()
                .into_iter()
                .filter(|line| line.contains("mgy"))
                .collect::<Vec<_>>()
        };
        let right = ours(lab);
        let backend = lab.engine.status().backend;
        let (v4, v6) = (format!("iptables-{backend}"), format!("ip6tables-{backend}"));
        let mut intrusions: Vec<(&str, &[&str])> = vec![
            (&v4, &["-w", "-F"]),
            (&v4, &["-w", "-X"]),
            (&v6, &["-w", "-F"]),
            (&v4, &["-w", "-t", "raw", "-F"]),
        ];
        if backend == Backend::Nft {
            intrusions.push(("nft", &["flush", "ruleset"]));
        }
        for (tool, intrusion) in intrusions {
            let repairs = lab.engine.status().counters.repairs;
            // Alone it is refused, as our chains are in use.
            if intrusion.contains(&"-X") {
                output(tool, &["-w", "-F"]);
            }
            output(tool, intrusion);
            let begun = tokio::time::Instant::now();
            lab.condition(&format!("repair of {tool} {intrusion:?}"), |lab| {
                lab.engine.status().counters.repairs > repairs && ours(lab) == right
            })
            .await;
            println!("{tool} {intrusion:?}: repaired after {:?}", begun.elapsed());
            lab.expect(&[
                ("shop/a", "shop/b", Tcp, 80, true),
                ("shop/b", "shop/a", Tcp, 80, false),
            ])
            .await;
        }
    })
}

/// Others may write in the same moment, and sets tell nothing.
fn what_was_written_is_looked_at_again(lab: &mut Lab) -> Test<'_> {
    Box::pin(async move {
        lab.config.refresh_interval = NEVER;
        lab.config.post_write_check = Duration::from_millis(200);
        lab.restart().await;
        two_pods(lab).await;
        let right = lab.saved();
        let set = right
            .iter()
            .find_map(|line| line.strip_prefix("add mgy4-")?.strip_suffix(" 10.0.1.1"))
            .unwrap();
        output("ipset", &["del", &format!("mgy4-{set}"), "10.0.1.1"]);
        lab.condition("repair of a set", |lab| lab.saved() == right).await;
        lab.condition("count", |lab| lab.engine.status().counters.repairs == 1)
            .await;
    })
}

/// nft tells of changes: repair does not wait for the refresh.
#[test]
fn nft_tells_of_drift() {
    super::lab::in_lab("nft_tells_of_drift", Backend::Nft, |lab| {
        Box::pin(async move {
            two_pods(lab).await;
            let (right, writes) = (lab.saved(), lab.engine.status().counters.writes);
            for damage in ["-F mgy-FORWARD", "-F FORWARD", "-D mgy-pi-shop.from-web 1", "-t raw -F"] {
                lab.iptables(damage);
                lab.condition(&format!("repair of {damage}"), |lab| lab.saved() == right)
                    .await;
            }
            lab.condition("four repairs", |lab| lab.engine.status().counters.repairs == 4)
                .await;
            assert_eq!(lab.engine.status().counters.writes, writes + 4, "one transaction each");
        })
    });
}
