//! Pods are under policy from their first packet.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use margay_agnhost::sweep::Sweep;
use margay_testkit::programs;

use super::flows::{Source, source};
use super::harness::{Kube, Running, wait};

/// Pods started while the sweep goes on.
const PODS: usize = 200;

/// Every address a pod can get.
const POOL: &str = "10.244.0.0/23";

/// A sweep under way.
pub(crate) struct Sweeping<'a> {
    kube: &'a Kube,
    node: String,
    running: Running,
}

impl Sweeping<'_> {
    /// Ends it; what came of it until the last second.
    pub(crate) fn ended(self) -> Sweep {
        self.kube.node(&self.node, "pkill -f 'margay-agnhost sweep'").unwrap();
        let words = self.running.output();
        let last = words.lines().rev().find_map(|line| serde_json::from_str(line).ok());
        last.unwrap_or_else(|| panic!("the sweep said nothing: {words:?}"))
    }
}

/// Begins to send to every address of `network` from a pod.
pub(crate) fn sweep_from<'a>(kube: &'a Kube, from: &Source, network: &str) -> Sweeping<'a> {
    let script = format!(
        "exec nsenter --net={} {} sweep {network} --interval 50ms --duration 900s",
        from.netns,
        programs::path("margay-agnhost").display()
    );
    Sweeping {
        kube,
        node: from.node.clone(),
        running: kube.run_on(&from.node, &script),
    }
}

#[test]
fn two_hundred_pods_start_closed() {
    let Some(kube) = Kube::up("first_packet::two_hundred_pods_start_closed", &[]) else {
        return;
    };
    kube.install();
    // A pool small enough to be swept whole.
    kube.sh("kubectl delete ippool pods-v4 pods-v6");
    kube.apply(&format!(
        "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {{name: small}}\n\
         spec: {{cidr: {POOL}, blockSize: 26, natOutgoing: false, ipipMode: Never, vxlanMode: Never}}\n"
    ));
    kube.ready();
    kube.apply(include_str!("manifests/flows.yaml"));
    kube.sh("kubectl wait -n flows --for=condition=Ready pod --all --timeout=90s");
    kube.apply(include_str!("manifests/closed.yaml"));
    let intruder = source(&kube, "flows/intruder");

    let sweep = sweep_from(&kube, &intruder, POOL);
    let begun = Instant::now();
    let mut served: BTreeSet<IpAddr> = BTreeSet::new();
    // In waves, each ended before the next: addresses are used again, by pods that must be as closed.
    for wave in 0..4 {
        kube.sh(&format!(
            "kubectl scale -n closed deployment/closed --replicas={}",
            PODS / 4
        ));
        kube.sh("kubectl rollout status -n closed deployment/closed --timeout=300s");
        let addresses = kube.field("pods -n closed", "{.items[*].status.podIP}");
        served.extend(
            addresses
                .split(' ')
                .filter_map(|address| address.parse::<IpAddr>().ok()),
        );
        println!(
            "wave {wave}: {} addresses by now, {:.0} s",
            served.len(),
            begun.elapsed().as_secs_f64()
        );
        if wave < 3 {
            kube.sh("kubectl scale -n closed deployment/closed --replicas=0");
            wait("the wave is gone", Duration::from_secs(120), || {
                let left = kube.sh("kubectl get pods -n closed -o name");
                if left.is_empty() { Ok(()) } else { Err(left) }
            });
        }
    }
    let seen = sweep.ended();
    let opened: Vec<&IpAddr> = seen
        .answered
        .keys()
        .filter(|address| served.contains(address))
        .collect();
    println!(
        "{} packets sent, {} pods started, answers from closed pods: {opened:?}",
        seen.sent, PODS
    );
    assert!(opened.is_empty(), "{seen:?}");

    // The sweep can see an open pod.
    kube.sh("kubectl delete networkpolicy -n closed closed");
    let sweep = sweep_from(&kube, &intruder, POOL);
    std::thread::park_timeout(Duration::from_secs(5));
    let seen = sweep.ended();
    let opened = seen.answered.keys().filter(|address| served.contains(address)).count();
    assert!(opened >= PODS / 4, "{opened} open pods seen: {seen:?}");
}
