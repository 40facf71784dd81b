//! The cluster's objects as the speaker's configuration. Pure.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnetwork::IpNetwork;
use margay_api::cidr as api_cidr;
use margay_api::slim::Node;
use margay_api::v3::{BGPConfigurationSpec, LogLevel};
use margay_api::validate;
use margay_bgp::config::{Config, Originated, PeerConfig};
use margay_bgp::fib::Sources;
use margay_bgp::filter::{Action, Changes, Filter, PrefixRange, Rule, Source};
use margay_bgp::prefix::Family;

use super::bgp_peers::{self, Session, Sessions};
use super::blocks;
use super::cluster::Cluster;
use super::identity::{self, Identity};
use super::overlay;
use crate::kube::events::Notice;
use crate::kube::resource::BGP_CONFIGURATION;

/// Route protocol number of routes learnt over BGP.
pub const ROUTE_PROTOCOL: u8 = 178;

/// What the machine adds to what the cluster says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// Networks on this node's interfaces: peers in them need no multihop.
    pub connected: Vec<IpNetwork>,
    /// Whether the kernel speaks IPv6.
    pub ipv6: bool,
    /// Whether pods can be served: until then nothing is announced.
    pub announce: bool,
    /// What is announced already.
    pub shown: Vec<IpNetwork>,
}

/// A configuration and what users must fix.
#[derive(Debug, Clone, PartialEq)]
pub struct BgpPlan {
    /// For the speaker.
    pub config: Config,
    /// Least severity that the speaker logs, where BGPConfiguration says so.
    pub log_level: Option<LogLevel>,
    /// Objects that were left out, and why.
    pub faults: Vec<Notice>,
}

/// The configuration of `me`.
pub fn plan(cluster: &Cluster, me: &Node, surroundings: &Surroundings) -> BgpPlan {
    let name = me.metadata.name.as_str();
    let objects = &cluster.bgp_configurations;
    let (settings, unusable) = overlay::effective(objects, BGP_CONFIGURATION, name, validate::bgp_configuration);
    let own = Identity::of(me, settings.as_number());
    let Sessions { sessions, mut faults } = bgp_peers::sessions(cluster, me, &settings);
    faults.extend(unusable);
    faults.extend(identity::faults(me));

    let prefixes = prefixes(cluster, name);
    let mut config = Config::new(own.as_number, own.router_id());
    config.sources = Sources {
        ipv4: own.v4,
        ipv6: own.v6,
    };
    config.listen = listen(&settings, surroundings.ipv6);
    config.filters = BTreeMap::from([
        (IMPORT.to_owned(), import_filter(&prefixes)),
        (EXPORT.to_owned(), export_filter()),
    ]);
    if surroundings.announce {
        let shown = prefixes
            .iter()
            .filter(|prefix| shows(cluster, **prefix).unwrap_or_else(|| surroundings.shown.contains(prefix)));
        // The blackhole is the host side's: it stays while the speaker restarts.
        config.networks = shown
            .map(|prefix| Originated {
                prefix: *prefix,
                blackhole: false,
                communities: Vec::new(),
            })
            .collect();
    }
    let peers = sessions
        .values()
        .map(|session| peer(session, &own, &surroundings.connected))
        .collect();
    config.peers = sound(&config, me, peers, &mut faults);
    BgpPlan {
        config,
        log_level: settings.log_severity_screen,
        faults,
    }
}

/// What this node originates: its blocks, and single addresses it holds in blocks of others.
pub fn prefixes(cluster: &Cluster, node: &str) -> Vec<IpNetwork> {
    let mut prefixes = blocks::owned_by(cluster.blocks.iter(), node);
    prefixes.extend(
        blocks::borrowed_by(cluster.blocks.iter(), node)
            .into_iter()
            .map(IpNetwork::from),
    );
    // The speaker refuses a network that is named twice.
    prefixes.sort();
    prefixes.dedup();
    prefixes
}

const IMPORT: &str = "from-peers";
const EXPORT: &str = "to-peers";

