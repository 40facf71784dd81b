//! What a speaker says of itself.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

use ipnetwork::IpNetwork;
use serde::Serialize;

use crate::config::PeerConfig;
use crate::fib::{FibHop, FibRoute};
use crate::prefix::Family;
use crate::rib::{PathView, PeerCounts, RouteView};
use crate::session::{Negotiated, Session, State};
use crate::wire::Origin;

/// The speaker as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SpeakerStatus {
    /// Our AS.
    pub local_as: u32,
    /// Our identifier.
    pub router_id: Ipv4Addr,
    /// We have restarted and still wait for peers; the forwarding plane is as the earlier run left it (RFC 4724).
    pub restarting: bool,
    /// Peers configured.
    pub peers: usize,
    /// Peers established.
    pub established: usize,
}

/// One peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PeerStatus {
    /// The name given in the configuration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its address.
    pub address: IpAddr,
    /// Its TCP port.
    pub port: u16,
    /// Its AS.
    pub remote_as: u32,
    /// `Idle`, `Active`, `Connect`, `OpenSent`, `OpenConfirm` or `Established`.
    pub state: &'static str,
    /// Seconds since that state was entered.
    pub since_seconds: u64,
    /// Why the session is down, or was the last time; always there while it is not established.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// Its identifier, while established.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub router_id: Option<Ipv4Addr>,
    /// Negotiated seconds, while established.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hold_time: Option<u16>,
    /// Families agreed on, while established.
    pub families: Vec<Family>,
    /// What else both ends have, while established: `four-octet-as`, `route-refresh`, `graceful-restart`.
    pub capabilities: Vec<&'static str>,
    /// Prefixes received, whether accepted or not.
    pub prefixes_received: usize,
    /// Prefixes accepted.
    pub prefixes_accepted: usize,
    /// Prefixes kept over a restart of the peer and not yet confirmed.
    pub prefixes_stale: usize,
    /// Prefixes sent.
    pub prefixes_advertised: usize,
    /// Messages received.
    pub messages_received: u64,
    /// Messages sent.
    pub messages_sent: u64,
    /// UPDATEs received.
    pub updates_received: u64,
    /// UPDATEs sent.
    pub updates_sent: u64,
    /// Malformed attributes survived (RFC 7606).
    pub malformed_attributes: u64,
    /// Times the session was established.
    pub times_established: u64,
    /// What else a person should know.
    pub notes: Vec<String>,
}

/// One prefix.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RouteStatus {
    /// The prefix.
    pub prefix: IpNetwork,
    /// `unicast`, `blackhole`, or nothing when the forwarding plane has no route for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<&'static str>,
    /// Directly reachable next hops in the forwarding plane.
    pub next_hops: Vec<HopStatus>,
    /// All paths, the best one first.
    pub paths: Vec<PathStatus>,
}

/// A next hop in the forwarding plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct HopStatus {
    /// The neighbour.
    pub via: IpAddr,
    /// Interface index.
    pub interface: u32,
}

/// One path to a prefix.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PathStatus {
    /// The peer it comes from; none for our own networks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<IpAddr>,
    /// Its next hop as received.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_hop: Option<IpAddr>,
    /// AS path, the nearest first.
    pub as_path: String,
    /// ORIGIN: `igp`, `egp` or `incomplete`.
    pub origin: &'static str,
    /// LOCAL_PREF, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local_pref: Option<u32>,
    /// MULTI_EXIT_DISC, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub med: Option<u32>,
    /// Communities.
    pub communities: Vec<String>,
    /// It is the best one.
    pub best: bool,
    /// It is in use, as the best one or beside it.
    pub used: bool,
    /// Kept over a restart of the peer.
    pub stale: bool,
    /// Why it is not used at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

