//! What the kernel does not take, and what follows. Pure.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use super::plan::guards;
use super::snapshot::{Snapshot, TableSnapshot};
use super::tools::ToolError;
use crate::render::{Family, Ruleset, SetName, Table, parse_policy_set};

/// What the kernel refused, and what it says.
#[derive(Clone, Debug, Default)]
pub(super) struct Refusals {
    /// Sets of policies. What looks at one is denied.
    pub(super) sets: BTreeMap<SetName, ToolError>,
    /// Tables. They stay as they were.
    pub(super) tables: BTreeMap<(Family, Table), ToolError>,
    /// Families in which nothing passes, as what was in the kernel before does not judge workloads.
    pub(super) closed: BTreeSet<Family>,
}

impl Refusals {
    pub(super) fn is_empty(&self) -> bool {
        self.sets.is_empty() && self.tables.is_empty() && self.closed.is_empty()
    }

    /// What the kernel shall hold instead.
    pub(super) fn rest_of<'a>(&self, ruleset: &'a Ruleset) -> Cow<'a, Ruleset> {
        let mut rest = Cow::Borrowed(ruleset);
        if !self.sets.is_empty() {
            rest = Cow::Owned(rest.without(&self.sets.keys().cloned().collect()));
        }
        if !self.closed.is_empty() {
            rest = Cow::Owned(rest.closed(&self.closed));
        }
        rest
    }

    /// Takes note of a set: of a policy's own, or with one that is always there of every table that looks at it.
    pub(super) fn note_set(&mut self, ruleset: &Ruleset, name: SetName, error: &ToolError) {
        if parse_policy_set(&name.0).is_some() {
            self.sets.insert(name, error.clone());
            return;
        }
        for table in ruleset.users(&name) {
            self.tables.insert(table, error.clone());
        }
    }

    /// The families in which policy is not what it should be: what judges packets, or where they may come from, is refused.
    pub(super) fn stale(&self) -> BTreeSet<Family> {
        let tables = self.tables.keys().filter(|(_, table)| *table != Table::Nat);
        tables
            .map(|(family, _)| *family)
            .chain(self.closed.iter().copied())
            .collect()
    }

    /// Those of the stale families in which `kernel`, as it was before, does not judge workloads.
    pub(super) fn unguarded(&self, ruleset: &Ruleset, kernel: &Snapshot) -> BTreeSet<Family> {
        let nothing = TableSnapshot::default();
        let tables = self.tables.keys().filter(|(_, table)| *table != Table::Nat);
        let open = tables.filter(|key| {
            let wanted = ruleset.tables.get(key);
            wanted.is_some_and(|wanted| !guards(wanted, kernel.tables.get(key).unwrap_or(&nothing)))
        });
        open.map(|(family, _)| *family).collect()
    }

    /// For people.
    pub(super) fn complaints(&self) -> Vec<String> {
        let sets = self.sets.iter().map(|(name, error)| {
            format!("the policies that look at set {name} deny, as the kernel does not take it: {error}")
        });
        let tables = self.tables.iter().map(|((family, table), error)| {
            let follows = match table {
                Table::Nat => "natOutgoing may not be in force",
                Table::Raw | Table::Filter => "policy does not change and new pods do not start",
            };
            format!("the kernel does not take the {family} table {table}, so that for {family} {follows}: {error}")
        });
        let closed = self.closed.iter().map(|family| {
            format!("nothing passes from or to pods by {family}, as the rules that were there do not judge it")
        });
        sets.chain(tables).chain(closed).collect()
    }
}
