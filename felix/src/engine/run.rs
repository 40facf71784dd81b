//! The engine's task.

use std::sync::Arc;

use super::EngineConfig;
use super::queue::Queue;
use super::status::Board;
use crate::calc::Calc;
use crate::dataplane::Dataplane;

/// Runs until the queue is closed.
pub(super) async fn run(_config: EngineConfig, _dataplane: Dataplane, queue: Arc<Queue>, board: Arc<Board>) {
    let mut calc = Calc::new();
    loop {
        let batch = queue.take();
        if batch.closed {
            return;
        }
        batch.updates.into_values().for_each(|update| calc.update(update));
        if batch.in_sync {
            calc.in_sync();
        }
        board.edit(|shown| shown.applied = batch.position);
        queue.changed().await;
    }
}
