//! Makes the kernel match: reads what is there, writes the differences, and repairs what others changed.
//!
//! Only what carries our prefix or comment is ever read as ours or touched. `text` knows the words of the tools,
//! `snapshot` reads theirs, `plan` decides what to write, `tools` runs them, `events` hears of what others do. Beside them,
//! `connections` makes the kernel forget what it remembers of an address, and `remains` takes all of ours away.

mod connections;
mod events;
mod plan;
mod refusals;
mod remains;
mod snapshot;
mod text;
mod tools;
mod write;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use events::Events;
use plan::Plan;
use refusals::Refusals;
use snapshot::Snapshot;
use tools::Tools;

use crate::render::{Delta, Family, Ruleset};

pub use connections::forget_connections;
pub use remains::Remains;
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
    refusals: Refusals,
    /// Whether rules of an earlier run with the other back end may still be there, and why they are.
    other_backend: OtherBackend,
}

#[derive(Debug)]
enum OtherBackend {
    Unknown,
    Clean,
    Stays(ToolError),
}

impl Dataplane {
    /// Works with this back end. Nothing is written yet. To be called within a tokio runtime.
    pub fn new(backend: Backend) -> Self {
        let events = Events::listen(backend)
            .inspect_err(|error| tracing::warn!(%error, "drift is found at refresh only"))
            .ok();
        Self {
            tools: Tools::new(backend),
            known: false,
            writes: 0,
            events,
            refusals: Refusals::default(),
            other_backend: OtherBackend::Unknown,
        }
    }

    /// The kinds of the sets of ours that are there, by name.
    ///
    /// # Errors
    ///
    /// When they cannot be read.
    pub async fn set_kinds(&self) -> Result<BTreeMap<String, String>, ToolError> {
        let sets = self.tools.snapshot().await?.sets.into_iter();
        Ok(sets.map(|(name, set)| (name, set.kind)).collect())
    }

    /// Returns once others may have changed chains of ours. Never, where the kernel does not let us listen.
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

    /// What is not as it should be although the last call succeeded: each is tried again at the next one.
    pub fn complaints(&self) -> Vec<String> {
        let left = match &self.other_backend {
            OtherBackend::Stays(error) => Some(format!(
                "rules of an earlier run with iptables {} judge packets too, as they cannot be removed: {error}",
                self.tools.backend().other()
            )),
            OtherBackend::Unknown | OtherBackend::Clean => None,
        };
        self.refusals.complaints().into_iter().chain(left).collect()
    }

    /// Whether there are tables that the kernel does not take: worth trying again soon.
    pub fn has_refused_tables(&self) -> bool {
        !self.refusals.tables.is_empty()
    }

    /// The families in which policy is not what the last call asked for. Nothing passes there that what was in force before
    /// does not allow too.
    pub fn stale_families(&self) -> BTreeSet<Family> {
        self.refusals.stale()
    }

    /// Makes the kernel hold `ruleset`. `delta` is how it differs from what the last call asked for; after a failure, and
    /// the first time, the kernel is read and all differences are written.
    ///
    /// What the kernel refuses stops only what depends on it; see [`Dataplane::complaints`]. A policy's set is left out, and
    /// what looks at it is denied. A table of a family stays as it was, and where that does not judge workloads nothing
    /// passes in that family.
    ///
    /// # Errors
    ///
    /// When a tool cannot be run. What was written before that stays; call again with any delta.
    pub async fn apply(&mut self, ruleset: &Ruleset, delta: &Delta) -> Result<(), ToolError> {
        if self.known && delta.hooks.is_empty() {
            self.known = false;
            let plan = Plan::for_delta(ruleset, delta, self.tools.families());
            if self.write(ruleset, plan, &BTreeMap::new()).await?.is_empty() {
                self.known = true;
                return Ok(());
            }
        }
        self.repair(ruleset).await.map(|_| ())
    }

    /// Reads the kernel and writes every difference from `ruleset`; tells whether there was any, stale sets and what was
    /// refused before aside.
    ///
    /// # Errors
    ///
    /// When a tool cannot be run.
    pub async fn repair(&mut self, ruleset: &Ruleset) -> Result<bool, ToolError> {
        self.known = false;
        let mut kernel = self.tools.snapshot().await?;
        let mut expected = self.plan(&self.refusals.rest_of(ruleset), &kernel);
        expected.keep(&self.refusals.tables.keys().copied().collect());
        let differs = expected.edits();
        // What was closed opens only once what it was closed for is taken.
        let mut refusals = Refusals {
            closed: self.refusals.closed.clone(),
            ..Refusals::default()
        };
        let mut may_open = true;
        loop {
            let rest = refusals.rest_of(ruleset);
            let plan = self.plan(&rest, &kernel);
            let found = self.write(&rest, plan, &kernel.unread).await?;
            let sets_taken = found.sets.is_empty();
            refusals.sets.extend(found.sets);
            refusals.tables = found.tables;
            if sets_taken {
                let mut closed = refusals.unguarded(ruleset, &kernel);
                if !std::mem::take(&mut may_open) {
                    closed.extend(&refusals.closed);
                }
                if closed == refusals.closed {
                    break;
                }
                refusals.closed = closed;
            }
            kernel = self.tools.snapshot().await?;
        }
        self.known = refusals.is_empty();
        let all_taken = refusals.tables.is_empty();
        self.refusals = refusals;
        if all_taken {
            self.leave_other_backend().await;
        }
        Ok(differs)
    }

    fn plan(&self, ruleset: &Ruleset, kernel: &Snapshot) -> Plan {
        let families = self.tools.families().iter().copied();
        let read: Vec<Family> = families.filter(|family| !kernel.unread.contains_key(family)).collect();
        Plan::for_snapshot(ruleset, kernel, &read)
    }

    /// Removes what an earlier run with the other back end left behind: two filters would judge every packet.
    async fn leave_other_backend(&mut self) {
        if matches!(self.other_backend, OtherBackend::Clean) {
            return;
        }
        let other = Tools::new(self.tools.backend().other());
        // Hosts without the other tools have no rules there.
        let Ok(there) = other.snapshot_tables().await else {
            return;
        };
        self.other_backend = OtherBackend::Clean;
        if !there.has_our_rules() {
            return;
        }
        let plan = Plan::for_snapshot(&Ruleset::default(), &there, other.families());
        for (family, _, text) in plan.tables {
            match other.restore_table(family, &text, |_| ()).await {
                Ok(()) => self.writes += 1,
                Err(error) => {
                    tracing::warn!(%error, backend = %other.backend(), "left-over rules stay");
                    self.other_backend = OtherBackend::Stays(error);
                }
            }
        }
    }
}
