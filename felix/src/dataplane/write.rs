//! Writes a plan, part by part: what is refused stops only what depends on it.

use std::collections::{BTreeMap, BTreeSet};

use super::plan::Plan;
use super::refusals::Refusals;
use super::tools::ToolError;
use super::{Dataplane, Events};
use crate::render::{Family, Ruleset, SetName, Table};

impl Dataplane {
    /// Writes what makes the kernel hold `ruleset`, the families aside that are `unread`; answers what was refused. Where
    /// that is a policy's set, nothing further is written: rules need it.
    pub(super) async fn write(
        &mut self,
        ruleset: &Ruleset,
        mut plan: Plan,
        unread: &BTreeMap<Family, ToolError>,
    ) -> Result<Refusals, ToolError> {
        let mut refusals = Refusals::default();
        for (family, error) in unread {
            let tables = Table::ALL.map(|table| ((*family, table), error.clone()));
            refusals.tables.extend(tables);
        }
        if plan.tables.is_empty() && refusals.tables.is_empty() {
            plan.sets_before.push_str(&std::mem::take(&mut plan.sets_after));
        }
        for (name, error) in self.restore_sets(&plan.sets_before).await? {
            refusals.note_set(ruleset, name, &error);
        }
        if !refusals.sets.is_empty() {
            return Ok(refusals);
        }
        for (family, table, text) in &plan.tables {
            if refusals.tables.contains_key(&(*family, *table)) {
                continue;
            }
            match self.restore_table(*family, text).await {
                Ok(()) => {}
                Err(error @ ToolError::Refused { .. }) => _ = refusals.tables.insert((*family, *table), error),
                Err(error) => return Err(error),
            }
        }
        let refused: BTreeSet<_> = refusals.tables.keys().copied().collect();
        plan.withhold(&refused);
        for (name, error) in self.restore_sets(&plan.sets_after).await? {
            refusals.note_set(ruleset, name, &error);
        }
        let unused = plan.unused_sets.iter().map(|name| format!("destroy {name}\n"));
        // A rule that somebody else made, or one in a table that was refused, may still use one; it goes at a later refresh.
        for (name, error) in self.restore_sets(&unused.collect::<String>()).await? {
            tracing::debug!(%name, %error, "an unused set stays for now");
        }
        Ok(refusals)
    }

    async fn restore_table(&mut self, family: Family, text: &str) -> Result<(), ToolError> {
        let events = &mut self.events;
        let started = |process| events.iter_mut().for_each(|events| events.ignore(process));
        let result = self.tools.restore_table(family, text, started).await;
        self.events.iter_mut().for_each(Events::ended);
        self.writes += u64::from(result.is_ok());
        result
    }

    /// All lines at once; if that fails set by set, as the tool stops at the first line that is refused. Answers the sets that
    /// were.
    async fn restore_sets(&mut self, text: &str) -> Result<BTreeMap<SetName, ToolError>, ToolError> {
        let mut refused = BTreeMap::new();
        if text.is_empty() {
            return Ok(refused);
        }
        match self.tools.restore_sets(text).await {
            Ok(()) => {
                self.writes += 1;
                return Ok(refused);
            }
            Err(ToolError::Refused { .. }) => {}
            Err(error) => return Err(error),
        }
        for (name, lines) in by_set(text) {
            match self.tools.restore_sets(&lines).await {
                Ok(()) => self.writes += 1,
                Err(error @ ToolError::Refused { .. }) => _ = refused.insert(SetName(name.into()), error),
                Err(error) => return Err(error),
            }
        }
        Ok(refused)
    }
}

/// The lines for `ipset restore` apart, by the set that each names in its second word.
pub(super) fn by_set(text: &str) -> BTreeMap<&str, String> {
    let mut sets: BTreeMap<&str, String> = BTreeMap::new();
    for line in text.lines() {
        let name = line.split(' ').nth(1).unwrap_or_default();
        *sets.entry(name).or_default() += &format!("{line}\n");
    }
    sets
}
