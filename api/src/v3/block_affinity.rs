//! BlockAffinity: a node's claim to a block.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::nullable::or_default;

/// A node's claim to a block.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[cfg_attr(feature = "kube", derive(kube::CustomResource))]
#[cfg_attr(
    feature = "kube",
    kube(
        group = "projectcalico.org",
        version = "v3",
        kind = "BlockAffinity",
        plural = "blockaffinities",
        shortname = "affinity",
        shortname = "affinities",
        derive = "PartialEq",
        doc = "A node's claim to a block of addresses. Written by the agents.",
        printcolumn = r#"{"name":"CIDR","type":"string","jsonPath":".spec.cidr","description":"The block's CIDR"}"#,
        printcolumn = r#"{"name":"Node","type":"string","jsonPath":".spec.node","description":"The node that claims it"}"#,
        printcolumn = r#"{"name":"Type","type":"string","jsonPath":".spec.type","description":"Kind of claim"}"#,
        printcolumn = r#"{"name":"State","type":"string","jsonPath":".spec.state","description":"State of the claim"}"#
    )
)]
#[serde(rename_all = "camelCase")]
pub struct BlockAffinitySpec {
    /// The block's CIDR.
    #[schemars(length(max = 43), extend("format" = "cidr"))]
    pub cidr: String,
    /// The node that claims it.
    pub node: String,
    /// How far the claim has got; only a confirmed one counts to anyone but its node.
    pub state: AffinityState,
    /// `host`, or `virtual` for claims that stand for no node. Missing: host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub r#type: Option<String>,
    /// Marks a claim that is about to be deleted, so that a concurrent writer's compare-and-swap fails.
    #[serde(default, deserialize_with = "or_default")]
    pub deleted: bool,
}

keywords! {
    /// State of a claim.
    AffinityState, exact {
        /// Nothing is promised yet: the block may not exist, or be another's.
        Pending = "pending",
        /// The block exists and is this node's.
        Confirmed = "confirmed",
        /// The block is being given up.
        PendingDeletion = "pendingDeletion",
        /// Written by versions without states: as confirmed.
        Unset = "",
    }
}

impl AffinityState {
    /// Whether others may rely on the claim.
    pub fn is_confirmed(self) -> bool {
        matches!(self, Self::Confirmed | Self::Unset)
    }
}
