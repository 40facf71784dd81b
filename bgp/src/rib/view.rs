//! Snapshots for people.

use std::net::IpAddr;
use std::sync::Arc;

use ipnetwork::IpNetwork;

use super::{PeerId, Rejected, Rib};
use crate::fib::FibRoute;
use crate::prefix::Family;
use crate::wire::{NextHop, PathAttributes};

/// Prefixes of one peer.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct PeerCounts {
    /// In Adj-RIB-In, whether accepted or not.
    pub received: usize,
    /// Of those, accepted.
    pub accepted: usize,
    /// Of those, kept over a restart of the peer and not yet confirmed.
    pub stale: usize,
    /// In Adj-RIB-Out.
    pub advertised: usize,
    /// Families of which nothing can be sent because no own next hop is known.
    pub no_next_hop: Vec<Family>,
}

/// A prefix with all its paths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteView {
    /// The prefix.
    pub prefix: IpNetwork,
    /// Paths, the best one first.
    pub paths: Vec<PathView>,
    /// What the FIB has been told.
    pub fib: Option<FibRoute>,
}

/// One path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathView {
    /// The peer's address; `None` for our own networks.
    pub peer: Option<IpAddr>,
    /// As accepted, or as received when rejected.
    pub attributes: Arc<PathAttributes>,
    /// `None` for our own networks.
    pub next_hop: Option<NextHop>,
    /// It is the best path.
    pub best: bool,
    /// It is used, as the best path or beside it.
    pub used: bool,
    /// Kept over a restart of the peer.
    pub stale: bool,
    /// Why it is not a candidate.
    pub rejected: Option<Rejected>,
    /// The next hop can be reached.
    pub reachable: bool,
}

impl Rib {
    /// Counts for every peer, in one pass.
    pub fn counts(&self) -> std::collections::HashMap<PeerId, PeerCounts> {
        let mut counts: std::collections::HashMap<PeerId, PeerCounts> = self
            .peers
            .iter()
            .map(|(id, p)| {
                let count = PeerCounts {
                    advertised: p.sent.len(),
                    no_next_hop: p.no_next_hop.clone(),
                    ..PeerCounts::default()
                };
                (*id, count)
            })
            .collect();
        for path in self.table.values().flat_map(|e| &e.paths) {
            if let Some(count) = counts.get_mut(&path.peer) {
                count.received += 1;
                count.accepted += usize::from(path.accepted.is_ok());
                count.stale += usize::from(path.stale);
            }
        }
        counts
    }

    /// Every prefix, in order.
    pub fn routes(&self) -> Vec<RouteView> {
        let mut routes: Vec<RouteView> = self
            .table
            .iter()
            .map(|(prefix, entry)| {
                let mut paths: Vec<PathView> = entry
                    .paths
                    .iter()
                    .map(|p| PathView {
                        peer: self.peers.get(&p.peer).map(|peer| peer.policy.address),
                        attributes: p.accepted.as_ref().unwrap_or(&p.received).clone(),
                        next_hop: p.next_hop,
                        best: entry.selected.first() == Some(&p.peer),
                        used: entry.selected.contains(&p.peer),
                        stale: p.stale,
                        rejected: p.accepted.as_ref().err().copied(),
                        reachable: p.reachable,
                    })
                    .collect();
                paths.sort_by_key(|p| (!p.best, !p.used, p.peer));
                RouteView {
                    prefix: *prefix,
                    paths,
                    fib: self.desired.get(prefix).map(|d| d.route.clone()),
                }
            })
            .collect();
        routes.sort_by_key(|r| r.prefix);
        routes
    }
}
