//! The ranges of an ipBlock.

use std::collections::BTreeSet;

use ipnetwork::IpNetwork;
use margay_api::cidr::{contains, split};

/// Adds to `left` what is left of `net` without `holes`, as the fewest CIDRs; stops with false once `left` has more than
/// `most`.
pub(super) fn subtract(net: IpNetwork, holes: &[IpNetwork], left: &mut BTreeSet<IpNetwork>, most: usize) -> bool {
    if holes.iter().any(|&hole| contains(hole, net)) {
        return true;
    }
    let inside: Vec<_> = holes.iter().copied().filter(|&hole| contains(net, hole)).collect();
    match split(net) {
        Some((low, high)) if !inside.is_empty() => {
            subtract(low, &inside, left, most) && subtract(high, &inside, left, most)
        }
        _ => {
            left.insert(net);
            left.len() <= most
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNetwork {
        margay_api::cidr::parse(text).unwrap()
    }

    fn left(of: &str, holes: &[&str]) -> Vec<String> {
        let holes: Vec<_> = holes.iter().map(|hole| net(hole)).collect();
        let mut left = BTreeSet::new();
        assert!(subtract(net(of), &holes, &mut left, 128));
        left.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn subtracts_nested_overlapping_and_whole() {
        assert_eq!(left("10.0.0.0/30", &["10.0.0.1/32"]), ["10.0.0.0/32", "10.0.0.2/31"]);
        assert_eq!(left("10.0.0.0/24", &["10.0.0.0/25", "10.0.0.64/26"]), ["10.0.0.128/25"]);
        assert_eq!(left("10.0.0.0/24", &["10.0.0.0/25", "10.0.0.128/25"]), [""; 0]);
        assert_eq!(left("10.0.0.0/24", &["10.0.0.0/8"]), [""; 0]);
        assert_eq!(left("10.0.0.0/24", &["10.0.1.0/24"]), ["10.0.0.0/24"]);
        assert_eq!(left("0.0.0.0/0", &["128.0.0.0/1"]), ["0.0.0.0/1"]);
        assert_eq!(left("0.0.0.0/0", &["10.0.0.7/32"]).len(), 32);
        assert_eq!(left("::/0", &["fd00::1/128"]).len(), 128);
    }

    #[test]
    fn stops_at_the_limit() {
        let mut left = BTreeSet::new();
        assert!(!subtract(net("::/0"), &[net("fd00::1/128")], &mut left, 127));
        assert_eq!(left.len(), 128);
    }
}
