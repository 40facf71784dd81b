//! What the engine tells about itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::dataplane::Backend;
use crate::model::{EndpointId, PolicyId};

/// What the engine enforces, and what keeps it from enforcing more.
#[derive(Clone, Debug)]
pub struct Status {
    /// Where the rules are.
    pub backend: Backend,
    /// Everything that was there at the start has arrived, and the kernel was brought in line with it at least once.
    pub in_sync: bool,
    /// Updates that wait to be looked at.
    pub queued: usize,
    /// Why the kernel is not wholly what it should be, while it is not; retried without end. It may be a part only: then
    /// everything else is in force, and [`Handle::wait_programmed`](super::Handle::wait_programmed) says so.
    pub error: Option<String>,
    /// This node's endpoints, by name.
    pub endpoints: Vec<EndpointStatus>,
    /// Policies that select any of them, by name.
    pub policies: Vec<PolicyStatus>,
    /// Sums since the start and current sizes, for metrics.
    pub counters: Counters,
}

/// One endpoint of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointStatus {
    /// Which one.
    pub id: EndpointId,
    /// The node's end of its link.
    pub interface: Arc<str>,
    /// Whether its policy is in force.
    pub state: EndpointState,
}

/// How far an endpoint's policy is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndpointState {
    /// The kernel enforces its policy.
    Programmed,
    /// Its workload is not known yet: everything is denied.
    Denied,
    /// The kernel does not take the rules of a family that it has addresses of: there nothing passes that the rules of before
    /// do not allow.
    Stale,
}

/// One policy in force on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyStatus {
    /// Which one.
    pub id: PolicyId,
    /// How many of this node's endpoints it selects.
    pub endpoints: usize,
}

/// Sums since the start and current sizes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Updates looked at.
    pub updates: u64,
    /// Times the kernel was brought in line.
    pub applied: u64,
    /// Times that failed.
    pub failed: u64,
    /// Transactions written: one a table, or a batch of sets.
    pub writes: u64,
    /// Times the kernel had been changed by others and was repaired.
    pub repairs: u64,
    /// Chains now.
    pub chains: usize,
    /// Rules now.
    pub rules: usize,
    /// Address sets now.
    pub sets: usize,
    /// Members of all sets now.
    pub members: usize,
}

/// What the engine's task shows to the holders of its handle.
#[derive(Debug)]
pub(super) struct Board {
    shown: Mutex<Shown>,
    changed: watch::Sender<u64>,
}

/// Everything that the last turn of the engine came to.
#[derive(Debug)]
pub(super) struct Shown {
    pub(super) backend: Backend,
    pub(super) in_sync: bool,
    /// The queue's position that the kernel now reflects.
    pub(super) applied: u64,
    pub(super) error: Option<String>,
    /// What is amiss with a part, while all else is in force.
    pub(super) complaints: Vec<String>,
    pub(super) endpoints: BTreeMap<EndpointId, EndpointStatus>,
    pub(super) policies: BTreeMap<PolicyId, usize>,
    pub(super) counters: Counters,
}

impl Board {
    pub(super) fn new(backend: Backend) -> Self {
        let shown = Shown {
            backend,
            in_sync: false,
            applied: 0,
            error: None,
            complaints: Vec::new(),
            endpoints: BTreeMap::new(),
            policies: BTreeMap::new(),
            counters: Counters::default(),
        };
        Self {
            shown: Mutex::new(shown),
            changed: watch::Sender::new(0),
        }
    }

    pub(super) fn edit(&self, edit: impl FnOnce(&mut Shown)) {
        edit(&mut self.shown.lock());
        self.changed.send_modify(|version| *version += 1);
    }

    pub(super) fn complaints(&self) -> Vec<String> {
        self.shown.lock().complaints.clone()
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Whether the kernel reflects the queue up to `position` and with it the endpoint's policy; if not, why.
    pub(super) fn programmed(&self, id: &EndpointId, position: u64) -> Result<(), String> {
        let shown = self.shown.lock();
        if let Some(error) = &shown.error {
            return Err(error.clone());
        }
        if !shown.in_sync {
            return Err("the cluster's state is not complete yet".to_owned());
        }
        match shown.endpoints.get(id).map(|endpoint| endpoint.state) {
            _ if shown.applied < position => Err("the rules are being written".to_owned()),
            Some(EndpointState::Programmed) => Ok(()),
            Some(EndpointState::Denied) => Err("its pod is not known yet".to_owned()),
            Some(EndpointState::Stale) => Err(shown.complaints.join("; ")),
            None => Err("it has no interface yet".to_owned()),
        }
    }

    pub(super) fn status(&self, queued: usize) -> Status {
        let shown = self.shown.lock();
        let amiss: Vec<_> = shown
            .error
            .iter()
            .chain(&shown.complaints)
            .map(String::as_str)
            .collect();
        let policies = shown.policies.iter().map(|(id, &endpoints)| PolicyStatus {
            id: id.clone(),
            endpoints,
        });
        Status {
            backend: shown.backend,
            in_sync: shown.in_sync,
            queued,
            error: (!amiss.is_empty()).then(|| amiss.join("; ")),
            endpoints: shown.endpoints.values().cloned().collect(),
            policies: policies.collect(),
            counters: shown.counters,
        }
    }
}
