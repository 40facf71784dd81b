//! Reading IPAM blocks: whose they are and who holds which address. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use margay_api::slim::Object;
use margay_api::v3::{AllocationAttribute, IPAMBlockSpec};

/// A pod by namespace and name.
pub type PodName = (String, String);

/// The pods that hold addresses of this block.
pub fn pods(block: &IPAMBlockSpec) -> BTreeMap<IpAddr, PodName> {
    block
        .held()
        .filter_map(|(address, attribute)| Some((address, pod(attribute)?)))
        .collect()
}

/// Blocks whose owner is `node`.
pub fn owned_by<'a>(blocks: impl Iterator<Item = &'a Object<IPAMBlockSpec>>, node: &str) -> Vec<IpNetwork> {
    let mut own: Vec<_> = blocks
        .filter(|b| b.spec.owner() == Some(node))
        .filter_map(|b| b.spec.network())
        .collect();
    own.sort();
    own.dedup();
    own
}

/// Addresses that `node` holds in blocks of others.
pub fn borrowed_by<'a>(blocks: impl Iterator<Item = &'a Object<IPAMBlockSpec>>, node: &str) -> Vec<IpAddr> {
    let foreign = blocks.filter(|b| b.spec.owner() != Some(node));
    let holds = |attribute: &AllocationAttribute| attribute.secondary.get("node").is_some_and(|n| n == node);
    let mut addresses: Vec<_> = foreign
        .flat_map(|b| b.spec.held())
        .filter(|(_, attribute)| holds(attribute))
        .map(|(address, _)| address)
        .collect();
    addresses.sort();
    addresses
}

fn pod(attribute: &AllocationAttribute) -> Option<PodName> {
    let get = |key| {
        attribute
            .secondary
            .get(key)
            .filter(|value: &&String| !value.is_empty())
            .cloned()
    };
    Some((get("namespace")?, get("pod")?))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A /26 (or as given) owned by `owner` with `(ordinal, namespace, pod, node)` allocated.
    pub(crate) fn block(cidr: &str, owner: &str, held: &[(usize, &str, &str, &str)]) -> Object<IPAMBlockSpec> {
        let mut object = Object::<IPAMBlockSpec>::default();
        object.metadata.name = cidr.replace(['.', '/', ':'], "-");
        object.spec.cidr = cidr.into();
        object.spec.affinity = (!owner.is_empty()).then(|| format!("host:{owner}"));
        object.spec.allocations = vec![None; 64];
        for (index, (ordinal, namespace, pod, node)) in held.iter().enumerate() {
            object.spec.allocations[*ordinal] = Some(index as u32);
            let secondary = [("namespace", namespace), ("pod", pod), ("node", node)];
            object.spec.attributes.push(AllocationAttribute {
                handle_id: Some(format!("margay.{pod}")),
                secondary: secondary.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect(),
                ..AllocationAttribute::default()
            });
        }
        object
    }

    #[test]
    fn own_blocks_and_borrowed_addresses() {
        let blocks = [
            block(
                "10.244.0.64/26",
                "node1",
                &[(1, "shop", "a", "node1"), (2, "shop", "b", "node2")],
            ),
            block("10.244.1.0/26", "node2", &[(63, "shop", "c", "node1")]),
            block("10.244.2.0/26", "", &[(0, "shop", "d", "node1")]),
            block("fd00:10:244::40/122", "node1", &[(1, "shop", "a", "node1")]),
        ];
        let own: Vec<_> = owned_by(blocks.iter(), "node1")
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(own, ["10.244.0.64/26", "fd00:10:244::40/122"]);
        let borrowed: Vec<_> = borrowed_by(blocks.iter(), "node1")
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(borrowed, ["10.244.1.63", "10.244.2.0"]);
        let pods = pods(&blocks[0].spec);
        assert_eq!(
            pods[&"10.244.0.65".parse::<IpAddr>().unwrap()],
            ("shop".to_owned(), "a".to_owned())
        );
    }

    #[test]
    fn a_deleted_block_is_nobodys_and_a_dangling_index_no_allocation() {
        let mut doomed = block("10.244.0.0/26", "node1", &[(0, "shop", "a", "node1")]);
        doomed.spec.deleted = true;
        doomed.spec.allocations[5] = Some(9);
        assert_eq!(doomed.spec.owner(), None);
        assert_eq!(doomed.spec.held().count(), 1);
    }
}
