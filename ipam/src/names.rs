//! Names and labels of the objects, as Calico gives them.

use std::collections::BTreeMap;

use ipnetwork::IpNetwork;
use margay_api::cidr;
use sha3::{Digest, Sha3_256};

/// Name of a block: `10.60.162.128/26` → `10-60-162-128-26`.
pub fn block_name(block: IpNetwork) -> String {
    cidr::masked(block).to_string().replace([':', '.', '/'], "-")
}

/// Name of a node's claim to a block.
pub fn affinity_name(node: &str, block: IpNetwork) -> String {
    format!("{node}-{}", block_name(block))
}

/// Name of the object that keeps a handle.
pub fn handle_name(handle: &str) -> String {
    handle.to_ascii_lowercase()
}

/// Value of the label `projectcalico.org/hostname-hash`: unpadded base32 of SHA3-256 of the node's name.
pub fn node_hash(node: &str) -> String {
    base32(&Sha3_256::digest(node.as_bytes()))
}

/// Annotation of a handle: the node whose pod it is. Admission policies go by it. Calico's handles have none.
pub(crate) const NODE_ANNOTATION: &str = "margay.io/node";

pub(crate) const NODE_HASH_LABEL: &str = "projectcalico.org/hostname-hash";

pub(crate) fn affinity_labels(node: &str, kind: &str, block: &str) -> BTreeMap<String, String> {
    let version = if block.contains(':') { "6" } else { "4" };
    BTreeMap::from([
        ("projectcalico.org/affinity-type".to_owned(), kind.to_owned()),
        (NODE_HASH_LABEL.to_owned(), node_hash(node)),
        ("projectcalico.org/ip-version".to_owned(), version.to_owned()),
    ])
}

/// A number that spreads over all values, from some text.
pub(crate) fn spread(text: &str) -> u128 {
    let digest = Sha3_256::digest(text.as_bytes());
    digest
        .iter()
        .take(16)
        .fold(0, |number, byte| number << 8 | u128::from(*byte))
}

fn base32(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let (mut text, mut buffer, mut bits) = (String::new(), 0u32, 0u32);
    for byte in bytes {
        buffer = buffer << 8 | u32::from(*byte);
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            text.push(ALPHABET[(buffer >> bits & 31) as usize] as char);
        }
    }
    if bits > 0 {
        text.push(ALPHABET[(buffer << (5 - bits) & 31) as usize] as char);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_calicos() {
        let net = |text| cidr::parse(text).unwrap();
        assert_eq!(block_name(net("10.60.162.128/26")), "10-60-162-128-26");
        assert_eq!(block_name(net("fd00:10:244::40/122")), "fd00-10-244--40-122");
        assert_eq!(
            affinity_name("ms-node", net("10.60.162.128/26")),
            "ms-node-10-60-162-128-26"
        );
        assert_eq!(
            node_hash("node-a"),
            "PY3TQE2E3XMTETLM2MJO3UITKPFB27YUJ4T4E5XGPEJON3SM4QAA"
        );
    }
}
