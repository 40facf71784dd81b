//! Which IP pools can be used. Pure.

use ipnetwork::IpNetwork;
use margay_api::slim::Object;
use margay_api::v3::IPPoolSpec;
use margay_api::validate::PoolRef;
use margay_api::{support, validate};
use margay_felix::model::Pool;

use crate::agent::table::Table;
use crate::kube::events::{Notice, Subject};
use crate::kube::resource::IP_POOL;

/// Pools and what users must fix.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Pools<'a> {
    /// Those that can be used, by network.
    pub valid: Vec<(IpNetwork, &'a Object<IPPoolSpec>)>,
    /// Those that count as absent, and why.
    pub faults: Vec<Notice>,
}

/// Sorts sound pools from others: one that is invalid, or overlaps an older one, counts as absent.
pub fn sort(pools: &Table<Object<IPPoolSpec>>) -> Pools<'_> {
    let mut result = Pools::default();
    let mut sound = Vec::new();
    for pool in pools.iter() {
        let json = serde_json::to_value(&pool.spec).unwrap_or_default();
        let violations = validate::ip_pool(&pool.spec)
            .into_iter()
            .chain(support::check("IPPool", &json));
        let texts: Vec<_> = violations
            .map(|violation| format!("{}: {}", violation.field, violation.message))
            .collect();
        match pool.spec.network() {
            Ok(network) if texts.is_empty() => sound.push((network, pool)),
            _ => result.faults.push(notice(
                pool,
                "IPPoolInvalid",
                format!("{}; the pool is not used", texts.join("; ")),
            )),
        }
    }
    let references = sound.iter().map(|(_, pool)| PoolRef {
        name: &pool.metadata.name,
        created: pool.metadata.creation_timestamp.as_deref(),
        spec: &pool.spec,
    });
    let overlapping = validate::overlapping_pools(references);
    for (network, pool) in sound {
        match overlapping.get(&pool.metadata.name) {
            None => result.valid.push((network, pool)),
            Some(violation) => result
                .faults
                .push(notice(pool, "IPPoolOverlaps", violation.message.clone())),
        }
    }
    result
}

impl Pools<'_> {
    /// What the policy engine needs to know of them.
    pub fn for_policy(&self) -> impl Iterator<Item = (IpNetwork, Pool)> + '_ {
        self.valid.iter().map(|(network, pool)| {
            (
                *network,
                Pool {
                    nat_outgoing: pool.spec.nat_outgoing(),
                },
            )
        })
    }
}

fn notice(pool: &Object<IPPoolSpec>, reason: &'static str, message: String) -> Notice {
    let subject = Subject {
        resource: IP_POOL,
        namespace: String::new(),
        name: pool.metadata.name.clone(),
        uid: pool.metadata.uid.clone(),
    };
    Notice {
        subject,
        reason,
        message,
        warning: true,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_invalid_pool_and_the_newer_of_two_that_overlap_are_absent() {
        let pools: Vec<Object<IPPoolSpec>> = serde_json::from_value(json!([
            {"metadata": {"name": "a", "creationTimestamp": "2026-02-01T00:00:00Z"}, "spec": {"cidr": "10.244.0.0/16"}},
            {"metadata": {"name": "b", "creationTimestamp": "2026-01-01T00:00:00Z"},
             "spec": {"cidr": "10.244.128.0/17", "natOutgoing": true}},
            {"metadata": {"name": "bits", "creationTimestamp": "2026-01-01T00:00:00Z"}, "spec": {"cidr": "10.9.0.1/16"}},
            {"metadata": {"name": "tunnel", "creationTimestamp": "2026-01-01T00:00:00Z"},
             "spec": {"cidr": "10.8.0.0/16", "vxlanMode": "Always"}},
        ]))
        .unwrap();
        let table: Table<_> = pools.into_iter().collect();
        let sorted = sort(&table);
        let valid: Vec<_> = sorted
            .for_policy()
            .map(|(network, pool)| (network.to_string(), pool.nat_outgoing))
            .collect();
        assert_eq!(valid, [("10.244.128.0/17".to_owned(), true)]);
        let faults: Vec<_> = sorted
            .faults
            .iter()
            .map(|fault| (fault.subject.name.as_str(), fault.reason))
            .collect();
        assert_eq!(
            faults,
            [
                ("bits", "IPPoolInvalid"),
                ("tunnel", "IPPoolInvalid"),
                ("a", "IPPoolOverlaps")
            ]
        );
        assert!(
            sorted.faults[1].message.contains("vxlanMode"),
            "{}",
            sorted.faults[1].message
        );
    }
}
