//! Names of host interfaces.

use sha1::{Digest, Sha1};

/// The default prefix of host interfaces.
pub const DEFAULT_PREFIX: &str = "mgy";
/// The longest prefix that leaves room for the hash in the kernel's 15 bytes.
pub const MAX_PREFIX: usize = 4;

/// Name of the host side of a pod's `eth0` in the cluster's own network: the prefix and the first 11 hex digits of
/// SHA-1 of `namespace.pod`.
///
/// `prefix` has at most [`MAX_PREFIX`] bytes; the caller has validated it.
pub fn host_interface(prefix: &str, namespace: &str, pod: &str) -> String {
    hashed(prefix, &format!("{namespace}.{pod}"))
}

/// Name of the host side of any other interface or network of a pod: hashes `namespace.pod/network/ifname`.
pub fn further_host_interface(prefix: &str, namespace: &str, pod: &str, network: &str, ifname: &str) -> String {
    hashed(prefix, &format!("{namespace}.{pod}/{network}/{ifname}"))
}

fn hashed(prefix: &str, text: &str) -> String {
    let digest = Sha1::digest(text.as_bytes());
    let hex: String = digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    format!("{prefix}{}", &hex[..11])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_calico_but_for_the_prefix() {
        assert_eq!(host_interface("cali", "ns0", "q1"), "cali16ff9610a79");
        assert_eq!(host_interface(DEFAULT_PREFIX, "ns0", "q1"), "mgy16ff9610a79");
    }

    #[test]
    fn further_interfaces_have_names_of_their_own() {
        let names = [
            host_interface("mgy", "ns0", "q1"),
            further_host_interface("mgy", "ns0", "q1", "blue", "eth0"),
            further_host_interface("mgy", "ns0", "q1", "blue", "net1"),
            further_host_interface("mgy", "ns0", "q1", "red", "net1"),
        ];
        for (i, name) in names.iter().enumerate() {
            assert!(name.len() <= 15 && !names[..i].contains(name), "{name}");
        }
    }
}
