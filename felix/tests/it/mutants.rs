//! A bug put into calc, render or verdict is noticed by the comparison of rules and verdict.

use margay_felix::calc::Change;
use margay_felix::render::{Lookup, Match, Rule, Ruleset, Target};
use margay_felix::verdict::Cluster;

use crate::node::{Node, Tamper};
use crate::property::{compare, rulesets};
use crate::rng::seeds;
use crate::world::{NODES, World};

/// Packets that a mutant may live through before it counts as unnoticed.
const LIFE: usize = 60_000;

/// Where the bug is.
enum Bug {
    None,
    Calc(Tamper),
    Render(fn(&mut Ruleset)),
    Verdict(fn(&mut Cluster)),
}

#[test]
fn every_mutant_is_killed() {
    let mutants: [(&str, &str, Bug); 12] = [
        ("calc", "a set lacks its first member", Bug::Calc(drop_first_member)),
        ("calc", "a set keeps members that left", Bug::Calc(keep_departed)),
        ("calc", "an endpoint lacks its last policy", Bug::Calc(drop_last_policy)),
        ("render", "no default deny", Bug::Render(drop_default_deny)),
        (
            "render",
            "a policy's first rule is missing",
            Bug::Render(drop_first_rule),
        ),
        ("render", "default deny before the policies", Bug::Render(deny_first)),
        (
            "render",
            "the mark is not cleared between endpoints",
            Bug::Render(keep_mark),
        ),
        (
            "render",
            "the last port of a range is left out",
            Bug::Render(short_range),
        ),
        ("render", "source and destination are swapped", Bug::Render(swap_sides)),
        ("verdict", "except is ignored", Bug::Verdict(ignore_except)),
        ("verdict", "egress policies are ignored", Bug::Verdict(ignore_egress)),
        (
            "verdict",
            "namespace labels are ignored",
            Bug::Verdict(ignore_namespace_labels),
        ),
    ];
    let seed = seeds(1)[0];
    println!("seed {seed}\n{:8} {:45} killed by packet", "part", "mutant");
    let mut survivors = Vec::new();
    for (part, name, bug) in &mutants {
        let killed = lives(seed, bug);
        println!(
            "{part:8} {name:45} {}",
            killed.map_or("SURVIVED".to_owned(), |n| n.to_string())
        );
        if killed.is_none() {
            survivors.push(name);
        }
    }
    assert!(survivors.is_empty(), "seed {seed}: survived: {survivors:?}");
    assert_eq!(
        lives(seed, &Bug::None),
        None,
        "seed {seed}: the control, which has no bug, must live"
    );
}

/// How many packets it took to notice the bug.
fn lives(seed: u64, bug: &Bug) -> Option<usize> {
    let mut packets = 0;
    for world_seed in 0.. {
        let mut world = World::new(seed.wrapping_add(world_seed));
        let mut nodes = match bug {
            Bug::Calc(tamper) => NODES.map(|name| Node::tampered(name, *tamper)),
            Bug::None | Bug::Render(_) | Bug::Verdict(_) => NODES.map(Node::new),
        };
        let mut before = Cluster::default();
        for _ in 0..8 {
            for node in &mut nodes {
                node.update(&before, &world.cluster);
                node.flush();
            }
            let mut rules: Vec<(&str, Ruleset)> = rulesets(&nodes)
                .into_iter()
                .map(|(name, rules)| (name, rules.clone()))
                .collect();
            if let Bug::Render(mutate) = bug {
                rules.iter_mut().for_each(|(_, rules)| mutate(rules));
            }
            let rules: Vec<_> = rules.iter().map(|(name, rules)| (*name, rules)).collect();
            let mut told = world.cluster.clone();
            if let Bug::Verdict(mutate) = bug {
                mutate(&mut told);
            }
            for _ in 0..40 {
                let connection = world.connection();
                let Some((expected, found)) = compare(&told, &rules, &connection) else {
                    continue;
                };
                packets += 1;
                if expected != found.allowed {
                    return Some(packets);
                }
            }
            before = world.cluster.clone();
            world.edit();
        }
        if packets > LIFE || (matches!(bug, Bug::None) && packets > LIFE / 10) {
            break;
        }
    }
    None
}

