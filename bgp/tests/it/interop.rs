//! margay-bgpd between FRR and BIRD.

use margay_netlink::{Event, Groups, Handle, Monitor, Netns};
use serde_json::Value;

use crate::lab::{Lab, Process, can_run, hops, net, routes, wait_for};

const TOOLS: [&str; 2] = ["/usr/lib/frr/bgpd", "/usr/sbin/bird"];

/// Protocol numbers of the other routers' routes.
const FRR_PROTOCOL: u8 = 186;
const BIRD_PROTOCOL: u8 = 12;

/// Events older than this have been delivered.
const QUIET: std::time::Duration = std::time::Duration::from_millis(100);

const CONFIG: &str = "
bgp:
  local_as: 65301
  router_id: 10.0.1.2
  listen: ['0.0.0.0:179', '[::]:179']
  hold_time: 9
  connect_retry_time: 1
  graceful_restart: {selection_deferral_time: 20}
  networks:
    - {prefix: 10.244.1.0/26, blackhole: true}
    - {prefix: 'fd00:10:244:1::/64', blackhole: true}
  filters:
    fabric:
      rules:
        - {prefixes: [{prefix: 0.0.0.0/0, le: 32}, {prefix: '::/0', le: 128}], action: accept}
    own:
      rules:
        - {source: local, action: accept}
  peers:
    - {name: tor1, address: 10.0.1.1, remote_as: 65201, import: fabric, export: own}
    - {name: tor2, address: 10.0.2.1, remote_as: 65202, import: fabric, export: own, families: [ipv4]}
    - {name: tor2-v6, address: 'fd00:2::1', remote_as: 65202, import: fabric, export: own, families: [ipv6]}
control: '@CONTROL@'
";

struct Running {
    lab: Lab,
    frr: [Process; 2],
    bird: Process,
    bgpd: Process,
}

fn start() -> Running {
    let lab = Lab::new();
    let frr = lab.start_frr();
    let bird = lab.start_bird(false);
    let bgpd = lab.start_bgpd(CONFIG);
    lab.wait_established(3);
    let running = Running { lab, frr, bird, bgpd };
    running.wait_converged();
    running
}

impl Running {
    /// Both ways in our kernel, our block in both routers' kernels.
    fn wait_converged(&self) {
        let lab = &self.lab;
        wait_for("both next hops for IPv4", || {
            let seen = lab.next_hops("10.99.0.0/24");
            (seen == ["10.0.1.1", "10.0.2.1"], (seen, lab.ask("routes")))
        });
        wait_for("both next hops for IPv6", || {
            let seen = lab.next_hops("fd00:99::/64");
            (seen == ["fd00:1::1", "fd00:2::1"], (seen, lab.ask("routes")))
        });
        wait_for("our block in both routers", || {
            let seen = (
                hops(&lab.frr, FRR_PROTOCOL, "10.244.1.0/26"),
                hops(&lab.bird, BIRD_PROTOCOL, "10.244.1.0/26"),
                hops(&lab.bird, BIRD_PROTOCOL, "fd00:10:244:1::/64"),
            );
            let done = seen.0 == ["10.0.1.2"] && seen.1 == ["10.0.2.2"] && seen.2 == ["fd00:2::2"];
            (done, (seen, lab.vtysh("show ip bgp"), lab.birdc("show route all")))
        });
        // FRR prefers the link-local address of the same interface for IPv6.
        wait_for("our IPv6 block in FRR", || {
            let seen = hops(&lab.frr, FRR_PROTOCOL, "fd00:10:244:1::/64");
            (seen.len() == 1, (seen, lab.vtysh("show bgp ipv6 unicast")))
        });
    }

    fn peer(&self, name: &str) -> Value {
        let peers = self.lab.ask("peers");
        peers
            .as_array()
            .and_then(|p| p.iter().find(|p| p["name"] == name))
            .cloned()
            .unwrap_or(Value::Null)
    }
}

/// Watches the routes of all three kernels for disappearances.
struct Watch {
    runtime: tokio::runtime::Runtime,
    monitors: Vec<(&'static str, u8, Monitor)>,
}

impl Watch {
    fn new(lab: &Lab) -> Watch {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let inside = runtime.enter();
        let open = |netns: &Netns| {
            Handle::in_netns(netns)
                .and_then(|h| h.monitor(Groups::ROUTES))
                .expect("a monitor")
        };
        let monitors = vec![
            ("margay", crate::lab::PROTOCOL, open(&lab.margay)),
            ("frr", FRR_PROTOCOL, open(&lab.frr)),
            ("bird", BIRD_PROTOCOL, open(&lab.bird)),
        ];
        drop(inside);
        Watch { runtime, monitors }
    }

