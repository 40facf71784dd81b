//! Kubernetes' objects into the [`model`](crate::model). Pure; one object gives one [`Update`].

mod cidr;
mod network_policy;

use std::fmt;
use std::net::IpAddr;

use margay_api::slim;

use crate::model::{EndpointId, NamedPort, Namespace, PolicyId, Protocol, Update, Workload};

pub use network_policy::network_policy;

/// Something a user must fix in an object. What cannot be understood is denied, never allowed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Problem {
    /// The object: kind, namespace and name.
    pub object: String,
    /// The path of the field that is wrong.
    pub field: String,
    /// What is wrong with it, and what would be right.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.object, self.field, self.message)
    }
}

/// The endpoint that belongs to a pod.
pub fn endpoint_id(pod: &slim::Metadata) -> EndpointId {
    EndpointId::new(&pod.namespace, &pod.name)
}

/// The policy that belongs to a NetworkPolicy.
pub fn policy_id(policy: &slim::Metadata) -> PolicyId {
    PolicyId::new(&policy.namespace, &policy.name)
}

/// A pod, wherever it runs. One on the host network has no endpoint of its own: the update removes it.
pub fn pod(pod: &slim::Pod) -> Update {
    let workload = (!pod.is_host_network()).then(|| Workload {
        uid: pod.metadata.uid.as_str().into(),
        labels: pod.metadata.labels.clone(),
        addresses: pod.ips().into_iter().map(canonical).collect(),
        ports: pod.named_ports().iter().map(named_port).collect(),
        finished: pod.is_finished(),
    });
    Update::Workload(endpoint_id(&pod.metadata), workload)
}

/// A namespace. It always has the label `kubernetes.io/metadata.name`, as the API server ensures.
pub fn namespace(namespace: &slim::Namespace) -> Update {
    let mut labels = namespace.metadata.labels.clone();
    labels.insert(
        "kubernetes.io/metadata.name".to_owned(),
        namespace.metadata.name.clone(),
    );
    Update::Namespace(namespace.metadata.name.as_str().into(), Some(Namespace { labels }))
}

/// IPv4 written as an IPv4-mapped IPv6 address is IPv4.
fn canonical(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

fn named_port(port: &slim::NamedPort) -> NamedPort {
    NamedPort {
        name: port.name.as_str().into(),
        protocol: Protocol(port.protocol.number()),
        port: port.port,
    }
}
