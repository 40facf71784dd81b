//! IPAMHandle: all addresses that are released together.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::nullable::or_default;

/// How many addresses of each block a handle holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[cfg_attr(feature = "kube", derive(kube::CustomResource))]
#[cfg_attr(
    feature = "kube",
    kube(
        group = "projectcalico.org",
        version = "v3",
        kind = "IPAMHandle",
        plural = "ipamhandles",
        derive = "PartialEq",
        doc = "Addresses that are released together. Written by the agents.",
        printcolumn = r#"{"name":"ID","type":"string","jsonPath":".spec.handleID","description":"The handle's id"}"#
    )
)]
#[serde(rename_all = "camelCase")]
pub struct IPAMHandleSpec {
    /// The handle, for CNI `<network>.<containerID>`.
    #[serde(rename = "handleID")]
    pub handle_id: String,
    /// Number of addresses by block CIDR.
    #[serde(deserialize_with = "or_default")]
    pub block: BTreeMap<String, u32>,
    /// Marks a handle that is about to be deleted, so that a concurrent writer's compare-and-swap fails.
    #[serde(default, deserialize_with = "or_default")]
    pub deleted: bool,
}
