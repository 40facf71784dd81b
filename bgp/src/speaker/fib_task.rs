//! The task that owns the forwarding plane.

use tokio::sync::{mpsc, oneshot};

use super::core::Event;
use crate::fib::{Fib, FibBatch};

/// What the core asks of the forwarding plane.
pub(super) enum FibCommand {
    Apply(FibBatch),
    Finish { flush: bool, done: oneshot::Sender<()> },
}

/// Carries out commands, and repairs meanwhile.
pub(super) async fn run_fib(mut fib: impl Fib, mut commands: mpsc::Receiver<FibCommand>, events: mpsc::Sender<Event>) {
    loop {
        let event = tokio::select! {
            command = commands.recv() => match command {
                Some(FibCommand::Apply(batch)) => {
                    fib.apply(batch).await;
                    Event::FibIdle
                }
                Some(FibCommand::Finish { flush, done }) => {
                    if flush {
                        fib.flush().await;
                    }
                    let _ = done.send(());
                    return;
                }
                None => return,
            },
            // Not within the select: what has begun is not begun again and again while commands come.
            () = fib.changed() => match fib.catch_up().await {
                Some(topology) => Event::Topology(topology),
                None => continue,
            },
        };
        if events.send(event).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::fib::{Started, Topology};

    /// A forwarding plane that always has something to repair.
    struct Damaged(Arc<AtomicBool>);

    impl Fib for Damaged {
        async fn start(&mut self) -> io::Result<Started> {
            Ok(Started::default())
        }

        async fn apply(&mut self, _: FibBatch) {
            tokio::task::yield_now().await;
        }

        async fn changed(&mut self) {}

        async fn catch_up(&mut self) -> Option<Topology> {
            self.0.store(true, Ordering::Relaxed);
            None
        }

        async fn flush(&mut self) {}
    }

    #[tokio::test]
    async fn repairs_get_their_turn_however_many_routes_change() {
        let repaired = Arc::new(AtomicBool::new(false));
        let (commands, receiver) = mpsc::channel(1);
        let (events, mut said) = mpsc::channel(256);
        tokio::spawn(run_fib(Damaged(repaired.clone()), receiver, events));
        tokio::spawn(async move { while said.recv().await.is_some() {} });
        for _ in 0..1000 {
            let sent = commands.send(FibCommand::Apply(FibBatch::default())).await;
            assert!(sent.is_ok());
        }
        assert!(repaired.load(Ordering::Relaxed));
    }
}
