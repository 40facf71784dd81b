//! IPAMBlock: a block of addresses and who has which.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::cidr;
use crate::nullable::or_default;

/// A block of consecutive addresses; an address is its ordinal from the block's first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[cfg_attr(feature = "kube", derive(kube::CustomResource))]
#[cfg_attr(
    feature = "kube",
    kube(
        group = "projectcalico.org",
        version = "v3",
        kind = "IPAMBlock",
        plural = "ipamblocks",
        derive = "PartialEq",
        doc = "A block of addresses and who has which. Written by the agents.",
        printcolumn = r#"{"name":"CIDR","type":"string","jsonPath":".spec.cidr","description":"The block's CIDR"}"#,
        printcolumn = r#"{"name":"Affinity","type":"string","jsonPath":".spec.affinity","description":"Who the block belongs to"}"#,
        printcolumn = r#"{"name":"ClaimTime","type":"date","jsonPath":".spec.affinityClaimTime","description":"When it was claimed"}"#
    )
)]
#[serde(rename_all = "camelCase")]
pub struct IPAMBlockSpec {
    /// The block's CIDR.
    #[schemars(length(max = 43), extend("format" = "cidr"))]
    pub cidr: String,
    /// Who the block belongs to: `host:<node>`. Missing: nobody, new addresses are not taken from it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("pattern" = r"^(host|virtual):[a-zA-Z0-9\.\-_]+$"))]
    pub affinity: Option<String>,
    /// When it was claimed, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub affinity_claim_time: Option<String>,
    /// For each ordinal, the index of its attributes; null while it is free.
    pub allocations: Vec<Option<u32>>,
    /// Free ordinals, the longest free first.
    pub unallocated: Vec<u32>,
    /// Who has addresses; several addresses of one holder share an entry.
    #[serde(deserialize_with = "or_default")]
    pub attributes: Vec<AllocationAttribute>,
    /// Rises with every write.
    #[serde(default, deserialize_with = "or_default")]
    #[schemars(with = "i64")]
    pub sequence_number: u64,
    /// For each allocated ordinal (as text) the block's sequence number when it was given.
    #[serde(default, deserialize_with = "or_default")]
    #[schemars(with = "BTreeMap<String, i64>", extend("default" = {}))]
    pub sequence_number_for_allocation: BTreeMap<String, u64>,
    /// Marks a block that is about to be deleted, so that a concurrent writer's compare-and-swap fails.
    #[serde(default, deserialize_with = "or_default")]
    pub deleted: bool,
    /// Kept for older readers; IPAMConfiguration decides.
    #[serde(default, deserialize_with = "or_default")]
    pub strict_affinity: bool,
}

impl IPAMBlockSpec {
    /// The block's CIDR; `None` when it is not one.
    pub fn network(&self) -> Option<IpNetwork> {
        cidr::parse(&self.cidr).ok()
    }

    /// The node that new addresses of this block go to.
    pub fn owner(&self) -> Option<&str> {
        if self.deleted {
            None
        } else {
            self.affinity.as_deref()?.strip_prefix("host:")
        }
    }

    /// Every allocated address with its attributes.
    pub fn held(&self) -> impl Iterator<Item = (IpAddr, &AllocationAttribute)> {
        let base = self.network().map(|network| network.network());
        let ordinals = self.allocations.iter().enumerate();
        ordinals.filter_map(move |(ordinal, index)| {
            let attribute = self.attributes.get((*index)? as usize)?;
            Some((cidr::offset(base?, ordinal as u128)?, attribute))
        })
    }
}

/// Who has an address.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AllocationAttribute {
    /// The handle the address is released by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub handle_id: Option<String>,
    /// The holder: `pod`, `namespace`, `node`, `timestamp`, ….
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub secondary: BTreeMap<String, String>,
    /// The holder to be, while a virtual machine migrates.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub alternate: BTreeMap<String, String>,
}
