//! `core/v1` Pod.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{Metadata, Protocol};
use crate::nullable::{is_default, or_default};

/// A Pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Pod {
    /// Standard metadata.
    pub metadata: Metadata,
    /// Spec.
    #[serde(deserialize_with = "or_default")]
    pub spec: PodSpec,
    /// Status.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub status: PodStatus,
}

impl Pod {
    /// Addresses from the status, primary first, each once.
    pub fn ips(&self) -> Vec<IpAddr> {
        let mut ips: Vec<IpAddr> = Vec::new();
        let listed = self.status.pod_ips.iter().map(|entry| entry.ip.as_str());
        for ip in std::iter::once(self.status.pod_ip.as_str())
            .chain(listed)
            .filter_map(|text| text.parse().ok())
        {
            if !ips.contains(&ip) {
                ips.push(ip);
            }
        }
        ips
    }

    /// Whether it has run to its end: its addresses may already belong to another pod.
    pub fn is_finished(&self) -> bool {
        matches!(self.status.phase, Phase::Succeeded | Phase::Failed)
    }

    /// Whether it runs in the node's network namespace and so has no endpoint of its own.
    pub fn is_host_network(&self) -> bool {
        self.spec.host_network
    }

    /// Ports with a name: of its containers and of init containers that keep running (sidecars).
    pub fn named_ports(&self) -> Vec<NamedPort> {
        let sidecars = self
            .spec
            .init_containers
            .iter()
            .filter(|container| container.is_sidecar());
        let containers = sidecars.chain(&self.spec.containers);
        let ports = containers
            .flat_map(|container| &container.ports)
            .filter(|port| !port.name.is_empty());
        ports
            .map(|p| NamedPort {
                name: p.name.clone(),
                protocol: p.protocol,
                port: p.container_port,
            })
            .collect()
    }
}

/// `spec` of a Pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodSpec {
    /// The node it is bound to; empty until it is scheduled.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub node_name: String,
    /// Whether it shares the node's network namespace.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub host_network: bool,
    /// Its service account; an API server fills in `default`.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub service_account_name: String,
    /// Containers.
    #[serde(deserialize_with = "or_default")]
    pub containers: Vec<Container>,
    /// Init containers, sidecars among them.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub init_containers: Vec<Container>,
}

/// A container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Container {
    /// Its name.
    pub name: String,
    /// Ports it declares.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<ContainerPort>,
    /// `Always` makes an init container a sidecar.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restart_policy: Option<String>,
}

impl Container {
    /// Whether this (init) container keeps running beside the others.
    pub fn is_sidecar(&self) -> bool {
        self.restart_policy.as_deref() == Some("Always")
    }
}

/// A declared port.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerPort {
    /// Name that policies may use; may be empty.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub name: String,
    /// The port number.
    pub container_port: u16,
    /// Its protocol; TCP when missing.
    #[serde(deserialize_with = "or_default")]
    pub protocol: Protocol,
}

/// A named port of a pod, resolved.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NamedPort {
    /// The name policies use.
    pub name: String,
    /// Its protocol.
    pub protocol: Protocol,
    /// Its number.
    pub port: u16,
}

/// `status` of a Pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodStatus {
    /// Where it is in its life.
    #[serde(deserialize_with = "or_default")]
    pub phase: Phase,
    /// Its primary address; empty until the kubelet reports it.
    #[serde(
        rename = "podIP",
        deserialize_with = "or_default",
        skip_serializing_if = "is_default"
    )]
    pub pod_ip: String,
    /// All its addresses, at most one of each family.
    #[serde(
        rename = "podIPs",
        deserialize_with = "or_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub pod_ips: Vec<PodIp>,
}

/// One of `status.podIPs`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodIp {
    /// The address.
    pub ip: String,
}

/// `status.phase` of a Pod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// Accepted, not all containers started.
    #[default]
    Pending,
    /// Bound and started.
    Running,
    /// Ended well; never starts again.
    Succeeded,
    /// Ended badly; never starts again.
    Failed,
    /// The node cannot be asked, or a phase this version does not know.
    #[serde(other)]
    Unknown,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_an_api_servers_json() {
        let pod: Pod = serde_json::from_value(serde_json::json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "web", "namespace": "shop", "uid": "u1", "resourceVersion": "7",
                "labels": {"app": "web"}, "managedFields": [{"manager": "kubectl"}],
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "u0", "controller": true}]},
            "spec": {"nodeName": "node1", "serviceAccountName": "default",
                "initContainers": [{"name": "once", "ports": [{"name": "gone", "containerPort": 1}]},
                    {"name": "proxy", "restartPolicy": "Always", "ports": [{"name": "mesh", "containerPort": 15000}]}],
                "containers": [{"name": "c", "image": "x", "ports": [
                    {"name": "dns", "containerPort": 53, "protocol": "UDP"}, {"containerPort": 80}]}]},
            "status": {"phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}], "conditions": []}}))
        .unwrap();
        assert_eq!(pod.metadata.full_name(), "shop/web");
        assert_eq!(pod.metadata.controller().unwrap().kind, "ReplicaSet");
        assert_eq!(
            pod.ips(),
            ["10.0.0.1".parse::<IpAddr>().unwrap(), "fd00::1".parse().unwrap()]
        );
        let names: Vec<_> = pod
            .named_ports()
            .into_iter()
            .map(|p| (p.name, p.protocol, p.port))
            .collect();
        assert_eq!(
            names,
            [("mesh".into(), Protocol::Tcp, 15000), ("dns".into(), Protocol::Udp, 53)]
        );
        assert!(!pod.is_finished() && !pod.metadata.is_terminating());
        let back: Pod = serde_json::from_value(serde_json::to_value(&pod).unwrap()).unwrap();
        assert_eq!(back, pod);
    }

    #[test]
    fn nulls_and_unknown_phases_are_harmless() {
        let pod: Pod = serde_json::from_str(
            r#"{"metadata":{"name":"p","labels":null,"creationTimestamp":null},"spec":{"containers":null},"status":{"phase":"Paused","podIPs":null}}"#,
        )
        .unwrap();
        assert_eq!(pod.status.phase, Phase::Unknown);
        assert!(pod.ips().is_empty());
    }
}
