//! Margay taken off a node, in a network namespace of its own: whatever else is there stays as it was.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use margay_cni::host::HOST_MAC;
use margay_netlink::{Connection, Mac, Netns, NextHop, Op, Route, VethSpec, sysctl};
use margay_node::endpoints::{AttachmentKey, EndpointRecord, EndpointStore};
use margay_node::install::{Install, install};
use parking_lot::Mutex;
use rstest::rstest;

use crate::rig::{Agent, Api, namespace};

/// Rules of others, in every table that there is, for `iptables-restore`; `{any}` is an address.
const THEIR_RULES: &str = "*raw\n:theirs - [0:0]\n-A PREROUTING -i lo -j theirs\n-A theirs -s {any} -j RETURN\nCOMMIT\n\
    *mangle\n:mgy-like - [0:0]\n-A PREROUTING -m comment --comment \"mgy-not\" -j MARK --set-xmark 0x1/0x1\nCOMMIT\n\
    *nat\n:theirs - [0:0]\n-A POSTROUTING -s {any} -j theirs\n-A theirs -j MASQUERADE\nCOMMIT\n\
    *filter\n:INPUT DROP [0:0]\n:KUBE-FORWARD - [0:0]\n-A INPUT -i lo -j ACCEPT\n-A FORWARD -j KUBE-FORWARD\n\
    -A FORWARD -o mgy-uplink -m comment --comment \"not of mgy\" -j ACCEPT\n-A KUBE-FORWARD -d {any} -j REJECT\nCOMMIT\n";

/// Rules of ours as an agent writes them, and two that it never would.
const OUR_RULES: &str = "*filter\n:mgy-FORWARD - [0:0]\n:mgy-tw - [0:0]\n\
    -I FORWARD 1 -m comment --comment \"mgy:0123456789abcdef\" -j mgy-FORWARD\n-A OUTPUT -j mgy-tw\n\
    -A mgy-FORWARD -m set --match-set mgy4-pools src -m comment --comment \"mgy:0123456789abcdee\" -j mgy-tw\n\
    -A mgy-tw -j DROP\nCOMMIT\n*nat\n:mgy-nat - [0:0]\n-A POSTROUTING -m comment --comment \"mgy:0123456789abcdec\" -j mgy-nat\nCOMMIT\n";

/// A node with things of others on it.
struct Node {
    netns: Netns,
    dir: tempfile::TempDir,
}

