//! Updates on their way to the engine: at most one a key, so that the queue is never longer than the cluster is large.

use std::collections::HashMap;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::model::{Key, Update};

/// The queue between any number of callers and the engine's task.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: Mutex<Batch>,
    wake: Notify,
}

/// What one turn of the engine takes from the queue.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) updates: HashMap<Key, Update>,
    pub(super) in_sync: bool,
    pub(super) closed: bool,
    /// Counts everything that was ever queued, this batch included.
    pub(super) position: u64,
}

impl Queue {
    pub(super) fn push(&self, update: Update) {
        self.edit(|batch| {
            batch.updates.insert(update.key(), update);
        });
    }

    pub(super) fn mark_in_sync(&self) {
        self.edit(|batch| batch.in_sync = true);
    }

    pub(super) fn close(&self) {
        self.edit(|batch| batch.closed = true);
    }

    /// How much has been queued so far.
    pub(super) fn position(&self) -> u64 {
        self.waiting.lock().position
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.lock().updates.len()
    }

    /// Takes all that waits. `in_sync` and `closed` stay once they were set.
    pub(super) fn take(&self) -> Batch {
        let mut waiting = self.waiting.lock();
        let empty = Batch {
            position: waiting.position,
            in_sync: waiting.in_sync,
            closed: waiting.closed,
            ..Batch::default()
        };
        std::mem::replace(&mut waiting, empty)
    }

    /// Returns once something may have been queued since the last call.
    pub(super) async fn changed(&self) {
        self.wake.notified().await;
    }

    fn edit(&self, edit: impl FnOnce(&mut Batch)) {
        let mut waiting = self.waiting.lock();
        waiting.position += 1;
        edit(&mut waiting);
        self.wake.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Namespace, Update};

    #[test]
    fn one_update_a_key_and_the_last_one_counts() {
        let queue = Queue::default();
        queue.push(Update::Namespace("a".into(), Some(Namespace::default())));
        queue.push(Update::Namespace("b".into(), None));
        queue.push(Update::Namespace("a".into(), None));
        queue.mark_in_sync();
        assert_eq!(queue.len(), 2);
        let batch = queue.take();
        assert_eq!(
            batch.updates[&Key::Namespace("a".into())],
            Update::Namespace("a".into(), None)
        );
        assert_eq!((batch.in_sync, batch.position, queue.len()), (true, 4, 0));
        assert!(queue.take().in_sync, "in sync stays");
    }
}
