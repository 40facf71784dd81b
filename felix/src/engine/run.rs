//! The engine's task: take what is queued, compute, write, tell; and again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::EngineConfig;
use super::queue::{Batch, Queue};
use super::schedule::Schedule;
use super::status::{Board, Counters, EndpointState, EndpointStatus};
use crate::calc::{Calc, Change};
use crate::dataplane::{Dataplane, ToolError};
use crate::model::{EndpointId, PolicyId};
use crate::render::{Family, Renderer, Ruleset};

/// The first pause after a failure; each further one doubles it.
const FIRST_RETRY: Duration = Duration::from_millis(100);

/// The longest pause after a failure.
const LONGEST_RETRY: Duration = Duration::from_secs(30);

/// Runs until the queue is closed.
pub(super) async fn run(config: EngineConfig, dataplane: Dataplane, queue: Arc<Queue>, board: Arc<Board>) {
    let mut task = Task {
        schedule: Schedule::new(config.refresh_interval, config.post_write_check, Instant::now()),
        retry: None,
        calc: Calc::new(),
        renderer: None,
        config,
        dataplane,
        endpoints: BTreeMap::new(),
        counters: Counters::default(),
    };
    loop {
        let batch = queue.take();
        if batch.closed {
            return;
        }
        let position = task.compute(batch);
        if let Some(position) = position
            && task.retry.as_ref().is_none_or(|retry| retry.at <= Instant::now())
        {
            let result = task.turn().await;
            task.report(&board, position, result);
        }
        let wake = task.retry.as_ref().map_or(task.schedule.next(), |retry| retry.at);
        tokio::select! {
            () = queue.changed() => {}
            () = sleep_until(wake), if position.is_some() => {}
            () = task.dataplane.changed_by_others() => task.schedule.heard(),
        }
    }
}

struct Task {
    config: EngineConfig,
    schedule: Schedule,
    retry: Option<Retry>,
    calc: Calc,
    /// There once the kernel was read for the first time.
    renderer: Option<Renderer>,
    dataplane: Dataplane,
    /// With the families of their addresses.
    endpoints: BTreeMap<EndpointId, (EndpointStatus, BTreeSet<Family>)>,
    counters: Counters,
}

/// The kernel refused: when to try again, and how long to wait after that.
struct Retry {
    at: Instant,
    pause: Duration,
}

impl Task {
    /// Takes the updates; answers the position in the queue that they lead to, once the state is complete.
    fn compute(&mut self, batch: Batch) -> Option<u64> {
        self.counters.updates += batch.updates.len() as u64;
        batch.updates.into_values().for_each(|update| self.calc.update(update));
        if !batch.in_sync {
            return None;
        }
        self.calc.in_sync();
        Some(batch.position)
    }

    /// Brings the kernel in line with the state.
    async fn turn(&mut self) -> Result<(), ToolError> {
        let renderer = match &mut self.renderer {
            Some(renderer) => renderer,
            None => {
                let existing = self.dataplane.set_kinds().await?;
                self.renderer.insert(Renderer::new(self.config.rules.clone(), existing))
            }
        };
        let changes = self.calc.flush();
        note_endpoints(&mut self.endpoints, &changes);
        let first = self.counters.applied == 0;
        let delta = renderer.apply(changes);
        let ruleset = renderer.ruleset();
        let now = Instant::now();
        if !first && now >= self.schedule.next() {
            self.schedule.look(now);
            let repaired = self.dataplane.repair(ruleset).await?;
            if repaired && delta.is_empty() && self.retry.is_none() {
                tracing::warn!("rules or sets had been changed by others; repaired");
                self.counters.repairs += 1;
            }
            return Ok(());
        }
        if first || self.retry.is_some() || !delta.is_empty() {
            self.dataplane.apply(ruleset, &delta).await?;
            self.counters.applied += 1;
            tracing::debug!(
                chains = delta.chains.len(),
                sets = delta.sets.len(),
                "policy programmed"
            );
        }
        Ok(())
    }

