//! What the RIB keeps for each peer.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Instant;

use ipnetwork::IpNetwork;
use rustc_hash::{FxHashMap, FxHashSet};

use super::Queue;
use crate::filter::Filter;
use crate::prefix::Family;
use crate::wire::{GracefulRestart, NextHop, Options, PathAttributes};

/// How a peer's routes are treated; may change while the session stays up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerPolicy {
    /// The peer's address.
    pub address: IpAddr,
    /// The peer's AS.
    pub remote_as: u32,
    /// Families that will be offered to it.
    pub families: Vec<Family>,
    /// Import filter; see [`crate::config::PeerConfig::import`] for what its absence means.
    pub import: Option<Arc<Filter>>,
    /// Export filter.
    pub export: Option<Arc<Filter>>,
    /// Our IPv4 next hop, when not that of the session.
    pub next_hop_ipv4: Option<Ipv4Addr>,
    /// Our IPv6 next hop, when not that of the session.
    pub next_hop_ipv6: Option<Ipv6Addr>,
    /// Name ourselves as next hop over iBGP too.
    pub next_hop_self: bool,
}

/// An established session, as far as routes are concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerUp {
    /// The peer's BGP identifier.
    pub router_id: Ipv4Addr,
    /// Our end of the connection.
    pub local_addr: IpAddr,
    /// Families agreed on.
    pub families: Vec<Family>,
    /// How to encode for this peer.
    pub options: Options,
    /// The peer's graceful restart capability.
    pub graceful: Option<GracefulRestart>,
}

#[derive(Debug)]
pub(super) struct Peer {
    pub(super) policy: PeerPolicy,
    pub(super) up: Option<PeerUp>,
    /// Known from the last session; stale routes still compare by it.
    pub(super) router_id: Ipv4Addr,
    /// Our end of the last session; tells the interface of link-local next hops.
    pub(super) local_addr: Option<IpAddr>,
    /// Adj-RIB-Out: what the peer has been told.
    pub(super) sent: FxHashMap<IpNetwork, Sent>,
    /// What of it the peer has asked to be told again.
    pub(super) resend: FxHashSet<IpNetwork>,
    /// Prefixes about which the peer may have to be told something else.
    pub(super) pending: Queue,
    /// End-of-RIB markers still owed.
    pub(super) owed_markers: Vec<Family>,
    /// The peer must be back by then, or its stale routes go (RFC 4724 section 4.2).
    pub(super) restart_deadline: Option<Instant>,
    /// The peer must have sent End-of-RIB by then.
    pub(super) stale_deadline: Option<Instant>,
    /// Families with routes that cannot be sent because no next hop of ours is known.
    pub(super) no_next_hop: Vec<Family>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sent {
    pub(super) attributes: Arc<PathAttributes>,
    pub(super) next_hop: NextHop,
}

impl Peer {
    pub(super) fn new(policy: PeerPolicy) -> Self {
        Peer {
            policy,
            up: None,
            router_id: Ipv4Addr::UNSPECIFIED,
            local_addr: None,
            sent: FxHashMap::default(),
            resend: FxHashSet::default(),
            pending: Queue::default(),
            owed_markers: Vec::new(),
            restart_deadline: None,
            stale_deadline: None,
            no_next_hop: Vec::new(),
        }
    }

    /// Forgets what this session was told and was to be told.
    pub(super) fn clear_out(&mut self) {
        self.sent.clear();
        self.resend.clear();
        self.pending.clear();
        self.owed_markers.clear();
    }

    pub(super) fn queue(&mut self, prefix: IpNetwork) {
        if self.up.is_some() {
            self.pending.push(prefix);
        }
    }
}
