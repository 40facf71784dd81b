//! What Margay costs on real Kubernetes, beside others in the same cluster: `make bench-kube` prints it.
//!
//! node3 gets the bridge plugin of the CNI project in Margay's place: the same kubelet, containerd, image and machine, at
//! the same time. Nothing is asserted about time.

use std::collections::BTreeMap;
use std::time::Duration;

use margay_agnhost::arrivals::Arrival;
use margay_testkit::programs;

use super::harness::{Kube, wait};

/// Pods that are started one after the other on each node.
const SINGLE: usize = 20;

/// Pods that are started at once on each node.
const BURST: usize = 25;

/// Pods on the node whose agent is looked at.
const CROWD: usize = 100;

/// How long a program's processor time is watched.
const WATCHED: Duration = Duration::from_secs(30);

/// Who hands out addresses and makes links on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Network {
    Margay,
    Bridge,
}

impl Network {
    const ALL: [Network; 2] = [Network::Margay, Network::Bridge];

    fn node(self) -> &'static str {
        match self {
            Network::Margay => "node2",
            Network::Bridge => "node3",
        }
    }

    /// The node's own address, where its pods' first packets go.
    fn host(self) -> &'static str {
        match self {
            Network::Margay => "10.10.0.2",
            Network::Bridge => "10.10.0.3",
        }
    }

    fn plugin(self) -> &'static str {
        match self {
            Network::Margay => "margay",
            Network::Bridge => "bridge",
        }
    }
}

#[test]
fn pod_creation_to_first_packet() {
    let Some(kube) = Kube::installed("bench::pod_creation_to_first_packet") else {
        return;
    };
    kube.sh("kubectl create namespace bench");
    bridge_on(&kube, Network::Bridge.node());
    for network in Network::ALL {
        timed(&kube, network);
    }
    // The first pod of a node pays for what later ones find.
    starts(&kube, "warm", 1);
    for network in Network::ALL {
        kube.node(network.node(), "rm -f /var/log/cni-add").unwrap();
    }

    let mut single: BTreeMap<Network, Vec<f64>> = BTreeMap::new();
    for round in 0..SINGLE {
        for (network, mut took) in starts(&kube, &format!("single{round}"), 1) {
            single.entry(network).or_default().append(&mut took);
        }
    }
    let single_add = adds(&kube);
    let burst = starts(&kube, "burst", BURST);
    let burst_add = adds(&kube);

    println!("pod created → its first packet seen by its node, milliseconds; and CNI ADD's part of it");
    for (what, first_packet, add) in [
        (format!("{SINGLE}, one by one"), &single, &single_add),
        (format!("{BURST} at once"), &burst, &burst_add),
    ] {
        for network in Network::ALL {
            println!(
                "{what:18} | {:6} | first packet {} | ADD {}",
                network.plugin(),
                spread(&first_packet[&network]),
                spread(&add[&network])
            );
        }
        println!(
            "{what:18} | ratio of medians, margay to bridge: first packet {:.2}, ADD {:.2}",
            median(&first_packet[&Network::Margay]) / median(&first_packet[&Network::Bridge]),
            median(&add[&Network::Margay]) / median(&add[&Network::Bridge])
        );
    }
}

#[test]
fn what_the_agent_takes() {
    let Some(kube) = Kube::installed("bench::what_the_agent_takes") else {
        return;
    };
    kube.apply(include_str!("manifests/bench.yaml"));
    kube.sh("kubectl wait --for=condition=Ready node --all --timeout=60s");
    let mut rows = Vec::new();
    let watched = WATCHED.as_secs();
    rows.push((
        "at rest".to_owned(),
        taken(&kube, || std::thread::park_timeout(WATCHED)),
    ));
    kube.sh(&format!(
        "kubectl scale -n bench deployment/crowd --replicas={CROWD}; \
         kubectl rollout status -n bench deployment/crowd --timeout=600s"
    ));
    rows.push((
        format!("{CROWD} pods, at rest"),
        taken(&kube, || std::thread::park_timeout(WATCHED)),
    ));
    let mut replaced = 0;
    let churn = taken(&kube, || {
        for _ in 0..3 {
            kube.sh(&format!(
                "kubectl get pods -n bench -l app=crowd -o name | head -{BURST} | xargs kubectl delete -n bench --wait=true; \
                 kubectl rollout status -n bench deployment/crowd --timeout=600s"
            ));
            replaced += BURST;
        }
    });
    rows.push((format!("{CROWD} pods, {replaced} of them replaced"), churn));
    println!("processor seconds (a row of rest is {watched} s) and resident memory on node2");
    for (what, programs) in rows {
        for (program, (seconds, memory)) in programs {
            println!(
                "{what:34} | {program:16} | {seconds:6.2} s | {:5.1} MiB",
                memory / 1024.0
            );
        }
    }
}

