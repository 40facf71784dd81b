//! The cluster's objects as updates for the policy engine. Pure.
//!
//! A pod's addresses are those its IPAM blocks name it as holder of, together with those in its status that no block gives
//! to another pod: so a new pod's address is known before the kubelet reports it, and an address that went to another
//! pod stops counting for the old one.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use margay_api::slim::{Metadata, Pod};
use margay_felix::convert::{self, Problem};
use margay_felix::model::{Attachment, EndpointId, Pool, Update, Workload};

use super::blocks::{self, PodName};
use super::cluster::{Altered, Cluster};
use crate::endpoints::EndpointRecord;
use crate::kube::watch::ObjectKey;

/// Annotation of a mirror pod: the hash that the runtime knows a static pod by.
const MIRROR: &str = "kubernetes.io/config.mirror";

/// Turns what changed into updates; remembers only what it needs to find out what a change concerns.
#[derive(Debug, Default)]
pub struct PolicyFeed {
    by_block: BTreeMap<ObjectKey, BTreeMap<IpAddr, PodName>>,
    holders: HashMap<IpAddr, PodName>,
    held: BTreeMap<PodName, BTreeSet<IpAddr>>,
    reported: HashMap<IpAddr, BTreeSet<ObjectKey>>,
    /// The same the other way round.
    reports: HashMap<ObjectKey, BTreeSet<IpAddr>>,
    pools: BTreeMap<IpNetwork, Pool>,
    attachments: BTreeMap<EndpointId, Attachment>,
    /// Pods once more, for their further interfaces.
    further: BTreeMap<EndpointId, Workload>,
}

/// What came of one round.
#[derive(Debug, Default)]
pub struct Fed {
    /// For the engine, in no particular order.
    pub updates: Vec<Update>,
    /// For each policy converted in this round, what its author must fix; empty when it is sound.
    pub policies: BTreeMap<ObjectKey, Vec<Problem>>,
}

impl PolicyFeed {
    /// The updates that follow from `altered`. `pools` are the valid pools, `records` this node's attachments.
    pub fn round<'a>(
        &mut self,
        cluster: &Cluster,
        altered: &Altered,
        pools: impl Iterator<Item = (IpNetwork, Pool)>,
        records: impl Iterator<Item = &'a EndpointRecord>,
    ) -> Fed {
        let mut fed = Fed::default();
        for key in &altered.namespaces {
            fed.updates.push(match cluster.namespaces.get(key) {
                Some(namespace) => convert::namespace(namespace),
                None => Update::Namespace(key.name.as_str().into(), None),
            });
        }
        for key in &altered.policies {
            let (update, problems) = match cluster.policies.get(key) {
                Some(policy) => convert::network_policy(policy),
                None => (Update::Policy(convert::policy_id(&metadata(key)), None), Vec::new()),
            };
            fed.updates.push(update);
            fed.policies.insert(key.clone(), problems);
        }
        let mut pods = altered.pods.clone();
        for key in &altered.blocks {
            self.block(cluster, key, &mut pods);
        }
        for key in &altered.pods {
            self.index_status(cluster, key);
        }
        for key in &pods {
            fed.updates.push(self.workload(cluster, key));
        }
        if altered.pools {
            self.pools(pools, &mut fed.updates);
        }
        self.attachments(cluster, records, &mut fed.updates);
        fed
    }

    /// Takes in one block and adds the pods that it concerns.
    fn block(&mut self, cluster: &Cluster, key: &ObjectKey, concerned: &mut BTreeSet<ObjectKey>) {
        let new = cluster
            .blocks
            .get(key)
            .map(|block| blocks::pods(&block.spec))
            .unwrap_or_default();
        let old = self.by_block.remove(key).unwrap_or_default();
        let addresses: BTreeSet<_> = old.keys().chain(new.keys()).copied().collect();
        for address in addresses {
            let (before, after) = (old.get(&address), new.get(&address));
            if before == after {
                continue;
            }
            if let Some(pod) = before {
                // Another block that was taken in before this one may have it by now.
                if self.holders.get(&address) == Some(pod) {
                    self.holders.remove(&address);
                }
                if let Some(held) = self.held.get_mut(pod) {
                    held.remove(&address);
                    if held.is_empty() {
                        self.held.remove(pod);
                    }
                }
                concerned.insert(object_key(pod));
            }
            if let Some(pod) = after {
                self.holders.insert(address, pod.clone());
                self.held.entry(pod.clone()).or_default().insert(address);
                concerned.insert(object_key(pod));
            }
            concerned.extend(self.reported.get(&address).into_iter().flatten().cloned());
        }
        if !new.is_empty() {
            self.by_block.insert(key.clone(), new);
        }
    }

    fn index_status(&mut self, cluster: &Cluster, key: &ObjectKey) {
        let now: BTreeSet<_> = cluster
            .pods
            .get(key)
            .map(Pod::ips)
            .unwrap_or_default()
            .into_iter()
            .collect();
        let before = self.reports.remove(key).unwrap_or_default();
        for address in before.difference(&now) {
            if let Some(keys) = self.reported.get_mut(address) {
                keys.remove(key);
                if keys.is_empty() {
                    self.reported.remove(address);
                }
            }
        }
        for address in &now {
            self.reported.entry(*address).or_default().insert(key.clone());
        }
        if !now.is_empty() {
            self.reports.insert(key.clone(), now);
        }
    }

    fn workload(&self, cluster: &Cluster, key: &ObjectKey) -> Update {
        let Some(pod) = cluster.pods.get(key) else {
            return Update::Workload(convert::endpoint_id(&metadata(key)), None);
        };
        let mut update = convert::pod(pod);
        if let Update::Workload(_, Some(workload)) = &mut update {
            let name = (key.namespace.clone(), key.name.clone());
            workload
                .addresses
                .retain(|address| self.holders.get(address).is_none_or(|holder| *holder == name));
            for address in self.held.get(&name).into_iter().flatten() {
                if !workload.addresses.contains(address) {
                    workload.addresses.push(*address);
                }
            }
        }
        update
    }

    fn pools(&mut self, pools: impl Iterator<Item = (IpNetwork, Pool)>, updates: &mut Vec<Update>) {
        let now: BTreeMap<_, _> = pools.collect();
        for cidr in self.pools.keys().filter(|cidr| !now.contains_key(cidr)) {
            updates.push(Update::Pool(*cidr, None));
        }
        for (cidr, pool) in now.iter().filter(|(cidr, pool)| self.pools.get(cidr) != Some(pool)) {
            updates.push(Update::Pool(*cidr, Some(*pool)));
        }
        self.pools = now;
    }

    fn attachments<'a>(
        &mut self,
        cluster: &Cluster,
        records: impl Iterator<Item = &'a EndpointRecord>,
        updates: &mut Vec<Update>,
    ) {
        // A pod has one sandbox at a time; a new one replaces the old one before its DEL arrives.
        let records: Vec<_> = records.collect();
        let mut newest: BTreeMap<(&str, &str), &EndpointRecord> = BTreeMap::new();
        for record in &records {
            let entry = newest.entry((&record.namespace, &record.pod)).or_insert(record);
            if record.sequence > entry.sequence {
                *entry = record;
            }
        }
        let is_living = |record: &&EndpointRecord| {
            newest[&(record.namespace.as_str(), record.pod.as_str())].key.container == record.key.container
        };
        let now: BTreeMap<_, _> = records
            .into_iter()
            .filter(is_living)
            .map(|record| (endpoint_id(record), attachment(cluster, record)))
            .collect();
        self.further(cluster, &now, updates);
        updates.extend(differences(&self.attachments, &now, Update::Attachment));
        self.attachments = now;
    }

    /// The pod again for each of its further interfaces: the same but for its address.
    fn further(&mut self, cluster: &Cluster, now: &BTreeMap<EndpointId, Attachment>, updates: &mut Vec<Update>) {
        let mut further = BTreeMap::new();
        for (id, attachment) in now {
            let Some((pod, _)) = id.name.split_once('/') else {
                continue;
            };
            let key = object_key(&(id.namespace.to_string(), pod.to_owned()));
            if let Some(Update::Workload(_, Some(mut workload))) = cluster.pods.get(&key).map(convert::pod) {
                workload.addresses = attachment.addresses.clone();
                further.insert(id.clone(), workload);
            }
        }
        updates.extend(differences(&self.further, &further, Update::Workload));
        self.further = further;
    }
}

