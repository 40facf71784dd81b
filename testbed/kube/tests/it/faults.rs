//! What a cluster goes through, under traffic: what breaks, what passes, and for how long.

use std::time::{Duration, Instant};

use margay_agnhost::traffic::Flow;

use super::flows::{Outcome, Source, send, source};
use super::harness::{Kube, PATIENCE, wait};

/// How long traffic runs before the fault.
const BEFORE: Duration = Duration::from_secs(2);

/// Where the control plane's node keeps etcd's snapshot.
const BACKUP: &str = "/var/lib/etcd.backup";

struct Scene<'a> {
    kube: &'a Kube,
    server: String,
    friend: Source,
    intruder: Source,
    table: Vec<String>,
}

/// What a fault may cost the allowed flows.
#[derive(Clone, Copy)]
enum Cost {
    /// Not one packet.
    Nothing,
    /// At most so long without an answer.
    AtMost(Duration),
}

impl<'a> Scene<'a> {
    fn new(kube: &'a Kube) -> Self {
        kube.apply(include_str!("manifests/flows.yaml"));
        kube.sh("kubectl wait -n flows --for=condition=Ready pod --all --timeout=90s");
        let scene = Scene {
            kube,
            server: kube.field("pod -n flows server", "{.status.podIP}"),
            friend: source(kube, "flows/friend"),
            intruder: source(kube, "flows/intruder"),
            table: Vec::new(),
        };
        scene.settled();
        scene
    }

    /// Waits until the friend gets through.
    fn settled(&self) {
        wait("the friend gets through", PATIENCE, || {
            let second = Duration::from_secs(1);
            let outcome = send(self.kube, &self.friend, &self.server, Flow::New, second).outcome();
            match outcome.answered == outcome.sent {
                true => Ok(()),
                false => Err(outcome.to_string()),
            }
        });
    }

    /// Sends for `duration`, does `fault` two seconds in, and holds what came back against what it may cost.
    fn through(&mut self, name: &str, duration: u64, cost: Cost, fault: impl FnOnce(&Kube)) {
        let [established, new, denied] = self.flows(duration, fault);
        let row = format!(
            "{name:44} | {established:38} | {new:38} | {denied}",
            established = established.to_string(),
            new = new.to_string()
        );
        println!("{row}");
        self.table.push(row);
        assert_eq!(denied.answered, 0, "{name}: denied packets got through");
        for outcome in [established, new] {
            match cost {
                Cost::Nothing => assert_eq!(outcome.answered, outcome.sent, "{name} costs packets: {outcome}"),
                Cost::AtMost(limit) => assert!(outcome.longest <= limit, "{name} costs {outcome}"),
            }
        }
        self.settled();
    }

    fn flows(&self, duration: u64, fault: impl FnOnce(&Kube)) -> [Outcome; 3] {
        let duration = Duration::from_secs(duration);
        let begun = Instant::now();
        let established = send(self.kube, &self.friend, &self.server, Flow::Established, duration);
        let new = send(self.kube, &self.friend, &self.server, Flow::New, duration);
        let denied = send(self.kube, &self.intruder, &self.server, Flow::New, duration);
        std::thread::park_timeout(BEFORE.saturating_sub(begun.elapsed()));
        fault(self.kube);
        [established, new, denied].map(super::flows::Traffic::outcome)
    }
}

#[test]
fn what_a_fault_costs() {
    let Some(kube) = Kube::installed("faults::what_a_fault_costs") else {
        return;
    };
    let mut scene = Scene::new(&kube);
    let agent = "kill -9 $(pidof margay-node)";
    kube.power("backup", BACKUP);

    scene.through("nothing", 6, Cost::Nothing, |_| ());
    scene.through("agent of the server's node killed", 15, Cost::Nothing, |kube| {
        kube.node("node3", agent).unwrap();
    });
    scene.through("agent of the friend's node killed", 15, Cost::Nothing, |kube| {
        kube.node("node2", agent).unwrap();
    });
    scene.through(
        "top-of-rack router cut off",
        20,
        Cost::AtMost(Duration::from_secs(10)),
        |kube| {
            for link in ["eth1", "eth2", "eth3", "eth4"] {
                kube.beyond("tor1", &format!("ip link set {link} down")).unwrap();
            }
        },
    );
    scene.through("and back", 15, Cost::AtMost(Duration::from_secs(10)), |kube| {
        for link in ["eth1", "eth2", "eth3", "eth4"] {
            kube.beyond("tor1", &format!("ip link set {link} up")).unwrap();
        }
    });
    scene.through("API server stopped for a minute", 75, Cost::Nothing, |kube| {
        kube.power("stop", "node1/kube-apiserver");
        std::thread::park_timeout(Duration::from_secs(60));
        kube.power("start", "node1/kube-apiserver");
    });
    scene.through(
        "agents killed while the API server is away",
        30,
        Cost::Nothing,
        |kube| {
            kube.power("stop", "node1/kube-apiserver");
            for node in ["node2", "node3"] {
                kube.node(node, agent).unwrap();
            }
            std::thread::park_timeout(Duration::from_secs(15));
            kube.power("start", "node1/kube-apiserver");
        },
    );
    scene.through("etcd killed", 15, Cost::Nothing, |kube| {
        kube.power("crash", "node1/etcd")
    });
    scene.through("etcd put back to a backup", 30, Cost::Nothing, |kube| {
        kube.power("restore", BACKUP);
    });
    scene.through("containerd killed", 15, Cost::Nothing, |kube| {
        kube.power("crash", "node3/containerd");
    });
    println!("{}", scene.table.join("\n"));
}

