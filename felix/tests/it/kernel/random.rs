//! Random policies by packets: the kernel says what `verdict` says.

use std::pin::Pin;

use margay_felix::verdict::{Cluster, Connection, Peer, Protocol, evaluate};
use serde_json::json;

use super::lab::Via::{Icmp, Tcp, Udp};
use super::lab::{Lab, id};
use super::on_both_backends;
use crate::rng::{Rng, seeds};
use crate::world::random_policy;

type Test<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;

on_both_backends!(random_policies);

const ROUNDS: usize = 8;
const PACKETS: usize = 80;
const APPS: [&str; 3] = ["web", "api", "db"];
const PODS: [&str; 4] = ["red/a", "red/b", "green/c", "blue/d"];
const OUTSIDE: [&str; 5] = ["192.0.2.1", "203.0.113.5", "10.0.1.200", "2001:db8::1", "fd00:1::200"];
const PORTS: [u16; 5] = [80, 443, 8000, 8010, 9100];

fn random_policies(lab: &mut Lab) -> Test<'_> {
    Box::pin(async move {
        let seed = seeds(1)[0];
        let mut rng = Rng::new(seed);
        lab.begin(&[("red", "a"), ("green", "b"), ("blue", "a")]).await;
        for name in PODS {
            let ports = json!([{"name": "http", "containerPort": rng.pick(&PORTS)}, {"name": "metrics", "containerPort": 9100}]);
            let app = *rng.pick(&APPS);
            lab.pod(name, app, ports).await;
        }
        let (mut judged, mut allowed) = (0, 0);
        for round in 0..ROUNDS {
            let mut cluster = Cluster {
                pods: lab.objects(),
                namespaces: lab.namespaces(),
                ..Cluster::default()
            };
            for name in ["np0", "np1", "np2", "np3"] {
                let namespace = *rng.pick(&["red", "green", "blue"]);
                let policy = random_policy(&mut rng, namespace, name);
                lab.policy(
                    &policy.metadata.full_name(),
                    serde_json::to_value(&policy.spec).unwrap(),
                );
                cluster.policies.push(policy);
            }
            lab.programmed(PODS[0]).await;
            let mut expectations = Vec::new();
            for _ in 0..PACKETS {
                let all: Vec<&str> = PODS.iter().chain(&OUTSIDE).copied().collect();
                let (from, to) = (*rng.pick(&all), *rng.pick(&PODS));
                if from == to {
                    continue;
                }
                let (via, port) = (*rng.pick(&[Tcp, Tcp, Udp, Icmp]), *rng.pick(&PORTS));
                let protocol = match via {
                    Tcp => Protocol::Tcp(port),
                    Udp => Protocol::Udp(port),
                    Icmp => Protocol::Icmp,
                };
                let verdicts = lab.address_pairs(from, to).into_iter().map(|(from, to)| {
                    let connection = Connection {
                        from: Peer::Address(from),
                        to: Peer::Address(to),
                        protocol,
                    };
                    evaluate(&cluster, &connection).unwrap().allow
                });
                let verdicts: Vec<bool> = verdicts.collect();
                // Where the families differ the pair is left to the tests without a kernel.
                if verdicts.iter().all(|&v| v == verdicts[0]) {
                    judged += verdicts.len();
                    allowed += verdicts.iter().filter(|&&v| v).count();
                    expectations.push((from, to, via, port, verdicts[0]));
                }
            }
            println!("seed {seed} round {round}: {} expectations", expectations.len());
            lab.expect(&expectations).await;
            for policy in &cluster.policies {
                lab.no_policy(&policy.metadata.full_name());
            }
        }
        println!("{judged} packets, {allowed} of them allowed");
        assert!(
            lab.engine
                .status()
                .endpoints
                .iter()
                .any(|endpoint| endpoint.id == id(PODS[0]))
        );
    })
}
