//! The members of the sets that active policies use.
//!
//! Selectors are matched once however many sets share them. A member counts how many times it is there, since two
//! endpoints can have one address for a while and two selectors of a set can match one endpoint.

mod selectors;

use std::sync::Arc;

use ipnetwork::IpNetwork;
use rustc_hash::{FxHashMap, FxHashSet};

use super::output::{Change, Member, SetDelta, SetId};
use super::resolve::SetSpec;
use super::workloads::{Contribution, Workloads};
use crate::model::{EndpointId, EndpointSelector};
use selectors::Selectors;

#[derive(Debug, Default)]
pub(super) struct Sets {
    sets: FxHashMap<SetId, SetState>,
    selectors: Selectors,
    /// What was there at the last flush, of every member that was touched since.
    touched: FxHashMap<SetId, FxHashMap<Member, bool>>,
    /// Sets that lost their last user since the last flush; some may have found another.
    idle: FxHashSet<SetId>,
    shown: FxHashSet<SetId>,
}

#[derive(Debug)]
struct SetState {
    spec: SetSpec,
    users: usize,
    members: FxHashMap<Member, usize>,
}

impl Sets {
    /// One more user of the set.
    pub(super) fn acquire(&mut self, spec: SetSpec, workloads: &Workloads) -> SetId {
        let id = spec.id();
        if let Some(set) = self.sets.get_mut(&id) {
            set.users += 1;
            return id;
        }
        self.touched.entry(id.clone()).or_default();
        self.sets.insert(
            id.clone(),
            SetState {
                spec: spec.clone(),
                users: 1,
                members: FxHashMap::default(),
            },
        );
        if let SetSpec::Nets(set) = &spec {
            set.nets
                .iter()
                .for_each(|&net| self.adjust(&id, Member::Net(net), true));
        }
        for selector in spec.endpoints() {
            for endpoint in self.selectors.acquire(selector, &id, workloads) {
                if let Some(contribution) = workloads.contribution(&endpoint) {
                    self.contribute(&id, &contribution, true);
                }
            }
        }
        id
    }

    /// One user less.
    pub(super) fn release(&mut self, id: &SetId) {
        if let Some(set) = self.sets.get_mut(id) {
            set.users -= 1;
            if set.users == 0 {
                self.idle.insert(id.clone());
            }
        }
    }

    /// An endpoint's labels, addresses or ports have changed, or it came or went.
    pub(super) fn endpoint_changed(
        &mut self,
        id: &EndpointId,
        before: Option<&Contribution>,
        after: Option<&Contribution>,
        workloads: &Workloads,
    ) {
        for selector in self.selectors.candidates(&id.namespace) {
            let is = workloads.selects(&selector, id);
            let (was, sets) = self.selectors.set_match(&selector, id, is);
            if was == is && before == after {
                continue;
            }
            for set in &sets {
                if let Some(contribution) = after.filter(|_| is) {
                    self.contribute(set, contribution, true);
                }
                if let Some(contribution) = before.filter(|_| was) {
                    self.contribute(set, contribution, false);
                }
            }
        }
    }

    /// A namespace's labels have changed: [`Sets::endpoint_changed`] for each of its endpoints must follow, and then
    /// [`Sets::namespace_settled`].
    pub(super) fn namespace_changed(&mut self, name: &Arc<str>, workloads: &Workloads) {
        self.selectors.widen(name, workloads);
    }

    pub(super) fn namespace_settled(&mut self, name: &Arc<str>, workloads: &Workloads) {
        self.selectors.settle(name, workloads);
    }

    pub(super) fn flush(&mut self, changes: &mut Vec<Change>, removals: &mut Vec<Change>) {
        self.drop_idle(removals);
        let mut touched: Vec<_> = self.touched.drain().collect();
        touched.sort_by(|(a, _), (b, _)| a.cmp(b));
        for (id, members) in touched {
            let Some(set) = self.sets.get(&id) else { continue };
            if self.shown.insert(id.clone()) {
                changes.push(Change::SetAdded(id, set.members.keys().copied().collect()));
                continue;
            }
            let mut delta = SetDelta::default();
            for (member, was) in members {
                match (was, set.members.contains_key(&member)) {
                    (false, true) => _ = delta.added.insert(member),
                    (true, false) => _ = delta.removed.insert(member),
                    (true, true) | (false, false) => {}
                }
            }
            if delta != SetDelta::default() {
                changes.push(Change::SetChanged(id, delta));
            }
        }
    }

    fn drop_idle(&mut self, removals: &mut Vec<Change>) {
        let mut idle: Vec<_> = self.idle.drain().collect();
        idle.sort();
        for id in idle {
            if self.sets.get(&id).is_none_or(|set| set.users > 0) {
                continue;
            }
            if let Some(set) = self.sets.remove(&id) {
                set.spec
                    .endpoints()
                    .iter()
                    .for_each(|selector| self.selectors.release(selector, &id));
            }
            if self.shown.remove(&id) {
                removals.push(Change::SetRemoved(id));
            }
        }
    }

    fn contribute(&mut self, id: &SetId, contribution: &Contribution, add: bool) {
        let Some(set) = self.sets.get(id) else { return };
        let members: Vec<Member> = match &set.spec {
            SetSpec::Nets(_) => contribution
                .addresses
                .iter()
                .map(|&ip| Member::Net(IpNetwork::from(ip)))
                .collect(),
            SetSpec::NamedPort { name, protocol, .. } => {
                let ports = contribution
                    .ports
                    .iter()
                    .filter(|port| port.name == *name && port.protocol == *protocol);
                let at = |&ip| {
                    ports
                        .clone()
                        .map(move |port| Member::AddressPort(ip, port.protocol, port.port))
                };
                contribution.addresses.iter().flat_map(at).collect()
            }
        };
        members.into_iter().for_each(|member| self.adjust(id, member, add));
    }

    fn adjust(&mut self, id: &SetId, member: Member, add: bool) {
        let Some(set) = self.sets.get_mut(id) else { return };
        let count = set.members.entry(member).or_default();
        let was = *count > 0;
        *count = if add { *count + 1 } else { count.saturating_sub(1) };
        if *count == 0 {
            set.members.remove(&member);
        }
        if was != (add || set.members.contains_key(&member)) {
            self.touched.entry(id.clone()).or_default().entry(member).or_insert(was);
        }
    }
}

/// Shared by everyone who refers to a selector.
type SharedSelector = Arc<EndpointSelector>;
