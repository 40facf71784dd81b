//! Routes: Adj-RIB-In → import → decision → Loc-RIB → FIB and export → Adj-RIB-Out (RFC 4271 section 9).
//!
//! Pure: the shell calls `handle_*`-like methods with what sessions and the forwarding plane say, then
//! [`Rib::process`], then takes FIB batches and messages out. Nothing is sent or written before it is asked for, so
//! a slow peer or kernel only makes later changes to the same prefix supersede earlier ones.

mod decision;
mod export;
mod graceful;
mod import;
mod interner;
mod peer;
mod recursion;
mod resolver;
mod view;

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnetwork::IpNetwork;
use rustc_hash::{FxHashMap, FxHashSet};
use smallvec::SmallVec;

use crate::config::Originated;
use crate::fib::{FibBatch, FibChange, FibRoute, Topology};
use crate::prefix::{Family, canonical};
use crate::wire::{AsPath, NextHop, Origin, PathAttributes, Update};

use decision::Candidate;
use graceful::Deferral;
use interner::Interner;
use peer::Peer;
use recursion::Leads;
use resolver::{HopKey, Resolver};

pub use import::Rejected;
pub use peer::{PeerPolicy, PeerUp};
pub use view::{PathView, PeerCounts, RouteView};

/// Names a peer inside the RIB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(u32);

impl PeerId {
    /// The speaker itself, as the source of originated networks.
    pub const LOCAL: PeerId = PeerId(0);
}

/// Settings of the RIB as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RibConfig {
    /// Our AS.
    pub local_as: u32,
    /// Our BGP identifier.
    pub router_id: Ipv4Addr,
    /// Equal paths to use at once, at least 1.
    pub max_paths: usize,
    /// Equal-length paths through different ASes count as equal.
    pub multipath_relax: bool,
    /// Keep the routes of a peer that restarts gracefully.
    pub graceful_restart: bool,
    /// How long a peer that came back may take until its stale routes go.
    pub stale_routes_time: Duration,
}

/// All routing tables of a speaker.
#[derive(Debug)]
pub struct Rib {
    config: RibConfig,
    peers: FxHashMap<PeerId, Peer>,
    next_peer: u32,
    table: FxHashMap<IpNetwork, Entry>,
    originated: FxHashMap<IpNetwork, Originated>,
    attributes: Interner,
    resolver: Resolver,
    dirty: Queue,
    desired: FxHashMap<IpNetwork, Desired>,
    fib_pending: FxHashSet<IpNetwork>,
    fib_complete_told: bool,
    deferral: Option<Deferral>,
}

/// What the forwarding plane should have for a prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Desired {
    route: FibRoute,
    /// Routes of ours between this one and its directly reachable next hops.
    depth: u8,
}

/// Everything known of one prefix.
#[derive(Debug, Default)]
struct Entry {
    paths: SmallVec<[Path; 2]>,
    /// The best path's peer, then those used beside it.
    selected: SmallVec<[PeerId; 4]>,
    /// What the best path said when peers were last told to look.
    told: Option<(PeerId, Arc<PathAttributes>, Option<NextHop>)>,
    /// What other routes of ours it may depend on.
    leads: Leads,
}

#[derive(Debug)]
struct Path {
    peer: PeerId,
    received: Arc<PathAttributes>,
    accepted: Result<Arc<PathAttributes>, Rejected>,
    /// `None` for our own networks.
    next_hop: Option<NextHop>,
    /// Its next hop could be used when the prefix was last decided.
    reachable: bool,
    stale: bool,
}

/// Prefixes waiting their turn, each once.
#[derive(Debug, Default)]
struct Queue {
    order: VecDeque<IpNetwork>,
    members: FxHashSet<IpNetwork>,
}

impl Queue {
    fn push(&mut self, prefix: IpNetwork) {
        if self.members.insert(prefix) {
            self.order.push_back(prefix);
        }
    }

    fn pop(&mut self) -> Option<IpNetwork> {
        let prefix = self.order.pop_front()?;
        self.members.remove(&prefix);
        Some(prefix)
    }

    fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    fn clear(&mut self) {
        *self = Queue::default();
    }
}

