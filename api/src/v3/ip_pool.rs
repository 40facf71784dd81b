//! IPPool: addresses for pods.

use ipnetwork::IpNetwork;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Condition;
use crate::nullable::is_default;

/// A range of addresses and how they are used.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[cfg_attr(feature = "kube", derive(kube::CustomResource))]
#[cfg_attr(
    feature = "kube",
    kube(
        group = "projectcalico.org",
        version = "v3",
        kind = "IPPool",
        plural = "ippools",
        status = "IPPoolStatus",
        derive = "PartialEq",
        doc = "A range of addresses for pods, and how they are used.",
        printcolumn = r#"{"name":"CIDR","type":"string","jsonPath":".spec.cidr"}"#,
        printcolumn = r#"{"name":"Block Size","type":"integer","jsonPath":".spec.blockSize"}"#,
        printcolumn = r#"{"name":"NAT","type":"boolean","jsonPath":".spec.natOutgoing"}"#,
        printcolumn = r#"{"name":"Disabled","type":"boolean","jsonPath":".spec.disabled"}"#,
        printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
    )
)]
#[serde(rename_all = "camelCase")]
pub struct IPPoolSpec {
    /// The pool's CIDR, without host bits; cannot be changed.
    #[schemars(length(max = 43), extend("format" = "cidr"))]
    pub cidr: String,
    /// When packets to this pool travel in VXLAN. Default: Never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vxlan_mode: Option<EncapMode>,
    /// When packets to this pool travel in IPIP. Default: Never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipip_mode: Option<EncapMode>,
    /// Whether packets from this pool to addresses in no pool are masqueraded. Default: false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nat_outgoing: Option<bool>,
    /// Whether no address is assigned from it any more. Default: false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disabled: Option<bool>,
    /// Whether routes inside it are kept from BGP peers. Default: false.
    #[serde(rename = "disableBGPExport", skip_serializing_if = "Option::is_none")]
    pub disable_bgp_export: Option<bool>,
    /// Prefix length of its blocks: IPv4 20 to 32, default 26; IPv6 116 to 128, default 122. Cannot be changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 128))]
    pub block_size: Option<u8>,
    /// Nodes that may use it, in the selector language. Default: all().
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub node_selector: Option<String>,
    /// Namespaces whose pods may use it, in the selector language. Default: all().
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub namespace_selector: Option<String>,
    /// What it may be used for. Default: Workload and Tunnel.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 3), extend("x-kubernetes-list-type" = "set"))]
    pub allowed_uses: Option<Vec<AllowedUse>>,
    /// Whether addresses are taken from it without being asked for by name. Default: Automatic.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub assignment_mode: Option<AssignmentMode>,
}

impl IPPoolSpec {
    /// The CIDR as a network.
    ///
    /// # Errors
    /// When the text is no CIDR, or has bits set beyond its prefix.
    pub fn network(&self) -> Result<IpNetwork, crate::cidr::CidrError> {
        crate::cidr::parse(&self.cidr)
    }

    /// Prefix length of the pool's blocks, the default of its family when none is given.
    pub fn block_prefix(&self) -> u8 {
        match self.block_size {
            Some(size) if size != 0 => size,
            _ if self.cidr.contains(':') => 122,
            _ => 26,
        }
    }

    /// Whether addresses may be used this way.
    pub fn allows(&self, purpose: AllowedUse) -> bool {
        match self.allowed_uses.as_deref() {
            None | Some([]) => matches!(purpose, AllowedUse::Workload | AllowedUse::Tunnel),
            Some(uses) => uses.contains(&purpose),
        }
    }

    /// Whether traffic to addresses outside every pool is masqueraded.
    pub fn nat_outgoing(&self) -> bool {
        self.nat_outgoing.unwrap_or(false)
    }

    /// Whether it gives out no more addresses.
    pub fn is_disabled(&self) -> bool {
        self.disabled.unwrap_or(false)
    }
}

/// `status` of an IPPool.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IPPoolStatus {
    /// Its state; `Allocatable` is False while a fault across objects keeps it from use.
    #[serde(default, skip_serializing_if = "is_default")]
    pub conditions: Vec<Condition>,
}

keywords! {
    /// When packets are encapsulated.
    EncapMode, exact {
        /// Never: the fabric routes pods' addresses.
        Never = "Never",
        /// Between all nodes.
        Always = "Always",
        /// Between nodes on different subnets.
        CrossSubnet = "CrossSubnet",
    }
}

keywords! {
    /// What a pool's addresses are for.
    AllowedUse, exact {
        /// Pods.
        Workload = "Workload",
        /// Tunnel devices of nodes.
        Tunnel = "Tunnel",
        /// Services of type LoadBalancer.
        LoadBalancer = "LoadBalancer",
    }
}

keywords! {
    /// Who chooses addresses.
    AssignmentMode, exact {
        /// The allocator, for every pod that qualifies.
        Automatic = "Automatic",
        /// Only pods that name the pool or the address.
        Manual = "Manual",
    }
}
