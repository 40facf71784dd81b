//! What the kernel shall hold where it does not take all of a ruleset: less passes then, never more.

use std::collections::BTreeSet;

use super::chains::rule;
use super::ruleset::{Family, Match, Rule, Ruleset, SetName, Table, Target};

impl Ruleset {
    /// The same without some sets. No rule that looked at one lets anything through: one that drops now drops whatever its
    /// other matches say, and any other is gone.
    pub fn without(&self, sets: &BTreeSet<SetName>) -> Self {
        let mut rest = self.clone();
        rest.sets.retain(|name, _| !sets.contains(name));
        let missing = |of: &Match| matches!(of, Match::Set { set, .. } if sets.contains(set));
        for chain in rest.tables.values_mut().flat_map(|table| table.chains.values_mut()) {
            chain
                .rules
                .retain(|rule| rule.target == Target::Drop || !rule.matches.iter().any(missing));
            for rule in &mut chain.rules {
                rule.matches.retain(|of| !missing(of));
            }
        }
        rest
    }

    /// The same, but in these families nothing passes from or to a workload that gets as far as any of our hooks.
    pub fn closed(&self, families: &BTreeSet<Family>) -> Self {
        let mut closed = self.clone();
        for ((family, table), rules) in &mut closed.tables {
            if !families.contains(family) || *table == Table::Nat {
                continue;
            }
            let hooked: BTreeSet<_> = rules.hooks.values().flat_map(|hooks| &hooks.first).cloned().collect();
            for name in &hooked {
                let Some(chain) = rules.chains.get_mut(name) else {
                    continue;
                };
                let mut workloads = Vec::new();
                for of in chain.rules.iter().flat_map(|rule| &rule.matches) {
                    if matches!(of, Match::InInterface(_) | Match::OutInterface(_)) && !workloads.contains(of) {
                        workloads.push(of.clone());
                    }
                }
                let drops = workloads.into_iter().map(|of| {
                    let drop = rule([of], Target::Drop);
                    drop.noted("closed: the kernel does not take what judges workloads")
                });
                chain.rules.splice(0..0, drops.collect::<Vec<Rule>>());
            }
        }
        closed
    }

    /// The tables with rules that look at a set.
    pub fn users(&self, set: &SetName) -> BTreeSet<(Family, Table)> {
        let looks = |rule: &Rule| {
            let mut matches = rule.matches.iter();
            matches.any(|of| matches!(of, Match::Set { set: other, .. } if other == set))
        };
        let users = self.tables.iter().filter(|(_, table)| {
            let mut chains = table.chains.values();
            chains.any(|chain| chain.rules.iter().any(looks))
        });
        users.map(|(key, _)| *key).collect()
    }
}
