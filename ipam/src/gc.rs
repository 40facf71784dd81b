//! Mending what nobody comes back for.

use std::collections::{BTreeMap, BTreeSet};

use margay_api::cidr;
use margay_api::v3::{IPAMBlockSpec, IPAMHandleSpec};

use crate::allocator::Allocator;
use crate::block;
use crate::error::Error;
use crate::names::{block_name, handle_name};
use crate::store::{Store, StoreError, Stored};

/// Finds handles without addresses, addresses without handles, and empty blocks of nobody, and mends what it has seen
/// unchanged in two passes. It frees no address: one without a handle gets its handle back.
#[derive(Clone, Debug, Default)]
pub struct Collector {
    /// Revision of each suspicious object in the last pass.
    suspects: BTreeMap<String, String>,
}

/// What a pass mended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Handles that had no address and are removed.
    pub handles_removed: Vec<String>,
    /// Handles that were missing and are back.
    pub handles_restored: Vec<String>,
    /// Empty blocks of nobody that are removed.
    pub blocks_removed: Vec<String>,
}

impl Collector {
    /// One pass. Leave time between passes for operations to end; a minute is plenty.
    ///
    /// # Errors
    /// When the store fails; what was seen before is kept.
    pub async fn pass<S: Store>(&mut self, allocator: &Allocator<S>) -> Result<Collected, Error> {
        let store = allocator.store();
        let handles = store.list::<IPAMHandleSpec>(None).await?;
        let blocks = store.list::<IPAMBlockSpec>(None).await?;
        let mut seen = BTreeMap::new();
        let mut collected = Collected::default();

        let in_use: BTreeSet<String> = blocks.iter().flat_map(|stored| handles_in(&stored.spec)).collect();
        for stored in handles.iter().filter(|stored| !in_use.contains(&stored.spec.handle_id)) {
            let key = format!("handle {}", stored.name);
            if self.is_confirmed(&key, &stored.revision)
                && !self.has_addresses(store, &stored.spec).await?
                && done(store.delete(stored).await)?
            {
                collected.handles_removed.push(stored.spec.handle_id.clone());
            }
            seen.insert(key, stored.revision.clone());
        }

        let known: BTreeSet<&str> = handles.iter().map(|stored| stored.name.as_str()).collect();
        for stored in &blocks {
            for handle in handles_in(&stored.spec)
                .into_iter()
                .filter(|h| !known.contains(handle_name(h).as_str()))
            {
                let key = format!("addresses {} {handle}", stored.name);
                if self.is_confirmed(&key, &stored.revision) && self.restore(allocator, stored, &handle).await? {
                    collected.handles_restored.push(handle);
                }
                seen.insert(key, stored.revision.clone());
            }
            if stored.spec.affinity.is_none() && block::is_empty(&stored.spec) {
                let key = format!("block {}", stored.name);
                if self.is_confirmed(&key, &stored.revision) && done(store.delete(stored).await)? {
                    collected.blocks_removed.push(stored.spec.cidr.clone());
                }
                seen.insert(key, stored.revision.clone());
            }
        }
        self.suspects = seen;
        Ok(collected)
    }

    fn is_confirmed(&self, key: &str, revision: &str) -> bool {
        self.suspects.get(key).is_some_and(|before| before == revision)
    }

    async fn has_addresses<S: Store>(&self, store: &S, handle: &IPAMHandleSpec) -> Result<bool, Error> {
        for network in handle.block.keys().filter_map(|text| cidr::parse(text).ok()) {
            let stored = store.get_latest::<IPAMBlockSpec>(&block_name(network)).await?;
            if stored.is_some_and(|stored| handles_in(&stored.spec).contains(&handle.handle_id)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn restore<S: Store>(
        &self,
        allocator: &Allocator<S>,
        seen: &Stored<IPAMBlockSpec>,
        handle: &str,
    ) -> Result<bool, Error> {
        let store = allocator.store();
        let current = store.get_latest::<IPAMBlockSpec>(&seen.name).await?;
        let missing = store
            .get_latest::<IPAMHandleSpec>(&handle_name(handle))
            .await?
            .is_none();
        let Some(current) = current.filter(|current| missing && current.revision == seen.revision) else {
            return Ok(false);
        };
        let mut held = block::allocations(&current.spec);
        held.retain(|allocation| allocation.handle.as_deref() == Some(handle));
        let holder = held.first().and_then(|first| block::holder(&current.spec, first));
        let node = holder.unwrap_or_default();
        allocator
            .count_up(handle, node, &current.spec.cidr, held.len() as u32)
            .await?;
        Ok(true)
    }
}

fn handles_in(block: &IPAMBlockSpec) -> BTreeSet<String> {
    block::allocations(block)
        .into_iter()
        .filter_map(|allocation| allocation.handle)
        .collect()
}

fn done(result: Result<(), StoreError>) -> Result<bool, StoreError> {
    match result {
        Ok(()) => Ok(true),
        Err(error) if error.is_race() => Ok(false),
        Err(error) => Err(error),
    }
}
