//! From what this node must enforce to chains, rules and sets. Pure.
//!
//! A [`Renderer`] holds the whole [`Ruleset`] and answers each batch of changes with the [`Delta`] that it made. No packet
//! may be judged by half of a batch: rules of one table change in one transaction, but sets are outside it. So a set
//! whose members change together with rules that look at it gets a new name (a new generation), and the rules switch
//! to that. Where only members change, those that go leave first ([`dataplane`](crate::dataplane) sees to it): as rules
//! only allow, nothing passes that neither the old nor the new state allows.

mod chains;
mod config;
mod dispatch;
mod names;
mod ruleset;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ipnetwork::IpNetwork;

use crate::calc::{ActivePolicy, Change, LocalEndpoint, Member, Pools, SetDelta, SetId, SetKind};
use crate::model::{EndpointId, PolicyId};
use chains::{Direction, NAT_OUTGOING, POOLS, SOURCES, Writer};
use dispatch::dispatch;

pub use config::{AllowAction, Config, EndpointToHost};
pub(crate) use names::{CHAIN_PREFIX, set_prefix};
pub use ruleset::{
    Builtin, Chain, ChainName, Connection, Entry, Family, Hook, Interface, IpSet, IpSetKind, Lookup, Match, Position,
    Rule, Ruleset, SetName, Table, TableRules, Target,
};

/// What one batch changed in the [`Ruleset`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delta {
    /// Sets that came, changed or went.
    pub sets: BTreeMap<SetName, SetChange>,
    /// Chains that came, changed or went.
    pub chains: BTreeSet<(Family, Table, ChainName)>,
    /// Tables whose hooks came or went.
    pub hooks: BTreeSet<(Family, Table)>,
}

impl Delta {
    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// How a set changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SetChange {
    /// It was not there.
    Created,
    /// Some members came and others went.
    Changed {
        /// New members.
        added: BTreeSet<Entry>,
        /// Former members.
        removed: BTreeSet<Entry>,
    },
    /// It is not there any more.
    Removed,
}

/// Keeps the [`Ruleset`] of a node.
#[derive(Debug)]
pub struct Renderer {
    config: Config,
    ruleset: Ruleset,
    /// The generation of every policy set, by its hash; those missing are at 0.
    generations: BTreeMap<Arc<str>, u32>,
    policies: BTreeMap<PolicyId, Arc<ActivePolicy>>,
    endpoints: BTreeMap<EndpointId, Arc<LocalEndpoint>>,
    pools: Pools,
    started: bool,
}

