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

use crate::render::{Delta, Family, Ruleset, SetName, parse_policy_set};

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
    /// Sets of policies that the kernel does not take, and what it says. What looks at one is denied.
    refused: Refused,
    /// Whether rules of an earlier run with the other back end may still be there, and why they are.
    other_backend: OtherBackend,
}

type Refused = BTreeMap<SetName, ToolError>;

#[derive(Debug)]
enum OtherBackend {
    Unknown,
    Clean,
    Stays(ToolError),
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
            refused: Refused::new(),
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

    /// What is not as it should be although the last call succeeded: each is tried again at the next one.
    pub fn complaints(&self) -> Vec<String> {
        let refused = self.refused.iter().map(|(name, error)| {
            format!("the policies that look at set {name} deny, as the kernel does not take it: {error}")
        });
        let left = match &self.other_backend {
            OtherBackend::Stays(error) => Some(format!(
                "rules of an earlier run with iptables {} judge packets too, as they cannot be removed: {error}",
                self.tools.backend().other()
            )),
            OtherBackend::Unknown | OtherBackend::Clean => None,
        };
        refused.chain(left).collect()
    }

    /// Makes the kernel hold `ruleset`. `delta` is how it differs from what the last call asked for; after a failure, and
    /// the first time, the kernel is read and all differences are written. A policy's set that the kernel refuses is left
    /// out, with all that looks at it, so that everything else is in force; see [`Dataplane::complaints`].
    ///
    /// # Errors
    ///
    /// When a tool refuses. What was written before that stays; call again with any delta.
    pub async fn apply(&mut self, ruleset: &Ruleset, delta: &Delta) -> Result<(), ToolError> {
        if self.known && self.refused.is_empty() && delta.hooks.is_empty() {
            self.known = false;
            let plan = Plan::for_delta(ruleset, delta, self.tools.families());
            if self.write(plan).await?.is_empty() {
                self.known = true;
                return Ok(());
            }
        }
        self.repair(ruleset).await.map(|_| ())
    }

    /// Reads the kernel and writes every difference from `ruleset`; tells whether there was any, stale sets aside.
    ///
    /// # Errors
    ///
    /// When a tool refuses.
    pub async fn repair(&mut self, ruleset: &Ruleset) -> Result<bool, ToolError> {
        self.known = false;
        let families = self.tools.families().to_vec();
        let without = |refused: &Refused| ruleset.without(&refused.keys().cloned().collect());
        let kernel = self.tools.snapshot().await?;
        let mut plan = Plan::for_snapshot(ruleset, &kernel, &families);
        let differs = if self.refused.is_empty() {
            plan.edits()
        } else {
            Plan::for_snapshot(&without(&self.refused), &kernel, &families).edits()
        };
        let mut refused = Refused::new();
        loop {
            let more = self.write(plan).await?;
            if more.is_empty() {
                break;
            }
            refused.extend(more);
            let kernel = self.tools.snapshot().await?;
            plan = Plan::for_snapshot(&without(&refused), &kernel, &families);
        }
        self.refused = refused;
        self.known = true;
        self.leave_other_backend().await;
        Ok(differs)
    }

    /// Answers the sets of policies that were refused. Where those are new, nothing further is written: rules need them.
    async fn write(&mut self, plan: Plan) -> Result<Refused, ToolError> {
        let Plan {
            mut sets_before,
            tables,
            mut sets_after,
            unused_sets,
        } = plan;
        if tables.is_empty() {
            sets_before.push_str(&std::mem::take(&mut sets_after));
        }
        let refused = self.restore_sets(&sets_before).await?;
        if !refused.is_empty() {
            return Ok(refused);
        }
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
        let refused = self.restore_sets(&sets_after).await?;
        let text: String = unused_sets.iter().map(|name| format!("destroy {name}\n")).collect();
        // A rule that somebody else made may still use one; it goes at a later refresh.
        for (name, error) in self.restore_each(&text).await? {
            tracing::debug!(%name, %error, "an unused set stays for now");
        }
        Ok(refused)
    }

    /// Answers the sets of policies that were refused; a set that all workloads need must not be.
    async fn restore_sets(&mut self, text: &str) -> Result<Refused, ToolError> {
        let refused = self.restore_each(text).await?;
        match refused.iter().find(|(name, _)| parse_policy_set(&name.0).is_none()) {
            Some((_, error)) => Err(error.clone()),
            None => Ok(refused),
        }
    }

    /// All lines at once; if that fails set by set, as the tool stops at the first line that is refused.
    async fn restore_each(&mut self, text: &str) -> Result<Refused, ToolError> {
        let mut refused = Refused::new();
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
        for (family, text) in plan.tables {
            match other.restore_tables(family, &text, |_| ()).await {
                Ok(()) => self.writes += 1,
                Err(error) => {
                    tracing::warn!(%error, backend = %other.backend(), "left-over rules stay");
                    self.other_backend = OtherBackend::Stays(error);
                }
            }
        }
    }
}

/// The lines for `ipset restore` apart, by the set that each names in its second word.
fn by_set(text: &str) -> BTreeMap<&str, String> {
    let mut sets: BTreeMap<&str, String> = BTreeMap::new();
    for line in text.lines() {
        let name = line.split(' ').nth(1).unwrap_or_default();
        *sets.entry(name).or_default() += &format!("{line}\n");
    }
    sets
}
