//! Which endpoints each selector in use matches.

use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};

use super::{SharedSelector, Workloads};
use crate::calc::output::SetId;
use crate::model::{EndpointId, EndpointSelector, Namespaces};

/// Selectors by the namespaces in which they can match, so that a change of an endpoint looks only at those.
#[derive(Debug, Default)]
pub(super) struct Selectors {
    selectors: FxHashMap<SharedSelector, SelectorState>,
    by_namespace: FxHashMap<Arc<str>, FxHashSet<SharedSelector>>,
}

#[derive(Debug, Default)]
struct SelectorState {
    sets: FxHashSet<SetId>,
    endpoints: FxHashSet<EndpointId>,
}

impl Selectors {
    /// The set uses the selector from now on. Answers the endpoints that match.
    pub(super) fn acquire(
        &mut self,
        selector: &EndpointSelector,
        set: &SetId,
        workloads: &Workloads,
    ) -> Vec<EndpointId> {
        if !self.selectors.contains_key(selector) {
            let shared = Arc::new(selector.clone());
            let mut state = SelectorState::default();
            for namespace in namespaces(selector, workloads) {
                let members = workloads
                    .in_namespace(&namespace)
                    .filter(|id| workloads.selects(selector, id));
                state.endpoints.extend(members.cloned());
                self.by_namespace.entry(namespace).or_default().insert(shared.clone());
            }
            self.selectors.insert(shared, state);
        }
        let state = self.selectors.get_mut(selector).expect("inserted above");
        state.sets.insert(set.clone());
        state.endpoints.iter().cloned().collect()
    }

    /// The set uses the selector no longer.
    pub(super) fn release(&mut self, selector: &EndpointSelector, set: &SetId) {
        let Some(state) = self.selectors.get_mut(selector) else {
            return;
        };
        state.sets.remove(set);
        if state.sets.is_empty() {
            self.selectors.remove(selector);
            self.by_namespace.retain(|_, selectors| {
                selectors.remove(selector);
                !selectors.is_empty()
            });
        }
    }

    /// The selectors that can match in a namespace.
    pub(super) fn candidates(&self, namespace: &str) -> Vec<SharedSelector> {
        self.by_namespace
            .get(namespace)
            .into_iter()
            .flatten()
            .cloned()
            .collect()
    }

    /// Records whether the selector matches the endpoint; answers whether it did before, and the sets that use it.
    pub(super) fn set_match(&mut self, selector: &EndpointSelector, id: &EndpointId, is: bool) -> (bool, Vec<SetId>) {
        let Some(state) = self.selectors.get_mut(selector) else {
            return (false, Vec::new());
        };
        let was = if is {
            !state.endpoints.insert(id.clone())
        } else {
            state.endpoints.remove(id)
        };
        (was, state.sets.iter().cloned().collect())
    }

    /// Adds the selectors that match the namespace now to those that did before.
    pub(super) fn widen(&mut self, name: &Arc<str>, workloads: &Workloads) {
        let now = self
            .selectors
            .keys()
            .filter(|selector| can_match(selector, name, workloads))
            .cloned();
        let now: Vec<_> = now.collect();
        self.by_namespace.entry(name.clone()).or_default().extend(now);
    }

    /// Forgets the selectors that do not match the namespace any more.
    pub(super) fn settle(&mut self, name: &Arc<str>, workloads: &Workloads) {
        if let Some(selectors) = self.by_namespace.get_mut(name) {
            selectors.retain(|selector| can_match(selector, name, workloads));
            if selectors.is_empty() {
                self.by_namespace.remove(name);
            }
        }
    }
}

fn namespaces(selector: &EndpointSelector, workloads: &Workloads) -> Vec<Arc<str>> {
    match &selector.namespaces {
        Namespaces::Named(name) => vec![name.clone()],
        Namespaces::Matching(labels) => {
            let matching = workloads
                .namespaces()
                .filter(|(_, namespace)| labels.matches(&namespace.labels));
            matching.map(|(name, _)| name.clone()).collect()
        }
    }
}

fn can_match(selector: &EndpointSelector, name: &str, workloads: &Workloads) -> bool {
    match &selector.namespaces {
        Namespaces::Named(named) => **named == *name,
        Namespaces::Matching(labels) => workloads.namespace(name).is_some_and(|ns| labels.matches(&ns.labels)),
    }
}
