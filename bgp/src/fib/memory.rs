//! A forwarding plane in memory, for tests and for speakers that only pass routes on.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ipnetwork::IpNetwork;
use tokio::sync::watch;

use super::{Fib, FibBatch, FibRoute, Started, Topology};

/// The forwarding plane; clones share their state.
#[derive(Clone, Debug)]
pub struct MemoryFib {
    state: Arc<Mutex<State>>,
    topology: watch::Sender<Topology>,
    changes: watch::Receiver<Topology>,
}

#[derive(Debug, Default)]
struct State {
    routes: BTreeMap<IpNetwork, FibRoute>,
    wanted: BTreeMap<IpNetwork, FibRoute>,
    removed: Vec<IpNetwork>,
}

impl MemoryFib {
    /// An empty forwarding plane on these networks.
    pub fn new(topology: Topology) -> Self {
        let (topology, changes) = watch::channel(topology);
        MemoryFib {
            state: Arc::default(),
            topology,
            changes,
        }
    }

    /// What is forwarded now.
    pub fn routes(&self) -> BTreeMap<IpNetwork, FibRoute> {
        self.state().routes.clone()
    }

    /// Every prefix that was removed at some time, in order.
    pub fn removed(&self) -> Vec<IpNetwork> {
        self.state().removed.clone()
    }

    /// Changes the networks.
    pub fn set_topology(&self, topology: Topology) {
        self.topology.send_replace(topology);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Fib for MemoryFib {
    async fn start(&mut self) -> io::Result<Started> {
        self.state().wanted.clear();
        let topology = self.changes.borrow_and_update().clone();
        Ok(Started {
            topology,
            restored: !self.state().routes.is_empty(),
        })
    }

    async fn apply(&mut self, batch: FibBatch) {
        let mut guard = self.state();
        let state = &mut *guard;
        for change in batch.changes {
            match change.route {
                Some(route) => {
                    state.wanted.insert(change.prefix, route.clone());
                    state.routes.insert(change.prefix, route);
                }
                None => {
                    state.wanted.remove(&change.prefix);
                    if state.routes.remove(&change.prefix).is_some() {
                        state.removed.push(change.prefix);
                    }
                }
            }
        }
        if batch.complete {
            let State {
                routes,
                wanted,
                removed,
            } = state;
            removed.extend(routes.keys().filter(|p| !wanted.contains_key(*p)));
            routes.retain(|prefix, _| wanted.contains_key(prefix));
        }
    }

    async fn changed(&mut self) {
        if self.changes.changed().await.is_err() {
            // This very value holds a sender, so the channel cannot close; wait like for any other event.
            std::future::pending::<()>().await;
        }
    }

    async fn catch_up(&mut self) -> Option<Topology> {
        Some(self.changes.borrow_and_update().clone())
    }

    async fn flush(&mut self) {
        let mut state = self.state();
        let all = std::mem::take(&mut state.routes);
        state.removed.extend(all.into_keys());
    }
}
