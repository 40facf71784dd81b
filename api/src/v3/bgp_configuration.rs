//! BGPConfiguration: cluster-wide BGP settings (`default`) and per-node ones (`node.<name>`).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{BgpPassword, Duration, EnabledDisabled, LogLevel};

/// BGP settings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[cfg_attr(feature = "kube", derive(kube::CustomResource))]
#[cfg_attr(
    feature = "kube",
    kube(
        group = "projectcalico.org",
        version = "v3",
        kind = "BGPConfiguration",
        plural = "bgpconfigurations",
        shortname = "bgpconfig",
        shortname = "bgpconfigs",
        derive = "PartialEq",
        doc = "BGP settings: `default` for the cluster, `node.<name>` for one node.",
        printcolumn = r#"{"name":"AS","type":"integer","jsonPath":".spec.asNumber"}"#,
        printcolumn = r#"{"name":"Mesh","type":"boolean","jsonPath":".spec.nodeToNodeMeshEnabled"}"#,
        printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
    )
)]
#[serde(rename_all = "camelCase")]
pub struct BGPConfigurationSpec {
    /// Least severity that is logged. Default: Info.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_severity_screen: Option<LogLevel>,
    /// Whether every pair of nodes peers. Default: true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_to_node_mesh_enabled: Option<bool>,
    /// AS number of nodes that name none themselves. Default: 64512.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 4_294_967_295u64), extend("format" = "int64"))]
    pub as_number: Option<u32>,
    /// Ranges of Services' cluster addresses to advertise.
    #[serde(rename = "serviceClusterIPs", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub service_cluster_ips: Option<Vec<CidrBlock>>,
    /// Ranges of Services' external addresses to advertise.
    #[serde(rename = "serviceExternalIPs", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub service_external_ips: Option<Vec<CidrBlock>>,
    /// Ranges of Services' load balancer addresses to advertise.
    #[serde(rename = "serviceLoadBalancerIPs", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub service_load_balancer_ips: Option<Vec<CidrBlock>>,
    /// Whether load balancer ranges are advertised whole. Default: Enabled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_load_balancer_aggregation: Option<EnabledDisabled>,
    /// Names for communities.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub communities: Option<Vec<Community>>,
    /// Communities for routes by prefix.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub prefix_advertisements: Option<Vec<PrefixAdvertisement>>,
    /// Port that nodes accept sessions on. Default: 179.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub listen_port: Option<u16>,
    /// Password of the mesh's sessions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_mesh_password: Option<BgpPassword>,
    /// Graceful restart time of the mesh's sessions. Default: 120s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_mesh_max_restart_time: Option<Duration>,
    /// Which addresses sessions are accepted on. Default: None, all of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bind_mode: Option<BindMode>,
    /// Interfaces whose addresses and routes are not imported.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub ignored_interfaces: Option<Vec<String>>,
    /// Address that pods peer with their node at.
    #[serde(rename = "localWorkloadPeeringIPV4", skip_serializing_if = "Option::is_none")]
    pub local_workload_peering_ipv4: Option<String>,
    /// Address that pods peer with their node at.
    #[serde(rename = "localWorkloadPeeringIPV6", skip_serializing_if = "Option::is_none")]
    pub local_workload_peering_ipv6: Option<String>,
    /// Whether BGP, and not the policy engine, programs routes between nodes. Default: Enabled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub program_cluster_routes: Option<EnabledDisabled>,
    /// Metric of ordinary IPv4 routes. Default: 1024.
    #[serde(rename = "ipv4NormalRoutePriority", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 2_147_483_646))]
    pub ipv4_normal_route_priority: Option<u32>,
    /// Metric of ordinary IPv6 routes. Default: 1024.
    #[serde(rename = "ipv6NormalRoutePriority", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 2_147_483_646))]
    pub ipv6_normal_route_priority: Option<u32>,
}

impl BGPConfigurationSpec {
    /// AS number of nodes when nothing says otherwise.
    pub const DEFAULT_AS_NUMBER: u32 = 64512;

    /// Whether every pair of nodes peers.
    pub fn mesh_enabled(&self) -> bool {
        self.node_to_node_mesh_enabled.unwrap_or(true)
    }

    /// AS number of nodes that name none themselves.
    pub fn as_number(&self) -> u32 {
        self.as_number
            .filter(|number| *number != 0)
            .unwrap_or(Self::DEFAULT_AS_NUMBER)
    }
}

/// A CIDR of Service addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CidrBlock {
    /// The CIDR.
    #[serde(default)]
    #[schemars(length(max = 43), extend("format" = "cidr"))]
    pub cidr: String,
}

/// A name for a community.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Community {
    /// The name.
    #[serde(default)]
    pub name: String,
    /// `aa:nn` (RFC 1997) or `aa:nn:mm` (RFC 8092).
    #[serde(default)]
    #[schemars(extend("pattern" = r"^(\d+):(\d+)$|^(\d+):(\d+):(\d+)$"))]
    pub value: String,
}

/// Communities for the routes inside a prefix.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PrefixAdvertisement {
    /// The prefix.
    #[serde(default)]
    #[schemars(length(max = 43), extend("format" = "cidr"))]
    pub cidr: String,
    /// Names or values of communities.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub communities: Option<Vec<String>>,
}

keywords! {
    /// Which addresses sessions are accepted on.
    BindMode, exact {
        /// All addresses.
        None = "None",
        /// The node's own address.
        NodeIp = "NodeIP",
    }
}
