//! The resource types we talk about: where they live in the API.

/// A resource type: enough to build its URLs and to name it to people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ResourceType {
    /// API group, empty for the core group.
    pub group: &'static str,
    /// API version, as `v1`.
    pub version: &'static str,
    /// Kind, as `NetworkPolicy`.
    pub kind: &'static str,
    /// Plural, lower case, as in URLs: `networkpolicies`.
    pub plural: &'static str,
    /// True when objects live in a namespace.
    pub namespaced: bool,
}

impl ResourceType {
    /// `apiVersion` of its objects.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_owned()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// URL path of the collection; `namespace` is required to address single objects of namespaced types.
    pub fn path(&self, namespace: Option<&str>) -> String {
        let root = if self.group.is_empty() {
            "/api".to_owned()
        } else {
            format!("/apis/{}", self.group)
        };
        match namespace {
            Some(namespace) if self.namespaced => {
                format!("{root}/{}/namespaces/{namespace}/{}", self.version, self.plural)
            }
            _ => format!("{root}/{}/{}", self.version, self.plural),
        }
    }

    /// `plural` or `plural.group`: as people type it to kubectl.
    pub fn full_name(&self) -> String {
        if self.group.is_empty() {
            self.plural.to_owned()
        } else {
            format!("{}.{}", self.plural, self.group)
        }
    }
}

const fn core(kind: &'static str, plural: &'static str, namespaced: bool) -> ResourceType {
    ResourceType {
        group: "",
        version: "v1",
        kind,
        plural,
        namespaced,
    }
}

const fn calico(kind: &'static str, plural: &'static str) -> ResourceType {
    ResourceType {
        group: "projectcalico.org",
        version: "v3",
        kind,
        plural,
        namespaced: false,
    }
}

/// `v1` Pod.
pub const POD: ResourceType = core("Pod", "pods", true);
/// `v1` Namespace.
pub const NAMESPACE: ResourceType = core("Namespace", "namespaces", false);
/// `v1` Node.
pub const NODE: ResourceType = core("Node", "nodes", false);
/// `v1` Event.
pub const EVENT: ResourceType = core("Event", "events", true);
/// `networking.k8s.io/v1` NetworkPolicy.
pub const NETWORK_POLICY: ResourceType = ResourceType {
    group: "networking.k8s.io",
    version: "v1",
    kind: "NetworkPolicy",
    plural: "networkpolicies",
    namespaced: true,
};
/// `coordination.k8s.io/v1` Lease.
pub const LEASE: ResourceType = ResourceType {
    group: "coordination.k8s.io",
    version: "v1",
    kind: "Lease",
    plural: "leases",
    namespaced: true,
};
/// `apiregistration.k8s.io/v1` APIService.
pub const API_SERVICE: ResourceType = ResourceType {
    group: "apiregistration.k8s.io",
    version: "v1",
    kind: "APIService",
    plural: "apiservices",
    namespaced: false,
};
/// `projectcalico.org/v3` IPPool.
pub const IP_POOL: ResourceType = calico("IPPool", "ippools");
/// `projectcalico.org/v3` IPAMBlock.
pub const IPAM_BLOCK: ResourceType = calico("IPAMBlock", "ipamblocks");
/// `projectcalico.org/v3` BlockAffinity.
pub const BLOCK_AFFINITY: ResourceType = calico("BlockAffinity", "blockaffinities");
/// `projectcalico.org/v3` IPAMHandle.
pub const IPAM_HANDLE: ResourceType = calico("IPAMHandle", "ipamhandles");
/// `projectcalico.org/v3` IPAMConfiguration (singleton `default`).
pub const IPAM_CONFIGURATION: ResourceType = calico("IPAMConfiguration", "ipamconfigurations");
/// `projectcalico.org/v3` BGPConfiguration.
pub const BGP_CONFIGURATION: ResourceType = calico("BGPConfiguration", "bgpconfigurations");
/// `projectcalico.org/v3` BGPPeer.
pub const BGP_PEER: ResourceType = calico("BGPPeer", "bgppeers");
/// `projectcalico.org/v3` FelixConfiguration.
pub const FELIX_CONFIGURATION: ResourceType = calico("FelixConfiguration", "felixconfigurations");
/// `projectcalico.org/v3` ClusterInformation (singleton `default`).
pub const CLUSTER_INFORMATION: ResourceType = calico("ClusterInformation", "clusterinformations");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_those_of_the_api() {
        assert_eq!(POD.path(None), "/api/v1/pods");
        assert_eq!(POD.path(Some("shop")), "/api/v1/namespaces/shop/pods");
        assert_eq!(NODE.path(Some("ignored")), "/api/v1/nodes");
        assert_eq!(IP_POOL.path(None), "/apis/projectcalico.org/v3/ippools");
        assert_eq!(
            NETWORK_POLICY.path(Some("a")),
            "/apis/networking.k8s.io/v1/namespaces/a/networkpolicies"
        );
        assert_eq!(IP_POOL.api_version(), "projectcalico.org/v3");
        assert_eq!(IP_POOL.full_name(), "ippools.projectcalico.org");
        assert_eq!(NODE.full_name(), "nodes");
    }
}
