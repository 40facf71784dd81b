//! What to write, and in which order. Pure.
//!
//! New sets and departures from sets come first, then the tables, then arrivals in sets, and last the end of sets that
//! nothing refers to any more. At no moment do rules and members together allow what neither the old nor the new state
//! does.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::snapshot::{BuiltinSnapshot, Snapshot, TableSnapshot};
use super::text::{Line, chain_lines, create, entry, hook_line};
use crate::render::{
    Builtin, Chain, ChainName, Delta, Family, Hooks, Ruleset, SetChange, SetName, Table, TableRules, parse_policy_set,
    set_prefix,
};

/// Input for the tools, in the order in which it is written. Empty parts are not written at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// For `ipset restore`: new sets, and members that go.
    pub(super) sets_before: String,
    /// For `iptables-restore --noflush`: one transaction a table.
    pub(super) tables: Vec<(Family, Table, String)>,
    /// For `ipset restore`: members that come.
    pub(super) sets_after: String,
    /// Sets to destroy.
    pub(super) unused_sets: Vec<String>,
}

impl Plan {
    /// What `delta` asks for, where the kernel holds the rest of `ruleset` already. Hooks are not looked at: where those
    /// stand, only a snapshot can tell.
    pub(super) fn for_delta(ruleset: &Ruleset, delta: &Delta, families: &[Family]) -> Self {
        let mut plan = Self::default();
        for (name, change) in &delta.sets {
            match change {
                SetChange::Created => plan.create_set(ruleset, name),
                SetChange::Changed { added, removed } => {
                    removed
                        .iter()
                        .for_each(|member| plan.write_before("del", &name.0, &entry(member)));
                    added
                        .iter()
                        .for_each(|member| plan.write_after(&name.0, &entry(member)));
                }
                SetChange::Removed => plan.unused_sets.push(name.to_string()),
            }
        }
        let mut tables: BTreeMap<(Family, Table), TableEdit> = BTreeMap::new();
        for (family, table, name) in delta.chains.iter().filter(|(family, ..)| families.contains(family)) {
            let edit = tables.entry((*family, *table)).or_default();
            match ruleset.chain(*family, *table, name) {
                Some(chain) => edit.write(name, &chain_lines(name, chain)),
                None => edit.delete(&name.0),
            }
        }
        plan.tables = tables
            .into_iter()
            .map(|((family, table), edit)| (family, table, edit.finish(table)))
            .collect();
        plan
    }

    /// Everything in which `kernel` differs from `ruleset`.
    pub(super) fn for_snapshot(ruleset: &Ruleset, kernel: &Snapshot, families: &[Family]) -> Self {
        let mut plan = Self::default();
        for (name, set) in &ruleset.sets {
            let there = kernel
                .sets
                .get(&*name.0)
                .filter(|there| there.kind == set.kind.to_string());
            let Some(there) = there else {
                plan.create_set(ruleset, name);
                continue;
            };
            if there.odd {
                plan.sets_before.push_str(&format!("flush {name}\n"));
            }
            let kept = if there.odd {
                BTreeSet::new()
            } else {
                there.members.clone()
            };
            kept.difference(&set.members)
                .for_each(|member| plan.write_before("del", &name.0, &entry(member)));
            set.members
                .difference(&kept)
                .for_each(|member| plan.write_after(&name.0, &entry(member)));
        }
        let unused = kernel
            .sets
            .keys()
            .filter(|name| !ruleset.sets.contains_key(&SetName(name.as_str().into())));
        plan.unused_sets = unused.cloned().collect();
        for &family in families {
            for table in Table::ALL {
                let (wanted, there) = (TableRules::default(), TableSnapshot::default());
                let wanted = ruleset.tables.get(&(family, table)).unwrap_or(&wanted);
                let there = kernel.tables.get(&(family, table)).unwrap_or(&there);
                let edit = TableEdit::between(wanted, there);
                if !edit.is_empty() {
                    plan.tables.push((family, table, edit.finish(table)));
                }
            }
        }
        plan
    }

    /// Whether there is anything to write, the end of unused sets aside.
    pub(super) fn edits(&self) -> bool {
        !(self.sets_before.is_empty() && self.tables.is_empty() && self.sets_after.is_empty())
    }

    /// Leaves some tables as they are, and with them what may only come after them.
    pub(super) fn keep(&mut self, tables: &BTreeSet<(Family, Table)>) {
        self.tables
            .retain(|(family, table, _)| !tables.contains(&(*family, *table)));
        self.withhold(tables);
    }

    /// Leaves out members that come to policies' sets, where the rules that look at those are not the ones that were meant:
    /// they might allow what neither the old nor the new state does.
    pub(super) fn withhold(&mut self, refused: &BTreeSet<(Family, Table)>) {
        let stale = Family::ALL
            .into_iter()
            .filter(|family| refused.contains(&(*family, Table::Filter)));
        for prefix in stale.map(set_prefix) {
            let lines = self.sets_after.split_inclusive('\n');
            let kept = lines.filter(|line| {
                let set = line.split(' ').nth(1).unwrap_or_default();
                !(set.starts_with(prefix) && parse_policy_set(set).is_some())
            });
            self.sets_after = kept.collect();
        }
    }

