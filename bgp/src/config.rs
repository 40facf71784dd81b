//! What a speaker is told: an in-process value for `margay-node`, a YAML file for `margay-bgpd`.

pub mod file;
mod validate;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use crate::fib::Sources;
use crate::filter::Filter;
use crate::prefix::Family;
use crate::wire::Community;

pub use validate::{ConfigError, ConfigErrors};

/// The whole configuration of a speaker. [`Config::validate`] says whether it makes sense.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Our AS number, 1 to 4294967295.
    pub local_as: u32,
    /// Our BGP identifier.
    pub router_id: Ipv4Addr,
    /// Addresses to accept sessions on; IPv6 sockets never take IPv4. Empty: only connect out.
    #[serde(default)]
    pub listen: Vec<SocketAddr>,
    /// Seconds without a message before a session is dead; 0 for never, else at least 3.
    #[serde(default = "default_hold_time")]
    pub hold_time: u16,
    /// Base seconds between attempts to connect; failures in a row double it up to 60.
    #[serde(default = "default_connect_retry_time")]
    pub connect_retry_time: u16,
    /// Equal paths to use at once, 1 switches multipath off.
    #[serde(default = "default_max_paths")]
    pub max_paths: u16,
    /// Paths of equal length through different ASes count as equal.
    #[serde(default = "default_true")]
    pub multipath_relax: bool,
    /// RFC 4724.
    #[serde(default)]
    pub graceful_restart: GracefulRestart,
    /// Addresses that packets of this machine's own bear where learnt routes lead them.
    #[serde(default)]
    pub sources: Sources,
    /// Networks to originate.
    #[serde(default)]
    pub networks: Vec<Originated>,
    /// Filters by name, for peers to refer to.
    #[serde(default)]
    pub filters: BTreeMap<String, Filter>,
    /// Neighbours.
    #[serde(default)]
    pub peers: Vec<PeerConfig>,
}

/// Graceful restart in both roles (RFC 4724).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GracefulRestart {
    /// Whether the capability is sent and a restarting peer's routes are kept.
    pub enabled: bool,
    /// Seconds (at most 4095) that peers should wait for us to come back.
    pub restart_time: u16,
    /// Seconds after a peer came back in which it must finish sending; then its stale routes go.
    pub stale_routes_time: u16,
    /// Seconds after our own restart in which all peers must finish sending; then routes are chosen anyway.
    pub selection_deferral_time: u16,
}

impl Default for GracefulRestart {
    fn default() -> Self {
        GracefulRestart {
            enabled: true,
            restart_time: 120,
            stale_routes_time: 120,
            selection_deferral_time: 30,
        }
    }
}

/// A network of our own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Originated {
    /// The prefix, without host bits.
    pub prefix: IpNetwork,
    /// Also put a blackhole route for it into the FIB, so that parts in use by nobody do not loop.
    #[serde(default)]
    pub blackhole: bool,
    /// Communities to attach.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub communities: Vec<Community>,
}

/// One neighbour.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PeerConfig {
    /// What people call it; shown in status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its address; no two peers share one.
    pub address: IpAddr,
    /// Its TCP port.
    #[serde(default = "default_port")]
    pub port: u16,
    /// Its AS.
    pub remote_as: u32,
    /// The address to connect from and, for incoming sessions, to be connected to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_address: Option<IpAddr>,
    /// Only accept, never connect.
    #[serde(default)]
    pub passive: bool,
    /// Overrides [`Config::hold_time`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold_time: Option<u16>,
    /// Families to offer.
    #[serde(default = "default_families")]
    pub families: Vec<Family>,
    /// Name of the import filter. Without one nothing is accepted over eBGP (RFC 8212), everything over iBGP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub import: Option<String>,
    /// Name of the export filter. Without one nothing is sent over eBGP (RFC 8212), everything over iBGP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub export: Option<String>,
    /// Our IPv4 next hop for this peer. Default: our end of the session, or an address of the same interface.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_hop_ipv4: Option<Ipv4Addr>,
    /// Our IPv6 next hop for this peer. Default as for IPv4.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_hop_ipv6: Option<Ipv6Addr>,
    /// Over iBGP, name ourselves as next hop of routes learnt over eBGP (always so over eBGP).
    #[serde(default)]
    pub next_hop_self: bool,
    /// Overrides [`GracefulRestart::restart_time`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart_time: Option<u16>,
    /// Hops the peer may be away over eBGP; without it the peer must be on a connected network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub multihop: Option<u8>,
}

impl PeerConfig {
    /// A peer with every other field at its default.
    pub fn new(address: IpAddr, remote_as: u32) -> Self {
        PeerConfig {
            name: None,
            address,
            port: default_port(),
            remote_as,
            local_address: None,
            passive: false,
            hold_time: None,
            families: default_families(),
            import: None,
            export: None,
            next_hop_ipv4: None,
            next_hop_ipv6: None,
            next_hop_self: false,
            restart_time: None,
            multihop: None,
        }
    }
}

impl Config {
    /// A configuration with every other field at its default.
    pub fn new(local_as: u32, router_id: Ipv4Addr) -> Self {
        Config {
            local_as,
            router_id,
            listen: Vec::new(),
            hold_time: default_hold_time(),
            connect_retry_time: default_connect_retry_time(),
            max_paths: default_max_paths(),
            multipath_relax: true,
            graceful_restart: GracefulRestart::default(),
            sources: Sources::default(),
            networks: Vec::new(),
            filters: BTreeMap::new(),
            peers: Vec::new(),
        }
    }

    /// Checks everything and reports every fault at once.
    ///
    /// # Errors
    /// One [`ConfigError`] per fault: field, reason, way out.
    pub fn validate(&self) -> Result<(), ConfigErrors> {
        validate::check(self)
    }

    /// Checks one peer by itself, as one of this configuration.
    ///
    /// # Errors
    /// As [`Config::validate`]; fields are named without the peer's place.
    pub fn validate_peer(&self, peer: &PeerConfig) -> Result<(), ConfigErrors> {
        validate::check_one(self, peer)
    }
}

fn default_hold_time() -> u16 {
    90
}

fn default_connect_retry_time() -> u16 {
    5
}

fn default_max_paths() -> u16 {
    16
}

fn default_true() -> bool {
    true
}

fn default_port() -> u16 {
    179
}

fn default_families() -> Vec<Family> {
    Family::ALL.to_vec()
}