pub(super) fn peer(config: &PeerConfig, session: &Session, counts: PeerCounts, now: Instant) -> PeerStatus {
    let counters = session.counters();
    let negotiated = session.negotiated();
    let mut notes: Vec<String> = counts
        .no_next_hop
        .iter()
        .map(|family| {
            let field = match family {
                Family::Ipv4 => "next_hop_ipv4",
                Family::Ipv6 => "next_hop_ipv6",
            };
            format!("routes of {family:?} are not sent: no own address to name as next hop; set {field}")
        })
        .collect();
    if config.export.is_none() && config.remote_as != session.config().local_as {
        notes.push("nothing is sent: no export filter (RFC 8212)".to_owned());
    }
    if config.import.is_none() && config.remote_as != session.config().local_as {
        notes.push("nothing is accepted: no import filter (RFC 8212)".to_owned());
    }
    PeerStatus {
        name: config.name.clone(),
        address: config.address,
        port: config.port,
        remote_as: config.remote_as,
        state: session.state().name(),
        since_seconds: now.saturating_duration_since(session.since()).as_secs(),
        last_error: session.last_error().map(ToString::to_string).or_else(|| {
            let waiting = match session.state() {
                State::Established => return None,
                State::Idle | State::Active if config.passive => "waiting for the peer to connect (passive)",
                State::Idle | State::Active | State::Connect => "the first attempt to connect is under way",
                State::OpenSent | State::OpenConfirm => "connected; OPENs are being exchanged",
            };
            Some(waiting.to_owned())
        }),
        router_id: negotiated.map(|n| n.router_id),
        hold_time: negotiated.map(|n| n.hold_time),
        families: negotiated.map_or_else(Vec::new, |n| n.families.clone()),
        capabilities: negotiated.map_or_else(Vec::new, capabilities),
        prefixes_received: counts.received,
        prefixes_accepted: counts.accepted,
        prefixes_stale: counts.stale,
        prefixes_advertised: counts.advertised,
        messages_received: counters.messages_in,
        messages_sent: counters.messages_out,
        updates_received: counters.updates_in,
        updates_sent: counters.updates_out,
        malformed_attributes: counters.faults_in,
        times_established: counters.established,
        notes,
    }
}

fn capabilities(negotiated: &Negotiated) -> Vec<&'static str> {
    let graceful = negotiated.graceful.is_some() && negotiated.restart_time.is_some();
    [
        (negotiated.options.as4, "four-octet-as"),
        (negotiated.route_refresh, "route-refresh"),
        (graceful, "graceful-restart"),
    ]
    .into_iter()
    .filter_map(|(agreed, name)| agreed.then_some(name))
    .collect()
}

pub(super) fn route(view: RouteView) -> RouteStatus {
    let (kind, next_hops) = match &view.fib {
        None => (None, Vec::new()),
        Some(FibRoute::Blackhole) => (Some("blackhole"), Vec::new()),
        Some(FibRoute::Unicast(hops)) => {
            let hop = |h: &FibHop| HopStatus {
                via: h.via,
                interface: h.oif,
            };
            (Some("unicast"), hops.iter().map(hop).collect())
        }
    };
    RouteStatus {
        prefix: view.prefix,
        kind,
        next_hops,
        paths: view.paths.iter().map(path).collect(),
    }
}

fn path(view: &PathView) -> PathStatus {
    let communities = view.attributes.communities.iter().map(ToString::to_string);
    let large = view.attributes.large_communities.iter().map(ToString::to_string);
    let unreachable = (!view.reachable).then(|| "its next hop cannot be reached".to_owned());
    PathStatus {
        peer: view.peer,
        next_hop: view.next_hop.map(|n| n.addr),
        as_path: view.attributes.as_path.to_string(),
        origin: match view.attributes.origin {
            Origin::Igp => "igp",
            Origin::Egp => "egp",
            Origin::Incomplete => "incomplete",
        },
        local_pref: view.attributes.local_pref,
        med: view.attributes.med,
        communities: communities.chain(large).collect(),
        best: view.best,
        used: view.used,
        stale: view.stale,
        reason: view.rejected.map(|r| r.to_string()).or(unreachable),
    }
}