impl Renderer {
    /// Of a node without endpoints. `existing` are the names of the sets that the kernel has from an earlier run: what
    /// is already there keeps its name.
    pub fn new<'a>(config: Config, existing: impl IntoIterator<Item = &'a str>) -> Self {
        let mut generations = BTreeMap::new();
        for (hash, generation) in existing.into_iter().filter_map(names::parse_policy_set) {
            let known = generations.entry(Arc::from(hash)).or_insert(generation);
            *known = generation.max(*known);
        }
        Self {
            config,
            ruleset: Ruleset::default(),
            generations,
            policies: BTreeMap::new(),
            endpoints: BTreeMap::new(),
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
        let renewed = self.renewed(&changes);
        let mut dirty_policies: BTreeSet<PolicyId> = BTreeSet::new();
        let mut dirty_endpoints: BTreeSet<EndpointId> = BTreeSet::new();
        let mut stale_chains: Vec<ChainName> = Vec::new();
        let before = self.endpoints.clone();
        if !std::mem::replace(&mut self.started, true) {
            self.put_base(&mut delta);
        }
        for change in changes {
            match change {
                Change::SetAdded(id, members) => self.create_set(&id, &members, &mut delta),
                Change::SetChanged(id, members) if renewed.contains(&id) => self.renew_set(&id, &members, &mut delta),
                Change::SetChanged(id, members) => self.change_set(&id, &members, &mut delta),
                Change::SetRemoved(id) => self.remove_set(&id, &mut delta),
                Change::PolicyUpdated(id, policy) => {
                    let shape = |policy: &ActivePolicy| (policy.ingress.is_empty(), policy.egress.is_empty());
                    let old = self.policies.insert(id.clone(), policy.clone());
                    if old.is_none_or(|old| shape(&old) != shape(&policy)) {
                        let users = self.endpoints.iter().filter(|(_, endpoint)| uses(endpoint, &id));
                        dirty_endpoints.extend(users.map(|(id, _)| id.clone()));
                    }
                    dirty_policies.insert(id);
                }
                Change::PolicyRemoved(id) => {
                    self.policies.remove(&id);
                    dirty_policies.insert(id);
                }
                Change::EndpointUpdated(id, endpoint) => {
                    self.endpoints.insert(id.clone(), endpoint);
                    dirty_endpoints.insert(id);
                }
                Change::EndpointRemoved(id) => {
                    self.endpoints.remove(&id);
                    dirty_endpoints.insert(id);
                }
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
        dirty_policies.extend(switches.map(|(id, _)| id.clone()));
        for id in &dirty_policies {
            self.put_policy(id, &mut delta);
        }
        for id in &dirty_endpoints {
            let interface = |endpoint: &Arc<LocalEndpoint>| endpoint.attachment.interface.clone();
            if let Some(old) = before.get(id).map(interface)
                && self.endpoints.get(id).map(interface).as_ref() != Some(&old)
            {
                stale_chains.extend(Direction::BOTH.map(|direction| direction.endpoint_chain(&old)));
            }
        }
        stale_chains.retain(|chain| !self.endpoint_chains().any(|used| used == *chain));
        for id in &dirty_endpoints {
            self.put_endpoint(id, &mut delta);
        }
        if !dirty_endpoints.is_empty() {
            self.put_dispatch(&mut delta);
            self.put_sources(&mut delta);
        }
        for chain in stale_chains {
            Family::ALL
                .into_iter()
                .for_each(|family| self.put(family, Table::Filter, &chain, None, &mut delta));
        }
        delta
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

    fn endpoint_chains(&self) -> impl Iterator<Item = ChainName> {
        let interfaces = self.endpoints.values().map(|endpoint| &endpoint.attachment.interface);
        interfaces.flat_map(|interface| Direction::BOTH.map(|direction| direction.endpoint_chain(interface)))
    }

    fn put_base(&mut self, delta: &mut Delta) {
        for family in Family::ALL {
            for table in Table::ALL {
                self.put_table(family, table, delta);
            }
        }
        self.put_sources(delta);
        self.put_dispatch(delta);
    }

    fn put_table(&mut self, family: Family, table: Table, delta: &mut Delta) {
        let nat_outgoing = self.pools.nat_outgoing.iter().any(|net| family_of(net) == family);
        let rules = self.writer().base(family, table, nat_outgoing);
        if rules == TableRules::default() && !self.ruleset.tables.contains_key(&(family, table)) {
            return;
        }
        for (name, chain) in &rules.chains {
            self.put(family, table, name, Some(chain.clone()), delta);
        }
        let ours = self.ruleset.tables.entry((family, table)).or_default();
        if ours.hooks != rules.hooks {
            let gone: Vec<_> = ours.hooks.values().map(|hook| hook.chain.clone()).collect();
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

    fn put_endpoint(&mut self, id: &EndpointId, delta: &mut Delta) {
        let Some(endpoint) = self.endpoints.get(id).cloned() else {
            return;
        };
        for direction in Direction::BOTH {
            let has_rules = |id: &PolicyId| self.policies.get(id).is_some_and(|policy| has_rules(policy, direction));
            let chain = self.writer().endpoint(direction, &endpoint, has_rules);
            let name = direction.endpoint_chain(&endpoint.attachment.interface);
            for family in Family::ALL {
                self.put(family, Table::Filter, &name, Some(chain.clone()), delta);
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

    /// The addresses that each workload may send from.
    fn put_sources(&mut self, delta: &mut Delta) {
        let attachments = self.endpoints.values().map(|endpoint| &endpoint.attachment);
        let entries = attachments.flat_map(|attachment| {
            let entry = |&address| Entry::NetInterface(IpNetwork::from(address), attachment.interface.clone());
            attachment.addresses.iter().map(entry)
        });
        let entries: BTreeSet<_> = entries.collect();
        self.put_fixed(SOURCES, IpSetKind::HashNetIface, &entries, delta);
    }

    fn put_pools(&mut self, delta: &mut Delta) {
        for family in Family::ALL {
            self.put_table(family, Table::Nat, delta);
        }
        let entries = |nets: &BTreeSet<IpNetwork>| nets.iter().flat_map(|net| net_entries(*net)).collect();
        let (all, nat): (BTreeSet<_>, BTreeSet<_>) = (entries(&self.pools.all), entries(&self.pools.nat_outgoing));
        self.put_fixed(POOLS, IpSetKind::HashNet, &all, delta);
        self.put_fixed(NAT_OUTGOING, IpSetKind::HashNet, &nat, delta);
    }

    fn put_fixed(&mut self, what: &str, kind: IpSetKind, entries: &BTreeSet<Entry>, delta: &mut Delta) {
        for family in Family::ALL {
            let name = names::fixed_set(family, what);
            let members: BTreeSet<_> = entries
                .iter()
                .filter(|entry| entry.family() == family)
                .cloned()
                .collect();
            let max_size = self.config.max_set_size;
            match self.ruleset.sets.get_mut(&name) {
                None => {
                    self.ruleset.sets.insert(
                        name.clone(),
                        IpSet {
                            family,
                            kind,
                            max_size,
                            members,
                        },
                    );
                    delta.sets.insert(name, SetChange::Created);
                }
                Some(set) => {
                    let added = members.difference(&set.members).cloned().collect();
                    let removed = set.members.difference(&members).cloned().collect();
                    set.members = members;
                    delta.set_changed(name, added, removed);
                }
            }
        }
    }

    fn set_name(&self, family: Family, id: &SetId) -> SetName {
        names::policy_set(family, id, self.generations.get(&id.hash).copied().unwrap_or(0))
    }

    fn create_set(&mut self, id: &SetId, members: &BTreeSet<Member>, delta: &mut Delta) {
        for family in families(id) {
            let name = self.set_name(family, id);
            let kind = match id.kind {
                SetKind::Nets => IpSetKind::HashNet,
                SetKind::AddressPorts => IpSetKind::HashIpPort,
            };
            let members = of_family(members, family);
            let set = IpSet {
                family,
                kind,
                max_size: self.config.max_set_size,
                members,
            };
            self.ruleset.sets.insert(name.clone(), set);
            delta.sets.insert(name, SetChange::Created);
        }
    }

    fn renew_set(&mut self, id: &SetId, change: &SetDelta, delta: &mut Delta) {
        let current = |renderer: &Self, family| renderer.set_name(family, id);
        let old: Vec<_> = families(id).map(|family| (family, current(self, family))).collect();
        *self.generations.entry(id.hash.clone()).or_default() += 1;
        for (family, old) in old {
            let Some(mut set) = self.ruleset.sets.remove(&old) else {
                continue;
            };
            delta.sets.insert(old, SetChange::Removed);
            of_family(&change.removed, family)
                .iter()
                .for_each(|entry| _ = set.members.remove(entry));
            set.members.extend(of_family(&change.added, family));
            let name = current(self, family);
            self.ruleset.sets.insert(name.clone(), set);
            delta.sets.insert(name, SetChange::Created);
        }
    }

    fn change_set(&mut self, id: &SetId, change: &SetDelta, delta: &mut Delta) {
        for family in families(id) {
            let name = self.set_name(family, id);
            let Some(set) = self.ruleset.sets.get_mut(&name) else {
                continue;
            };
            let (added, removed) = (of_family(&change.added, family), of_family(&change.removed, family));
            removed.iter().for_each(|entry| _ = set.members.remove(entry));
            set.members.extend(added.iter().cloned());
            delta.set_changed(name, added, removed);
        }
    }

    fn remove_set(&mut self, id: &SetId, delta: &mut Delta) {
        for family in families(id) {
            let name = self.set_name(family, id);
            self.ruleset.sets.remove(&name);
            delta.sets.insert(name, SetChange::Removed);
        }
        self.generations.remove(&id.hash);
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

impl Delta {
    fn set_changed(&mut self, name: SetName, added: BTreeSet<Entry>, removed: BTreeSet<Entry>) {
        // A set that is created in this batch is created with all its members.
        if !(added.is_empty() && removed.is_empty()) {
            self.sets.entry(name).or_insert(SetChange::Changed { added, removed });
        }
    }
}

impl Entry {
    /// The family of its address.
    pub fn family(&self) -> Family {
        match self {
            Self::Net(net) | Self::NetInterface(net, _) => family_of(net),
            Self::AddressPort(address, ..) => Family::of(*address),
        }
    }
}

fn families(id: &SetId) -> impl Iterator<Item = Family> + use<> {
    let (v4, v6) = (id.v4, id.v6);
    Family::ALL
        .into_iter()
        .filter(move |family| if *family == Family::V4 { v4 } else { v6 })
}

fn family_of(net: &IpNetwork) -> Family {
    Family::of(net.ip())
}

fn of_family(members: &BTreeSet<Member>, family: Family) -> BTreeSet<Entry> {
    members
        .iter()
        .filter(|member| member.is_ipv4() == (family == Family::V4))
        .flat_map(entries)
        .collect()
}

fn entries(member: &Member) -> Vec<Entry> {
    match member {
        Member::Net(net) => net_entries(*net),
        Member::AddressPort(address, protocol, port) => vec![Entry::AddressPort(*address, *protocol, *port)],
    }
}

/// `hash:net` refuses /0.
fn net_entries(net: IpNetwork) -> Vec<Entry> {
    if net.prefix() > 0 {
        return vec![Entry::Net(net)];
    }
    let halves = if net.is_ipv4() {
        ["0.0.0.0/1", "128.0.0.0/1"]
    } else {
        ["::/1", "8000::/1"]
    };
    halves
        .iter()
        .map(|half| Entry::Net(half.parse().expect("a CIDR")))
        .collect()
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

fn uses(endpoint: &LocalEndpoint, policy: &PolicyId) -> bool {
    policies(endpoint).contains(policy)
}