/// The bridge plugin as the node's pod network, by a configuration that sorts before Margay's.
fn bridge_on(kube: &Kube, node: &str) {
    let conflist = "{\"cniVersion\": \"1.0.0\", \"name\": \"bridge\", \"plugins\": [\
        {\"type\": \"bridge\", \"bridge\": \"cni0\", \"isGateway\": true, \"ipam\": {\"type\": \"host-local\", \
        \"ranges\": [[{\"subnet\": \"10.99.0.0/24\"}]], \"routes\": [{\"dst\": \"0.0.0.0/0\"}]}}, \
        {\"type\": \"portmap\", \"capabilities\": {\"portMappings\": true}}]}";
    kube.node(
        node,
        &format!(
            "for p in bridge host-local portmap; do [ -e /opt/cni/bin/$p ] || cp /usr/lib/cni/$p /opt/cni/bin/; done; \
             echo '{conflist}' >/etc/cni/net.d/00-bridge.conflist"
        ),
    )
    .unwrap_or_else(|e| panic!("{e}"));
}

/// Puts a stand-in before the node's plugin that writes how long each ADD took, in microseconds.
fn timed(kube: &Kube, network: Network) {
    let plugin = network.plugin();
    let stand_in = "#!/bin/bash\n\
        begun=${EPOCHREALTIME/.}\n\
        \"$0.real\" \"$@\"\n\
        code=$?\n\
        [ \"$CNI_COMMAND\" != ADD ] || [ \"$code\" != 0 ] || echo $((${EPOCHREALTIME/.} - begun)) >>/var/log/cni-add\n\
        exit $code\n";
    kube.node(
        network.node(),
        &format!(
            "cd /opt/cni/bin && mv {plugin} {plugin}.real && printf '%s' '{stand_in}' >{plugin}.new && \
             chmod 755 {plugin}.new && mv {plugin}.new {plugin}"
        ),
    )
    .unwrap_or_else(|e| panic!("{e}"));
}

/// Milliseconds of the ADDs since the last time.
fn adds(kube: &Kube) -> BTreeMap<Network, Vec<f64>> {
    Network::ALL
        .into_iter()
        .map(|network| {
            let told = kube
                .node(network.node(), "cat /var/log/cni-add && rm /var/log/cni-add")
                .unwrap_or_else(|e| panic!("{e}"));
            let took = told.lines().map(|line| line.parse::<f64>().unwrap() / 1000.0);
            (network, took.collect())
        })
        .collect()
}

