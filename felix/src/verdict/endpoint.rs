//! Who the two ends of a connection are.

use std::net::IpAddr;

use margay_api::slim;

use super::decision::Exemption;
use super::{Cluster, Connection, Peer, selector};

/// Why a connection cannot exist.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EvaluateError {
    /// No pod of this name.
    #[error("there is no pod {0}")]
    UnknownPod(Peer),
    /// The pod has run to its end.
    #[error("pod {0} has finished and has no address any more")]
    Finished(Peer),
    /// Several live pods claim one address.
    #[error("address {address} belongs to several pods: {}", pods.join(", "))]
    AmbiguousAddress {
        /// The address.
        address: IpAddr,
        /// The pods that claim it, as `namespace/name`.
        pods: Vec<String>,
    },
    /// One end has only IPv4, the other only IPv6.
    #[error("{from} and {to} have no IP family in common")]
    NoCommonFamily {
        /// Who opens the connection.
        from: Peer,
        /// Who should answer it.
        to: Peer,
    },
}

/// One end of a connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Endpoint<'a> {
    kind: Kind<'a>,
    /// The address used; unknown for a pod of a manifest without status.
    pub(super) address: Option<IpAddr>,
}

#[derive(Debug, Clone, Copy)]
enum Kind<'a> {
    Pod(&'a slim::Pod),
    /// A node's own network namespace; no name for a host-network pod that is not bound yet.
    Host(Option<&'a str>),
    External,
}

/// Finds the source and the destination, and the family they use.
pub(super) fn resolve<'a>(
    cluster: &'a Cluster,
    connection: &Connection,
) -> Result<(Endpoint<'a>, Endpoint<'a>), EvaluateError> {
    let (source, source_addresses) = find(cluster, &connection.from)?;
    let (destination, destination_addresses) = find(cluster, &connection.to)?;
    let pair = source_addresses.iter().find_map(|from| {
        let to = destination_addresses.iter().find(|to| to.is_ipv4() == from.is_ipv4())?;
        Some((Some(*from), Some(*to)))
    });
    let either_unknown = source_addresses.is_empty() || destination_addresses.is_empty();
    let (from, to) = match pair {
        Some(pair) => pair,
        None if either_unknown => (
            source_addresses.first().copied(),
            destination_addresses.first().copied(),
        ),
        None => {
            return Err(EvaluateError::NoCommonFamily {
                from: connection.from.clone(),
                to: connection.to.clone(),
            });
        }
    };
    let source = Endpoint {
        kind: source,
        address: from,
    };
    let destination = Endpoint {
        kind: destination,
        address: to,
    };
    Ok((source, destination))
}

fn find<'a>(cluster: &'a Cluster, peer: &Peer) -> Result<(Kind<'a>, Vec<IpAddr>), EvaluateError> {
    match peer {
        Peer::Pod { namespace, name } => {
            let pod = cluster
                .pods
                .iter()
                .find(|pod| pod.metadata.namespace == *namespace && pod.metadata.name == *name)
                .ok_or_else(|| EvaluateError::UnknownPod(peer.clone()))?;
            if has_finished(pod) {
                return Err(EvaluateError::Finished(peer.clone()));
            }
            let kind = if pod.spec.host_network {
                Kind::Host(Some(pod.spec.node_name.as_str()).filter(|node| !node.is_empty()))
            } else {
                Kind::Pod(pod)
            };
            Ok((kind, addresses(pod)))
        }
        Peer::Address(address) => Ok((owner(cluster, *address)?, vec![*address])),
    }
}

/// Whose address this is.
fn owner(cluster: &Cluster, address: IpAddr) -> Result<Kind<'_>, EvaluateError> {
    let pods: Vec<&slim::Pod> = cluster
        .pods
        .iter()
        .filter(|pod| !pod.spec.host_network && !has_finished(pod) && addresses(pod).contains(&address))
        .collect();
    match pods.as_slice() {
        [pod] => Ok(Kind::Pod(pod)),
        [] => {
            let node = cluster
                .nodes
                .iter()
                .find(|node| node_addresses(node).contains(&address));
            let host_pod = || {
                let mut pods = cluster.pods.iter();
                pods.find(|pod| pod.spec.host_network && !has_finished(pod) && addresses(pod).contains(&address))
            };
            let name = node
                .map(|node| node.metadata.name.as_str())
                .or_else(|| Some(host_pod()?.spec.node_name.as_str()));
            Ok(match name {
                Some(name) => Kind::Host(Some(name).filter(|name| !name.is_empty())),
                None => Kind::External,
            })
        }
        several => Err(EvaluateError::AmbiguousAddress {
            address,
            pods: several
                .iter()
                .map(|pod| format!("{}/{}", pod.metadata.namespace, pod.metadata.name))
                .collect(),
        }),
    }
}

fn has_finished(pod: &slim::Pod) -> bool {
    matches!(pod.status.phase, slim::Phase::Succeeded | slim::Phase::Failed)
}

/// A pod's addresses, the primary one first.
fn addresses(pod: &slim::Pod) -> Vec<IpAddr> {
    let primary = std::iter::once(&pod.status.pod_ip);
    let all = pod.status.pod_ips.iter().map(|entry| &entry.ip);
    let mut addresses: Vec<IpAddr> = Vec::new();
    for address in primary.chain(all).filter_map(|text| text.parse().ok()) {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    addresses
}

fn node_addresses(node: &slim::Node) -> Vec<IpAddr> {
    let status = node.status.addresses.iter().map(|entry| entry.address.as_str());
    let annotations = ["projectcalico.org/IPv4Address", "projectcalico.org/IPv6Address"]
        .into_iter()
        .filter_map(|key| node.metadata.annotations.get(key)?.split('/').next());
    status.chain(annotations).filter_map(|text| text.parse().ok()).collect()
}

impl<'a> Endpoint<'a> {
    /// The pod whose policies count here.
    pub(super) fn pod(&self) -> Option<&'a slim::Pod> {
        match self.kind {
            Kind::Pod(pod) => Some(pod),
            Kind::Host(_) | Kind::External => None,
        }
    }

    /// Why no policy of this end has a say about traffic with `other`, whatever the direction.
    pub(super) fn exemption(&self, other: &Self) -> Option<Exemption> {
        match (self.kind, other.kind) {
            (Kind::External, _) => Some(Exemption::External),
            (Kind::Host(_), _) => Some(Exemption::Host),
            (Kind::Pod(this), Kind::Pod(that)) if std::ptr::eq(this, that) => Some(Exemption::SameEndpoint),
            (Kind::Pod(_), _) => None,
        }
    }

    /// Whether this is a pod on the node that `host` is.
    pub(super) fn runs_on(&self, host: &Self) -> bool {
        match (self.kind, host.kind) {
            (Kind::Pod(pod), Kind::Host(Some(node))) => pod.spec.node_name == node,
            _ => false,
        }
    }

    /// Whether this is a pod of the policy's namespace that its `podSelector` matches.
    pub(super) fn is_selected_by(&self, policy: &slim::NetworkPolicy) -> bool {
        self.pod().is_some_and(|pod| {
            pod.metadata.namespace == policy.metadata.namespace
                && selector::matches(&policy.spec.pod_selector, &pod.metadata.labels)
        })
    }
}
