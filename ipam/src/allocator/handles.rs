//! Handles: written before the block that is taken from, and after the one that is given back to.

use margay_api::v3::IPAMHandleSpec;

use super::{ATTEMPTS, Allocator, contention};
use crate::error::Error;
use crate::names::handle_name;
use crate::store::Store;

impl<S: Store> Allocator<S> {
    /// Notes that `count` more addresses of the block are the handle's, which is of a pod on `node`.
    pub(crate) async fn count_up(&self, handle: &str, node: &str, block: &str, count: u32) -> Result<(), Error> {
        let name = handle_name(handle);
        for attempt in 0..ATTEMPTS {
            let written = match self.read::<IPAMHandleSpec>(&name, attempt).await? {
                Some(stored) => {
                    let mut spec = stored.spec.clone();
                    *spec.block.entry(block.to_owned()).or_default() += count;
                    self.store.update(&stored, spec).await
                }
                None => {
                    let block = [(block.to_owned(), count)].into();
                    let spec = IPAMHandleSpec {
                        handle_id: handle.to_owned(),
                        block,
                        deleted: false,
                    };
                    self.store.create(spec, node).await
                }
            };
            match written {
                Ok(_) => return Ok(()),
                Err(error) if error.is_race() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(contention(format!("IPAMHandle {name}")))
    }

    /// Notes that `count` addresses of the block are no longer the handle's; a handle without any is removed.
    pub(crate) async fn count_down(&self, handle: &str, block: &str, count: u32) -> Result<(), Error> {
        let name = handle_name(handle);
        for attempt in 0..ATTEMPTS {
            let Some(stored) = self.read::<IPAMHandleSpec>(&name, attempt).await? else {
                return Ok(());
            };
            let mut spec = stored.spec.clone();
            if let Some(held) = spec.block.get_mut(block) {
                *held = held.saturating_sub(count);
            }
            spec.block.retain(|_, held| *held > 0);
            let written = if spec.block.is_empty() {
                self.store.delete(&stored).await
            } else {
                self.store.update(&stored, spec).await.map(drop)
            };
            match written {
                Ok(()) => return Ok(()),
                Err(error) if error.is_race() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(contention(format!("IPAMHandle {name}")))
    }
}