/// All but what this node originates itself: a peer that offers us our own block is a loop or a stale announcement. More
/// specific routes inside it are addresses that other nodes borrowed.
fn import_filter(own: &[IpNetwork]) -> Filter {
    let exact = own
        .iter()
        .map(|prefix| PrefixRange {
            prefix: *prefix,
            ge: None,
            le: None,
        })
        .collect::<Vec<_>>();
    let refuse = Rule {
        prefixes: exact,
        source: None,
        communities: Vec::new(),
        as_path_prefix: Vec::new(),
        action: Action::Reject,
        set: Changes::default(),
    };
    // A rule without prefixes would match every route.
    Filter {
        rules: if own.is_empty() { Vec::new() } else { vec![refuse] },
        default: Action::Accept,
    }
}

/// Our own networks and nothing else: a node is never a transit.
fn export_filter() -> Filter {
    let own = Rule {
        prefixes: Vec::new(),
        source: Some(Source::Local),
        communities: Vec::new(),
        as_path_prefix: Vec::new(),
        action: Action::Accept,
        set: Changes::default(),
    };
    Filter {
        rules: vec![own],
        default: Action::Reject,
    }
}

/// Whether the pools of a prefix let it be announced; nothing where there is no such pool. Then it stays as it is: pods live
/// on when their pool is deleted, and what its pool hid does not come to light by that.
fn shows(cluster: &Cluster, prefix: IpNetwork) -> Option<bool> {
    let mut known = None;
    for pool in cluster.pools.iter() {
        if pool
            .spec
            .network()
            .is_ok_and(|network| api_cidr::contains(network, prefix))
        {
            known = Some(known.unwrap_or(true) && pool.spec.disable_bgp_export != Some(true));
        }
    }
    known
}

fn listen(settings: &BGPConfigurationSpec, ipv6: bool) -> Vec<SocketAddr> {
    let port = settings.listen_port.unwrap_or(179);
    let v6 = ipv6.then_some(IpAddr::V6(Ipv6Addr::UNSPECIFIED));
    let addresses = std::iter::once(IpAddr::V4(Ipv4Addr::UNSPECIFIED)).chain(v6);
    addresses.map(|address| SocketAddr::new(address, port)).collect()
}

/// Those peers that the speaker takes. It refuses a configuration as a whole: one peer that it finds fault with would keep
/// everything else from being told.
fn sound(config: &Config, me: &Node, peers: Vec<PeerConfig>, faults: &mut Vec<Notice>) -> Vec<PeerConfig> {
    let check = |peer: &PeerConfig| {
        let Err(errors) = config.validate_peer(peer) else {
            return true;
        };
        let name = peer.name.as_deref().unwrap_or("without a name");
        let why = errors.to_string().replace('\n', "; ");
        faults.push(identity::notice(
            me,
            "BGPSessionInvalid",
            format!("BGP session {name} with {}: {why}; it is left out", peer.address),
        ));
        false
    };
    peers.into_iter().filter(check).collect()
}

fn peer(session: &Session, own: &Identity, connected: &[IpNetwork]) -> PeerConfig {
    let external = session.as_number != own.as_number;
    let direct = connected.iter().any(|network| network.contains(session.address));
    let mut peer = PeerConfig::new(session.address, session.as_number);
    peer.name = Some(session.name.clone());
    peer.port = session.port.unwrap_or(peer.port);
    peer.local_address = session
        .from_node_address
        .then(|| own.address_like(session.address))
        .flatten();
    peer.passive = session.passive;
    // Nothing here may come from other sessions: a session that differs from what it was is taken down and up again.
    if !session.both_families {
        peer.families = vec![Family::of_addr(&session.address)];
    }
    peer.restart_time = session.restart_time;
    peer.import = Some(IMPORT.to_owned());
    peer.export = Some(EXPORT.to_owned());
    peer.multihop = (external && !direct).then_some(u8::MAX);
    peer
}

#[cfg(test)]
#[path = "bgp_config/tests.rs"]
mod tests;
