//! Which policies select this node's endpoints.

use std::collections::BTreeSet;
use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};

use super::output::{ActivePolicy, Change, EndpointPolicy, SetId, Tier};
use super::resolve::resolve;
use super::sets::Sets;
use super::workloads::Workloads;
use crate::model::{Action, EndpointId, Namespaces, Policy, PolicyId, Workload};

#[derive(Debug, Default)]
pub(super) struct Policies {
    policies: FxHashMap<PolicyId, PolicyState>,
    /// By the one namespace whose endpoints they can select.
    namespaced: FxHashMap<Arc<str>, BTreeSet<PolicyId>>,
    /// Those that can select endpoints of any namespace.
    global: BTreeSet<PolicyId>,
    by_endpoint: FxHashMap<EndpointId, BTreeSet<PolicyId>>,
    dirty: FxHashSet<PolicyId>,
    shown: FxHashMap<PolicyId, Arc<ActivePolicy>>,
}

#[derive(Debug)]
struct PolicyState {
    policy: Policy,
    /// This node's endpoints that it selects.
    endpoints: FxHashSet<EndpointId>,
    /// What it resolves to and the sets it holds, while it selects any.
    active: Option<(Arc<ActivePolicy>, Vec<SetId>)>,
}

impl Policies {
    /// Replaces a policy. Answers the endpoints whose policies may have changed by that.
    pub(super) fn set(
        &mut self,
        id: PolicyId,
        value: Option<Policy>,
        workloads: &Workloads,
        sets: &mut Sets,
    ) -> FxHashSet<EndpointId> {
        if self.policies.get(&id).map(|state| &state.policy) == value.as_ref() {
            return FxHashSet::default();
        }
        let old = self.remove(&id);
        let mut touched = FxHashSet::default();
        if let Some(policy) = value {
            let selected = workloads
                .locals()
                .filter(|(at, workload)| workloads.matches(&policy.selects, at, workload));
            let mut state = PolicyState {
                endpoints: selected.map(|(at, _)| at.clone()).collect(),
                policy,
                active: None,
            };
            if !state.endpoints.is_empty() {
                state.activate(workloads, sets);
            }
            touched.extend(state.endpoints.iter().cloned());
            self.insert(id.clone(), state);
        }
        if let Some(mut old) = old {
            old.deactivate(sets);
            touched.extend(old.endpoints);
        }
        self.dirty.insert(id);
        touched
    }

    /// Matches every policy against one endpoint; `local` is its workload while the endpoint is of this node. Answers
    /// whether its policies have changed.
    pub(super) fn select(
        &mut self,
        id: &EndpointId,
        local: Option<&Workload>,
        workloads: &Workloads,
        sets: &mut Sets,
    ) -> bool {
        let before = self.by_endpoint.remove(id).unwrap_or_default();
        let mut now = BTreeSet::new();
        if let Some(workload) = local {
            let candidates = self
                .namespaced
                .get(&id.namespace)
                .into_iter()
                .flatten()
                .chain(&self.global);
            let selects = |policy: &&PolicyId| {
                self.policies
                    .get(policy)
                    .is_some_and(|state| workloads.matches(&state.policy.selects, id, workload))
            };
            now.extend(candidates.filter(selects).cloned());
        }
        for policy in now.difference(&before) {
            let Some(state) = self.policies.get_mut(policy) else {
                continue;
            };
            state.endpoints.insert(id.clone());
            if state.active.is_none() {
                state.activate(workloads, sets);
                self.dirty.insert(policy.clone());
            }
        }
        for policy in before.difference(&now) {
            let Some(state) = self.policies.get_mut(policy) else {
                continue;
            };
            state.endpoints.remove(id);
            if state.endpoints.is_empty() {
                state.deactivate(sets);
                self.dirty.insert(policy.clone());
            }
        }
        let changed = before != now;
        if !now.is_empty() {
            self.by_endpoint.insert(id.clone(), now);
        }
        changed
    }

    /// What applies to an endpoint of this node. Every policy is of the one tier that denies in the end.
    pub(super) fn of(&self, id: &EndpointId) -> EndpointPolicy {
        let policies = || self.by_endpoint.get(id).into_iter().flatten();
        let tier = |applies: fn(&Policy) -> bool| {
            let applies = |id: &&PolicyId| self.policies.get(id).is_some_and(|state| applies(&state.policy));
            let policies: Vec<_> = policies().filter(applies).cloned().collect();
            let tier = Tier {
                policies,
                default_action: Action::Deny,
            };
            Some(tier)
                .filter(|tier| !tier.policies.is_empty())
                .into_iter()
                .collect()
        };
        EndpointPolicy {
            ingress: tier(|policy| policy.ingress.is_some()),
            egress: tier(|policy| policy.egress.is_some()),
        }
    }

    pub(super) fn flush(&mut self, changes: &mut Vec<Change>, removals: &mut Vec<Change>) {
        let mut dirty: Vec<_> = self.dirty.drain().collect();
        dirty.sort();
        for id in dirty {
            let now = self
                .policies
                .get(&id)
                .and_then(|state| state.active.as_ref())
                .map(|(active, _)| active);
            match now {
                Some(now) if self.shown.get(&id).is_none_or(|shown| shown != now) => {
                    self.shown.insert(id.clone(), now.clone());
                    changes.push(Change::PolicyUpdated(id, now.clone()));
                }
                Some(_) => {}
                None if self.shown.remove(&id).is_some() => removals.push(Change::PolicyRemoved(id)),
                None => {}
            }
        }
    }

    fn insert(&mut self, id: PolicyId, state: PolicyState) {
        for endpoint in &state.endpoints {
            self.by_endpoint.entry(endpoint.clone()).or_default().insert(id.clone());
        }
        match &state.policy.selects.namespaces {
            Namespaces::Named(name) => _ = self.namespaced.entry(name.clone()).or_default().insert(id.clone()),
            Namespaces::Matching(_) => _ = self.global.insert(id.clone()),
        }
        self.policies.insert(id, state);
    }

    fn remove(&mut self, id: &PolicyId) -> Option<PolicyState> {
        let state = self.policies.remove(id)?;
        for endpoint in &state.endpoints {
            if let Some(policies) = self.by_endpoint.get_mut(endpoint) {
                policies.remove(id);
                if policies.is_empty() {
                    self.by_endpoint.remove(endpoint);
                }
            }
        }
        match &state.policy.selects.namespaces {
            Namespaces::Named(name) => {
                if let Some(policies) = self.namespaced.get_mut(name) {
                    policies.remove(id);
                    if policies.is_empty() {
                        self.namespaced.remove(name);
                    }
                }
            }
            Namespaces::Matching(_) => _ = self.global.remove(id),
        }
        Some(state)
    }
}

impl PolicyState {
    fn activate(&mut self, workloads: &Workloads, sets: &mut Sets) {
        let (active, specs) = resolve(&self.policy);
        let held = specs.into_iter().map(|spec| sets.acquire(spec, workloads)).collect();
        self.active = Some((Arc::new(active), held));
    }

    fn deactivate(&mut self, sets: &mut Sets) {
        for set in self.active.take().into_iter().flat_map(|(_, held)| held) {
            sets.release(&set);
        }
    }
}
