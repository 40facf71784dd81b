//! The cluster that all manifests together describe.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use margay_api::{slim, validate};
use margay_felix::verdict::Cluster;

use super::document::{Located, Object};
use super::{ManifestError, Place};

/// The label that the API server gives every Namespace.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// Kinds that would make pods if a controller ran them.
const POD_MAKERS: [&str; 7] = [
    "CronJob",
    "DaemonSet",
    "Deployment",
    "Job",
    "ReplicaSet",
    "ReplicationController",
    "StatefulSet",
];

/// The objects read, and what a user should know about them.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// What decides.
    pub(crate) cluster: Cluster,
    /// What was passed over or assumed, one line each.
    pub(crate) warnings: Vec<String>,
    /// Where each object stands, by kind and full name.
    places: BTreeMap<(&'static str, String), Place>,
    /// Ignored objects by kind.
    ignored: BTreeMap<String, Vec<String>>,
}

impl State {
    pub(super) fn add(&mut self, objects: Vec<Located>) -> Result<(), ManifestError> {
        for Located { place, object } in objects {
            match object {
                Object::Namespace(mut namespace) => {
                    let name = namespace.metadata.name.clone();
                    self.claim("Namespace", &namespace.metadata, &place)?;
                    namespace.metadata.labels.insert(NAME_LABEL.to_owned(), name);
                    self.cluster.namespaces.push(namespace);
                }
                Object::Node(node) => {
                    self.claim("Node", &node.metadata, &place)?;
                    self.cluster.nodes.push(node);
                }
                Object::Pod(mut pod) => {
                    default_namespace(&mut pod.metadata);
                    self.claim("Pod", &pod.metadata, &place)?;
                    check_addresses(&pod, &place)?;
                    self.cluster.pods.push(pod);
                }
                Object::NetworkPolicy(mut policy) => {
                    default_namespace(&mut policy.metadata);
                    self.claim("NetworkPolicy", &policy.metadata, &place)?;
                    let policy = policy.defaulted();
                    check(&policy, &place)?;
                    self.warn_of_oddities(&policy, &place);
                    self.cluster.policies.push(policy);
                }
                Object::Other { kind, name } if POD_MAKERS.contains(&kind.as_str()) => {
                    let warning = format!("{place}: {kind} {name} is ignored: give the Pods that it makes");
                    self.warnings.push(warning);
                }
                Object::Other { kind, name } => self.ignored.entry(kind).or_default().push(name),
            }
        }
        Ok(())
    }

    /// Completes the cluster once everything is read.
    pub(super) fn finish(mut self) -> Result<Self, ManifestError> {
        for (kind, names) in std::mem::take(&mut self.ignored) {
            let warning = format!("{kind} {} ignored: has no say in NetworkPolicy", names.join(", "));
            self.warnings.push(warning);
        }
        let known: BTreeSet<&str> = self
            .cluster
            .namespaces
            .iter()
            .map(|one| one.metadata.name.as_str())
            .collect();
        let pods = self.cluster.pods.iter().map(|pod| &pod.metadata.namespace);
        let policies = self.cluster.policies.iter().map(|policy| &policy.metadata.namespace);
        let implied: BTreeSet<String> = pods
            .chain(policies)
            .filter(|name| !known.contains(name.as_str()))
            .cloned()
            .collect();
        for name in implied {
            // Every cluster has it, without further labels.
            if name != "default" {
                let warning = format!("Namespace {name} is in no manifest: taken to have no labels of its own");
                self.warnings.push(warning);
            }
            let mut namespace = slim::Namespace::default();
            namespace.metadata.labels.insert(NAME_LABEL.to_owned(), name.clone());
            namespace.metadata.name = name;
            self.cluster.namespaces.push(namespace);
        }
        self.warn_of_missing_addresses();
        Ok(self)
    }

    /// Takes an object's name, which only one may have.
    fn claim(&mut self, kind: &'static str, metadata: &slim::Metadata, place: &Place) -> Result<(), ManifestError> {
        let name = metadata.full_name();
        match self.places.insert((kind, name.clone()), place.clone()) {
            Some(first) => Err(place.invalid(format!("{kind} {name} is already at {first}"))),
            None => Ok(()),
        }
    }

    fn warn_of_oddities(&mut self, policy: &slim::NetworkPolicy, place: &Place) {
        let name = policy.metadata.full_name();
        let oddities = validate::network_policy_warnings(policy).into_iter();
        self.warnings
            .extend(oddities.map(|oddity| format!("{place}: NetworkPolicy {name}: {oddity}")));
    }

    fn warn_of_missing_addresses(&mut self) {
        let uses_blocks = self.cluster.policies.iter().any(|policy| {
            let ingress = policy.spec.ingress.iter().flat_map(|rule| &rule.from);
            let egress = policy.spec.egress.iter().flat_map(|rule| &rule.to);
            ingress.chain(egress).any(|peer| peer.ip_block.is_some())
        });
        let without: Vec<String> = self
            .cluster
            .pods
            .iter()
            .filter(|pod| pod.ips().is_empty() && !pod.is_finished())
            .map(|pod| pod.metadata.full_name())
            .collect();
        if uses_blocks && !without.is_empty() {
            self.warnings.push(format!(
                "no ipBlock matches {}: without status.podIPs their addresses are unknown",
                without.join(", ")
            ));
        }
    }
}

fn default_namespace(metadata: &mut slim::Metadata) {
    if metadata.namespace.is_empty() {
        "default".clone_into(&mut metadata.namespace);
    }
}

fn check_addresses(pod: &slim::Pod, place: &Place) -> Result<(), ManifestError> {
    let listed = pod.status.pod_ips.iter().map(|entry| entry.ip.as_str());
    let mut all = listed
        .chain([pod.status.pod_ip.as_str()])
        .filter(|text| !text.is_empty());
    match all.find(|text| text.parse::<IpAddr>().is_err()) {
        Some(text) => {
            let name = pod.metadata.full_name();
            Err(place.invalid(format!("Pod {name}: status.podIPs: {text:?} is not an IP address")))
        }
        None => Ok(()),
    }
}

fn check(policy: &slim::NetworkPolicy, place: &Place) -> Result<(), ManifestError> {
    match validate::network_policy(policy).first() {
        Some(violation) => {
            let name = policy.metadata.full_name();
            Err(place.invalid(format!(
                "NetworkPolicy {name}: {}: {}",
                violation.field, violation.message
            )))
        }
        None => Ok(()),
    }
}
