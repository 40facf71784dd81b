//! Whether IPAM knows of the addresses that pods of this node have.
//!
//! A Node that was deleted and came back, or a datastore put back from a backup, leaves pods with addresses that IPAM would
//! give out again.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use margay_api::slim::Object;
use margay_api::v3::IPAMBlockSpec;
use margay_ipam::Error;
use margay_ipam::store::Store;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use super::addresses::Ipam;
use crate::endpoints::{EndpointRecord, EndpointStore};
use crate::health::{Condition, Health};
use crate::kube::events::{Notice, Subject};
use crate::kube::resource::POD;

/// How long an address must be unknown to IPAM before it is claimed: an ADD's own block may be told of late.
const GRACE: Duration = Duration::from_secs(10);
/// The part of readiness about all this.
const PART: &str = "pod addresses";

/// An address that a pod has and IPAM does not count as the pod's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    /// The pod's attachment.
    pub record: EndpointRecord,
    /// The address.
    pub address: IpAddr,
    /// Who has it by IPAM's books; `None`: nobody.
    pub holder: Option<String>,
}

/// Compares attachments with blocks.
pub fn lost<'a>(
    blocks: impl Iterator<Item = &'a Object<IPAMBlockSpec>>,
    records: impl Iterator<Item = &'a EndpointRecord>,
) -> Vec<Lost> {
    let records: Vec<_> = records.collect();
    let addresses: BTreeSet<_> = records.iter().flat_map(|record| &record.addresses).collect();
    let mut holders = BTreeMap::new();
    for object in blocks {
        for (address, attribute) in object.spec.held().filter(|(address, _)| addresses.contains(address)) {
            let get = |key| attribute.secondary.get(key).map_or("", String::as_str);
            let holder = match (get("namespace"), get("pod"), get("node")) {
                (_, "", _) => "a holder without a name".to_owned(),
                (namespace, pod, node) => format!("pod {namespace}/{pod} on node {node}"),
            };
            holders.insert(address, (attribute.handle_id.as_deref(), holder));
        }
    }
    let mut lost = Vec::new();
    for record in records {
        for address in &record.addresses {
            let holder = holders.get(address);
            if holder.is_none_or(|(handle, _)| *handle != Some(record.handle.as_str())) {
                lost.push(Lost {
                    record: record.clone(),
                    address: *address,
                    holder: holder.map(|(_, holder)| holder.clone()),
                });
            }
        }
    }
    lost
}

/// What users must fix: addresses that two pods have.
pub fn faults(lost: &[Lost]) -> Vec<Notice> {
    lost.iter().filter_map(fault).collect()
}

fn fault(lost: &Lost) -> Option<Notice> {
    let (record, address, holder) = (&lost.record, lost.address, lost.holder.as_ref()?);
    Some(Notice {
        subject: Subject {
            resource: POD,
            namespace: record.namespace.clone(),
            name: record.pod.clone(),
            uid: record.pod_uid.clone(),
        },
        reason: "AddressTaken",
        message: format!(
            "its address {address} was given to {holder} as well; delete pod {}/{}, and it comes back with another",
            record.namespace, record.pod
        ),
        warning: true,
    })
}

/// Claims addresses that nobody has by IPAM's books, once they have been lost for a while, and shows what is wrong; until
/// the sender of `lost` is gone.
pub async fn keep<S: Store + 'static>(
    ipam: Arc<Ipam<S>>,
    endpoints: Arc<Mutex<EndpointStore>>,
    mut lost: watch::Receiver<Vec<Lost>>,
    health: Health,
) {
    let mut since: BTreeMap<(String, IpAddr), Instant> = BTreeMap::new();
    loop {
        let now = lost.borrow_and_update().clone();
        let key = |lost: &Lost| (lost.record.handle.clone(), lost.address);
        since.retain(|known, _| now.iter().any(|lost| key(lost) == *known));
        let mut troubles: Vec<_> = faults(&now)
            .into_iter()
            .map(|fault| {
                format!(
                    "pod {}/{}: {}",
                    fault.subject.namespace, fault.subject.name, fault.message
                )
            })
            .collect();
        for lost in now.iter().filter(|lost| lost.holder.is_none()) {
            let begun = *since.entry(key(lost)).or_insert_with(Instant::now);
            if begun.elapsed() < GRACE {
                continue;
            }
            let claimed = ipam.claim(&lost.record, lost.address, &endpoints).await;
            // A store that fails says nothing about the address: it may be in the books after all.
            if let Err(why) = claimed
                && !matches!(why, Error::Store(_))
            {
                let (namespace, pod) = (&lost.record.namespace, &lost.record.pod);
                troubles.push(format!(
                    "pod {namespace}/{pod}: its address {} is not in IPAM's books any more: {why}; \
                     delete the pod, and it comes back with another",
                    lost.address
                ));
            }
        }
        if troubles.is_empty() {
            health.forget(PART);
        } else {
            health.set(PART, Condition::Degraded(troubles.join("; ")));
        }
        let waiting = !now.is_empty();
        tokio::select! {
            changed = lost.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(GRACE), if waiting => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::blocks::tests::block;
    use super::*;
    use crate::endpoints;

    fn record(pod: &str, address: &str) -> EndpointRecord {
        EndpointRecord {
            pod: pod.into(),
            addresses: vec![address.parse().unwrap()],
            ..endpoints::tests::record(pod)
        }
    }

    #[test]
    fn addresses_that_ipam_does_not_count_as_the_pods_are_found() {
        let blocks = [block(
            "10.244.0.0/26",
            "n1",
            &[(1, "shop", "a", "n1"), (2, "shop", "stranger", "n2")],
        )];
        let records = [
            record("a", "10.244.0.1"),
            record("b", "10.244.0.2"),
            record("c", "10.244.0.3"),
            record("d", "10.244.9.9"),
        ];
        let lost = lost(blocks.iter(), records.iter());
        let found: Vec<_> = lost
            .iter()
            .map(|l| (l.record.pod.as_str(), l.holder.as_deref()))
            .collect();
        assert_eq!(
            found,
            [("b", Some("pod shop/stranger on node n2")), ("c", None), ("d", None)]
        );
        let faults = faults(&lost);
        assert_eq!((faults.len(), faults[0].subject.name.as_str()), (1, "b"));
        let told = &faults[0].message;
        assert!(
            told.contains("10.244.0.2") && told.contains("shop/stranger") && told.contains("delete pod shop/b"),
            "{told}"
        );
    }
}