impl Node {
    fn new(netns: Netns, backend: &str) -> Self {
        let node = Self {
            netns,
            dir: tempfile::tempdir().unwrap(),
        };
        node.sysctls();
        let mut connection = node.connection();
        connection.apply(&Op::SetUp(1, true)).unwrap();
        let peer = node.veth("mgyuplink", "far", HOST_MAC);
        connection.apply(&Op::SetUp(peer, true)).unwrap();
        node.run("ip", &["addr", "add", "192.0.2.1/24", "dev", "mgyuplink"], "");
        for prefix in ["10.250.0.0/24", "fd00:250::/64"] {
            let route = Route::blackhole(prefix.parse().unwrap()).protocol(176);
            connection.apply(&Op::AddRoute(route)).unwrap();
        }
        for (tool, any) in [("iptables", "198.51.100.0/24"), ("ip6tables", "2001:db8::/64")] {
            let rules = THEIR_RULES.replace("{any}", any);
            node.run(&format!("{tool}-{backend}-restore"), &["--noflush"], &rules);
        }
        node.run("ipset", &["create", "theirs", "hash:net"], "");
        node.run("ipset", &["create", "mgy-like", "hash:net"], "");
        for (path, text) in [
            ("bin/portmap", "theirs"),
            ("net.d/20-theirs.conflist", r#"{"plugins":[{"type":"bridge"}]}"#),
            (
                "net.d/20-margay.conflist",
                r#"{"plugins":[{"type":"bridge"},{"type":"margay"}]}"#,
            ),
        ] {
            let path = node.path(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        node
    }

    /// As the agent sets them, and leaves them.
    fn sysctls(&self) {
        let set = || {
            for path in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
                sysctl::ensure(path, "1").unwrap();
            }
        };
        self.netns.run(set).unwrap();
    }

    fn connection(&self) -> Connection {
        Connection::open_in(&self.netns).unwrap()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A pair of links, whose other end is in a namespace that goes with it.
    fn veth(&self, name: &str, peer_name: &str, mac: Mac) -> u32 {
        let far = Netns::create().unwrap();
        let spec = VethSpec {
            name,
            peer_name,
            peer_netns: Some(&far),
            mac: Some(mac),
            up: true,
            ..VethSpec::default()
        };
        let link = self.connection().create_veth(&spec).unwrap();
        // The link keeps the namespace only as long as somebody has it open.
        std::mem::forget(far);
        link.index
    }

    fn run(&self, program: &str, args: &[&str], input: &str) -> String {
        let mut command = Command::new(program);
        command
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = self.netns.run(|| command.spawn()).unwrap().unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program} {args:?}: {told}\n{input}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// What Margay leaves on a node: a CNI configuration, a pod's link and record, routes, a state directory.
    async fn occupy(&self) {
        let (bin_dir, conf_dir) = (self.path("bin"), self.path("net.d"));
        std::fs::write(self.path("margay-cni"), "plugin").unwrap();
        install(&Install {
            plugin: self.path("margay-cni"),
            bin_dir,
            conf_dir,
            conf_name: "10-margay.conflist".into(),
            network: "k8s-pod-network".into(),
            cni_version: None,
            socket: "/run/margay/cni.sock".into(),
            state_dir: "/var/lib/margay".into(),
            portmap: false,
            chain: Vec::new(),
        })
        .unwrap();
        let pod = self.veth("mgy16ff9610a79", "eth0", HOST_MAC);
        let store = Mutex::new(EndpointStore::open(&self.path("state/endpoints")).unwrap().0);
        EndpointStore::put(&store, record("mgy16ff9610a79")).await.unwrap();
        let uplink = self.connection().link_by_name("mgyuplink").unwrap().index;
        let hop = |address: &str| NextHop::via_dev(address.parse().unwrap(), uplink);
        let far = Route::unicast("10.244.1.0/26".parse().unwrap())
            .hop(hop("192.0.2.2"))
            .hop(hop("192.0.2.3"));
        let far6 = Route::unicast("fd00:244:1::/122".parse().unwrap())
            .hop(hop("fe80::1"))
            .hop(hop("fe80::2"));
        for route in [
            Route::on_link("10.244.0.5/32".parse().unwrap(), pod).protocol(177),
            Route::on_link("fd00:244::5/128".parse().unwrap(), pod).protocol(177),
            Route::blackhole("10.244.0.0/26".parse().unwrap()).protocol(177),
            Route::blackhole("fd00:244::/122".parse().unwrap()).protocol(177),
            Route::blackhole("10.244.9.0/26".parse().unwrap())
                .table(100)
                .protocol(177),
            far.protocol(178),
            far6.protocol(178),
        ] {
            self.connection().apply(&Op::ReplaceRoute(route)).unwrap();
        }
        std::fs::create_dir_all(self.path("run")).unwrap();
    }

    /// As an agent would leave them that was killed.
    fn add_rules(&self) {
        for set in ["mgy4-pools", "mgy4-0123456789abcdef-1", "mgy6-pools"] {
            self.run("ipset", &["create", set, "hash:net"], "");
        }
        self.run("iptables-nft-restore", &["--noflush"], OUR_RULES);
    }

    fn uninstall(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_margay-node"));
        command.arg("uninstall").args(args);
        for (option, dir) in [
            ("--bin-dir", "bin"),
            ("--conf-dir", "net.d"),
            ("--state-dir", "state"),
            ("--run-dir", "run"),
        ] {
            command.arg(option).arg(self.path(dir));
        }
        command
    }

    fn uninstalled(&self, args: &[&str]) -> Output {
        let mut command = self.uninstall(args);
        self.netns.run(|| command.output()).unwrap().unwrap()
    }

    /// Rules, sets, routes, interfaces and files, as text.
    fn picture(&self) -> String {
        let mut picture = String::new();
        for tool in ["iptables", "ip6tables"] {
            for backend in ["nft", "legacy"] {
                let saved = self.run(&format!("{tool}-{backend}-save"), &[], "");
                let lines = saved.lines().filter(|line| !line.starts_with('#'));
                for line in lines {
                    // Without packets and bytes.
                    let line = line.split(" [").next().unwrap_or(line);
                    writeln!(picture, "{tool}-{backend} {line}").unwrap();
                }
            }
        }
        for (program, args) in [
            ("ipset", "save -sorted"),
            ("ip", "-4 route show table all"),
            ("ip", "-6 route show table all"),
            ("ip", "-4 rule"),
            ("ip", "-6 rule"),
            ("ip", "neigh"),
            ("ip", "-brief link"),
        ] {
            let args: Vec<_> = args.split(' ').collect();
            writeln!(picture, "{}", self.run(program, &args, "")).unwrap();
        }
        for dir in ["bin", "net.d", "state", "run"] {
            tree(&self.path(dir), &mut picture);
        }
        picture
    }
}

fn record(interface: &str) -> EndpointRecord {
    EndpointRecord {
        key: AttachmentKey {
            network: "k8s-pod-network".into(),
            container: "c1".into(),
            ifname: "eth0".into(),
        },
        namespace: "ns0".into(),
        pod: "q1".into(),
        runtime_uid: "u".into(),
        pod_uid: "u".into(),
        interface: interface.into(),
        addresses: vec!["10.244.0.5".parse().unwrap(), "fd00:244::5".parse().unwrap()],
        mtu: 1500,
        handle: "k8s-pod-network.c1".into(),
        netns: "/run/netns/not-there".into(),
        sequence: 1,
    }
}

fn tree(dir: &Path, picture: &mut String) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    writeln!(picture, "{}", dir.display()).unwrap();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    for path in paths {
        match std::fs::read_to_string(&path) {
            Ok(text) => writeln!(picture, "{}: {text}", path.display()).unwrap(),
            Err(_) => tree(&path, picture),
        }
    }
}

fn lines(output: &Output, verb: &str) -> Vec<String> {
    let text = String::from_utf8_lossy(&output.stdout);
    let cut = |line: &str| {
        line.strip_prefix(verb)
            .unwrap_or_else(|| panic!("{line}"))
            .trim()
            .to_owned()
    };
    text.lines().map(cut).collect()
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[rstest]
#[case::nft("nft")]
#[case::legacy("legacy")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_is_left_as_it_was_before(#[case] backend: &str) {
    let Some(netns) = namespace("a_node_is_left_as_it_was_before") else {
        return;
    };
    let node = Node::new(netns, backend);
    let before = node.picture();
    let api = Api::start(&node.netns).await;
    let agent = Agent::start(&node.netns, node.dir.path(), &api);
    agent.until_ready().await;

    let refused = node.uninstalled(&["--force"]);
    assert!(!refused.status.success() && refused.stdout.is_empty());
    assert!(
        told(&refused).contains("an agent serves this node"),
        "{}",
        told(&refused)
    );
    let planned = node.uninstalled(&["--dry-run", "--force"]);
    assert!(!planned.status.success() && !planned.stdout.is_empty());
    agent.stop();

    node.occupy().await;
    let with = node.picture();
    for ours in [
        "-A mgy-FORWARD",
        "-A mgy-POSTROUTING",
        "proto 178",
        "create mgy6-",
        "cni.sock",
    ] {
        assert!(with.contains(ours) && !before.contains(ours), "{ours}:\n{with}");
    }
    let refused = node.uninstalled(&[]);
    assert!(!refused.status.success());
    assert!(
        told(&refused).contains("would lose their network: ns0/q1. Drain"),
        "{}",
        told(&refused)
    );
    let planned = node.uninstalled(&["--dry-run", "--force"]);
    assert!(planned.status.success(), "{}", told(&planned));
    similar(&node.picture(), &with);

    let done = node.uninstalled(&["--force"]);
    assert!(done.status.success(), "{}", told(&done));
    similar(&node.picture(), &before);
    assert_eq!(lines(&done, "removed"), lines(&planned, "would remove"));
    let again = node.uninstalled(&[]);
    assert!(again.status.success(), "{}", told(&again));
    assert_eq!(
        String::from_utf8_lossy(&again.stdout),
        "nothing of Margay is on this node\n"
    );
}

/// With the lines that differ.
fn similar(now: &str, wanted: &str) {
    let missing = wanted.lines().filter(|line| !now.lines().any(|other| other == *line));
    let more = now.lines().filter(|line| !wanted.lines().any(|other| other == *line));
    assert!(
        now == wanted,
        "missing: {:#?}\nmore: {:#?}",
        missing.collect::<Vec<_>>(),
        more.collect::<Vec<_>>()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_is_killed_is_finished_by_the_next() {
    let test = "a_run_that_is_killed_is_finished_by_the_next";
    for after in [1, 3, 9, 14] {
        let Some(netns) = namespace(test) else { return };
        let node = Node::new(netns, "nft");
        let before = node.picture();
        node.occupy().await;
        node.add_rules();
        let mut command = node.uninstall(&["--force"]);
        command.stdout(Stdio::piped());
        let mut first = node.netns.run(|| command.spawn()).unwrap().unwrap();
        let mut told = BufReader::new(first.stdout.take().unwrap()).lines();
        for _ in 0..after {
            told.next().expect("more lines").unwrap();
        }
        first.kill().unwrap();
        first.wait().unwrap();
        let second = node.uninstalled(&["--force"]);
        assert!(second.status.success(), "{}", self::told(&second));
        similar(&node.picture(), &before);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_others_hold_is_named_and_goes_once_they_let_go() {
    let Some(netns) = namespace("what_others_hold_is_named_and_goes_once_they_let_go") else {
        return;
    };
    let node = Node::new(netns, "nft");
    let before = node.picture();
    node.occupy().await;
    node.add_rules();
    let hold =
        "*filter\n-A KUBE-FORWARD -m set --match-set mgy4-pools src -j RETURN\n-A KUBE-FORWARD -j mgy-tw\nCOMMIT\n";
    node.run("iptables-nft-restore", &["--noflush"], hold);
    std::fs::write(node.path("state/notes"), "theirs").unwrap();
    let first = node.uninstalled(&["--force"]);
    assert!(!first.status.success());
    let complaint = told(&first);
    for named in [
        "chain mgy-tw (filter, iptables-nft) stays: ",
        "set mgy4-pools stays: ",
        "state stays: it holds what is not Margay's: notes",
    ] {
        assert!(complaint.contains(named), "{named}:\n{complaint}");
    }
    assert_eq!(complaint.matches(" stays: ").count(), 3, "{complaint}");
    let now = node.picture();
    assert!(now.contains("-A KUBE-FORWARD -j mgy-tw") && now.contains("theirs"));

    node.run("iptables-nft-restore", &["--noflush"], &hold.replace("-A ", "-D "));
    std::fs::remove_file(node.path("state/notes")).unwrap();
    let second = node.uninstalled(&[]);
    assert!(second.status.success(), "{}", told(&second));
    similar(&node.picture(), &before);
}
