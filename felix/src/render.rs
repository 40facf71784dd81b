//! From what this node must enforce to chains, rules and sets. Pure.
//!
//! A [`Renderer`] holds the whole [`Ruleset`] and answers each batch of changes with the [`Delta`] that it made. No packet
//! may be judged by half of a batch: rules of one table change in one transaction, but sets are outside it. So a set
//! whose members change together with rules that look at it gets a new name (a new generation), and the rules switch
//! to that. Where only members change, those that go leave first ([`dataplane`](crate::dataplane) sees to it): as rules
//! only allow, nothing passes that neither the old nor the new state allows.

mod chains;
mod config;
mod delta;
mod dispatch;
mod names;
mod partial;
mod ruleset;
mod sets;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::calc::{ActivePolicy, Change, LocalEndpoint, Pools, SetId};
use crate::model::{EndpointId, PolicyId};
use chains::{Direction, Writer};
use dispatch::dispatch;

pub use config::{AllowAction, Config, EndpointToHost};
pub use delta::{Delta, SetChange};
pub(crate) use names::{CHAIN_PREFIX, parse_policy_set, set_prefix};
pub use ruleset::{
    Builtin, Chain, ChainName, Connection, Entry, Family, Hooks, Interface, IpSet, IpSetKind, Lookup, Match, Rule,
    Ruleset, SetName, Table, TableRules, Target,
};

/// Keeps the [`Ruleset`] of a node.
#[derive(Debug)]
pub struct Renderer {
    config: Config,
    ruleset: Ruleset,
    /// The kinds of the sets that were there at the start, by name.
    existing: BTreeMap<String, String>,
    /// The generation of every policy set, by its hash; those missing are at 0.
    generations: BTreeMap<Arc<str>, u32>,
    policies: BTreeMap<PolicyId, Arc<ActivePolicy>>,
    endpoints: BTreeMap<EndpointId, Arc<LocalEndpoint>>,
    /// Interfaces of attachments that lack the configured prefix, having got their names under another. They stay
    /// workloads' when the attachment goes: the link goes after it, and would be open until then.
    others: BTreeSet<Arc<str>>,
    pools: Pools,
    started: bool,
}

/// What a batch makes stale.
#[derive(Debug, Default)]
struct Dirty {
    policies: BTreeSet<PolicyId>,
    /// Interfaces that endpoints have, or had before.
    interfaces: BTreeSet<Arc<str>>,
}

impl Renderer {
    /// Of a node without endpoints. `existing` are the kinds, by name, of the sets that the kernel has from an earlier run:
    /// what is already there keeps its name.
    pub fn new(config: Config, existing: BTreeMap<String, String>) -> Self {
        let mut generations = BTreeMap::new();
        for (hash, generation) in existing.keys().filter_map(|name| names::parse_policy_set(name)) {
            let known = generations.entry(Arc::from(hash)).or_insert(generation);
            *known = generation.max(*known);
        }
        Self {
            config,
            ruleset: Ruleset::default(),
            existing,
            generations,
            policies: BTreeMap::new(),
            endpoints: BTreeMap::new(),
            others: BTreeSet::new(),
            pools: Pools::default(),
            started: false,
        }
    }

    /// Everything that the kernel should hold now.
    pub fn ruleset(&self) -> &Ruleset {
        &self.ruleset
    }

    /// The policies of every endpoint; a policy comes once for each endpoint that it selects.
    pub fn endpoint_policies(&self) -> impl Iterator<Item = &PolicyId> {
        self.endpoints.values().flat_map(|endpoint| policies(endpoint))
    }

    /// Takes one batch of changes.
    pub fn apply(&mut self, changes: Vec<Change>) -> Delta {
        let mut delta = Delta::default();
        if !std::mem::replace(&mut self.started, true) {
            self.put_base(&mut delta);
        }
        let renewed = self.renewed(&changes);
        let mut dirty = Dirty::default();
        for change in changes {
            match change {
                Change::SetAdded(id, members) => self.create_set(&id, &members, &mut delta),
                Change::SetChanged(id, members) if renewed.contains(&id) => self.renew_set(&id, &members, &mut delta),
                Change::SetChanged(id, members) => self.change_set(&id, &members, &mut delta),
                Change::SetRemoved(id) => self.remove_set(&id, &mut delta),
                Change::PolicyUpdated(id, policy) => self.take_policy(id, Some(policy), &mut dirty),
                Change::PolicyRemoved(id) => self.take_policy(id, None, &mut dirty),
                Change::EndpointUpdated(id, endpoint) => self.take_endpoint(id, Some(endpoint), &mut dirty),
                Change::EndpointRemoved(id) => self.take_endpoint(id, None, &mut dirty),
                Change::PoolsChanged(pools) => {
                    self.pools = pools;
                    self.put_pools(&mut delta);
                }
            }
        }
        let switches = self
            .policies
            .iter()
            .filter(|(_, policy)| policy.sets().any(|set| renewed.contains(set)));
        dirty.policies.extend(switches.map(|(id, _)| id.clone()));
        self.put_dirty(&dirty, &mut delta);
        delta
    }

