//! BGPPeer: whom nodes peer with.

use std::net::{IpAddr, SocketAddr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{BgpPassword, Duration};

/// Sessions between some nodes and a router, or among nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[cfg_attr(feature = "kube", derive(kube::CustomResource))]
#[cfg_attr(
    feature = "kube",
    kube(
        group = "projectcalico.org",
        version = "v3",
        kind = "BGPPeer",
        plural = "bgppeers",
        derive = "PartialEq",
        doc = "Sessions between some nodes and a router, or among nodes.",
        printcolumn = r#"{"name":"Node Selector","type":"string","jsonPath":".spec.nodeSelector"}"#,
        printcolumn = r#"{"name":"Node","type":"string","jsonPath":".spec.node"}"#,
        printcolumn = r#"{"name":"Local ASN","type":"string","jsonPath":".spec.localASNumber"}"#,
        printcolumn = r#"{"name":"Peer Selector","type":"string","jsonPath":".spec.peerSelector"}"#,
        printcolumn = r#"{"name":"Peer IP","type":"string","jsonPath":".spec.peerIP"}"#,
        printcolumn = r#"{"name":"Peer ASN","type":"string","jsonPath":".spec.asNumber"}"#
    )
)]
#[serde(rename_all = "camelCase")]
pub struct BGPPeerSpec {
    /// The one node that has these sessions. Missing, and no nodeSelector: all nodes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub node: Option<String>,
    /// The nodes that have these sessions, in the selector language.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub node_selector: Option<String>,
    /// The router: `<IPv4>`, `<IPv6>`, `<IPv4>:<port>` or `[<IPv6>]:<port>`.
    #[serde(rename = "peerIP", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub peer_ip: Option<String>,
    /// The router's AS number.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 4_294_967_295u64), extend("format" = "int64"))]
    pub as_number: Option<u32>,
    /// AS number to show this peer in place of the node's own.
    #[serde(rename = "localASNumber", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 4_294_967_295u64), extend("format" = "int64"))]
    pub local_as_number: Option<u32>,
    /// Nodes to peer with, in the selector language, in place of peerIP and asNumber.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub peer_selector: Option<String>,
    /// Superseded by nextHopMode Keep.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_original_next_hop: Option<bool>,
    /// How the next hop of advertised routes is chosen. Default: Auto.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_hop_mode: Option<NextHopMode>,
    /// Password of the sessions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<BgpPassword>,
    /// Source address of the sessions. Default: UseNodeIP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_address: Option<SourceAddress>,
    /// Graceful restart time. Default: 120s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_restart_time: Option<Duration>,
    /// Time between keepalives. Default: a third of the hold time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keepalive_time: Option<Duration>,
    /// How often the local AS may occur in a received path.
    #[serde(rename = "numAllowedLocalASNumbers", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub num_allowed_local_as_numbers: Option<i32>,
    /// Hops to the peer for the generalized TTL security mechanism (RFC 5082).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 255))]
    pub ttl_security: Option<u8>,
    /// Gateway through which the peer is reached by a static route.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub reachable_by: Option<String>,
    /// Names of BGPFilters, in order.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256), extend("x-kubernetes-list-type" = "atomic"))]
    pub filters: Option<Vec<String>>,
    /// Pods of the node to peer with, in the selector language.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub local_workload_selector: Option<String>,
    /// Whether selected nodes get the other end by themselves. Default: Auto.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reverse_peering: Option<ReversePeering>,
}

impl BGPPeerSpec {
    /// The router's address, and its port where one is given. None without peerIP, or when it is no address.
    pub fn peer_address(&self) -> Option<(IpAddr, Option<u16>)> {
        let text = self.peer_ip.as_deref()?;
        match text.parse() {
            Ok(address) => Some((address, None)),
            Err(_) => {
                let socket: SocketAddr = text.parse().ok()?;
                (socket.port() != 0).then(|| (socket.ip(), Some(socket.port())))
            }
        }
    }
}

keywords! {
    /// How the next hop of advertised routes is chosen.
    NextHopMode, exact {
        /// As BGP has it for the kind of session.
        Auto = "Auto",
        /// Always the node itself.
        SelfNode = "Self",
        /// As it was received; eBGP only.
        Keep = "Keep",
    }
}

keywords! {
    /// Source address of sessions.
    SourceAddress, exact {
        /// The node's address.
        UseNodeIp = "UseNodeIP",
        /// Whatever the route to the peer implies.
        None = "None",
    }
}

keywords! {
    /// Whether selected nodes get the other end by themselves.
    ReversePeering, exact {
        /// Yes.
        Auto = "Auto",
        /// No, another BGPPeer says so.
        Manual = "Manual",
    }
}
