//! `core/v1` Node.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::Metadata;
use crate::nullable::{is_default, or_default};
use crate::validate::{is_as_number, is_router_address};

/// A Node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Node {
    /// Standard metadata; labels for selectors, annotations for addresses and AS number.
    pub metadata: Metadata,
    /// Spec.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub spec: NodeSpec,
    /// Status.
    #[serde(deserialize_with = "or_default")]
    pub status: NodeStatus,
}

impl Node {
    /// Addresses of type InternalIP, in the order given.
    pub fn internal_ips(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.status
            .addresses
            .iter()
            .filter(|a| a.r#type == "InternalIP")
            .filter_map(|a| a.address.parse().ok())
    }

    /// The node's address of one family: annotation `projectcalico.org/IPv4Address` or `IPv6Address` (a prefix length
    /// is dropped), else the first InternalIP of that family. One that no router can have counts as not given.
    pub fn address(&self, v4: bool) -> Option<IpAddr> {
        let key = if v4 {
            "projectcalico.org/IPv4Address"
        } else {
            "projectcalico.org/IPv6Address"
        };
        let annotated = self
            .metadata
            .annotations
            .get(key)
            .and_then(|value| value.split('/').next()?.parse().ok());
        annotated
            .into_iter()
            .chain(self.internal_ips())
            .find(|ip: &IpAddr| ip.is_ipv4() == v4 && is_router_address(*ip))
    }

    /// Annotation `projectcalico.org/ASNumber`: asplain, or asdot as `1.10`. One that is reserved counts as not given.
    pub fn as_number(&self) -> Option<u32> {
        let text = self.metadata.annotations.get("projectcalico.org/ASNumber")?;
        let number = match text.split_once('.') {
            Some((high, low)) => u32::from(high.parse::<u16>().ok()?) << 16 | u32::from(low.parse::<u16>().ok()?),
            None => text.parse().ok()?,
        };
        Some(number).filter(|number| is_as_number(*number))
    }
}

/// `spec` of a Node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeSpec {
    /// Whether the scheduler leaves it alone.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub unschedulable: bool,
}

/// `status` of a Node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeStatus {
    /// Its addresses.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<NodeAddress>,
    /// Whether somebody says that the node has no network: the condition NetworkUnavailable. Of the other conditions none
    /// matters here, and each would make the node another at every turn.
    #[serde(
        rename = "conditions",
        with = "network_unavailable",
        skip_serializing_if = "is_default"
    )]
    pub network_unavailable: bool,
}

/// The one condition, as the list that it is an element of.
mod network_unavailable {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    const TYPE: &str = "NetworkUnavailable";

    #[derive(Serialize, Deserialize)]
    struct Condition {
        #[serde(default)]
        r#type: String,
        #[serde(default)]
        status: String,
    }

    pub(super) fn serialize<S: Serializer>(unavailable: &bool, serializer: S) -> Result<S::Ok, S::Error> {
        let condition = Condition {
            r#type: TYPE.to_owned(),
            status: if *unavailable { "True" } else { "False" }.to_owned(),
        };
        [condition].serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
        let conditions = Option::<Vec<Condition>>::deserialize(deserializer)?.unwrap_or_default();
        Ok(conditions
            .iter()
            .any(|condition| condition.r#type == TYPE && condition.status == "True"))
    }
}

/// One address of a Node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeAddress {
    /// `InternalIP`, `ExternalIP`, `Hostname`, …
    pub r#type: String,
    /// An address or a name.
    pub address: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_the_conditions_one_counts() {
        let of = |conditions: serde_json::Value| -> Node {
            serde_json::from_value(serde_json::json!({"metadata": {"name": "n"}, "status": {"conditions": conditions}}))
                .unwrap()
        };
        let ready = serde_json::json!({"type": "Ready", "status": "True"});
        let unavailable =
            serde_json::json!({"type": "NetworkUnavailable", "status": "True", "reason": "NoRouteCreated"});
        let cleared = serde_json::json!({"type": "NetworkUnavailable", "status": "False"});
        let node = of(serde_json::json!([ready, unavailable]));
        assert!(node.status.network_unavailable);
        let text = serde_json::to_string(&node).unwrap();
        assert_eq!(serde_json::from_str::<Node>(&text).unwrap(), node);
        for conditions in [
            serde_json::json!([ready, cleared]),
            serde_json::json!(null),
            serde_json::json!([]),
        ] {
            assert_eq!(of(conditions), of(serde_json::json!([])));
        }
    }

    #[test]
    fn annotations_win_over_internal_ips() {
        let node: Node = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "n", "annotations": {
                "projectcalico.org/IPv4Address": "10.0.0.7/24", "projectcalico.org/ASNumber": "1.10"}},
            "status": {"addresses": [{"type": "Hostname", "address": "n"}, {"type": "InternalIP", "address": "192.0.2.1"},
                {"type": "InternalIP", "address": "2001:db8::1"}]}}))
        .unwrap();
        assert_eq!(node.address(true), Some("10.0.0.7".parse().unwrap()));
        assert_eq!(node.address(false), Some("2001:db8::1".parse().unwrap()));
        assert_eq!(node.as_number(), Some(65546));
        assert_eq!(Node::default().as_number(), None);
    }
}
