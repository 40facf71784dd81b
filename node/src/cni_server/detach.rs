//! DEL, at once or from disk later, and what a failed ADD took.
//!
//! A runtime waits for a DEL, and a node that is drained has many: none waits for a part that does not answer. What is not
//! done soon is written down and done by [`Attacher::replay`].

use std::time::Duration;

use margay_cni::protocol::{Answer, Del};

use super::attach::{Attacher, handle};
use super::busy;
use super::parts::{Addresses, Links, Policy};
use crate::endpoints::{AttachmentKey, EndpointRecord, EndpointStore};
use crate::kube::watch::ObjectKey;

/// How long a DEL waits for any one part.
const PATIENCE: Duration = Duration::from_secs(5);

impl<A: Addresses, P: Policy, L: Links> Attacher<A, P, L> {
    /// Carries out DELs that were written down while they could not be. Says how many are left.
    pub async fn replay(&self) -> usize {
        let (entries, unusable) = match self.queue(|queue| queue.pending()).await {
            Ok(pending) => pending,
            Err(error) => {
                tracing::error!(%error, "queue of CNI DELs unreadable");
                return 0;
            }
        };
        for error in unusable {
            tracing::error!(%error, "queued CNI DEL unusable: its addresses stay allocated until the pod's node is cleaned");
        }
        let mut left = 0;
        for entry in entries {
            let _container = self
                .lock(format!("container {}", entry.del.attachment.container_id))
                .await;
            // An ADD may have carried it out and attached anew while this one waited for the lock.
            let attachment = entry.del.attachment.clone();
            match self.queue(move |queue| queue.find(&attachment)).await {
                Ok(Some(still)) if still.del == entry.del => {}
                _ => continue,
            }
            let del = self.as_recorded(&entry.del);
            if del != entry.del
                && let Err(error) = self.queue(move |queue| queue.push(&del)).await
            {
                tracing::error!(%error, "queued CNI DEL not kept under its network's earlier name");
            }
            match self.del_locked(&entry.del).await {
                Ok(()) => {
                    tracing::info!(container = %entry.del.attachment.container_id, "queued DEL carried out");
                    if let Err(error) = self.queue(move |queue| queue.done(&entry)).await {
                        tracing::error!(%error, "queued CNI DEL not removed");
                    }
                }
                Err(reason) => {
                    tracing::warn!(container = %entry.del.attachment.container_id, %reason, "queued DEL waits");
                    left += 1;
                }
            }
        }
        left
    }

    /// Takes back what a failed ADD did.
    pub(super) async fn undo(&self, record: &EndpointRecord) {
        if let Err(error) = self.forget(&record.key).await {
            tracing::error!(%error, container = %record.key.container, "failed ADD not undone; its DEL will do it");
            return;
        }
        self.release(&record.handle).await;
    }

    pub(super) async fn release(&self, handle: &str) {
        if let Err(error) = self.try_release(handle).await {
            tracing::warn!(%handle, %error, "addresses not released yet; the DEL will do it");
        }
    }

    pub(super) async fn del_or_queue(&self, del: Del) -> Answer {
        let del = self.as_recorded(&del);
        let Err(reason) = self.del(&del).await else {
            return Answer::Done;
        };
        let container = del.attachment.container_id.clone();
        match self.queue(move |queue| queue.push(&del)).await {
            Ok(()) => {
                tracing::warn!(%container, %reason, "DEL written down, to be finished later");
                Answer::Done
            }
            Err(error) => busy(format!("container {container}: {reason}; {error}"), ""),
        }
    }

    /// The DEL with the network's name of then: once the record is gone nothing else says how its addresses are held.
    fn as_recorded(&self, del: &Del) -> Del {
        let mut del = del.clone();
        del.attachment.network = self.key(&del.attachment).network;
        del
    }

    async fn del(&self, del: &Del) -> Result<(), String> {
        let _container = self.lock(format!("container {}", del.attachment.container_id)).await;
        let handle = self.take_down(del).await?;
        // A runtime need not wait for what most likely fails; the replay tries.
        if let Some(reason) = self.health.trouble_with("datastore") {
            return Err(format!("the API server is away: {reason}"));
        }
        self.try_release(&handle).await
    }

    /// A DEL by somebody who holds the container's lock.
    pub(super) async fn del_locked(&self, del: &Del) -> Result<(), String> {
        let handle = self.take_down(del).await?;
        self.try_release(&handle).await
    }

    /// Removes an attachment's record and link. What is left to release.
    async fn take_down(&self, del: &Del) -> Result<String, String> {
        let key = self.key(&del.attachment);
        let record = self.endpoints.lock().of_container(&key).cloned();
        let interface = match (&record, &del.pod) {
            (Some(record), _) => Some(record.interface.clone()),
            (None, Some(pod)) => {
                let pod = ObjectKey {
                    namespace: pod.namespace.clone(),
                    name: pod.name.clone(),
                };
                Some(self.interface(&pod, &key, PATIENCE).await?)
            }
            (None, None) => None,
        };
        if let Some(interface) = interface {
            // Held until the link is gone: a newer ADD of the pod waits, and then the link is not taken from under it.
            let _interface = self.lock(format!("interface {interface}")).await;
            self.forget(&key).await?;
            if !self.endpoints.lock().iter().any(|other| other.interface == interface) {
                self.links.delete(&interface).await?;
            }
        }
        let Some(record) = record else { return Ok(handle(&key)) };
        let pod = format!("{}/{}", record.namespace, record.pod);
        tracing::info!(%pod, container = %key.container, "detached");
        Ok(record.handle)
    }

    async fn forget(&self, key: &AttachmentKey) -> Result<(), String> {
        let removed = EndpointStore::remove(&self.endpoints, key).await;
        if removed.map_err(|error| error.to_string())?.is_some() {
            within("the policy engine has not been told", self.policy.changed()).await?;
        }
        Ok(())
    }

    async fn try_release(&self, handle: &str) -> Result<(), String> {
        within(
            "the API server has not released the addresses",
            self.addresses.release(handle),
        )
        .await?
    }
}

async fn within<T>(what: &str, work: impl Future<Output = T>) -> Result<T, String> {
    let done = tokio::time::timeout(PATIENCE, work).await;
    done.map_err(|_| format!("{what} within {} s", PATIENCE.as_secs()))
}
