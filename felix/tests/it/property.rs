//! Random clusters and edits: what is computed step by step equals what is computed at once, and the rules say what
//! `verdict` says.

use std::net::IpAddr;

use margay_api::slim::Pod;
use margay_felix::calc::Calc;
use margay_felix::model::Protocol;
use margay_felix::render::{Builtin, Match, Ruleset, SetName, Table};
use margay_felix::verdict::{self, Cluster, Connection, Peer, evaluate};

use crate::interpreter::{Packet, Walk, check_loadable, walk};
use crate::node::{Node, interface, steps};
use crate::rng::{Rng, seeds};
use crate::shrink::report;
use crate::state::State;
use crate::world::{NODES, World};

const WORLDS: usize = 40;
const EDITS: usize = 25;
const PACKETS: usize = 80;

#[test]
fn rules_say_what_verdict_says_after_every_edit() {
    let (mut packets, mut allowed) = (0, 0);
    let seeds = seeds(WORLDS);
    for &seed in &seeds {
        let mut world = World::new(seed);
        let mut nodes = NODES.map(Node::new);
        let mut before = Cluster::default();
        for edit in 0..EDITS {
            for node in &mut nodes {
                let old = node.ruleset().clone();
                node.update(&before, &world.cluster);
                let delta = node.flush();
                let kernel = steps(&old, node.ruleset(), &delta).pop().unwrap();
                assert!(
                    kernel == *node.ruleset(),
                    "seed {seed} edit {edit}: the delta is not the whole difference"
                );
                if let Err(wrong) = check_loadable(node.ruleset()) {
                    panic!("seed {seed} edit {edit}: {wrong}");
                }
            }
            for _ in 0..PACKETS {
                let connection = world.connection();
                let Some((expected, found)) = compare(&world.cluster, &rulesets(&nodes), &connection) else {
                    continue;
                };
                packets += 1;
                allowed += usize::from(expected);
                if found.allowed != expected {
                    report(seed, &world.cluster, &connection);
                }
            }
            before = world.cluster.clone();
            (0..=world.rng.below(3)).for_each(|_| world.edit());
        }
    }
    println!(
        "{packets} packets, {allowed} of them allowed, in {} clusters after {EDITS} batches of edits each",
        seeds.len()
    );
    assert!(packets > 20_000 || seeds.len() == 1);
    assert!(
        allowed * 10 > packets && allowed * 10 < packets * 9,
        "{allowed} of {packets} allowed: not much of a test"
    );
}

#[test]
fn step_by_step_equals_at_once() {
    for seed in seeds(60) {
        let mut world = World::new(seed);
        let mut nodes = NODES.map(|name| (Node::new(name), Calc::new(), State::default()));
        let mut before = Cluster::default();
        for edit in 0..40 {
            for (node, calc, state) in &mut nodes {
                calc.in_sync();
                node.updates(&before, &world.cluster)
                    .into_iter()
                    .for_each(|update| calc.update(update));
                state.take(calc.flush());
                let mut updates = node.updates(&Cluster::default(), &world.cluster);
                Rng::new(seed + edit).shuffle(&mut updates);
                let mut scratch = Calc::new();
                updates.into_iter().for_each(|update| scratch.update(update));
                assert!(scratch.flush().is_empty(), "nothing may come out before in_sync");
                scratch.in_sync();
                let mut at_once = State::default();
                at_once.take(scratch.flush());
                assert_eq!(*state, at_once, "seed {seed} edit {edit}");
            }
            before = world.cluster.clone();
            (0..=world.rng.below(3)).for_each(|_| world.edit());
        }
    }
}

#[test]
fn rendered_step_by_step_equals_rendered_at_once() {
    for seed in seeds(20) {
        let mut world = World::new(seed);
        let mut nodes = NODES.map(Node::new);
        let mut before = Cluster::default();
        for edit in 0..40 {
            for (name, node) in NODES.iter().zip(&mut nodes) {
                node.update(&before, &world.cluster);
                node.flush();
                let mut at_once = Node::new(name);
                at_once.update(&Cluster::default(), &world.cluster);
                at_once.flush();
                assert_eq!(
                    first_generation(node.ruleset()),
                    first_generation(at_once.ruleset()),
                    "seed {seed} edit {edit}"
                );
            }
            before = world.cluster.clone();
            (0..=world.rng.below(3)).for_each(|_| world.edit());
        }
    }
}

/// Between the steps of one change no packet passes that neither the state before nor the one after allows.
#[test]
fn nothing_slips_through_half_a_change() {
    let mut judged = 0;
    for seed in seeds(60) {
        let mut world = World::new(seed);
        // On one node: how two nodes are in step with each other is another matter.
        world
            .cluster
            .pods
            .iter_mut()
            .for_each(|pod| pod.spec.node_name = NODES[0].to_owned());
        let mut node = Node::new(NODES[0]);
        node.update(&Cluster::default(), &world.cluster);
        node.flush();
        for edit in 0..20 {
            let before = world.cluster.clone();
            (0..=world.rng.below(4)).for_each(|_| world.edit());
            world
                .cluster
                .pods
                .iter_mut()
                .for_each(|pod| pod.spec.node_name = NODES[0].to_owned());
            let old = node.ruleset().clone();
            node.update(&before, &world.cluster);
            let delta = node.flush();
            let halves = steps(&old, node.ruleset(), &delta);
            for _ in 0..60 {
                let connection = world.connection();
                let verdict = |ruleset: &Ruleset| pass(&before, &[(NODES[0], ruleset)], &connection).map(|w| w.allowed);
                let (Some(false), Some(false)) = (verdict(&old), verdict(node.ruleset())) else {
                    continue;
                };
                judged += 1;
                for half in &halves {
                    assert_eq!(verdict(half), Some(false), "seed {seed} edit {edit}: {connection:?}");
                }
            }
        }
    }
    println!("{judged} packets that both states deny, each judged at every step");
    assert!(judged > 1000);
}

