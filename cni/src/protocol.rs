//! Requests of the plugin and answers of the agent.
//!
//! The agent listens on a Unix stream socket ([`DEFAULT_SOCKET`], root only). A connection carries one request and one
//! answer. Each is one line: a JSON object, then a line feed, at most [`MAX_MESSAGE`] bytes in all ([`frame`]).
//!
//! ```text
//! {"version":1,"request":{"type":"Add","containerId":"4be…","network":"margay","ifname":"eth0",…}}
//! {"version":1,"answer":{"type":"Attached","interface":"mgy16ff9610a79","addresses":["10.244.0.5/32"],…}}
//! ```
//!
//! **Versions.** The request says which it speaks; the answer is in the same one. An agent serves [`VERSION`] and, once
//! there is one, the version before ([`SERVED`]); to any other it answers an error that names what it serves. So agents are
//! upgraded first and plugins after them. Within a version only optional fields may be added, and both ends ignore
//! fields that they do not know; anything else is a new version.
//!
//! **Duties of the agent**
//! - `Add`: wait for the pod, allocate, persist, program the policy for the interface name, answer [`Answer::Attached`].
//!   A DEL of the same attachment that still waits comes first. The same attachment again gets the same answer. The name
//!   may still be that of an older attachment of the pod: then the older one has lost it. Answer before
//!   [`Request::patience`] is over, if only with an error.
//! - After the answer the plugin makes the link and sets up the host side as [`crate::host`] says; the agent takes it over
//!   as it finds it, repairs it, and need not do anything for ADD to be complete.
//! - `Del`: forget the attachment, which may be unknown; delete its host interface if that still exists and no newer
//!   attachment has its name; only then release the addresses. Answer [`Answer::Done`].
//! - `Check`: answer [`Answer::Attached`] if the attachment is known and its policy in force. The plugin looks at links,
//!   addresses and routes itself.
//! - `Status`: [`Answer::Done`] when an ADD would work now, else an error with code 50.
//! - Before it serves, and then now and again: [`crate::queue::Queue::pending`].

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::time::Duration;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

pub mod frame;

/// The version that this build speaks.
pub const VERSION: u32 = 1;
/// The versions that this build's agent serves.
pub const SERVED: RangeInclusive<u32> = 1..=1;
/// Where the agent listens.
pub const DEFAULT_SOCKET: &str = "/run/margay/cni.sock";
/// The longest message in bytes, line feed included.
pub const MAX_MESSAGE: usize = 64 * 1024;

/// What the plugin asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type")]
pub enum Request {
    /// Attach an interface.
    Add(Add),
    /// Detach an interface.
    Del(Del),
    /// Is this interface attached and policed?
    Check(Check),
    /// Would an `Add` work?
    Status,
}

/// What identifies an attachment: one interface of one container in one network.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Attachment {
    /// `CNI_CONTAINERID`: the sandbox.
    pub container_id: String,
    /// Name of the network configuration.
    pub network: String,
    /// `CNI_IFNAME`.
    pub ifname: String,
}

/// The pod, as the runtime names it in `CNI_ARGS`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pod {
    /// `K8S_POD_NAMESPACE`.
    pub namespace: String,
    /// `K8S_POD_NAME`.
    pub name: String,
    /// `K8S_POD_UID`; of a static pod the hash of its configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    /// `K8S_POD_INFRA_CONTAINER_ID`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub infra_container_id: Option<String>,
}

/// [`Request::Add`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Add {
    /// What is attached.
    #[serde(flatten)]
    pub attachment: Attachment,
    /// Path of the pod's network namespace.
    pub netns: String,
    /// Whose it is.
    pub pod: Pod,
    /// Wanted Ethernet address of the pod side, like `0a:58:0a:f4:00:05`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hw_addr: Option<String>,
    /// Wanted MTU in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// Wanted addresses, at most one a family.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ips: Vec<IpAddr>,
}

/// [`Request::Del`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Del {
    /// What is detached.
    #[serde(flatten)]
    pub attachment: Attachment,
    /// Path of the pod's network namespace, if the runtime still knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netns: Option<String>,
    /// Whose it was, if the runtime says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<Pod>,
}

