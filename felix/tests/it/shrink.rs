//! The smallest cluster with which rules and `verdict` are at odds.

use margay_felix::verdict::{Cluster, Connection};

use crate::node::Node;
use crate::property::{compare, rulesets};
use crate::world::NODES;

/// Makes the cluster as small as it can be with the rules and `verdict` still at odds, and says how.
pub(crate) fn report(seed: u64, cluster: &Cluster, connection: &Connection) -> ! {
    let mut small = cluster.clone();
    let odd = |cluster: &Cluster| {
        let nodes = NODES.map(|name| {
            let mut node = Node::new(name);
            node.update(&Cluster::default(), cluster);
            node.flush();
            node
        });
        let (expected, found) = compare(cluster, &rulesets(&nodes), connection)?;
        (expected != found.allowed).then_some((expected, found))
    };
    if odd(&small).is_none() {
        panic!(
            "seed {seed}: {connection:?}: at odds, but not when the rules are made at once: {}",
            json(cluster)
        );
    }
    loop {
        let smaller = candidates(&small)
            .into_iter()
            .find(|candidate| odd(candidate).is_some());
        match smaller {
            Some(smaller) => small = smaller,
            None => break,
        }
    }
    let (expected, found) = odd(&small).unwrap();
    panic!(
        "MARGAY_SEED={seed}: {connection:?}: verdict says allow={expected}, the rules {}:\n{}\n{}",
        found.allowed,
        found.trace.join("\n"),
        json(&small)
    );
}

/// The cluster with one thing less.
fn candidates(cluster: &Cluster) -> Vec<Cluster> {
    let mut candidates = Vec::new();
    let mut without = |edit: &dyn Fn(&mut Cluster)| {
        let mut candidate = cluster.clone();
        edit(&mut candidate);
        candidates.push(candidate);
    };
    (0..cluster.pods.len()).for_each(|i| without(&|c| _ = c.pods.remove(i)));
    (0..cluster.policies.len()).for_each(|i| without(&|c| _ = c.policies.remove(i)));
    for (i, policy) in cluster.policies.iter().enumerate() {
        for j in 0..policy.spec.ingress.len() {
            without(&|c| _ = c.policies[i].spec.ingress.remove(j));
            let rule = &policy.spec.ingress[j];
            (1..rule.from.len()).for_each(|k| without(&|c| _ = c.policies[i].spec.ingress[j].from.remove(k)));
            (1..rule.ports.len()).for_each(|k| without(&|c| _ = c.policies[i].spec.ingress[j].ports.remove(k)));
        }
        for j in 0..policy.spec.egress.len() {
            without(&|c| _ = c.policies[i].spec.egress.remove(j));
            let rule = &policy.spec.egress[j];
            (1..rule.to.len()).for_each(|k| without(&|c| _ = c.policies[i].spec.egress[j].to.remove(k)));
            (1..rule.ports.len()).for_each(|k| without(&|c| _ = c.policies[i].spec.egress[j].ports.remove(k)));
        }
    }
    candidates
}

fn json(cluster: &Cluster) -> String {
    let lines = cluster.pods.iter().map(|pod| serde_json::to_string(pod).unwrap());
    let lines = lines.chain(
        cluster
            .policies
            .iter()
            .map(|policy| serde_json::to_string(policy).unwrap()),
    );
    lines
        .chain(cluster.namespaces.iter().map(|ns| serde_json::to_string(ns).unwrap()))
        .collect::<Vec<_>>()
        .join("\n")
}
