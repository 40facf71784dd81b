//! Addresses that an earlier agent took and was killed before it wrote down for whom: no DEL may ever come for them.

use std::collections::BTreeSet;
use std::time::Duration;

use margay_ipam::block::Allocation;

use super::attach::{Attacher, handle};
use super::parts::{Addresses, Links, Policy};
use crate::kube::watch::ObjectKey;

/// Time between two looks: longer than any ADD takes.
const PAUSE: Duration = Duration::from_secs(120);

impl<A: Addresses, P: Policy, L: Links> Attacher<A, P, L> {
    /// Releases, once, what is nobody's in two looks: held for a pod that is gone, without a record and without a queued
    /// DEL. Run it when the agent starts.
    pub async fn reclaim(&self) {
        let first = self.look().await;
        let second = self.look().await;
        for held in second.iter().filter(|held| first.contains(held)) {
            let (address, pod) = (held.address, held.pod().unwrap_or_default());
            match self.addresses.release_one(held).await {
                Ok(()) => tracing::info!(%address, %pod, handle = held.handle, "address released: an ADD left it"),
                Err(error) => tracing::warn!(%address, %pod, %error, "address that an ADD left not released"),
            }
        }
    }

    /// What is nobody's a while from now, or as soon after as that can be told.
    async fn look(&self) -> Vec<Allocation> {
        loop {
            tokio::time::sleep(PAUSE).await;
            // Until all is in sync, a pod may only seem to be gone.
            if self.blocker().is_some() {
                continue;
            }
            match self.nobodys().await {
                Ok(found) => return found,
                Err(error) => tracing::warn!(%error, "whether an ADD left addresses is not known yet"),
            }
        }
    }

    async fn nobodys(&self) -> Result<Vec<Allocation>, String> {
        let mut held = self.addresses.recover().await?;
        let queued = self.queue(|queue| queue.pending()).await;
        let (queued, _) = queued.map_err(|error| error.to_string())?;
        let mut known: BTreeSet<String> = queued
            .iter()
            .map(|entry| handle(&self.key(&entry.del.attachment)))
            .collect();
        known.extend(self.endpoints.lock().iter().map(|record| record.handle.clone()));
        held.retain(|held| {
            let of = |name: &str| held.attributes.get(name).cloned();
            // What is held for something else than a pod is not an ADD's.
            let (Some(namespace), Some(name), Some(handle)) = (of("namespace"), of("pod"), &held.handle) else {
                return false;
            };
            !known.contains(handle) && !self.pods.knows(&ObjectKey { namespace, name })
        });
        Ok(held)
    }
}
