//! The few fields of Kubernetes' resources that Margay reads.
//!
//! Every type reads straight from the API server's JSON (or a manifest), ignoring all other fields, so that a cache
//! holds hundreds of bytes an object and not tens of kilobytes. `null` reads as absent, as Go's decoder has it.

mod label_selector;
mod metadata;
mod network_policy;
mod node;
mod pod;
mod service;

pub use label_selector::{LabelSelector, Operator, Requirement};
pub use metadata::{Metadata, OwnerReference};
pub use network_policy::{
    EgressRule, IngressRule, IntOrString, IpBlock, NetworkPolicy, NetworkPolicySpec, Peer, PolicyPort, PolicyType,
};
pub use node::{Node, NodeAddress, NodeSpec, NodeStatus};
pub use pod::{Container, ContainerPort, NamedPort, Phase, Pod, PodIp, PodSpec, PodStatus};
pub use service::{
    Endpoint, EndpointConditions, EndpointPort, EndpointSlice, LoadBalancerIngress, LoadBalancerStatus, Service,
    ServicePort, ServiceSpec, ServiceStatus,
};

use serde::{Deserialize, Serialize};
use std::fmt;

/// A Namespace: only its metadata counts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Namespace {
    /// Standard metadata; the labels include `kubernetes.io/metadata.name` when an API server wrote it.
    pub metadata: Metadata,
}

/// A ServiceAccount: only its metadata counts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceAccount {
    /// Standard metadata.
    pub metadata: Metadata,
}

/// Any resource as metadata and a typed spec, for readers that need no Kubernetes client.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Object<S> {
    /// Standard metadata.
    #[serde(default)]
    pub metadata: Metadata,
    /// The resource's spec.
    pub spec: S,
}

/// A transport protocol of `core/v1`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    /// TCP, the default wherever a protocol may be left out.
    #[default]
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// The IP protocol number.
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        })
    }
}