    fn take_policy(&mut self, id: PolicyId, policy: Option<Arc<ActivePolicy>>, dirty: &mut Dirty) {
        // An endpoint's chain passes over policies that have nothing to say.
        let has =
            |policy: Option<&ActivePolicy>| Direction::BOTH.map(|d| policy.is_some_and(|policy| has_rules(policy, d)));
        if has(self.policies.get(&id).map(Arc::as_ref)) != has(policy.as_deref()) {
            let users = self
                .endpoints
                .values()
                .filter(|endpoint| policies(endpoint).contains(&id));
            dirty
                .interfaces
                .extend(users.map(|user| user.attachment.interface.clone()));
        }
        match policy {
            Some(policy) => _ = self.policies.insert(id.clone(), policy),
            None => _ = self.policies.remove(&id),
        }
        dirty.policies.insert(id);
    }

    fn take_endpoint(&mut self, id: EndpointId, endpoint: Option<Arc<LocalEndpoint>>, dirty: &mut Dirty) {
        let new = endpoint.clone();
        let old = match endpoint {
            Some(endpoint) => self.endpoints.insert(id, endpoint),
            None => self.endpoints.remove(&id),
        };
        for endpoint in [old, new].into_iter().flatten() {
            let interface = &endpoint.attachment.interface;
            if !interface.starts_with(&self.config.interface_prefix) {
                self.others.insert(interface.clone());
            }
            dirty.interfaces.insert(interface.clone());
        }
    }

    fn put_dirty(&mut self, dirty: &Dirty, delta: &mut Delta) {
        for id in &dirty.policies {
            self.put_policy(id, delta);
        }
        if dirty.interfaces.is_empty() {
            return;
        }
        for interface in &dirty.interfaces {
            self.put_interface(interface, delta);
        }
        self.put_tables(delta);
        self.put_dispatch(delta);
        self.put_sources(delta);
    }

    /// The sets that change together with rules that look at them.
    fn renewed(&self, changes: &[Change]) -> BTreeSet<SetId> {
        let mut rules_change: BTreeSet<&SetId> = BTreeSet::new();
        for change in changes {
            match change {
                Change::PolicyUpdated(id, policy) => {
                    rules_change.extend(policy.sets());
                    rules_change.extend(self.policies.get(id).into_iter().flat_map(|old| old.sets()));
                }
                Change::PolicyRemoved(id) => {
                    rules_change.extend(self.policies.get(id).into_iter().flat_map(|old| old.sets()));
                }
                Change::EndpointUpdated(id, new) => {
                    let Some(old) = self.endpoints.get(id) else { continue };
                    let differing = policies(old)
                        .symmetric_difference(&policies(new))
                        .copied()
                        .collect::<Vec<_>>();
                    let policies = differing.into_iter().filter_map(|id| self.policies.get(id));
                    rules_change.extend(policies.flat_map(|policy| policy.sets()));
                }
                Change::SetAdded(..)
                | Change::SetChanged(..)
                | Change::SetRemoved(_)
                | Change::EndpointRemoved(_)
                | Change::PoolsChanged(_) => {}
            }
        }
        let changed = changes.iter().filter_map(|change| match change {
            Change::SetChanged(id, _) => Some(id),
            _ => None,
        });
        changed.filter(|id| rules_change.contains(id)).cloned().collect()
    }

