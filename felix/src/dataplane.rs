//! Makes the kernel match: reads what is there, writes the differences, and repairs what others changed.
//!
//! Only what carries our prefix or comment is ever read as ours or touched. `text` knows the words of the tools,
//! `snapshot` reads theirs, `plan` decides what to write, `tools` runs them, `events` hears of what others do. Beside them,
//! `connections` makes the kernel forget what it remembers of an address.

mod connections;
mod events;
mod plan;
mod snapshot;
mod text;
mod tools;

use std::collections::BTreeMap;
use std::fmt;

use events::Events;
use plan::Plan;
use tools::Tools;

use crate::render::{Delta, Family, Ruleset};

pub use connections::forget_connections;
pub use tools::ToolError;

/// Which of the kernel's two packet filters holds the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// nf_tables, through iptables-nft.
    Nft,
    /// x_tables, through iptables-legacy.
    Legacy,
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nft => "nft",
            Self::Legacy => "legacy",
        })
    }
}

impl Backend {
    /// nft, unless the host's own rules are in legacy tables.
    ///
    /// # Errors
    ///
    /// When the nft tables cannot be read.
    pub async fn detect() -> Result<Self, ToolError> {
        let nft = Tools::new(Self::Nft).snapshot_tables().await?;
        // Hosts without the legacy tools have no rules there.
        let legacy = Tools::new(Self::Legacy).snapshot_tables().await.unwrap_or_default();
        Ok(if legacy.foreign_rules() > nft.foreign_rules() {
            Self::Legacy
        } else {
            Self::Nft
        })
    }

    fn other(self) -> Self {
        match self {
            Self::Nft => Self::Legacy,
            Self::Legacy => Self::Nft,
        }
    }
}

/// The kernel's tables and sets, in the network namespace of the thread that awaits.
#[derive(Debug)]
pub struct Dataplane {
    tools: Tools,
    /// The kernel holds what the last call asked for, as far as we know.
    known: bool,
    writes: u64,
    events: Option<Events>,
}

impl Dataplane {
    /// Works with this back end. Nothing is written yet. To be called within a tokio runtime.
    pub fn new(backend: Backend) -> Self {
        let events = match backend {
            Backend::Nft => Events::listen()
                .inspect_err(|error| tracing::warn!(%error, "drift is found at refresh only"))
                .ok(),
            Backend::Legacy => None,
        };
        Self {
            tools: Tools::new(backend),
            known: false,
            writes: 0,
            events,
        }
    }

    /// The sets of ours that are there, by name.
    ///
    /// # Errors
    ///
    /// When they cannot be read.
    pub async fn set_kinds(&self) -> Result<BTreeMap<String, String>, ToolError> {
        let sets = self.tools.snapshot().await?.sets.into_iter();
        Ok(sets.map(|(name, set)| (name, set.kind)).collect())
    }

    /// Returns once others have changed chains of ours. Never, where the back end tells nothing of that.
    pub async fn changed_by_others(&mut self) {
        match &mut self.events {
            Some(events) => events.changed_by_others().await,
            None => std::future::pending().await,
        }
    }

    /// Transactions written so far: one a table, one a batch of sets.
    pub fn writes(&self) -> u64 {
        self.writes
    }

    /// Makes the kernel hold `ruleset`. `delta` is how it differs from what the last call asked for; after a failure, and
    /// the first time, the kernel is read and all differences are written.
    ///
    /// # Errors
    ///
    /// When a tool refuses. What was written before that stays; call again with any delta.
    pub async fn apply(&mut self, ruleset: &Ruleset, delta: &Delta) -> Result<(), ToolError> {
        let first = !self.known;
        if first || !delta.hooks.is_empty() {
            self.repair(ruleset).await?;
        } else {
            self.known = false;
            self.write(Plan::for_delta(ruleset, delta, self.tools.families()))
                .await?;
            self.known = true;
        }
        if first {
            self.leave_other_backend().await;
        }
        Ok(())
    }

    /// Reads the kernel and writes every difference from `ruleset`; tells whether there was any.
    ///
    /// # Errors
    ///
    /// When a tool refuses.
    pub async fn repair(&mut self, ruleset: &Ruleset) -> Result<bool, ToolError> {
        self.known = false;
        let kernel = self.tools.snapshot().await?;
        let plan = Plan::for_snapshot(ruleset, &kernel, self.tools.families());
        let differs = !plan.is_empty();
        self.write(plan).await?;
        self.known = true;
        Ok(differs)
    }

    async fn write(&mut self, plan: Plan) -> Result<(), ToolError> {
        let Plan {
            mut sets_before,
            tables,
            mut sets_after,
            unused_sets,
        } = plan;
        if tables.is_empty() {
            sets_before.push_str(&std::mem::take(&mut sets_after));
        }
        self.restore_sets(&sets_before).await?;
        let mut by_family: Vec<(Family, String)> = Vec::new();
        for (family, text) in tables {
            match by_family.last_mut().filter(|(last, _)| *last == family) {
                Some((_, all)) => all.push_str(&text),
                None => by_family.push((family, text)),
            }
        }
        for (family, text) in by_family {
            let events = &mut self.events;
            let started = |process| events.iter_mut().for_each(|events| events.ignore(process));
            self.tools.restore_tables(family, &text, started).await?;
            self.writes += 1;
        }
        self.restore_sets(&sets_after).await?;
        if !unused_sets.is_empty() {
            let text: String = unused_sets.iter().map(|name| format!("destroy {name}\n")).collect();
            // A rule that somebody else made may still use one; it goes at a later refresh.
            match self.tools.restore_sets(&text).await {
                Ok(()) => self.writes += 1,
                Err(error) => tracing::debug!(%error, "an unused set stays for now"),
            }
        }
        Ok(())
    }

    async fn restore_sets(&mut self, text: &str) -> Result<(), ToolError> {
        if !text.is_empty() {
            self.tools.restore_sets(text).await?;
            self.writes += 1;
        }
        Ok(())
    }

    /// Removes what an earlier run with the other back end left behind: two filters would judge every packet.
    async fn leave_other_backend(&mut self) {
        let other = Tools::new(self.tools.backend().other());
        let Ok(there) = other.snapshot_tables().await else {
            return;
        };
        if !there.has_our_rules() {
            return;
        }
        let plan = Plan::for_snapshot(&Ruleset::default(), &there, other.families());
        for (family, text) in plan.tables {
            match other.restore_tables(family, &text, |_| ()).await {
                Ok(()) => self.writes += 1,
                Err(error) => tracing::warn!(%error, backend = %other.backend(), "left-over rules stay"),
            }
        }
    }
}
