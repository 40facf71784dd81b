//! Names of chains and sets within the kernel's limits.

use sha2::{Digest, Sha256};

use super::ruleset::{ChainName, Family, SetName};
use crate::calc::SetId;
use crate::model::PolicyId;

/// What all our chains' names start with.
pub(crate) const CHAIN_PREFIX: &str = "mgy-";

/// What all our sets' names of a family start with.
pub(crate) fn set_prefix(family: Family) -> &'static str {
    match family {
        Family::V4 => "mgy4-",
        Family::V6 => "mgy6-",
    }
}

/// iptables takes 28 characters.
const CHAIN_LIMIT: usize = 28;

/// `mgy-<what>`.
pub(super) fn chain(what: &str) -> ChainName {
    ChainName(format!("{CHAIN_PREFIX}{what}").into())
}

/// `mgy-<what>-<namespace>.<name>`, or a hash in place of the names where those are too long. Names of Kubernetes never
/// start with `_`, so the two cannot be confused; and a namespace has no dot, so neither can two policies.
pub(super) fn policy_chain(what: &str, policy: &PolicyId) -> ChainName {
    let readable = format!("{CHAIN_PREFIX}{what}-{}.{}", policy.namespace, policy.name);
    if readable.len() <= CHAIN_LIMIT {
        return ChainName(readable.into());
    }
    let digest = Sha256::digest(policy.to_string().as_bytes());
    let hash: String = digest[..9].iter().map(|byte| format!("{byte:02x}")).collect();
    ChainName(format!("{CHAIN_PREFIX}{what}-_{hash}").into())
}

/// A set that is always there.
pub(super) fn fixed_set(family: Family, what: &str) -> SetName {
    SetName(format!("{}{what}", set_prefix(family)).into())
}

/// A set that policies use, in the `generation`th version of it.
pub(super) fn policy_set(family: Family, id: &SetId, generation: u32) -> SetName {
    SetName(format!("{}{}-{generation:x}", set_prefix(family), id.hash).into())
}

/// The hash and the generation of a set's name, where it is one that policies use.
pub(crate) fn parse_policy_set(name: &str) -> Option<(&str, u32)> {
    let rest = Family::ALL
        .iter()
        .find_map(|&family| name.strip_prefix(set_prefix(family)))?;
    let (hash, generation) = rest.split_once('-')?;
    Some((hash, u32::from_str_radix(generation, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::calc::SetKind;

    #[test]
    fn names_fit() {
        assert_eq!(
            policy_chain("pi", &PolicyId::new("shop", "allow-web")).to_string(),
            "mgy-pi-shop.allow-web"
        );
        let long = policy_chain("pi", &PolicyId::new("a-namespace", "a-rather-long-name"));
        assert_eq!(long.to_string(), "mgy-pi-_360b37f3368b3ae88d");
        assert!(long.0.len() <= CHAIN_LIMIT);
        let id = SetId {
            kind: SetKind::Nets,
            hash: Arc::from("abcdefghabcdefgh"),
            v4: true,
            v6: true,
        };
        let name = policy_set(Family::V6, &id, u32::MAX);
        assert_eq!(name.to_string(), "mgy6-abcdefghabcdefgh-ffffffff");
        assert!(name.0.len() <= 31);
        assert_eq!(parse_policy_set(&name.0), Some(("abcdefghabcdefgh", u32::MAX)));
        assert_eq!(parse_policy_set("mgy4-pools"), None);
        assert_eq!(parse_policy_set("cali40abc-1"), None);
    }
}
