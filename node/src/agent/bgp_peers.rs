//! Which sessions this node has: from BGPPeers, BGPConfiguration and Nodes. Pure.
//!
//! A BGPPeer that cannot be used is treated as absent and reported. Of two that ask for a session with the same address
//! the newer is.

use std::collections::BTreeMap;
use std::net::IpAddr;

use margay_api::selector::Selector;
use margay_api::slim::{Node, Object};
use margay_api::v3::{BGPConfigurationSpec, BGPPeerSpec, SourceAddress};
use margay_api::{support, validate};

use super::cluster::Cluster;
use super::identity::Identity;
use super::overlay;
use crate::kube::events::{Notice, Subject};
use crate::kube::resource::{BGP_CONFIGURATION, BGP_PEER};

/// One session that this node shall have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// The BGPPeer's name, followed by the node's for sessions between nodes; `mesh.<node>` in the mesh.
    pub name: String,
    /// The peer.
    pub address: IpAddr,
    /// Its port; `None` for the well-known one.
    pub port: Option<u16>,
    /// Its AS.
    pub as_number: u32,
    /// Wait for the peer to connect: of two nodes one must, and it is the one with the higher address.
    pub passive: bool,
    /// Connect from, and accept only to, this node's own address.
    pub from_node_address: bool,
    /// The only session of its pair of nodes, or with a router: it carries both families.
    pub both_families: bool,
    /// Seconds that the peer should wait for a restarting node, where the BGPPeer says so.
    pub restart_time: Option<u16>,
}

/// All sessions, by peer address, and what users must fix.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sessions {
    /// At most one an address.
    pub sessions: BTreeMap<IpAddr, Session>,
    /// Objects that were left out, and why.
    pub faults: Vec<Notice>,
}

/// Works out the sessions of `me`. `settings` is the effective BGPConfiguration.
pub fn sessions(cluster: &Cluster, me: &Node, settings: &BGPConfigurationSpec) -> Sessions {
    let mut result = Sessions::default();
    let own = Identity::of(me, settings.as_number());
    let others = cluster.nodes.iter().filter(|node| node.metadata.name != own.name);
    let ports = Ports::of(cluster);
    let nodes: Vec<_> = others
        .map(|node| Other {
            node,
            identity: Identity::of(node, settings.as_number()),
            port: ports.listened_on_by(&node.metadata.name),
        })
        .collect();
    let mut peers: Vec<_> = cluster.bgp_peers.iter().collect();
    // The older object has the better claim; names only break ties.
    peers.sort_by(|a, b| age(a).cmp(&age(b)));
    for peer in peers {
        match wanted(peer, me, &own, &nodes) {
            Ok(sessions) => sessions
                .into_iter()
                .for_each(|session| claim(&mut result, peer, session)),
            Err(why) => result.faults.push(notice(peer, "BGPPeerInvalid", why)),
        }
    }
    if settings.mesh_enabled() && !own.route_reflector {
        for other in nodes.iter().filter(|other| !other.identity.route_reflector) {
            for session in between(&own, other, format!("mesh.{}", other.identity.name)) {
                // A BGPPeer for the same pair says more than the mesh does.
                result.sessions.entry(session.address).or_insert(session);
            }
        }
    }
    result
}

fn claim(result: &mut Sessions, peer: &Object<BGPPeerSpec>, session: Session) {
    match result.sessions.get(&session.address) {
        None => {
            result.sessions.insert(session.address, session);
        }
        Some(first) => {
            let (address, other) = (session.address, first.name.clone());
            // Both ends of one selector pair, or the reverse side of a peering written out twice: the same session.
            let nameless = |session: &Session| Session {
                name: String::new(),
                ..session.clone()
            };
            if nameless(first) != nameless(&session) {
                let why =
                    format!("{address} already has a session by the older BGPPeer {other}; remove one of the two");
                result.faults.push(notice(peer, "BGPPeerDuplicate", why));
            }
        }
    }
}

/// A node that this one may peer with.
struct Other<'a> {
    node: &'a Node,
    identity: Identity,
    /// The port that it accepts sessions on; `None` for the well-known one.
    port: Option<u16>,
}

/// Which port nodes accept sessions on.
struct Ports<'a> {
    cluster: &'a Cluster,
    common: Option<u16>,
}

impl<'a> Ports<'a> {
    fn of(cluster: &'a Cluster) -> Self {
        let common = listen_port(cluster, "");
        Self { cluster, common }
    }

    fn listened_on_by(&self, node: &str) -> Option<u16> {
        let has_own = self.cluster.bgp_configurations.named(&format!("node.{node}")).is_some();
        if has_own {
            listen_port(self.cluster, node)
        } else {
            self.common
        }
    }
}