fn drop_first_member(changes: &mut Vec<Change>) {
    for change in changes {
        if let Change::SetAdded(_, members) = change {
            members.pop_first();
        }
    }
}

fn keep_departed(changes: &mut Vec<Change>) {
    for change in changes {
        if let Change::SetChanged(_, delta) = change {
            delta.removed.clear();
        }
    }
}

fn drop_last_policy(changes: &mut Vec<Change>) {
    for change in changes {
        if let Change::EndpointUpdated(_, endpoint) = change {
            let mut changed = (**endpoint).clone();
            let tiers = changed
                .policy
                .iter_mut()
                .flat_map(|policy| policy.ingress.iter_mut().chain(&mut policy.egress));
            tiers.for_each(|tier| _ = tier.policies.pop());
            *endpoint = changed.into();
        }
    }
}

fn chains<'a>(rules: &'a mut Ruleset, prefixes: &'static [&str]) -> impl Iterator<Item = &'a mut Vec<Rule>> {
    let chains = rules.tables.values_mut().flat_map(|table| &mut table.chains);
    let named = chains.filter(|(name, _)| prefixes.iter().any(|prefix| name.0.starts_with(prefix)));
    named.map(|(_, chain)| &mut chain.rules)
}

const ENDPOINTS: &[&str] = &["mgy-tw-", "mgy-fw-"];
const POLICIES: &[&str] = &["mgy-pi-", "mgy-po-"];

fn drop_default_deny(rules: &mut Ruleset) {
    for rules in chains(rules, ENDPOINTS) {
        rules.retain(|rule| rule.target != Target::Drop || !rule.matches.is_empty());
    }
}

fn drop_first_rule(rules: &mut Ruleset) {
    chains(rules, POLICIES)
        .filter(|rules| !rules.is_empty())
        .for_each(|rules| _ = rules.remove(0));
}

fn deny_first(rules: &mut Ruleset) {
    for rules in chains(rules, ENDPOINTS) {
        if rules.last().is_some_and(|rule| rule.target == Target::Drop) {
            rules.rotate_right(1);
        }
    }
}

fn keep_mark(rules: &mut Ruleset) {
    for rules in chains(rules, ENDPOINTS) {
        rules.retain(|rule| !matches!(rule.target, Target::SetMark { value: 0, .. }));
    }
}

fn short_range(rules: &mut Ruleset) {
    for r#match in chains(rules, POLICIES).flatten().flat_map(|rule| &mut rule.matches) {
        if let Match::DestinationPorts(ranges) = r#match {
            ranges
                .iter_mut()
                .filter(|range| range.first < range.last)
                .for_each(|range| range.last -= 1);
        }
    }
}

fn swap_sides(rules: &mut Ruleset) {
    for r#match in chains(rules, POLICIES).flatten().flat_map(|rule| &mut rule.matches) {
        if let Match::Set { lookup, .. } = r#match {
            *lookup = match *lookup {
                Lookup::Source => Lookup::Destination,
                Lookup::Destination => Lookup::Source,
                other => other,
            };
        }
    }
}

fn ignore_except(cluster: &mut Cluster) {
    for policy in &mut cluster.policies {
        let from = policy.spec.ingress.iter_mut().flat_map(|rule| &mut rule.from);
        let to = policy.spec.egress.iter_mut().flat_map(|rule| &mut rule.to);
        from.chain(to)
            .filter_map(|peer| peer.ip_block.as_mut())
            .for_each(|block| block.except.clear());
    }
}

fn ignore_egress(cluster: &mut Cluster) {
    for policy in &mut cluster.policies {
        policy.spec.egress = vec![Default::default()];
    }
}

fn ignore_namespace_labels(cluster: &mut Cluster) {
    cluster
        .namespaces
        .iter_mut()
        .for_each(|namespace| namespace.metadata.labels.clear());
}