impl Rib {
    /// Empty tables.
    pub fn new(config: RibConfig) -> Self {
        Rib {
            config,
            peers: FxHashMap::default(),
            next_peer: 1,
            table: FxHashMap::default(),
            originated: FxHashMap::default(),
            attributes: Interner::default(),
            resolver: Resolver::default(),
            dirty: Queue::default(),
            desired: FxHashMap::default(),
            fib_pending: FxHashSet::default(),
            fib_complete_told: false,
            deferral: None,
        }
    }

    /// Changes what applies to the whole RIB. AS and identifier only change with all sessions down.
    pub fn set_config(&mut self, config: RibConfig) {
        if config != self.config {
            let identity = |c: &RibConfig| (c.local_as, c.router_id);
            let changed = identity(&config) != identity(&self.config);
            self.config = config;
            if changed {
                self.import_again(|_| true);
            }
            self.mark_all();
        }
    }

    /// Adds a peer whose session is down.
    pub fn add_peer(&mut self, policy: PeerPolicy) -> PeerId {
        let id = PeerId(self.next_peer);
        self.next_peer += 1;
        if let Some(deferral) = &mut self.deferral {
            deferral.expect(id, &policy.families);
        }
        self.peers.insert(id, Peer::new(policy));
        id
    }

    /// Replaces a peer's policy; its routes are judged again without a word to the peer (soft reconfiguration).
    pub fn set_policy(&mut self, id: PeerId, policy: PeerPolicy) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if peer.policy != policy {
            let import = peer.policy.import != policy.import;
            peer.policy = policy;
            if import {
                self.import_again(|p| p == id);
            }
            self.queue_everything(id);
        }
    }

    /// Forgets a peer and all that it said.
    pub fn remove_peer(&mut self, id: PeerId) {
        self.remove_paths(|path, _| path.peer == id);
        self.peers.remove(&id);
        if let Some(deferral) = &mut self.deferral {
            deferral.forget(id);
        }
    }

    /// Takes in the routes of an UPDATE.
    pub fn update(&mut self, id: PeerId, update: Update) {
        let Some(up) = self.peers.get(&id).and_then(|p| p.up.as_ref()) else {
            return;
        };
        let families = up.families.clone();
        let unreach = update.mp_unreach.filter(|u| families.contains(&u.family));
        let classic = families.contains(&Family::Ipv4);
        let withdrawn = update
            .withdrawn
            .into_iter()
            .filter(|_| classic)
            .chain(unreach.into_iter().flat_map(|u| u.nlri));
        withdrawn.for_each(|prefix| self.withdraw(id, prefix));
        let Some(attributes) = update.attributes else { return };
        let attributes = self.attributes.intern(attributes);
        if let Some(next_hop) = update.next_hop.filter(|_| classic) {
            for prefix in update.nlri {
                self.announce(id, prefix, &attributes, NextHop::from(IpAddr::V4(next_hop)));
            }
        }
        if let Some(reach) = update.mp_reach.filter(|r| families.contains(&r.family)) {
            for prefix in reach.nlri {
                self.announce(id, prefix, &attributes, reach.next_hop);
            }
        }
    }

    /// Sets the networks that we originate.
    pub fn set_networks(&mut self, networks: &[Originated]) {
        let wanted: FxHashMap<IpNetwork, Originated> =
            networks.iter().map(|n| (canonical(n.prefix), n.clone())).collect();
        let gone: Vec<IpNetwork> = self
            .originated
            .keys()
            .filter(|p| !wanted.contains_key(*p))
            .copied()
            .collect();
        for prefix in &gone {
            self.withdraw(PeerId::LOCAL, *prefix);
        }
        let mut judged: FxHashSet<IpNetwork> = gone.into_iter().collect();
        for (prefix, network) in &wanted {
            if self.originated.get(prefix) != Some(network) {
                let attributes = self.attributes.intern(PathAttributes {
                    origin: Origin::Igp,
                    as_path: AsPath::default(),
                    communities: network.communities.clone(),
                    ..PathAttributes::default()
                });
                judged.insert(*prefix);
                let path = Path {
                    peer: PeerId::LOCAL,
                    received: attributes.clone(),
                    accepted: Ok(attributes),
                    next_hop: None,
                    reachable: true,
                    stale: false,
                };
                self.insert(*prefix, path);
            }
        }
        self.originated = wanted;
        // What peers say about our own networks is judged anew.
        for prefix in judged {
            self.import_prefix_again(prefix);
        }
    }

    /// Sets what can be reached without BGP.
    pub fn set_topology(&mut self, topology: Topology) {
        if self.resolver.set_topology(topology) {
            self.table.values_mut().for_each(|e| e.leads = Leads::default());
            self.mark_all();
            let ids: Vec<PeerId> = self.peers.keys().copied().collect();
            // Our own next hop may have appeared.
            ids.into_iter().for_each(|id| self.queue_everything(id));
        }
    }

    /// Runs the decision process on everything that changed.
    pub fn process(&mut self) {
        // A recursive next hop may change with the routes. `recursion` leaves no circles, so this comes to an end.
        while !self.dirty.is_empty() {
            let (mut changed_routes, mut changed_leads) = (Vec::new(), Vec::new());
            while let Some(prefix) = self.dirty.pop() {
                let (route, leads) = self.decide(prefix);
                changed_routes.extend(route.then_some(prefix));
                changed_leads.extend(leads.then_some(prefix));
            }
            let moved = self.resolver.invalidate(&changed_routes, &self.desired);
            let relinked = self.resolver.any_leads_through(&changed_leads);
            if moved.is_empty() && !relinked {
                continue;
            }
            let concerned = |entry: &Entry| {
                (relinked && entry.leads.any()) || entry.paths.iter().any(|p| moved.contains(&self.hop_key(p)))
            };
            let dependents = self.table.iter().filter(|(_, entry)| concerned(entry));
            let dependents: Vec<IpNetwork> = dependents.map(|(prefix, _)| *prefix).collect();
            dependents.into_iter().for_each(|p| self.dirty.push(p));
        }
        if self.resolver.wants_sweep() {
            let paths = self.table.values().flat_map(|e| &e.paths);
            let used = paths.map(|p| self.hop_key(p)).collect();
            self.resolver.sweep(&used);
        }
        if self.attributes.wants_sweep() {
            self.attributes.sweep();
        }
    }

    /// The next step for the forwarding plane; `None` when it has been told everything.
    ///
    /// While route selection is deferred after a restart (RFC 4724 section 4.1) there is nothing to tell.
    pub fn poll_fib(&mut self) -> Option<FibBatch> {
        if self.deferral.is_some() || (self.fib_pending.is_empty() && self.fib_complete_told) {
            return None;
        }
        self.fib_complete_told = true;
        let changes = self
            .fib_pending
            .drain()
            .map(|prefix| FibChange {
                prefix,
                route: self.desired.get(&prefix).map(|d| d.route.clone()),
            })
            .collect();
        Some(FibBatch {
            changes,
            complete: true,
        })
    }

    /// When [`Rib::handle_timeout`] wants to be called next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let peers = self
            .peers
            .values()
            .flat_map(|p| [p.restart_deadline, p.stale_deadline])
            .flatten();
        peers.chain(self.deferral.as_ref().map(|d| d.deadline)).min()
    }

    fn hop_key(&self, path: &Path) -> HopKey {
        let link_local = path.next_hop.is_some_and(|n| n.link_local.is_some());
        let local = self
            .peers
            .get(&path.peer)
            .filter(|_| link_local)
            .and_then(|p| p.local_addr);
        HopKey::new(path.next_hop, local.and_then(|addr| self.resolver.interface_of(addr)))
    }

    fn announce(&mut self, id: PeerId, prefix: IpNetwork, attributes: &Arc<PathAttributes>, next_hop: NextHop) {
        let accepted = self.import(id, &prefix, attributes);
        let path = Path {
            peer: id,
            received: attributes.clone(),
            accepted,
            next_hop: Some(next_hop),
            reachable: false,
            stale: false,
        };
        self.insert(prefix, path);
    }

    fn insert(&mut self, prefix: IpNetwork, path: Path) {
        let entry = self.table.entry(prefix).or_default();
        match entry.paths.iter_mut().find(|p| p.peer == path.peer) {
            Some(old) => *old = path,
            None => entry.paths.push(path),
        }
        self.dirty.push(prefix);
    }

    fn withdraw(&mut self, id: PeerId, prefix: IpNetwork) {
        if let Some(entry) = self.table.get_mut(&prefix) {
            let before = entry.paths.len();
            entry.paths.retain(|p| p.peer != id);
            if entry.paths.len() != before {
                self.dirty.push(prefix);
            }
        }
    }

    fn remove_paths(&mut self, gone: impl Fn(&Path, &IpNetwork) -> bool) {
        for (prefix, entry) in &mut self.table {
            let before = entry.paths.len();
            entry.paths.retain(|p| !gone(p, prefix));
            if entry.paths.len() != before {
                self.dirty.push(*prefix);
            }
        }
    }

    fn mark_all(&mut self) {
        let Rib { table, dirty, .. } = self;
        table.keys().for_each(|p| dirty.push(*p));
    }

    /// Chooses the paths of a prefix again; whether its forwarding changed, and what it leads to.
    fn decide(&mut self, prefix: IpNetwork) -> (bool, bool) {
        let Some(entry) = self.table.get_mut(&prefix) else {
            return (false, false);
        };
        let mut paths = std::mem::take(&mut entry.paths);
        let leads_changed = self.find_leads(prefix, &paths);
        for path in &mut paths {
            path.reachable = path.next_hop.is_none() || self.is_reachable(&prefix, &self.hop_key(path));
        }
        let candidates = paths.iter().filter(|p| p.reachable).filter_map(|p| self.candidate(p));
        let selected = decision::select(candidates.collect(), self.config.max_paths, self.config.multipath_relax);
        let desired = self.desired_for(&prefix, &paths, &selected);
        let best = selected.first().and_then(|id| paths.iter().find(|p| p.peer == *id));
        let told = best.and_then(|p| Some((p.peer, p.accepted.as_ref().ok()?.clone(), p.next_hop)));
        let gone = paths.is_empty();
        if let Some(entry) = self.table.get_mut(&prefix) {
            entry.paths = paths;
            entry.selected = selected;
            if entry.told != told {
                entry.told = told;
                self.peers.values_mut().for_each(|p| p.queue(prefix));
            }
        }
        if gone {
            self.table.remove(&prefix);
        }
        let old = self.desired.get(&prefix);
        if old == desired.as_ref() {
            return (false, leads_changed);
        }
        if old.map(|d| &d.route) != desired.as_ref().map(|d| &d.route) {
            self.fib_pending.insert(prefix);
        }
        match desired {
            Some(desired) => self.desired.insert(prefix, desired),
            None => self.desired.remove(&prefix),
        };
        (true, leads_changed)
    }

    /// A path as the decision process compares it; `None` when it was not accepted.
    fn candidate<'a>(&self, path: &'a Path) -> Option<Candidate<'a>> {
        let peer = self.peers.get(&path.peer);
        Some(Candidate {
            peer: path.peer,
            attributes: path.accepted.as_ref().ok()?,
            local: path.next_hop.is_none(),
            ebgp: peer.is_some_and(|p| p.policy.remote_as != self.config.local_as),
            cost: self.resolver.cached(&self.hop_key(path)).map_or(0, |r| r.cost),
            router_id: peer.map_or(self.config.router_id, |p| p.router_id),
            address: peer.map_or(IpAddr::V4(self.config.router_id), |p| p.policy.address),
        })
    }

    fn desired_for(&self, prefix: &IpNetwork, paths: &[Path], selected: &[PeerId]) -> Option<Desired> {
        if selected.first() == Some(&PeerId::LOCAL) {
            let blackhole = self.originated.get(prefix).is_some_and(|n| n.blackhole);
            return blackhole.then_some(Desired {
                route: FibRoute::Blackhole,
                depth: 0,
            });
        }
        // The kernel's own connected route serves better than ours could.
        if self.resolver.is_connected(prefix) {
            return None;
        }
        let (mut hops, mut depth) = (SmallVec::new(), 0);
        for path in paths.iter().filter(|p| selected.contains(&p.peer)) {
            if let Some(resolved) = self.resolver.cached(&self.hop_key(path)) {
                hops.extend(resolved.hops.iter().copied());
                depth = depth.max(resolved.depth);
            }
        }
        hops.sort_unstable();
        hops.dedup();
        (!hops.is_empty()).then_some(Desired {
            route: FibRoute::Unicast(hops),
            depth,
        })
    }
}

#[cfg(test)]
mod tests;