    /// Every BGP route that vanished since the last call, however shortly.
    fn gone(&mut self) -> Vec<String> {
        let Watch { runtime, monitors } = self;
        let mut gone = Vec::new();
        for (name, protocol, monitor) in monitors {
            runtime.block_on(async {
                while let Ok(Some(event)) = tokio::time::timeout(QUIET, monitor.next()).await {
                    match event {
                        Event::RouteGone(route) if route.protocol == *protocol => {
                            gone.push(format!("{name}: {}", route.dst));
                        }
                        Event::Overrun => gone.push(format!("{name}: events were lost")),
                        _ => {}
                    }
                }
            });
        }
        gone
    }
}

#[test]
fn frr_and_bird_announce_one_prefix_and_both_ways_are_in_the_kernel() {
    if !can_run(
        "frr_and_bird_announce_one_prefix_and_both_ways_are_in_the_kernel",
        &TOOLS,
    ) {
        return;
    }
    let mut running = start();
    let lab = &running.lab;
    let frr = lab.vtysh("show ip bgp");
    let line = frr.lines().find(|l| l.contains("10.244.1.0/26")).unwrap_or_default();
    assert!(
        line.contains("*>") && line.contains("10.0.1.2") && line.contains("65301 i"),
        "{frr}"
    );
    let frr6 = lab.vtysh("show bgp ipv6 unicast");
    assert!(
        frr6.contains("fd00:10:244:1::/64") && frr6.contains("fd00:1::2"),
        "{frr6}"
    );
    let bird = lab.birdc("show route 10.244.1.0/26 all");
    assert!(
        bird.contains("BGP.as_path: 65301") && bird.contains("BGP.next_hop: 10.0.2.2"),
        "{bird}"
    );
    let bird6 = lab.birdc("show route fd00:10:244:1::/64 all");
    assert!(bird6.contains("BGP.next_hop: fd00:2::2"), "{bird6}");
    let tor1 = running.peer("tor1");
    // FRR also sends our own networks back; they are received but not accepted.
    assert_eq!(tor1["prefixes_accepted"], 2, "{tor1:#}");
    assert_eq!(tor1["prefixes_advertised"], 2, "{tor1:#}");

    // One way says good-bye: the other carries on alone.
    running.bird.signal("TERM");
    assert!(running.bird.wait().success());
    wait_for("IPv4 by FRR alone", || {
        let seen = running.lab.next_hops("10.99.0.0/24");
        (seen == ["10.0.1.1"], (seen, running.lab.ask("peers")))
    });
    let down = running.peer("tor2");
    assert_ne!(down["state"], "Established");
    let reason = down["last_error"].as_str().unwrap_or_default();
    assert!(
        reason.contains("administrative shutdown") || reason.contains("cannot connect"),
        "{down:#}"
    );
}

#[test]
fn a_killed_speaker_is_missed_by_nobody() {
    if !can_run("a_killed_speaker_is_missed_by_nobody", &TOOLS) {
        return;
    }
    let mut running = start();
    let mut watch = Watch::new(&running.lab);
    let before = routes(&running.lab.margay, crate::lab::PROTOCOL);
    running.bgpd.kill();
    // Down for three seconds and more, as long as an agent takes to come back.
    let until = std::time::Instant::now() + std::time::Duration::from_secs(4);
    wait_for("four seconds without a speaker", || {
        (std::time::Instant::now() > until, ())
    });
    assert_eq!(watch.gone(), Vec::<String>::new(), "while the speaker is dead");
    running.bgpd = running.lab.start_bgpd(CONFIG);
    running.lab.wait_established(3);
    wait_for("the end of the restart", || {
        let status = running.lab.ask("status");
        (status["restarting"] == false, status)
    });
    wait_for("no stale routes in FRR", || {
        let seen = running.lab.vtysh("show ip bgp");
        (seen.contains("10.244.1.0/26") && !seen.contains("S>"), seen)
    });
    running.wait_converged();
    assert_eq!(watch.gone(), Vec::<String>::new(), "after the speaker came back");
    assert_eq!(routes(&running.lab.margay, crate::lab::PROTOCOL), before);

    // The control: a speaker that says good-bye is missed at once.
    running.bgpd.signal("TERM");
    assert!(running.bgpd.wait().success());
    wait_for("withdrawals after a good-bye", || {
        let left = (
            hops(&running.lab.frr, FRR_PROTOCOL, "10.244.1.0/26"),
            hops(&running.lab.bird, BIRD_PROTOCOL, "10.244.1.0/26"),
        );
        (left == (vec![], vec![]), left)
    });
    assert_eq!(routes(&running.lab.margay, crate::lab::PROTOCOL), []);
    assert!(watch.gone().iter().any(|g| g == "frr: 10.244.1.0/26"));
    let words = running.lab.vtysh("show bgp neighbors 10.0.1.2");
    assert!(words.contains("Cease/Administrative Shutdown"), "{words}");
}

#[test]
fn bird_restarts_and_its_routes_stay() {
    if !can_run("bird_restarts_and_its_routes_stay", &TOOLS) {
        return;
    }
    let mut running = start();
    let mut watch = Watch::new(&running.lab);
    let before = running.lab.next_hops("10.99.0.0/24");
    running.bird.kill();
    wait_for("stale routes of BIRD", || {
        let peer = running.peer("tor2");
        (peer["prefixes_stale"] == 1 && peer["state"] != "Established", peer)
    });
    assert_eq!(
        running.lab.next_hops("10.99.0.0/24"),
        before,
        "the helper keeps both ways"
    );
    running.bird = running.lab.start_bird(true);
    running.lab.wait_established(3);
    wait_for("End-of-RIB of BIRD", || {
        let peer = running.peer("tor2");
        (peer["prefixes_stale"] == 0 && peer["prefixes_accepted"] == 1, peer)
    });
    assert_eq!(running.lab.next_hops("10.99.0.0/24"), before);
    assert_eq!(watch.gone().iter().filter(|g| g.starts_with("margay")).count(), 0);
}

#[test]
fn a_reload_flaps_no_session_and_a_bad_file_changes_nothing() {
    if !can_run("a_reload_flaps_no_session_and_a_bad_file_changes_nothing", &TOOLS) {
        return;
    }
    let running = start();
    let control = running.lab.path("bgp.sock").display().to_string();
    let reload = |text: &str| {
        running.lab.write("bgpd.yaml", &text.replace("@CONTROL@", &control));
        running.bgpd.signal("HUP");
    };
    // A further network, a filter that takes less, one peer less.
    let changed = CONFIG
        .replace("  filters:", "    - {prefix: 10.244.7.0/26}\n  filters:")
        .replace("{prefix: '::/0', le: 128}", "{prefix: 'fd00:1234::/64'}")
        .lines()
        .filter(|l| !l.contains("tor2-v6"))
        .collect::<Vec<_>>()
        .join("\n");
    reload(&changed);
    wait_for("the new network in FRR", || {
        let seen = hops(&running.lab.frr, FRR_PROTOCOL, "10.244.7.0/26");
        (seen == ["10.0.1.2"], seen)
    });
    wait_for("IPv6 filtered", || {
        let seen = running.lab.next_hops("fd00:99::/64");
        (seen.is_empty(), seen)
    });
    assert_eq!(running.peer("tor2-v6"), Value::Null);
    wait_for("BIRD's word of the peer that was removed", || {
        let log = std::fs::read_to_string(running.lab.path("bird.log")).unwrap_or_default();
        let told = log
            .lines()
            .any(|l| l.contains("margay6") && l.contains("Peer de-configured"));
        (told, log)
    });
    assert_eq!(running.lab.next_hops("10.99.0.0/24"), ["10.0.1.1", "10.0.2.1"]);
    // Refused whole: the good part of a bad file does not act either.
    reload(
        &CONFIG
            .replace("10.244.1.0/26", "10.244.1.9/26")
            .replace("own}", "own, hold_time: 30}"),
    );
    wait_for("a refusal in the log", || {
        let log = std::fs::read_to_string(running.lab.path("margay-bgpd.log")).unwrap_or_default();
        (log.contains("networks[0].prefix: 10.244.1.9/26 has host bits"), ())
    });
    for name in ["tor1", "tor2"] {
        let peer = running.peer(name);
        assert_eq!(
            (&peer["state"], &peer["times_established"]),
            (&"Established".into(), &1.into()),
            "{peer:#}"
        );
    }
}

#[test]
fn foreign_changes_of_our_routes_are_repaired() {
    if !can_run("foreign_changes_of_our_routes_are_repaired", &TOOLS) {
        return;
    }
    let running = start();
    let mut netlink = crate::lab::open(&running.lab.margay);
    for prefix in ["10.99.0.0/24", "fd00:99::/64", "10.244.1.0/26"] {
        let route = routes(&running.lab.margay, crate::lab::PROTOCOL)
            .into_iter()
            .find(|r| r.dst == net(prefix))
            .expect("our route");
        netlink.apply(&margay_netlink::Op::DeleteRoute(route)).expect("deleted");
    }
    running.wait_converged();
    wait_for("our blackhole", || {
        let seen = routes(&running.lab.margay, crate::lab::PROTOCOL);
        (seen.iter().any(|r| r.dst == net("10.244.1.0/26")), seen)
    });
    // A link that goes takes its routes along without an event for each; the other way remains, then both return.
    let link = netlink.link_by_name("bird0").expect("a link");
    netlink
        .apply(&margay_netlink::Op::SetUp(link.index, false))
        .expect("down");
    wait_for("the other way alone", || {
        let seen = running.lab.next_hops("10.99.0.0/24");
        (seen == ["10.0.1.1"], seen)
    });
    netlink.apply(&margay_netlink::Op::SetUp(link.index, true)).expect("up");
    let addr = margay_netlink::Addr::new(link.index, net("fd00:2::2/64")).nodad();
    // IPv6 addresses go with the link, IPv4 ones stay.
    netlink
        .apply(&margay_netlink::Op::ReplaceAddr(addr))
        .expect("an address");
    running.wait_converged();
    drop(running.frr);
}
