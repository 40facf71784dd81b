//! From an interface's name to its endpoint's chain, by a tree of prefixes, so that a node of many workloads asks few
//! questions of a packet.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::chains::{Direction, rule};
use super::names;
use super::ruleset::{Chain, ChainName, Interface, Rule, Target};

/// A chain asks for no more interfaces than this one by one.
const FLAT: usize = 8;

/// The dispatch chains of one direction for these interfaces, sorted and each once. Whatever they do not know is
/// dropped.
pub(super) fn dispatch(direction: Direction, interfaces: &[Arc<str>]) -> BTreeMap<ChainName, Chain> {
    let mut chains = BTreeMap::new();
    let mut root = branch(direction, interfaces, &mut chains);
    if let Some(last) = root.rules.last_mut() {
        last.note = Some("unknown interface".into());
    }
    chains.insert(direction.dispatch_chain(), root);
    chains
}

fn branch(direction: Direction, interfaces: &[Arc<str>], chains: &mut BTreeMap<ChainName, Chain>) -> Chain {
    let mut rules = Vec::new();
    if interfaces.len() <= FLAT {
        rules.extend(interfaces.iter().map(|interface| leaf(direction, interface)));
    } else {
        let common = common_prefix(interfaces);
        let key = |interface: &Arc<str>| interface.chars().nth(common);
        for group in interfaces.chunk_by(|a, b| key(a) == key(b)) {
            match (group, key(&group[0])) {
                ([only], _) => rules.push(leaf(direction, only)),
                (_, None) => {}
                (group, Some(next)) => {
                    let prefix: String = group[0].chars().take(common).chain([next]).collect();
                    let name = names::chain(&format!("{}-{prefix}", direction.dispatch_name()));
                    let matches = direction.interface(Interface::Prefixed(prefix.into()));
                    rules.push(rule([matches], Target::Goto(name.clone())));
                    let chain = branch(direction, group, chains);
                    chains.insert(name, chain);
                }
            }
        }
    }
    rules.push(rule([], Target::Drop));
    Chain { rules }
}

fn leaf(direction: Direction, interface: &Arc<str>) -> Rule {
    let matches = direction.interface(Interface::Named(interface.clone()));
    rule([matches], Target::Goto(direction.endpoint_chain(interface)))
}

/// How many characters all of them start with.
fn common_prefix(interfaces: &[Arc<str>]) -> usize {
    let (Some(first), Some(last)) = (interfaces.first(), interfaces.last()) else {
        return 0;
    };
    first.chars().zip(last.chars()).take_while(|(a, b)| a == b).count()
}