    fn report(&mut self, board: &Board, position: u64, result: Result<(), ToolError>) {
        let now = Instant::now();
        if self.counters.writes != self.dataplane.writes() {
            self.counters.writes = self.dataplane.writes();
            self.schedule.wrote(now);
        }
        if let Some(renderer) = &self.renderer {
            count(&mut self.counters, renderer.ruleset());
        }
        let error = match result {
            Ok(()) => {
                self.retry = None;
                None
            }
            Err(error) => {
                self.counters.failed += 1;
                let pause = self
                    .retry
                    .as_ref()
                    .map_or(FIRST_RETRY, |retry| (retry.pause * 2).min(LONGEST_RETRY));
                tracing::error!(%error, ?pause, "the kernel does not take the policy; trying again");
                self.retry = Some(Retry { at: now + pause, pause });
                Some(error.to_string())
            }
        };
        let policies = self.renderer.as_ref().map(policy_uses).unwrap_or_default();
        let complaints = self.dataplane.complaints();
        if !complaints.is_empty() && complaints != board.complaints() {
            tracing::error!(complaints = complaints.join("; "), "policy is in force but for a part");
        }
        self.schedule.taken(complaints.is_empty(), now);
        if error.is_none() && self.dataplane.has_refused_tables() {
            self.counters.failed += 1;
        }
        let stale = self.dataplane.stale_families();
        board.edit(|shown| {
            shown.error.clone_from(&error);
            shown.complaints = complaints;
            shown.counters = self.counters;
            if error.is_none() {
                shown.in_sync = true;
                shown.applied = position;
                shown.endpoints = shown_endpoints(&self.endpoints, &stale);
                shown.policies = policies;
            }
        });
    }
}

fn shown_endpoints(
    endpoints: &BTreeMap<EndpointId, (EndpointStatus, BTreeSet<Family>)>,
    stale: &BTreeSet<Family>,
) -> BTreeMap<EndpointId, EndpointStatus> {
    let shown = endpoints.iter().map(|(id, (status, families))| {
        let mut status = status.clone();
        if status.state == EndpointState::Programmed && !families.is_disjoint(stale) {
            status.state = EndpointState::Stale;
        }
        (id.clone(), status)
    });
    shown.collect()
}

fn note_endpoints(endpoints: &mut BTreeMap<EndpointId, (EndpointStatus, BTreeSet<Family>)>, changes: &[Change]) {
    for change in changes {
        match change {
            Change::EndpointUpdated(id, endpoint) => {
                let state = match endpoint.policy {
                    Some(_) => EndpointState::Programmed,
                    None => EndpointState::Denied,
                };
                let status = EndpointStatus {
                    id: id.clone(),
                    interface: endpoint.attachment.interface.clone(),
                    state,
                };
                let addresses = endpoint.attachment.addresses.iter();
                let families = addresses.map(|address| Family::of(*address)).collect();
                endpoints.insert(id.clone(), (status, families));
            }
            Change::EndpointRemoved(id) => _ = endpoints.remove(id),
            Change::SetAdded(..)
            | Change::SetChanged(..)
            | Change::SetRemoved(_)
            | Change::PolicyUpdated(..)
            | Change::PolicyRemoved(_)
            | Change::PoolsChanged(_) => {}
        }
    }
}

fn policy_uses(renderer: &Renderer) -> BTreeMap<PolicyId, usize> {
    let mut uses = BTreeMap::new();
    for policy in renderer.endpoint_policies() {
        *uses.entry(policy.clone()).or_default() += 1;
    }
    uses
}

fn count(counters: &mut Counters, ruleset: &Ruleset) {
    let chains = || ruleset.tables.values().flat_map(|table| table.chains.values());
    counters.chains = chains().count();
    counters.rules = chains().map(|chain| chain.rules.len()).sum();
    counters.sets = ruleset.sets.len();
    counters.members = ruleset.sets.values().map(|set| set.members.len()).sum();
}
