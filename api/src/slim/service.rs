//! `core/v1` Service and `discovery.k8s.io/v1` EndpointSlice, reduced.

use serde::{Deserialize, Serialize};

use super::{IntOrString, Metadata, Protocol};
use crate::nullable::{is_default, or_default};

/// A Service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Service {
    /// Standard metadata.
    pub metadata: Metadata,
    /// Spec.
    #[serde(deserialize_with = "or_default")]
    pub spec: ServiceSpec,
    /// Status.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub status: ServiceStatus,
}

/// `spec` of a Service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceSpec {
    /// `ClusterIP`, `NodePort`, `LoadBalancer` or `ExternalName`.
    #[serde(deserialize_with = "or_default")]
    pub r#type: String,
    /// Virtual addresses; `None` as text for a headless service.
    #[serde(
        rename = "clusterIPs",
        deserialize_with = "or_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub cluster_ips: Vec<String>,
    /// Further addresses that reach it.
    #[serde(
        rename = "externalIPs",
        deserialize_with = "or_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub external_ips: Vec<String>,
    /// `Cluster` or `Local`.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub external_traffic_policy: String,
    /// Ports.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<ServicePort>,
}

/// A port of a Service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServicePort {
    /// Its name; may be empty.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub name: String,
    /// Its protocol; TCP when missing.
    #[serde(deserialize_with = "or_default")]
    pub protocol: Protocol,
    /// Port on the virtual address.
    pub port: u16,
    /// Port on the pods; the same as `port` when missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_port: Option<IntOrString>,
    /// Port on every node, for NodePort and LoadBalancer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_port: Option<u16>,
}

/// `status` of a Service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceStatus {
    /// What a load balancer gave it.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub load_balancer: LoadBalancerStatus,
}

/// `status.loadBalancer` of a Service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LoadBalancerStatus {
    /// Points of entry.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub ingress: Vec<LoadBalancerIngress>,
}

/// One point of entry of a load balancer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LoadBalancerIngress {
    /// Its address; empty when it is a name.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub ip: String,
}

/// An EndpointSlice. Its service is the label `kubernetes.io/service-name`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EndpointSlice {
    /// Standard metadata.
    pub metadata: Metadata,
    /// `IPv4`, `IPv6` or `FQDN`.
    #[serde(deserialize_with = "or_default")]
    pub address_type: String,
    /// Endpoints.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<Endpoint>,
    /// Ports that every endpoint of the slice serves.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<EndpointPort>,
}

/// One endpoint of a slice.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Endpoint {
    /// Addresses of this one endpoint.
    #[serde(deserialize_with = "or_default")]
    pub addresses: Vec<String>,
    /// Its state.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub conditions: EndpointConditions,
    /// The node it is on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_name: Option<String>,
}

/// State of an endpoint; a missing `ready` counts as ready.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EndpointConditions {
    /// Whether it takes traffic.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ready: Option<bool>,
    /// Whether it is going away.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub terminating: Option<bool>,
}

/// A port of a slice.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EndpointPort {
    /// The service port's name; may be empty.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub name: String,
    /// Its protocol; TCP when missing.
    #[serde(deserialize_with = "or_default")]
    pub protocol: Protocol,
    /// Its number; missing means all ports.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}
