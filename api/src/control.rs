//! The JSON of the agent's control socket: `GET /v1/status`, `/v1/bgp/peers`, `/v1/bgp/routes`, `/v1/ipam/blocks`,
//! `/v1/endpoints`.
//!
//! Every answer but an error is the type named with its path. Times are RFC 3339 in UTC but for those of IPAM, which
//! are as the blocks have them; spans are whole seconds.
//! Readers ignore fields they do not know, and an agent only adds fields, so that either end may be older.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::v3::{AllocationAttribute, IPAMBlockSpec};

/// Version in the paths; rises only when an old reader would be misled.
pub const API_VERSION: &str = "v1";

/// `/v1/status`: how one node does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeStatus {
    /// The node's name.
    pub node: String,
    /// Version of the agent, as `0.1.0`.
    pub version: String,
    /// When the agent started.
    pub started_at: String,
    /// How long it has run.
    pub uptime_seconds: u64,
    /// Whether it serves: ADD would succeed.
    pub ready: bool,
    /// What keeps it from being ready, or a person should know; empty when all is well.
    pub problems: Vec<Problem>,
    /// The node's own addresses, at most one of each family.
    pub addresses: Vec<IpAddr>,
    /// Its policy engine.
    pub dataplane: DataplaneStatus,
    /// Its BGP speaker.
    pub bgp: BgpStatus,
    /// Its share of the pools.
    pub ipam: IpamStatus,
    /// Whether its view of the cluster is live.
    pub datastore: DatastoreStatus,
}

/// `/v1/health`: what probes go by.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Health {
    /// Whether the agent works at all; if not, a restart would cure it.
    pub live: Probe,
    /// Whether pods on the node can be served.
    pub ready: Probe,
}

/// One probe's answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Probe {
    /// Whether all is well.
    pub ok: bool,
    /// A line for each part.
    pub text: String,
}

/// Something a person should know.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Problem {
    /// Which part, as `bgp`, `dataplane`, `routes`, `ipam` or `datastore`; `config` for an object that users must fix.
    pub part: String,
    /// What happened to which object, and what to do.
    pub message: String,
    /// Since when that part has had any; missing for objects that cannot be read at all.
    pub since: Option<String>,
}

/// The policy engine of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DataplaneStatus {
    /// Whether the kernel holds everything that is known.
    pub in_sync: bool,
    /// `nft` or `legacy`; empty until it is chosen.
    pub backend: String,
    /// Counts states of policy; `inForce` has caught up when they are equal.
    pub revision: u64,
    /// The revision that the kernel holds.
    pub in_force: u64,
    /// Why the last write failed; missing when it did not.
    pub last_error: Option<String>,
    /// Local endpoints.
    pub endpoints: u64,
    /// Policies that select at least one of them.
    pub policies: u64,
}

/// The BGP speaker of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BgpStatus {
    /// Its AS number; 0 while it does not run.
    pub local_as: u32,
    /// Its router id.
    pub router_id: String,
    /// Configured peers.
    pub peers: u64,
    /// Those whose session is up.
    pub established: u64,
    /// Routes learnt from peers and in use.
    pub routes: u64,
}

/// A node's share of the pools.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct IpamStatus {
    /// Blocks it owns.
    pub blocks: u64,
    /// Addresses in them.
    pub capacity: u64,
    /// Addresses in them that are given out, to whomever.
    pub used: u64,
    /// Addresses it took from other nodes' blocks.
    pub borrowed: u64,
}

/// A node's view of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DatastoreStatus {
    /// Whether the API server answers.
    pub connected: bool,
    /// Whether it has a whole picture of the cluster: from the API server, or kept from its last run.
    pub synced: bool,
    /// Since when the API server does not answer; missing while it does.
    pub lost_since: Option<String>,
    /// The last error.
    pub last_error: Option<String>,
}

/// `/v1/bgp/peers` is a list of these.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BgpPeer {
    /// Its address.
    pub address: String,
    /// Its port when it is not 179.
    pub port: Option<u16>,
    /// What the configuration calls it: the BGPPeer's name, or the node's in a mesh.
    pub name: String,
    /// Its AS number.
    pub remote_as: u32,
    /// The AS number it sees of us.
    pub local_as: u32,
    /// Its router id, once it has told.
    pub router_id: Option<String>,
    /// State of the session (RFC 4271 section 8.2.2).
    pub state: BgpState,
    /// Since when it is in this state.
    pub since: Option<String>,
    /// While it is not Established: why, and what would help.
    pub reason: Option<String>,
    /// The last error of the session, kept when it is up again.
    pub last_error: Option<String>,
    /// Prefixes received.
    pub prefixes_received: u64,
    /// Those that the import filter let in.
    pub prefixes_accepted: u64,
    /// Prefixes sent.
    pub prefixes_sent: u64,
    /// Hold time agreed on, in seconds; 0 for none.
    pub hold_time_seconds: u64,
    /// What both ends agreed on: `ipv4-unicast`, `ipv6-unicast`, `four-octet-as`, `route-refresh`, `graceful-restart`;
    /// empty while the session is down.
    pub capabilities: Vec<String>,
}