/// [`Request::Check`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Check {
    /// What is looked at.
    #[serde(flatten)]
    pub attachment: Attachment,
    /// Path of the pod's network namespace.
    pub netns: String,
}

/// What the agent answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type")]
pub enum Answer {
    /// To `Add` and `Check`: so it is to be.
    Attached(Attached),
    /// To `Del` and `Status`: done, ready.
    Done,
    /// It cannot be. Nothing was changed.
    Error(Failure),
}

/// An attachment, as the plugin is to make it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Attached {
    /// Name of the host interface. Its policy is programmed.
    pub interface: String,
    /// Ethernet address of the host side, [`crate::host::HOST_MAC`] as text.
    pub host_mac: String,
    /// The pod's addresses, /32 and /128, at most one a family, at least one.
    pub addresses: Vec<IpNetwork>,
    /// The pod's IPv4 router, [`crate::host::GATEWAY_V4`].
    pub gateway_v4: Ipv4Addr,
    /// The pod's IPv6 router, link-local, [`crate::host::GATEWAY_V6`].
    pub gateway_v6: Ipv6Addr,
    /// MTU of both ends in bytes.
    pub mtu: u32,
    /// Protocol number of the host's routes to the pod.
    pub route_protocol: u8,
}

/// An error, in the terms of the CNI specification.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{msg}")]
pub struct Failure {
    /// The CNI error code: [`code`].
    pub code: u32,
    /// One line: what, to which object.
    pub msg: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub details: String,
    /// The same request may work later; the runtime is told so by code 11.
    #[serde(default)]
    pub retryable: bool,
}

/// Error codes: those of the CNI specification, and the plugin's own from 100 on.
pub mod code {
    /// The network configuration's CNI version is not supported.
    pub const INCOMPATIBLE_VERSION: u32 = 1;
    /// A field of the network configuration is not supported.
    pub const UNSUPPORTED_FIELD: u32 = 2;
    /// The container is unknown or gone.
    pub const UNKNOWN_CONTAINER: u32 = 3;
    /// A `CNI_…` variable is missing or wrong.
    pub const INVALID_ENVIRONMENT: u32 = 4;
    /// Reading or writing failed.
    pub const IO: u32 = 5;
    /// What was read cannot be decoded.
    pub const DECODE: u32 = 6;
    /// The network configuration is wrong.
    pub const INVALID_CONFIG: u32 = 7;
    /// Not now: try again later.
    pub const TRY_AGAIN: u32 = 11;
    /// STATUS: an ADD would not work.
    pub const NOT_AVAILABLE: u32 = 50;
    /// STATUS: an ADD would not work, and existing pods have limited connectivity.
    pub const LIMITED: u32 = 51;
    /// The agent refused for good.
    pub const REFUSED: u32 = 100;
    /// The kernel refused.
    pub const KERNEL: u32 = 101;
    /// CHECK found something missing or wrong.
    pub const CHECK_FAILED: u32 = 102;
}

impl Request {
    /// How long the plugin waits for the answer. The agent gives up earlier, with a reason.
    pub fn patience(&self) -> Duration {
        match self {
            Self::Add(_) => Duration::from_secs(60),
            Self::Del(_) | Self::Check(_) | Self::Status => Duration::from_secs(15),
        }
    }
}

impl Failure {
    /// The same request will not work later either.
    pub fn refused(msg: impl Into<String>, details: impl Into<String>) -> Self {
        Self::new(code::REFUSED, msg, details)
    }

    /// The same request may work later (code 11).
    pub fn try_again(msg: impl Into<String>, details: impl Into<String>) -> Self {
        Self::new(code::TRY_AGAIN, msg, details)
    }

    /// Any code; retryable if that is what the code says.
    pub fn new(code: u32, msg: impl Into<String>, details: impl Into<String>) -> Self {
        let retryable = matches!(code, code::TRY_AGAIN | code::NOT_AVAILABLE | code::LIMITED);
        Self {
            code,
            msg: msg.into(),
            details: details.into(),
            retryable,
        }
    }
}

impl From<Failure> for Answer {
    fn from(failure: Failure) -> Self {
        Self::Error(failure)
    }
}
