//! What a batch of changes did to the ruleset.

use std::collections::{BTreeMap, BTreeSet};

use super::ruleset::{ChainName, Entry, Family, SetName, Table};

/// What one batch changed in the [`Ruleset`](super::Ruleset).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delta {
    /// Sets that came, changed or went.
    pub sets: BTreeMap<SetName, SetChange>,
    /// Chains that came, changed or went.
    pub chains: BTreeSet<(Family, Table, ChainName)>,
    /// Tables whose hooks came or went.
    pub hooks: BTreeSet<(Family, Table)>,
}

impl Delta {
    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Notes members that came and went.
    pub(super) fn set_changed(&mut self, name: SetName, added: BTreeSet<Entry>, removed: BTreeSet<Entry>) {
        // A set that is created in this batch is created with all its members.
        if !(added.is_empty() && removed.is_empty()) {
            self.sets.entry(name).or_insert(SetChange::Changed { added, removed });
        }
    }
}

/// How a set changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SetChange {
    /// It was not there.
    Created,
    /// Some members came and others went.
    Changed {
        /// New members.
        added: BTreeSet<Entry>,
        /// Former members.
        removed: BTreeSet<Entry>,
    },
    /// It is not there any more.
    Removed,
}