/// State of a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum BgpState {
    /// Not trying.
    #[default]
    Idle,
    /// Opening a connection.
    Connect,
    /// Waiting to try again, and for the peer to try.
    Active,
    /// OPEN is sent.
    OpenSent,
    /// OPENs agree.
    OpenConfirm,
    /// Up.
    Established,
}

impl BgpState {
    /// As RFC 4271 spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "Idle",
            Self::Connect => "Connect",
            Self::Active => "Active",
            Self::OpenSent => "OpenSent",
            Self::OpenConfirm => "OpenConfirm",
            Self::Established => "Established",
        }
    }
}

/// `/v1/bgp/routes` is a list of these: every path of every prefix.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BgpRoute {
    /// The prefix.
    pub prefix: String,
    /// Next hops as received, and for the best path as resolved; empty for routes of our own.
    pub next_hops: Vec<NextHop>,
    /// The AS path, leftmost nearest; a set as `{64512,64513}`.
    pub as_path: String,
    /// Whom it came from: a peer's address, or `local`.
    pub source: String,
    /// Whether packets follow it, alone or with others of equal worth.
    pub best: bool,
    /// Whether it shares the load with another path.
    pub multipath: bool,
    /// Why packets follow it, or not.
    pub why: String,
    /// ORIGIN: `igp`, `egp` or `incomplete`.
    pub origin: String,
    /// LOCAL_PREF.
    pub local_pref: Option<u32>,
    /// MULTI_EXIT_DISC.
    pub med: Option<u32>,
    /// Communities, as `64512:1`, large ones as `64512:1:2`.
    pub communities: Vec<String>,
    /// Whether it is kept over a peer's restart only.
    pub stale: bool,
}

/// Where packets go.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NextHop {
    /// The gateway; missing on a connected network.
    pub address: Option<IpAddr>,
    /// The interface, once it is resolved.
    pub interface: Option<String>,
}

/// `/v1/ipam/blocks` is a list of these: blocks that the node owns or has an address of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct IpamBlock {
    /// The block's CIDR.
    pub cidr: String,
    /// The pool it is cut from; missing when that pool is gone.
    pub pool: Option<String>,
    /// Who owns it, as `host:node1`; missing for nobody.
    pub affinity: Option<String>,
    /// Its addresses.
    pub capacity: u64,
    /// Those given out.
    pub used: u64,
    /// Those given to other nodes than its owner.
    pub borrowed: u64,
    /// Who has which.
    pub allocations: Vec<IpamAllocation>,
}

impl IpamBlock {
    /// What a block of the datastore says; `pool` is the one that it is cut from.
    pub fn of(spec: &IPAMBlockSpec, pool: Option<String>) -> Self {
        let owner = spec.owner();
        let allocations: Vec<_> = spec.held().map(allocation).collect();
        let borrowed = |a: &&IpamAllocation| a.node.is_some() && a.node.as_deref() != owner;
        Self {
            cidr: spec.cidr.clone(),
            pool,
            affinity: spec.affinity.clone(),
            capacity: spec.allocations.len() as u64,
            used: allocations.len() as u64,
            borrowed: allocations.iter().filter(borrowed).count() as u64,
            allocations,
        }
    }
}

fn allocation((address, attribute): (IpAddr, &AllocationAttribute)) -> IpamAllocation {
    let get = |key: &str| attribute.secondary.get(key).cloned();
    let pod = get("namespace").zip(get("pod"));
    IpamAllocation {
        address: Some(address),
        handle: attribute.handle_id.clone(),
        pod: pod.map(|(namespace, pod)| format!("{namespace}/{pod}")),
        node: get("node"),
        since: get("timestamp"),
    }
}

/// One address that is given out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct IpamAllocation {
    /// The address.
    pub address: Option<IpAddr>,
    /// The handle it is released by.
    pub handle: Option<String>,
    /// The pod, as `namespace/name`; missing when no pod holds it.
    pub pod: Option<String>,
    /// The node that took it.
    pub node: Option<String>,
    /// Since when, as the block says: RFC 3339, or `2026-11-23 08:02:20.000000001 +0000 UTC` as Calico's plugin writes it.
    pub since: Option<String>,
}

/// `/v1/endpoints` is a list of these: pods attached to this node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Endpoint {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// The container's id, as the runtime gave it.
    pub container_id: String,
    /// Its interface inside the pod.
    pub ifname: String,
    /// Its interface on the host.
    pub host_interface: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Its policy.
    pub policy: PolicyStatus,
}

/// What governs an endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PolicyStatus {
    /// Whether the kernel enforces the newest policy for it; until then it is denied, or the one before holds.
    pub in_force: bool,
    /// Why it does not.
    pub reason: Option<String>,
    /// Policies that select it for ingress, as `namespace/name`; none: all is allowed in.
    pub ingress: Vec<String>,
    /// Policies that select it for egress, as `namespace/name`; none: all is allowed out.
    pub egress: Vec<String>,
}

/// Body of every answer that is not 200.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ApiError {
    /// What happened, and what to do.
    pub message: String,
}
