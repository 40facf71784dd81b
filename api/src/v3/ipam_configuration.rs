//! IPAMConfiguration: cluster-wide rules of address assignment; the one named `default` counts.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::EnabledDisabled;
use crate::nullable::or_default;

/// Rules of address assignment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[cfg_attr(feature = "kube", derive(kube::CustomResource))]
#[cfg_attr(
    feature = "kube",
    kube(
        group = "projectcalico.org",
        version = "v3",
        kind = "IPAMConfiguration",
        plural = "ipamconfigurations",
        shortname = "ipamconfig",
        shortname = "ipamconfigs",
        derive = "PartialEq",
        doc = "Rules of address assignment; the one named `default` counts.",
        printcolumn = r#"{"name":"StrictAffinity","type":"boolean","jsonPath":".spec.strictAffinity"}"#,
        printcolumn = r#"{"name":"MaxBlocksPerHost","type":"integer","jsonPath":".spec.maxBlocksPerHost"}"#,
        printcolumn = r#"{"name":"AutoAllocateBlocks","type":"boolean","jsonPath":".spec.autoAllocateBlocks"}"#
    )
)]
#[serde(rename_all = "camelCase")]
pub struct IPAMConfigurationSpec {
    /// Whether nodes never take single addresses from other nodes' blocks.
    #[serde(default, deserialize_with = "or_default")]
    pub strict_affinity: bool,
    /// Most blocks a node may claim; 0 means the built-in limit of 20.
    #[serde(default, deserialize_with = "or_default")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub max_blocks_per_host: u32,
    /// Whether nodes claim blocks when they need them.
    #[serde(default = "enabled")]
    pub auto_allocate_blocks: bool,
    /// Least time a released address rests before it is given out again.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1200))]
    pub ip_cooldown_seconds: Option<u32>,
    /// Whether KubeVirt's virtual machines keep their addresses. Default: Enabled.
    #[serde(rename = "kubeVirtVMAddressPersistence", skip_serializing_if = "Option::is_none")]
    pub kube_virt_vm_address_persistence: Option<EnabledDisabled>,
}

impl Default for IPAMConfigurationSpec {
    fn default() -> Self {
        Self {
            strict_affinity: false,
            max_blocks_per_host: 0,
            auto_allocate_blocks: enabled(),
            ip_cooldown_seconds: None,
            kube_virt_vm_address_persistence: None,
        }
    }
}

fn enabled() -> bool {
    true
}
