//! From the cluster's state to what this node must enforce. Pure and incremental.
//!
//! Its rules: the result depends on the current state only, never on the order or kind of the updates that led to
//! it; what exists is decided by value; a flush has at most one change of a key; and nothing comes out before the
//! first state is complete. A policy costs something only while it selects an endpoint of this node, and a set only
//! while such a policy uses it.

mod output;
mod policies;
mod resolve;
mod sets;
mod workloads;

use std::collections::BTreeMap;
use std::sync::Arc;

use ipnetwork::IpNetwork;
use rustc_hash::{FxHashMap, FxHashSet};

use crate::model::{EndpointId, Namespace, Policy, PolicyId, Pool, Update};
use policies::Policies;
use sets::Sets;
use workloads::Workloads;

pub use output::{
    ActivePolicy, ActivePorts, ActiveRule, Change, EndpointPolicy, LocalEndpoint, Member, Pools, SetDelta, SetId,
    SetKind, Tier,
};

/// The state of the cluster as far as it was told, and what of it was put out already.
#[derive(Debug, Default)]
pub struct Calc {
    in_sync: bool,
    workloads: Workloads,
    sets: Sets,
    policies: Policies,
    pools: BTreeMap<IpNetwork, Pool>,
    shown_pools: Pools,
    dirty_endpoints: FxHashSet<EndpointId>,
    shown_endpoints: FxHashMap<EndpointId, Arc<LocalEndpoint>>,
}

impl Calc {
    /// An empty cluster.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes one key's new value.
    pub fn update(&mut self, update: Update) {
        match update {
            Update::Namespace(name, value) => self.namespace(&name, value),
            Update::Workload(id, value) => self.endpoint(id, |calc, id| calc.workloads.set_workload(id, value)),
            Update::Attachment(id, value) => self.endpoint(id, |calc, id| calc.workloads.set_attachment(id, value)),
            Update::Policy(id, value) => self.policy(id, value),
            Update::Pool(cidr, Some(pool)) => _ = self.pools.insert(cidr, pool),
            Update::Pool(cidr, None) => _ = self.pools.remove(&cidr),
        }
    }

    /// Says that the state is complete: from now on [`Calc::flush`] puts out changes.
    pub fn in_sync(&mut self) {
        self.in_sync = true;
    }

    /// What has changed since the last call; nothing before [`Calc::in_sync`].
    pub fn flush(&mut self) -> Vec<Change> {
        if !self.in_sync {
            return Vec::new();
        }
        let mut changes = Vec::new();
        let mut removals = Vec::new();
        self.sets.flush(&mut changes, &mut removals);
        self.policies.flush(&mut changes, &mut removals);
        self.flush_endpoints(&mut changes, &mut removals);
        self.flush_pools(&mut changes);
        removals.reverse();
        changes.append(&mut removals);
        changes
    }

    fn namespace(&mut self, name: &Arc<str>, value: Option<Namespace>) {
        if self.workloads.namespace(name) == value.as_ref() {
            return;
        }
        self.workloads.set_namespace(name, value);
        let members: Vec<EndpointId> = self.workloads.in_namespace(name).cloned().collect();
        self.sets.namespace_changed(name, &self.workloads);
        for id in members {
            let contribution = self.workloads.contribution(&id);
            self.sets
                .endpoint_changed(&id, contribution.as_ref(), contribution.as_ref(), &self.workloads);
            self.select(&id);
        }
        self.sets.namespace_settled(name, &self.workloads);
    }

    /// A change of one endpoint, made by `edit`.
    fn endpoint(&mut self, id: EndpointId, edit: impl FnOnce(&mut Self, &EndpointId)) {
        let before = self.workloads.contribution(&id);
        edit(self, &id);
        let after = self.workloads.contribution(&id);
        self.sets
            .endpoint_changed(&id, before.as_ref(), after.as_ref(), &self.workloads);
        self.select(&id);
        self.dirty_endpoints.insert(id);
    }

    /// Finds the policies that select a (possibly) local endpoint.
    fn select(&mut self, id: &EndpointId) {
        let local = self.workloads.local(id).and_then(|local| local.workload);
        if self.policies.select(id, local, &self.workloads, &mut self.sets) {
            self.dirty_endpoints.insert(id.clone());
        }
    }

    fn policy(&mut self, id: PolicyId, value: Option<Policy>) {
        let touched = self.policies.set(id, value, &self.workloads, &mut self.sets);
        self.dirty_endpoints.extend(touched);
    }

    fn flush_endpoints(&mut self, changes: &mut Vec<Change>, removals: &mut Vec<Change>) {
        let mut dirty: Vec<_> = self.dirty_endpoints.drain().collect();
        dirty.sort();
        for id in dirty {
            let now = self.workloads.local(&id).map(|local| LocalEndpoint {
                attachment: local.attachment.clone(),
                policy: local.workload.map(|_| self.policies.of(&id)),
            });
            match now {
                Some(now) if self.shown_endpoints.get(&id).is_none_or(|shown| **shown != now) => {
                    let now = Arc::new(now);
                    self.shown_endpoints.insert(id.clone(), now.clone());
                    changes.push(Change::EndpointUpdated(id, now));
                }
                Some(_) => {}
                None if self.shown_endpoints.remove(&id).is_some() => removals.push(Change::EndpointRemoved(id)),
                None => {}
            }
        }
    }

    fn flush_pools(&mut self, changes: &mut Vec<Change>) {
        let natted = self.pools.iter().filter(|(_, pool)| pool.nat_outgoing);
        let pools = Pools {
            nat_outgoing: natted.map(|(&cidr, _)| cidr).collect(),
            all: self.pools.keys().copied().collect(),
        };
        if pools != self.shown_pools {
            self.shown_pools = pools.clone();
            changes.push(Change::PoolsChanged(pools));
        }
    }
}