fn listen_port(cluster: &Cluster, node: &str) -> Option<u16> {
    let objects = &cluster.bgp_configurations;
    let (settings, _) = overlay::effective(objects, BGP_CONFIGURATION, node, validate::bgp_configuration);
    settings.listen_port.filter(|port| *port != 179)
}

/// The sessions that one BGPPeer gives this node, or what is wrong with it.
fn wanted(peer: &Object<BGPPeerSpec>, me: &Node, own: &Identity, nodes: &[Other<'_>]) -> Result<Vec<Session>, String> {
    let spec = &peer.spec;
    let json = serde_json::to_value(spec).unwrap_or_default();
    let violations = validate::bgp_peer(spec)
        .into_iter()
        .chain(support::check("BGPPeer", &json));
    let texts: Vec<_> = violations
        .map(|violation| format!("{}: {}", violation.field, violation.message))
        .collect();
    if !texts.is_empty() {
        return Err(format!(
            "{}; the peer is left out until that is mended",
            texts.join("; ")
        ));
    }
    let name = &peer.metadata.name;
    if let Some((address, port)) = spec.peer_address() {
        // A peer for all nodes may be one of them.
        if !applies(spec, me)? || own.addresses().any(|mine| mine == address) {
            return Ok(Vec::new());
        }
        let as_number = spec
            .as_number
            .ok_or("asNumber is missing; a peer given by peerIP needs one")?;
        let session = Session {
            name: name.clone(),
            address,
            port,
            as_number,
            passive: false,
            from_node_address: from_node_address(spec),
            both_families: true,
            restart_time: restart_time(spec),
        };
        return Ok(vec![session]);
    }
    let peers =
        Selector::parse(spec.peer_selector.as_deref().unwrap_or_default()).map_err(|e| format!("peerSelector: {e}"))?;
    let mut sessions = Vec::new();
    for other in nodes {
        let forward = applies(spec, me)? && peers.matches(&other.node.metadata.labels);
        let backward = applies(spec, other.node)? && peers.matches(&me.metadata.labels);
        if forward || backward {
            let pair = between(own, other, format!("{name}.{}", other.identity.name));
            let (from_node_address, restart_time) = (from_node_address(spec), restart_time(spec));
            sessions.extend(pair.into_iter().map(|session| Session {
                from_node_address,
                restart_time,
                ..session
            }));
        }
    }
    Ok(sessions)
}

/// RFC 4724 has 12 bits for it.
fn restart_time(spec: &BGPPeerSpec) -> Option<u16> {
    spec.max_restart_time
        .map(|time| u16::try_from(time.0.as_secs()).unwrap_or(u16::MAX).min(4095))
}

fn from_node_address(spec: &BGPPeerSpec) -> bool {
    spec.source_address.unwrap_or(SourceAddress::UseNodeIp) == SourceAddress::UseNodeIp
}

/// Whether the BGPPeer is one of this node: named, selected, or for all.
fn applies(spec: &BGPPeerSpec, node: &Node) -> Result<bool, String> {
    if let Some(name) = spec.node.as_deref().filter(|name| !name.is_empty()) {
        return Ok(name == node.metadata.name);
    }
    match spec.node_selector.as_deref().filter(|text| !text.is_empty()) {
        None => Ok(true),
        Some(text) => {
            let selector = Selector::parse(text).map_err(|e| format!("nodeSelector: {e}"))?;
            Ok(selector.matches(&node.metadata.labels))
        }
    }
}

/// One session for each family that both nodes have.
fn between(own: &Identity, other: &Other<'_>, name: String) -> Vec<Session> {
    let pairs: Vec<_> = other
        .identity
        .addresses()
        .filter_map(|address| Some((address, own.address_like(address)?)))
        .filter(|(address, mine)| address != mine)
        .collect();
    let both_families = pairs.len() == 1;
    let session = |(address, mine)| Session {
        name: name.clone(),
        address,
        port: other.port,
        as_number: other.identity.as_number,
        passive: mine > address,
        from_node_address: true,
        both_families,
        restart_time: None,
    };
    pairs.into_iter().map(session).collect()
}

fn age(peer: &Object<BGPPeerSpec>) -> (&str, &str) {
    (
        peer.metadata.creation_timestamp.as_deref().unwrap_or("~"),
        &peer.metadata.name,
    )
}

fn notice(peer: &Object<BGPPeerSpec>, reason: &'static str, message: String) -> Notice {
    let subject = Subject {
        resource: BGP_PEER,
        namespace: String::new(),
        name: peer.metadata.name.clone(),
        uid: peer.metadata.uid.clone(),
    };
    Notice {
        subject,
        reason,
        message,
        warning: true,
    }
}