    fn writer(&self) -> Writer<'_> {
        Writer { config: &self.config }
    }

    fn put_base(&mut self, delta: &mut Delta) {
        self.put_tables(delta);
        self.put_sources(delta);
        self.put_dispatch(delta);
    }

    fn put_tables(&mut self, delta: &mut Delta) {
        for family in Family::ALL {
            for table in Table::ALL {
                self.put_table(family, table, delta);
            }
        }
    }

    /// Every interface that is a workload's.
    fn workloads(&self) -> Vec<Interface> {
        let prefix = Interface::Prefixed(self.config.interface_prefix.as_str().into());
        let others = self.others.iter().cloned().map(Interface::Named);
        std::iter::once(prefix).chain(others).collect()
    }

    fn put_table(&mut self, family: Family, table: Table, delta: &mut Delta) {
        let nat_outgoing = self.pools.nat_outgoing.iter().any(|net| Family::of(net.ip()) == family);
        let rules = self.writer().base(family, table, &self.workloads(), nat_outgoing);
        if rules == TableRules::default() && !self.ruleset.tables.contains_key(&(family, table)) {
            return;
        }
        for (name, chain) in &rules.chains {
            self.put(family, table, name, Some(chain.clone()), delta);
        }
        let ours = self.ruleset.tables.entry((family, table)).or_default();
        if ours.hooks != rules.hooks {
            let gone: Vec<_> = ours.hooks.values().flat_map(Hooks::chains).cloned().collect();
            ours.hooks = rules.hooks;
            delta.hooks.insert((family, table));
            for chain in gone.into_iter().filter(|chain| !rules.chains.contains_key(chain)) {
                self.put(family, table, &chain, None, delta);
            }
        }
    }

    fn put_policy(&mut self, id: &PolicyId, delta: &mut Delta) {
        for direction in Direction::BOTH {
            let name = direction.policy_chain(id);
            for family in Family::ALL {
                let policy = self.policies.get(id).filter(|policy| has_rules(policy, direction));
                let chain = policy.map(|policy| {
                    let set = |set: &SetId| self.set_name(family, set);
                    self.writer().policy(direction, family, id, policy, set)
                });
                self.put(family, Table::Filter, &name, chain, delta);
            }
        }
    }

    fn put_interface(&mut self, interface: &str, delta: &mut Delta) {
        let all = self.endpoints.values();
        let claimants: Vec<_> = all
            .filter(|endpoint| *endpoint.attachment.interface == *interface)
            .cloned()
            .collect();
        for direction in Direction::BOTH {
            let has_rules = |id: &PolicyId| self.policies.get(id).is_some_and(|policy| has_rules(policy, direction));
            let chain = match &claimants[..] {
                [] => None,
                [one] => Some(self.writer().endpoint(direction, one, has_rules)),
                _ => Some(chains::denied("more than one workload claims it")),
            };
            let name = direction.endpoint_chain(interface);
            for family in Family::ALL {
                self.put(family, Table::Filter, &name, chain.clone(), delta);
            }
        }
    }

    fn put_dispatch(&mut self, delta: &mut Delta) {
        let interfaces: BTreeSet<_> = self
            .endpoints
            .values()
            .map(|e| e.attachment.interface.clone())
            .collect();
        let interfaces: Vec<_> = interfaces.into_iter().collect();
        for direction in Direction::BOTH {
            let chains = dispatch(direction, &interfaces);
            let branches = format!("{}-", direction.dispatch_chain());
            for family in Family::ALL {
                let ours = self
                    .ruleset
                    .tables
                    .get(&(family, Table::Filter))
                    .into_iter()
                    .flat_map(|t| t.chains.keys());
                let gone = ours.filter(|name| name.0.starts_with(&branches) && !chains.contains_key(name));
                for name in gone.cloned().collect::<Vec<_>>() {
                    self.put(family, Table::Filter, &name, None, delta);
                }
                for (name, chain) in &chains {
                    self.put(family, Table::Filter, name, Some(chain.clone()), delta);
                }
            }
        }
    }

    /// Puts a chain in place, or away.
    fn put(&mut self, family: Family, table: Table, name: &ChainName, chain: Option<Chain>, delta: &mut Delta) {
        let chains = &mut self.ruleset.tables.entry((family, table)).or_default().chains;
        if chains.get(name) == chain.as_ref() {
            return;
        }
        match chain {
            Some(chain) => _ = chains.insert(name.clone(), chain),
            None => _ = chains.remove(name),
        }
        delta.chains.insert((family, table, name.clone()));
    }
}

fn has_rules(policy: &ActivePolicy, direction: Direction) -> bool {
    match direction {
        Direction::To => !policy.ingress.is_empty(),
        Direction::From => !policy.egress.is_empty(),
    }
}

fn policies(endpoint: &LocalEndpoint) -> BTreeSet<&PolicyId> {
    let tiers = endpoint
        .policy
        .iter()
        .flat_map(|policy| policy.ingress.iter().chain(&policy.egress));
    tiers.flat_map(|tier| &tier.policies).collect()
}
