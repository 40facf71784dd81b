//! The table of resource types that the agent watches: what each is for, and what becomes of the agent without it.

use super::cluster::ClusterChange;
use crate::kube::{ResourceType, resource};

/// A watched resource type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// Where it lives.
    pub resource: ResourceType,
    /// What becomes of the agent without it.
    pub need: Need,
    /// Whether a pod can be attached only while this watch works.
    pub attaches: bool,
}

/// Whether an agent can do its work where a resource type is not served, or not to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// It cannot: until it has a list, or a snapshot of one, it waits.
    Required,
    /// It can, as if there were no such objects. The text says what that means.
    Optional(&'static str),
}

const fn required(resource: ResourceType) -> Kind {
    Kind {
        resource,
        need: Need::Required,
        attaches: false,
    }
}

const fn attaching(resource: ResourceType) -> Kind {
    Kind {
        attaches: true,
        ..required(resource)
    }
}

const fn optional(resource: ResourceType, without: &'static str) -> Kind {
    Kind {
        need: Need::Optional(without),
        ..required(resource)
    }
}

/// All of them; the position is [`ClusterChange::kind`].
pub const KINDS: [Kind; ClusterChange::KINDS] = [
    attaching(resource::POD),
    required(resource::NAMESPACE),
    required(resource::NODE),
    required(resource::NETWORK_POLICY),
    required(resource::IP_POOL),
    attaching(resource::IPAM_BLOCK),
    optional(
        resource::IPAM_CONFIGURATION,
        "addresses are given out by the defaults of IPAMConfiguration",
    ),
    optional(
        resource::BGP_CONFIGURATION,
        "BGP runs by the defaults of BGPConfiguration: AS 64512, and every pair of nodes peers",
    ),
    optional(
        resource::BGP_PEER,
        "the node has no BGP sessions but those between nodes",
    ),
    optional(
        resource::FELIX_CONFIGURATION,
        "the defaults of FelixConfiguration are in force; pods do not reach their own node",
    ),
    optional(
        resource::CLUSTER_INFORMATION,
        "addresses are given out whatever datastoreReady may say",
    ),
];

#[cfg(test)]
mod tests {
    use super::super::cluster::Cluster;
    use super::*;

    #[test]
    fn the_table_is_in_the_order_of_the_changes() {
        for change in Cluster::default().snapshot().into_changes() {
            let name = format!("{change:?}").to_lowercase();
            let kind = KINDS[change.kind()].resource.kind.to_lowercase();
            assert!(name.starts_with(&format!("{kind}(")), "{name} is {kind} in the table");
        }
    }
}