/// The rulesets by the name of their node.
pub(crate) fn rulesets(nodes: &[Node; 2]) -> Vec<(&'static str, &Ruleset)> {
    NODES
        .iter()
        .zip(nodes)
        .map(|(name, node)| (*name, node.ruleset()))
        .collect()
}

/// What `verdict` says of a connection, and what the rules do; `None` where no rule is met.
pub(crate) fn compare(
    cluster: &Cluster,
    rulesets: &[(&str, &Ruleset)],
    connection: &Connection,
) -> Option<(bool, Walk)> {
    let expected = evaluate(cluster, connection).ok()?.allow;
    Some((expected, pass(cluster, rulesets, connection)?))
}

/// Passes a connection's first packet through every node on its way.
fn pass(cluster: &Cluster, rulesets: &[(&str, &Ruleset)], connection: &Connection) -> Option<Walk> {
    use Builtin::{Forward, Input, Output, Prerouting};
    let (Peer::Address(source), Peer::Address(destination)) = (&connection.from, &connection.to) else {
        return None;
    };
    if source == destination || source.is_ipv4() != destination.is_ipv4() {
        return None;
    }
    let (from, to) = (pod_at(cluster, *source), pod_at(cluster, *destination));
    let walk_on = |node: &str, input: Option<String>, output: Option<String>, through: &[(Table, Builtin)]| {
        let (_, ruleset) = rulesets.iter().find(|(name, _)| *name == node).unwrap();
        let (protocol, port) = match connection.protocol {
            verdict::Protocol::Tcp(port) => (Protocol::TCP, port),
            verdict::Protocol::Udp(port) => (Protocol::UDP, port),
            verdict::Protocol::Sctp(port) => (Protocol::SCTP, port),
            verdict::Protocol::Icmp => (
                if source.is_ipv4() {
                    Protocol(1)
                } else {
                    Protocol::ICMPV6
                },
                0,
            ),
        };
        let packet = Packet {
            source: *source,
            destination: *destination,
            protocol,
            port,
            from_here: input.is_none(),
            input,
            output,
        };
        walk(ruleset, &packet, through).unwrap()
    };
    let forward = [(Table::Raw, Prerouting), (Table::Filter, Forward)];
    let fabric = || Some("eth0".to_owned());
    match (from, to) {
        (None, None) => None,
        (Some(from), Some(to)) if from.spec.node_name == to.spec.node_name => Some(walk_on(
            &from.spec.node_name,
            Some(interface(from)),
            Some(interface(to)),
            &forward,
        )),
        (Some(from), Some(to)) => {
            let first = walk_on(&from.spec.node_name, Some(interface(from)), fabric(), &forward);
            Some(if first.allowed {
                walk_on(&to.spec.node_name, fabric(), Some(interface(to)), &forward)
            } else {
                first
            })
        }
        (Some(from), None) if host_at(cluster, *destination) == Some(&from.spec.node_name) => {
            let to_host = [(Table::Raw, Prerouting), (Table::Filter, Input)];
            Some(walk_on(&from.spec.node_name, Some(interface(from)), None, &to_host))
        }
        (Some(from), None) => Some(walk_on(&from.spec.node_name, Some(interface(from)), fabric(), &forward)),
        (None, Some(to)) if host_at(cluster, *source) == Some(&to.spec.node_name) => Some(walk_on(
            &to.spec.node_name,
            None,
            Some(interface(to)),
            &[(Table::Filter, Output)],
        )),
        (None, Some(to)) => Some(walk_on(&to.spec.node_name, fabric(), Some(interface(to)), &forward)),
    }
}

fn pod_at(cluster: &Cluster, address: IpAddr) -> Option<&Pod> {
    cluster
        .pods
        .iter()
        .find(|pod| !pod.is_host_network() && !pod.is_finished() && pod.ips().contains(&address))
}

fn host_at(cluster: &Cluster, address: IpAddr) -> Option<&String> {
    let node = cluster
        .nodes
        .iter()
        .find(|node| [node.address(true), node.address(false)].contains(&Some(address)));
    node.map(|node| &node.metadata.name)
}

/// The ruleset as if no set had ever been renewed.
fn first_generation(ruleset: &Ruleset) -> Ruleset {
    let first = |name: &SetName| match name.0.rsplit_once('-') {
        Some((base, _)) if base.len() > 5 => SetName(format!("{base}-0").into()),
        _ => name.clone(),
    };
    let mut ruleset = ruleset.clone();
    ruleset.sets = ruleset
        .sets
        .into_iter()
        .map(|(name, set)| (first(&name), set))
        .collect();
    for table in ruleset.tables.values_mut() {
        for rule in table.chains.values_mut().flat_map(|chain| &mut chain.rules) {
            for r#match in &mut rule.matches {
                if let Match::Set { set, .. } = r#match {
                    *set = first(set);
                }
            }
        }
    }
    ruleset
}