    fn create_set(&mut self, ruleset: &Ruleset, name: &SetName) {
        let Some(set) = ruleset.sets.get(name) else { return };
        self.sets_before.push_str(&create(name, set));
        self.sets_before.push_str(&format!("flush {name}\n"));
        set.members
            .iter()
            .for_each(|member| self.write_before("add", &name.0, &entry(member)));
    }

    fn write_before(&mut self, verb: &str, set: &str, member: &str) {
        writeln!(self.sets_before, "{verb} {set} {member}").expect("a String takes everything");
    }

    fn write_after(&mut self, set: &str, member: &str) {
        writeln!(self.sets_after, "add {set} {member}").expect("a String takes everything");
    }
}

/// One table's transaction in the making.
#[derive(Debug, Default)]
struct TableEdit {
    /// Chains to make or to empty.
    declarations: String,
    rules: String,
    hooks: String,
    deletions: String,
}

impl TableEdit {
    fn between(wanted: &TableRules, there: &TableSnapshot) -> Self {
        let mut edit = Self::default();
        for (name, chain) in &wanted.chains {
            let lines = chain_lines(name, chain);
            let same = there
                .chains
                .get(&*name.0)
                .is_some_and(|hashes| same_rules(&lines, hashes, chain));
            if !same {
                edit.write(name, &lines);
            }
        }
        let (no_hooks, nothing) = (Hooks::default(), BuiltinSnapshot::default());
        let builtins: BTreeSet<_> = wanted.hooks.keys().chain(there.builtins.keys()).collect();
        for &builtin in builtins {
            let wanted = wanted.hooks.get(&builtin).unwrap_or(&no_hooks);
            let there = there.builtins.get(&builtin).unwrap_or(&nothing);
            if !in_place(builtin, wanted, there) {
                there.hooks.iter().for_each(|hook| edit.unhook(builtin, &hook.spec));
                edit.hook(builtin, wanted);
            }
        }
        let unwanted = there
            .chains
            .keys()
            .filter(|name| !wanted.chains.contains_key(&ChainName(name.as_str().into())));
        unwanted.for_each(|name| edit.delete(name));
        edit
    }

    fn write(&mut self, name: &ChainName, lines: &[Line]) {
        writeln!(self.declarations, ":{name} - [0:0]").expect("a String takes everything");
        for line in lines {
            writeln!(self.rules, "-A {name} {}", line.spec).expect("a String takes everything");
        }
    }

    fn delete(&mut self, name: &str) {
        writeln!(self.declarations, ":{name} - [0:0]").expect("a String takes everything");
        writeln!(self.deletions, "-X {name}").expect("a String takes everything");
    }

    fn hook(&mut self, builtin: Builtin, hooks: &Hooks) {
        // Each goes before the one that was written before it.
        for chain in hooks.first.iter().rev() {
            let line = hook_line(builtin, chain);
            writeln!(self.hooks, "-I {builtin} 1 {}", line.spec).expect("a String takes everything");
        }
        for chain in &hooks.last {
            let line = hook_line(builtin, chain);
            writeln!(self.hooks, "-A {builtin} {}", line.spec).expect("a String takes everything");
        }
    }

    fn unhook(&mut self, builtin: Builtin, spec: &str) {
        writeln!(self.hooks, "-D {builtin} {spec}").expect("a String takes everything");
    }

    fn is_empty(&self) -> bool {
        self.declarations.is_empty() && self.hooks.is_empty()
    }

    fn finish(self, table: Table) -> String {
        let Self {
            declarations,
            rules,
            hooks,
            deletions,
        } = self;
        format!("*{table}\n{declarations}{rules}{hooks}{deletions}COMMIT\n")
    }
}

/// Whether the hooks, and no others of ours, stand where they should among the rules of others.
fn in_place(builtin: Builtin, wanted: &Hooks, there: &BuiltinSnapshot) -> bool {
    let end = there.length - wanted.last.len().min(there.length);
    let positions = (0..wanted.first.len()).chain(end..);
    wanted.chains().count() == there.hooks.len()
        && wanted
            .chains()
            .zip(positions)
            .zip(&there.hooks)
            .all(|((chain, position), hook)| {
                hook.position == position && hook.hash.as_ref() == Some(&hook_line(builtin, chain).hash)
            })
}

/// Whether what is there judges workloads, if not as is wanted now: all packets are led to our first chains, and no chain
/// that should hold rules is empty.
pub(super) fn guards(wanted: &TableRules, there: &TableSnapshot) -> bool {
    let led = |builtin: &Builtin, chain: &ChainName| {
        let hash = Some(hook_line(*builtin, chain).hash);
        let hooks = there.builtins.get(builtin).map(|builtin| &builtin.hooks);
        there.chains.contains_key(&*chain.0) && hooks.is_some_and(|hooks| hooks.iter().any(|hook| hook.hash == hash))
    };
    let mut hooks = wanted.hooks.iter();
    let mut chains = wanted.chains.iter().filter(|(_, chain)| !chain.rules.is_empty());
    hooks.all(|(builtin, hooks)| hooks.first.iter().all(|chain| led(builtin, chain)))
        && chains.all(|(name, _)| there.chains.get(&*name.0).is_none_or(|rules| !rules.is_empty()))
}

fn same_rules(lines: &[Line], hashes: &[Option<String>], chain: &Chain) -> bool {
    chain.rules.len() == hashes.len()
        && lines
            .iter()
            .zip(hashes)
            .all(|(line, hash)| hash.as_ref() == Some(&line.hash))
}
