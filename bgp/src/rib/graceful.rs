//! Sessions that come and go, and graceful restart in both roles (RFC 4724 section 4).

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::peer::PeerUp;
use super::{PeerId, Rib};
use crate::prefix::Family;

/// Route selection waits for these End-of-RIB markers after our own restart (RFC 4724 section 4.1).
#[derive(Debug)]
pub(super) struct Deferral {
    pub(super) deadline: Instant,
    waiting: BTreeSet<(PeerId, Family)>,
    /// Without a single peer there is nothing to conclude from nobody being awaited.
    any_peer: bool,
}

impl Deferral {
    pub(super) fn expect(&mut self, id: PeerId, families: &[Family]) {
        self.any_peer = true;
        self.waiting.extend(families.iter().map(|f| (id, *f)));
    }

    pub(super) fn forget(&mut self, id: PeerId) {
        self.waiting.retain(|(peer, _)| *peer != id);
    }

    fn is_over(&self) -> bool {
        self.any_peer && self.waiting.is_empty()
    }
}

impl Rib {
    /// We have restarted with the forwarding state kept: until every peer has sent End-of-RIB, or for `limit`, the
    /// FIB stays as it is and no learnt route is passed on.
    pub fn defer_selection(&mut self, limit: Duration, now: Instant) {
        let mut deferral = Deferral {
            deadline: now + limit,
            waiting: BTreeSet::new(),
            any_peer: false,
        };
        for (id, peer) in &self.peers {
            deferral.expect(*id, &peer.policy.families);
        }
        self.deferral = Some(deferral);
    }

    /// Whether route selection is being deferred after our own restart.
    pub fn is_deferring(&self) -> bool {
        self.deferral.is_some()
    }

    /// A session is established.
    pub fn peer_up(&mut self, id: PeerId, up: PeerUp, now: Instant) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let was_restarting = peer.restart_deadline.take().is_some() || peer.stale_deadline.take().is_some();
        let lost: Vec<Family> = Family::ALL.into_iter().filter(|f| !keeps(&up, *f)).collect();
        if was_restarting {
            peer.stale_deadline = Some(now + self.config.stale_routes_time);
        }
        if let Some(deferral) = &mut self.deferral {
            // A peer that restarts too would wait for us as we for it; one that cannot need never say when it is done.
            let will_tell = up.graceful.as_ref().is_some_and(|g| !g.restarted);
            deferral
                .waiting
                .retain(|(p, f)| *p != id || (will_tell && up.families.contains(f)));
        }
        peer.router_id = up.router_id;
        peer.local_addr = Some(up.local_addr);
        peer.clear_out();
        peer.owed_markers = up.families.clone();
        peer.up = Some(up);
        if was_restarting {
            self.remove_paths(|path, prefix| path.peer == id && path.stale && lost.contains(&Family::of(prefix)));
        }
        self.queue_everything(id);
        self.end_deferral_if_over();
    }

    /// A session has ended. With `restarting`, and if the peer said it can, its routes stay for a while.
    pub fn peer_down(&mut self, id: PeerId, restarting: bool, now: Instant) {
        let graceful = self.config.graceful_restart && restarting;
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.clear_out();
        peer.stale_deadline = None;
        let Some(up) = peer.up.take() else { return };
        let capability = up.graceful.filter(|_| graceful);
        let kept: Vec<Family> = capability
            .iter()
            .flat_map(|g| g.families.iter().map(|f| f.family))
            .collect();
        if let Some(capability) = &capability
            && !kept.is_empty()
        {
            peer.restart_deadline = Some(now + Duration::from_secs(capability.restart_time.into()));
        }
        // Routes that were stale already have had their chance.
        self.remove_paths(|path, prefix| path.peer == id && (path.stale || !kept.contains(&Family::of(prefix))));
        for path in self
            .table
            .values_mut()
            .flat_map(|e| e.paths.iter_mut())
            .filter(|p| p.peer == id)
        {
            path.stale = true;
        }
    }

    /// The peer has sent everything of a family.
    pub fn end_of_rib(&mut self, id: PeerId, family: Family) {
        if self.peers.get(&id).is_some_and(|p| p.stale_deadline.is_some()) {
            self.remove_paths(|path, prefix| path.peer == id && path.stale && Family::of(prefix) == family);
        }
        if let Some(deferral) = &mut self.deferral {
            deferral.waiting.remove(&(id, family));
        }
        self.end_deferral_if_over();
    }

    /// Acts on every timer that has run out.
    pub fn handle_timeout(&mut self, now: Instant) {
        let due = |deadline: Option<Instant>| deadline.is_some_and(|at| at <= now);
        let mut late = Vec::new();
        for (id, peer) in &mut self.peers {
            if due(peer.restart_deadline) || due(peer.stale_deadline) {
                peer.restart_deadline = None;
                peer.stale_deadline = None;
                late.push(*id);
            }
        }
        if !late.is_empty() {
            self.remove_paths(|path, _| path.stale && late.contains(&path.peer));
        }
        if self.deferral.as_ref().is_some_and(|d| d.deadline <= now) {
            self.end_deferral();
        }
    }

    fn end_deferral_if_over(&mut self) {
        if self.deferral.as_ref().is_some_and(Deferral::is_over) {
            self.end_deferral();
        }
    }

    fn end_deferral(&mut self) {
        self.deferral = None;
        let ids: Vec<PeerId> = self.peers.keys().copied().collect();
        ids.into_iter().for_each(|id| self.queue_everything(id));
    }
}

/// Whether the peer kept forwarding this family over its restart.
fn keeps(up: &PeerUp, family: Family) -> bool {
    let families = up.graceful.iter().flat_map(|g| &g.families);
    up.families.contains(&family) && families.into_iter().any(|f| f.family == family && f.forwarding)
}