/// Starts `count` pods on each of the nodes, one node after the other, and deletes them: milliseconds from each pod's
/// creation to its first packet.
fn starts(kube: &Kube, name: &str, count: usize) -> BTreeMap<Network, Vec<f64>> {
    let mut all = BTreeMap::new();
    for network in Network::ALL {
        let pods: Vec<String> = (0..count).map(|n| format!("{name}-{}-{n}", network.plugin())).collect();
        let arrivals = kube.run_on(
            network.node(),
            &format!(
                "exec {} arrivals --duration 300s",
                programs::path("margay-agnhost").display()
            ),
        );
        for pod in &pods {
            std::fs::write(kube.scratch().join(pod), pod_of(pod, network)).unwrap();
        }
        // Microseconds before the API server is asked; the answer is not waited for before the next is.
        let script = format!(
            "cd {}; for p in {}; do echo $p ${{EPOCHREALTIME/.}}; \
             kubectl create --raw /api/v1/namespaces/bench/pods -f $p >/dev/null & done; wait",
            kube.scratch().display(),
            pods.join(" ")
        );
        let created = kube.sh(&script);
        let created: BTreeMap<String, u64> = created
            .lines()
            .filter_map(|line| line.split_once(' '))
            .map(|(pod, at)| (pod.to_owned(), at.parse().unwrap()))
            .collect();
        let what = format!("{count} pods of {} run", network.node());
        wait(&what, Duration::from_secs(240), || {
            let phases = kube.field("pods -n bench", "{.items[*].status.phase}");
            let running = phases.split(' ').filter(|phase| *phase == "Running").count();
            match running == count {
                true => Ok(()),
                false => Err(phases),
            }
        });
        // Until the last one's packet has come.
        std::thread::park_timeout(Duration::from_millis(500));
        kube.node(network.node(), "pkill -f 'margay-agnhost arrivals'").unwrap();
        let mut took = Vec::new();
        for line in arrivals.output().lines() {
            let arrival: Arrival = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
            let at = created
                .get(&arrival.name)
                .unwrap_or_else(|| panic!("{} was not asked for: {created:?}", arrival.name));
            took.push(Duration::from_micros(arrival.at_us.saturating_sub(*at)).as_secs_f64() * 1000.0);
        }
        assert_eq!(took.len(), count, "pods of {} that sent", network.node());
        kube.sh("kubectl delete pods -n bench --all --wait=true");
        all.insert(network, took);
    }
    all
}

/// A pod whose first act is to send its name to its node, until it is gone.
fn pod_of(name: &str, network: Network) -> String {
    let say = format!(
        "while :; do echo {name} >/dev/udp/{}/8082; sleep 0.05; done 2>/dev/null",
        network.host()
    );
    serde_json::json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "bench"},
        "spec": {
            "nodeName": network.node(),
            "terminationGracePeriodSeconds": 0,
            "tolerations": [{"operator": "Exists"}],
            "containers": [{
                "name": "app",
                "image": "registry.k8s.io/e2e-test-images/agnhost:2.66.1",
                "command": ["bash", "-c", say],
            }],
        },
    })
    .to_string()
}

/// Processor seconds that programs of node2 take while `something` goes on, and their resident memory after it, in KiB.
fn taken(kube: &Kube, something: impl FnOnce()) -> BTreeMap<&'static str, (f64, f64)> {
    const PROGRAMS: [&str; 3] = ["margay-node", "kube-proxy", "kubelet"];
    let look = || -> BTreeMap<&'static str, (f64, f64)> {
        PROGRAMS
            .into_iter()
            .map(|program| {
                // Fields 14 and 15 of stat, after the name: ticks in user and kernel mode.
                let script = format!(
                    "t=0; m=0; for p in $(pgrep -ox {program}); do set -- $(sed 's/.*) //' /proc/$p/stat); \
                     t=$((t + ${{12}} + ${{13}})); m=$((m + $(awk '/VmRSS/ {{print $2}}' /proc/$p/status))); done; \
                     echo $t $(getconf CLK_TCK) $m"
                );
                let told = kube.node("node2", &script).unwrap_or_else(|e| panic!("{e}"));
                let numbers: Vec<f64> = told.split_whitespace().map(|n| n.parse().unwrap()).collect();
                let [ticks, hertz, memory] = numbers[..] else {
                    panic!("{program}: {told}")
                };
                (program, (ticks / hertz, memory))
            })
            .collect()
    };
    let before = look();
    something();
    let after = look();
    after
        .into_iter()
        .map(|(program, (seconds, memory))| (program, (seconds - before[program].0, memory)))
        .collect()
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

fn spread(values: &[f64]) -> String {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let worst = sorted.last().copied().unwrap_or(f64::NAN);
    format!("median {:5.0}, worst {worst:5.0} of {:3}", median(values), values.len())
}