/// An intruder that flushes the node's tables opens them until they are repaired: how long, and whether it is counted.
#[test]
fn flushed_tables_are_repaired_and_counted() {
    let Some(kube) = Kube::installed("faults::flushed_tables_are_repaired_and_counted") else {
        return;
    };
    let scene = Scene::new(&kube);
    let repairs = || -> f64 {
        let metrics = kube.node("node3", "curl -sS http://127.0.0.1:9091/metrics").unwrap();
        metrics
            .lines()
            .filter(|line| line.starts_with("felix_int_dataplane_repairs"))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    };
    let before = repairs();
    let [established, new, denied] = scene.flows(10, |kube| {
        kube.node(
            "node3",
            "iptables -F; iptables -X; iptables -t raw -F; iptables -t mangle -F",
        )
        .unwrap();
    });
    println!(
        "tables flushed: {established} | {new} | denied: {} of {} got through",
        denied.answered, denied.sent
    );
    assert!(
        denied.answered <= 2 * super::flows::RATE,
        "open for more than two seconds: {denied}"
    );
    assert_eq!(established.answered, established.sent, "{established}");
    let after = repairs();
    assert!(after > before, "repairs are counted: {before} before, {after} after");
    // Connections that began while the tables were open go on, as they do after any change of policy; a source port that
    // one of them had is no new connection.
    for node in ["node2", "node3"] {
        kube.node(node, "conntrack -F").unwrap();
    }
    let [.., denied] = scene.flows(3, |_| ());
    assert_eq!(denied.answered, 0, "closed again");
}

/// A power cut of the server's node: denied stays denied while it boots, and the friend is served again.
#[test]
fn a_node_that_reboots_never_opens() {
    let Some(kube) = Kube::installed("faults::a_node_that_reboots_never_opens") else {
        return;
    };
    let scene = Scene::new(&kube);
    let blocks =
        kube.sh("kubectl get ipamblocks -o 'jsonpath={range .items[*]}{.spec.cidr} {.spec.affinity}{\"\\n\"}{end}'");
    let block = blocks
        .lines()
        .filter_map(|line| line.split_once(' '))
        .find(|(cidr, affinity)| affinity.ends_with("node3") && !cidr.contains(':'))
        .map(|(cidr, _)| cidr.to_owned())
        .unwrap_or_else(|| panic!("node3 has no block: {blocks}"));
    let sweep = super::first_packet::sweep_from(&kube, &scene.intruder, &block);
    kube.power("stop", "node3");
    std::thread::park_timeout(Duration::from_secs(5));
    let begun = Instant::now();
    kube.power("start", "node3");
    wait("the server is ready again", Duration::from_secs(180), || {
        let second = Duration::from_secs(1);
        let address = kube.field("pod -n flows server", "{.status.podIP}");
        if address.is_empty() {
            return Err("it has no address yet".to_owned());
        }
        let outcome = send(&kube, &scene.friend, &address, Flow::New, second).outcome();
        match outcome.sent > 0 && outcome.answered == outcome.sent {
            true => Ok(()),
            false => Err(format!("{address}: {outcome}")),
        }
    });
    println!(
        "from power to the first whole second of traffic: {:.1} s",
        begun.elapsed().as_secs_f64()
    );
    let seen = sweep.ended();
    assert!(seen.sent > 1000, "{seen:?}");
    assert!(seen.answered.is_empty(), "open while it booted: {seen:?}");
}
