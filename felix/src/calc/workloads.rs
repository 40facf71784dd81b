//! Namespaces, workloads and this node's attachments, as they were told.

use std::net::IpAddr;
use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};

use crate::model::{Attachment, EndpointId, EndpointSelector, NamedPort, Namespace, Namespaces, Workload};

#[derive(Debug, Default)]
pub(super) struct Workloads {
    namespaces: FxHashMap<Arc<str>, Namespace>,
    workloads: FxHashMap<EndpointId, Workload>,
    members: FxHashMap<Arc<str>, FxHashSet<EndpointId>>,
    attachments: FxHashMap<EndpointId, Attachment>,
}

/// What an endpoint brings into the sets that select it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Contribution {
    pub(super) addresses: Vec<IpAddr>,
    pub(super) ports: Vec<NamedPort>,
}

/// An endpoint of this node.
pub(super) struct Local<'a> {
    pub(super) attachment: &'a Attachment,
    /// Its workload, once known.
    pub(super) workload: Option<&'a Workload>,
}

impl Workloads {
    pub(super) fn set_namespace(&mut self, name: &Arc<str>, value: Option<Namespace>) {
        match value {
            Some(namespace) => _ = self.namespaces.insert(name.clone(), namespace),
            None => _ = self.namespaces.remove(name),
        }
    }

    pub(super) fn set_workload(&mut self, id: &EndpointId, value: Option<Workload>) {
        let Some(workload) = value else {
            self.workloads.remove(id);
            if let Some(members) = self.members.get_mut(&id.namespace) {
                members.remove(id);
                if members.is_empty() {
                    self.members.remove(&id.namespace);
                }
            }
            return;
        };
        if self.workloads.insert(id.clone(), workload).is_none() {
            self.members.entry(id.namespace.clone()).or_default().insert(id.clone());
        }
    }

    pub(super) fn set_attachment(&mut self, id: &EndpointId, value: Option<Attachment>) {
        match value {
            Some(attachment) => _ = self.attachments.insert(id.clone(), attachment),
            None => _ = self.attachments.remove(id),
        }
    }

    pub(super) fn namespace(&self, name: &str) -> Option<&Namespace> {
        self.namespaces.get(name)
    }

    pub(super) fn namespaces(&self) -> impl Iterator<Item = (&Arc<str>, &Namespace)> {
        self.namespaces.iter()
    }

    /// The workloads of a namespace, known or not.
    pub(super) fn in_namespace(&self, name: &str) -> impl Iterator<Item = &EndpointId> {
        self.members.get(name).into_iter().flatten()
    }

    pub(super) fn local(&self, id: &EndpointId) -> Option<Local<'_>> {
        let attachment = self.attachments.get(id)?;
        let workload = self.workloads.get(id).filter(|workload| workload.uid == attachment.uid);
        Some(Local { attachment, workload })
    }

    /// This node's endpoints whose workload is known.
    pub(super) fn locals(&self) -> impl Iterator<Item = (&EndpointId, &Workload)> {
        self.attachments
            .keys()
            .filter_map(|id| Some((id, self.local(id)?.workload?)))
    }

    pub(super) fn contribution(&self, id: &EndpointId) -> Option<Contribution> {
        let workload = self.workloads.get(id)?;
        if workload.finished {
            return None;
        }
        let attachment = self
            .attachments
            .get(id)
            .filter(|attachment| attachment.uid == workload.uid);
        let addresses = attachment.map_or(&workload.addresses, |attachment| &attachment.addresses);
        Some(Contribution {
            addresses: addresses.clone(),
            ports: workload.ports.clone(),
        })
    }

    /// Whether the selector matches the endpoint's workload.
    pub(super) fn selects(&self, selector: &EndpointSelector, id: &EndpointId) -> bool {
        self.workloads
            .get(id)
            .is_some_and(|workload| self.matches(selector, id, workload))
    }

    /// Whether the selector matches a workload of that name.
    pub(super) fn matches(&self, selector: &EndpointSelector, id: &EndpointId, workload: &Workload) -> bool {
        let namespace = match &selector.namespaces {
            Namespaces::Named(name) => *name == id.namespace,
            Namespaces::Matching(labels) => self
                .namespace(&id.namespace)
                .is_some_and(|ns| labels.matches(&ns.labels)),
        };
        namespace && selector.labels.matches(&workload.labels)
    }
}
