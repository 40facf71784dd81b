//! Who a node is to the fabric: its addresses and AS number. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use margay_api::slim::Node;
use margay_api::validate::is_router_address;
use sha2::{Digest, Sha256};

use crate::kube::events::{Notice, Subject};
use crate::kube::resource::NODE;

/// A node as BGP sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Name of the Node object.
    pub name: String,
    /// Annotation `projectcalico.org/IPv4Address`, else the first InternalIP of the family.
    pub v4: Option<Ipv4Addr>,
    /// Annotation `projectcalico.org/IPv6Address`, else the first InternalIP of the family.
    pub v6: Option<Ipv6Addr>,
    /// Annotation `projectcalico.org/ASNumber`, else the cluster's default.
    pub as_number: u32,
    /// Annotation `projectcalico.org/RouteReflectorClusterID` is set: the node is not part of the mesh.
    pub route_reflector: bool,
}

impl Identity {
    /// Reads it off a Node object.
    pub fn of(node: &Node, default_as: u32) -> Self {
        let v4 = match node.address(true) {
            Some(IpAddr::V4(address)) => Some(address),
            _ => None,
        };
        let v6 = match node.address(false) {
            Some(IpAddr::V6(address)) => Some(address),
            _ => None,
        };
        Self {
            name: node.metadata.name.clone(),
            v4,
            v6,
            as_number: node.as_number().unwrap_or(default_as),
            route_reflector: annotation(node, CLUSTER_ID).is_some_and(|id| !id.is_empty()),
        }
    }

    /// Its addresses, IPv4 first.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + use<> {
        self.v4.map(IpAddr::V4).into_iter().chain(self.v6.map(IpAddr::V6))
    }

    /// Its address of the family of `like`.
    pub fn address_like(&self, like: IpAddr) -> Option<IpAddr> {
        match like {
            IpAddr::V4(_) => self.v4.map(IpAddr::V4),
            IpAddr::V6(_) => self.v6.map(IpAddr::V6),
        }
    }

    /// The BGP identifier: the IPv4 address or, on a node without one, a number made from its name.
    pub fn router_id(&self) -> Ipv4Addr {
        self.v4.unwrap_or_else(|| {
            let hash = Sha256::digest(self.name.as_bytes());
            // 1.0.0.0 to 223.255.255.255: valid as an identifier and looks like one.
            Ipv4Addr::new(hash[0] % 223 + 1, hash[1], hash[2], hash[3])
        })
    }
}

const V4: &str = "projectcalico.org/IPv4Address";
const V6: &str = "projectcalico.org/IPv6Address";
const AS: &str = "projectcalico.org/ASNumber";
const CLUSTER_ID: &str = "projectcalico.org/RouteReflectorClusterID";

/// What a user must fix in the annotations of a node.
pub fn faults(node: &Node) -> Vec<Notice> {
    let mut faults = Vec::new();
    let mut fault = |key: &str, value: &str, wanted: &str| {
        let message = format!("annotation {key}: {value:?} is not {wanted}; it is ignored");
        faults.push(notice(node, "BadNodeAnnotation", message));
    };
    for (key, v4) in [(V4, true), (V6, false)] {
        let Some(value) = annotation(node, key) else { continue };
        let parsed = value.split('/').next().and_then(|text| text.parse::<IpAddr>().ok());
        if parsed.is_none_or(|address| address.is_ipv4() != v4 || !is_router_address(address)) {
            fault(
                key,
                value,
                if v4 {
                    "an IPv4 address of one node like 10.0.0.7/24"
                } else {
                    "an IPv6 address of one node, and not link-local, like fd00::7/64"
                },
            );
        }
    }
    if let Some(value) = annotation(node, AS)
        && node.as_number().is_none()
    {
        fault(AS, value, "an AS number (1 to 4294967294 but not 23456, or high.low)");
    }
    faults
}

/// A warning about a node.
pub fn notice(node: &Node, reason: &'static str, message: String) -> Notice {
    Notice {
        subject: Subject {
            resource: NODE,
            namespace: String::new(),
            name: node.metadata.name.clone(),
            uid: node.metadata.uid.clone(),
        },
        reason,
        message,
        warning: true,
    }
}

fn annotation<'a>(node: &'a Node, key: &str) -> Option<&'a str> {
    node.metadata.annotations.get(key).map(String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(annotations: &[(&str, &str)], internal: &[&str]) -> Node {
        let addresses: Vec<_> = internal
            .iter()
            .map(|a| serde_json::json!({"type": "InternalIP", "address": a}))
            .collect();
        let annotations: serde_json::Map<_, _> =
            annotations.iter().map(|(k, v)| (k.to_string(), (*v).into())).collect();
        serde_json::from_value(serde_json::json!({
            "metadata": {"name": "node1", "annotations": annotations}, "status": {"addresses": addresses}
        }))
        .unwrap()
    }

    #[test]
    fn annotations_go_before_internal_addresses_family_by_family() {
        let identity = Identity::of(
            &node(&[(V4, "10.1.1.2/31"), (AS, "65301")], &["192.0.2.1", "2001:db8::1"]),
            64512,
        );
        assert_eq!(identity.v4, Some(Ipv4Addr::new(10, 1, 1, 2)));
        assert_eq!(identity.v6, Some("2001:db8::1".parse().unwrap()));
        assert_eq!(identity.as_number, 65301);
        assert_eq!(identity.router_id(), Ipv4Addr::new(10, 1, 1, 2));
    }

    #[test]
    fn defaults() {
        let identity = Identity::of(&node(&[], &["2001:db8::1"]), 64512);
        assert_eq!((identity.v4, identity.as_number), (None, 64512));
        let id = identity.router_id();
        assert!(
            !id.is_multicast() && !id.is_unspecified() && id == identity.router_id(),
            "{id}"
        );
    }

    #[test]
    fn bad_annotations_are_named() {
        let faults = faults(&node(
            &[(V4, "fd00::1"), (V6, "nonsense"), (AS, "many")],
            &["192.0.2.1"],
        ));
        let texts: Vec<_> = faults.iter().map(|fault| fault.message.as_str()).collect();
        assert_eq!(texts.len(), 3);
        assert!(texts[0].contains("\"fd00::1\" is not an IPv4 address"), "{}", texts[0]);
        assert!(texts[2].contains("\"many\" is not an AS number"), "{}", texts[2]);
        assert!(super::faults(&node(&[(V4, "10.0.0.1/24"), (AS, "1.10")], &[])).is_empty());
    }
}
