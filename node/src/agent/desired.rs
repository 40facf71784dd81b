//! What the host side of this node shall be. Pure.

use std::collections::BTreeMap;

use super::bgp_config;
use super::cluster::Cluster;
use super::settings::Settings;
use crate::endpoints::EndpointRecord;
use crate::host::Desired;

/// From the cluster's state, the attachments and the settings in force.
pub fn desired<'a>(
    cluster: &Cluster,
    node: &str,
    records: impl Iterator<Item = &'a EndpointRecord>,
    settings: &Settings,
) -> Desired {
    let mut pods: BTreeMap<String, (u64, Vec<_>)> = BTreeMap::new();
    for record in records {
        let entry = pods.entry(record.interface.clone()).or_default();
        if record.sequence >= entry.0 {
            *entry = (record.sequence, record.addresses.clone());
        }
    }
    Desired {
        pods: pods
            .into_iter()
            .map(|(name, (_, addresses))| (name, addresses))
            .collect(),
        // Whatever is announced comes here, and a part of it that no pod has must not go out again.
        blocks: bgp_config::prefixes(cluster, node),
        interface_prefix: settings.interface_prefix.clone(),
        mtu_interfaces: settings.mtu_interfaces.clone(),
        refresh: settings.route_refresh,
    }
}

#[cfg(test)]
mod tests {
    use super::super::blocks::tests::block;
    use super::super::cluster::ClusterChange;
    use super::super::settings;
    use super::*;
    use crate::kube::watch::Change;

    #[test]
    fn borrowed_addresses_are_dropped_like_the_rest_of_own_blocks_when_no_pod_has_them() {
        let mut cluster = Cluster::default();
        for block in [
            block("10.244.0.0/26", "n1", &[]),
            block(
                "10.244.0.64/26",
                "n2",
                &[(3, "shop", "a", "n1"), (4, "shop", "b", "n2")],
            ),
        ] {
            cluster.apply(ClusterChange::IpamBlock(Change::Put(block)));
        }
        let (settings, _) = settings::settings(&cluster, "n1", &settings::Defaults::default(), &[]);
        let blocks = desired(&cluster, "n1", std::iter::empty(), &settings).blocks;
        let blocks: Vec<_> = blocks.iter().map(ToString::to_string).collect();
        assert_eq!(blocks, ["10.244.0.0/26", "10.244.0.67/32"]);
    }
}