/// What leads from `old` to `now`: what is gone, then what is new or other.
fn differences<T: PartialEq + Clone>(
    old: &BTreeMap<EndpointId, T>,
    now: &BTreeMap<EndpointId, T>,
    update: impl Fn(EndpointId, Option<T>) -> Update,
) -> Vec<Update> {
    let gone = old.keys().filter(|id| !now.contains_key(id));
    let changed = now.iter().filter(|(id, value)| old.get(id) != Some(value));
    gone.map(|id| update(id.clone(), None))
        .chain(changed.map(|(id, value)| update(id.clone(), Some(value.clone()))))
        .collect()
}

/// The policy engine's name of an attachment: the pod's, and for a further interface of the pod one that no pod has.
pub fn endpoint_id(record: &EndpointRecord) -> EndpointId {
    endpoint(&record.namespace, &record.pod, &record.key.ifname)
}

/// As [`endpoint_id`], of its parts.
pub fn endpoint(namespace: &str, pod: &str, ifname: &str) -> EndpointId {
    match ifname {
        "eth0" => EndpointId::new(namespace, pod),
        further => EndpointId::new(namespace, &format!("{pod}/{further}")),
    }
}

/// Whether the Pod object is the incarnation that the runtime means by `runtime_uid`: its UID or, for a static pod, the
/// hash of its configuration, which its mirror carries as an annotation. Runtimes older than CNI's `K8S_POD_UID` give
/// none: then the name decides.
pub fn is_incarnation(pod: &Pod, runtime_uid: &str) -> bool {
    runtime_uid.is_empty()
        || pod.metadata.uid == runtime_uid
        || pod
            .metadata
            .annotations
            .get(MIRROR)
            .is_some_and(|hash| hash == runtime_uid)
}

fn attachment(cluster: &Cluster, record: &EndpointRecord) -> Attachment {
    let key = ObjectKey {
        namespace: record.namespace.clone(),
        name: record.pod.clone(),
    };
    // A mirror pod that was deleted by hand comes back with another UID and the same hash.
    let current = cluster
        .pods
        .get(&key)
        .filter(|pod| is_incarnation(pod, &record.runtime_uid));
    Attachment {
        uid: current.map_or(record.pod_uid.as_str(), |pod| &pod.metadata.uid).into(),
        interface: record.interface.as_str().into(),
        addresses: record.addresses.clone(),
    }
}

fn object_key(pod: &PodName) -> ObjectKey {
    ObjectKey {
        namespace: pod.0.clone(),
        name: pod.1.clone(),
    }
}

fn metadata(key: &ObjectKey) -> Metadata {
    Metadata {
        namespace: key.namespace.clone(),
        name: key.name.clone(),
        ..Metadata::default()
    }
}

#[cfg(test)]
#[path = "policy_feed/tests.rs"]
mod tests;
