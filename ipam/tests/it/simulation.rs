//! Several nodes at once on a store that loses, delays, conflicts and lags, killed at any moment.
//!
//! Each seed is one deterministic run. After every poll of every node no address is given twice and no block has two
//! owners; once all have recovered and the collector has run, nothing is leaked. No agent writes what its rights do not allow.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::executor::block_on;
use futures::task::noop_waker;
use margay_api::v3::{IPAMBlockSpec, IPAMHandleSpec};
use margay_ipam::gc::Collector;
use margay_ipam::store::memory::{Chaos, Memory};
use margay_ipam::store::{Resource, Settings, Store, StoreError, Stored};
use margay_ipam::{Allocator, Error};

use crate::harness::{Random, check_always, check_settled, pool, request, settings};
use crate::rights::Guarded;

type Running = Pin<Box<dyn Future<Output = Outcome>>>;

enum Outcome {
    Assigned(String, Result<Vec<IpAddr>, Error>),
    Released(String, Result<(), Error>),
    Recovered(Result<(), Error>),
    Collected(Collector),
    Nothing,
}

/// One node: its agent, what it believes it has, and what it does not know the fate of.
struct Node {
    name: String,
    /// Operations in flight, each with a number of its own.
    running: Vec<(u64, Running)>,
    /// Whether the agent has mended what the one before it left; until then it does nothing else.
    recovered: bool,
    held: BTreeMap<String, Vec<IpAddr>>,
    /// Handles that something may be assigned to, but are not held.
    unsure: Vec<String>,
    /// Handles of operations in flight: a runtime never runs two for one container.
    busy: Vec<String>,
    next: u32,
    gone: bool,
}

/// Most operations in flight on a node.
const PARALLEL: usize = 3;

struct World<S> {
    random: Random,
    memory: Memory,
    store: S,
    nodes: Vec<Node>,
    controller: Option<Running>,
    collector: Collector,
    /// Operations that were in flight when the collector's last pass ended: the next waits for them.
    passed: Vec<u64>,
    operations: u64,
    /// Writes and assignments at the last check: without new ones nothing can have gone wrong.
    checked: (u64, u64),
    assigned: u64,
    crashes: u64,
}

impl<S: Store + Clone + 'static> World<S> {
    fn new(seed: u64, memory: Memory, store: S) -> Self {
        let mut random = Random(seed);
        let node = |n| Node {
            name: format!("node{n}"),
            running: Vec::new(),
            recovered: true,
            held: BTreeMap::new(),
            unsure: Vec::new(),
            busy: Vec::new(),
            next: 0,
            gone: false,
        };
        let nodes = (0..2 + random.below(4)).map(node).collect();
        Self {
            random,
            memory,
            store,
            nodes,
            controller: None,
            collector: Collector::default(),
            passed: Vec::new(),
            operations: 0,
            checked: (0, 0),
            assigned: 0,
            crashes: 0,
        }
    }

    /// An allocator of a node's agent, which may write no more than an agent may.
    fn allocator(&self, node: &str) -> Allocator<Guarded<S>> {
        Allocator::new(Guarded::new(self.store.clone(), Some(node)), node)
    }

    fn controllers(&self) -> Allocator<Guarded<S>> {
        Allocator::new(Guarded::new(self.store.clone(), None), "controller")
    }

    fn held(&self) -> BTreeMap<IpAddr, String> {
        let of_node = |node: &Node| node.held.clone().into_iter().collect::<Vec<_>>();
        let all = self.nodes.iter().filter(|node| !node.gone).flat_map(of_node);
        all.flat_map(|(handle, addresses)| addresses.into_iter().map(move |a| (a, handle.clone())))
            .collect()
    }

    fn step(&mut self) -> Result<(), String> {
        let index = self.random.below(self.nodes.len() + 1);
        if index == self.nodes.len() {
            self.step_controller();
        } else {
            self.step_node(index)?;
        }
        let change = (self.memory.writes(), self.assigned);
        if change == self.checked {
            return Ok(());
        }
        self.checked = change;
        check_always(&self.memory, &self.held())
    }

    fn step_node(&mut self, index: usize) -> Result<(), String> {
        if self.nodes[index].gone {
            return Ok(());
        }
        if self.random.chance(4) {
            // Killed: whatever was in flight may have happened or not.
            self.crashes += 1;
            let node = &mut self.nodes[index];
            node.running.clear();
            node.busy.clear();
            node.recovered = false;
        }
        let running = self.nodes[index].running.len();
        let may_start = if self.nodes[index].recovered {
            running < PARALLEL
        } else {
            running == 0
        };
        if may_start && (running == 0 || self.random.chance(300)) {
            self.start(index);
        }
        let pick = self.random.next() as usize;
        let node = &mut self.nodes[index];
        if node.running.is_empty() {
            return Ok(());
        }
        let pick = pick % node.running.len();
        let Some(outcome) = poll(&mut node.running[pick].1) else {
            return Ok(());
        };
        drop(node.running.remove(pick));
        let node = &mut self.nodes[index];
        if let Outcome::Assigned(handle, _) | Outcome::Released(handle, _) = &outcome {
            node.busy.retain(|busy| busy != handle);
        }
        match outcome {
            Outcome::Recovered(result) => node.recovered = result.is_ok(),
            Outcome::Assigned(handle, Ok(addresses)) => {
                node.unsure.retain(|unsure| *unsure != handle);
                node.held.insert(handle.clone(), addresses.clone());
                self.assigned += addresses.len() as u64;
                let twice = |other: &Node, address: &IpAddr| {
                    other
                        .held
                        .iter()
                        .any(|(h, list)| *h != handle && list.contains(address))
                };
                let alive = self.nodes.iter().filter(|node| !node.gone);
                let found = alive
                    .flat_map(|node| addresses.iter().map(move |a| (node, a)))
                    .find(|(n, a)| twice(n, a));
                if let Some((other, address)) = found {
                    return Err(format!("{address} was given to {handle} while {} has it", other.name));
                }
            }
            // An error that leaves nothing open means that nothing was assigned.
            Outcome::Assigned(handle, Err(error)) if !matches!(error, Error::Store(_) | Error::Contention { .. }) => {
                node.unsure.retain(|unsure| *unsure != handle);
            }
            Outcome::Released(handle, Ok(())) => node.unsure.retain(|unsure| *unsure != handle),
            _ => {}
        }
        Ok(())
    }

    fn start(&mut self, index: usize) {
        let allocator = self.allocator(&self.nodes[index].name);
        let dice = self.random.below(100);
        let (v4, v6) = [(1, 0), (1, 1), (0, 1), (3, 0), (2, 2)][self.random.below(5)];
        let pick = self.random.next() as usize;
        self.operations += 1;
        let node = &mut self.nodes[index];
        let waiting: Vec<&String> = node
            .unsure
            .iter()
            .filter(|handle| !node.busy.contains(handle))
            .collect();
        let task: Running = if !node.recovered {
            Box::pin(async move { Outcome::Recovered(allocator.recover().await) })
        } else if !waiting.is_empty() && dice < 30 {
            let handle = waiting[pick % waiting.len()].clone();
            node.busy.push(handle.clone());
            Box::pin(async move {
                let result = allocator.release_by_handle(&handle).await.map(drop);
                Outcome::Released(handle, result)
            })
        } else if !node.held.is_empty() && dice < 60 {
            let handle = node.held.keys().nth(pick % node.held.len()).unwrap().clone();
            node.held.remove(&handle);
            node.unsure.push(handle.clone());
            node.busy.push(handle.clone());
            Box::pin(async move {
                let result = allocator.release_by_handle(&handle).await.map(drop);
                Outcome::Released(handle, result)
            })
        } else if dice < 65 {
            Box::pin(async move {
                if let Ok(blocks) = allocator.blocks_of(allocator.node()).await
                    && let Some(block) = blocks.owned.get(pick % blocks.owned.len().max(1))
                {
                    let _ = allocator.release_block(block.cidr.parse().unwrap()).await;
                }
                Outcome::Nothing
            })
        } else {
            let handle = format!("{}.{}", node.name, node.next);
            node.next += 1;
            node.unsure.push(handle.clone());
            node.busy.push(handle.clone());
            Box::pin(async move {
                let result = allocator.auto_assign(request(&handle, v4, v6)).await;
                let addresses = result.map(|assigned| assigned.addresses.iter().map(|a| a.address).collect());
                Outcome::Assigned(handle, addresses)
            })
        };
        node.running.push((self.operations, task));
    }

    /// The controller releases nodes that are gone, or goes over what nobody comes back for.
    fn step_controller(&mut self) {
        if self.controller.is_none() {
            let dice = self.random.below(100);
            let alive = self.nodes.iter().filter(|node| !node.gone).count();
            if dice < 2 && alive > 1 {
                let index = self.random.below(self.nodes.len());
                let node = &mut self.nodes[index];
                node.gone = true;
                node.running.clear();
            }
            let allocator = self.controllers();
            let gone: Vec<String> = self.nodes.iter().filter(|n| n.gone).map(|n| n.name.clone()).collect();
            let pick = self.random.next() as usize;
            let in_flight = self.in_flight();
            self.controller = match gone.get(pick % (gone.len() + 2)).cloned() {
                Some(name) => Some(Box::pin(async move {
                    let _ = allocator.release_node(&name, async || true).await;
                    Outcome::Nothing
                })),
                None if self.memory.is_waiting() || self.passed.iter().any(|id| in_flight.contains(id)) => None,
                None => {
                    let mut collector = std::mem::take(&mut self.collector);
                    Some(Box::pin(async move {
                        let _ = collector.pass(&allocator).await;
                        Outcome::Collected(collector)
                    }))
                }
            };
        } else if self.random.chance(5) {
            self.crashes += 1;
            self.controller = None;
        }
        if let Some(running) = &mut self.controller
            && let Some(outcome) = poll(running)
        {
            self.controller = None;
            if let Outcome::Collected(collector) = outcome {
                self.collector = collector;
                self.passed = self.in_flight();
            }
        }
    }

    fn in_flight(&self) -> Vec<u64> {
        self.nodes
            .iter()
            .flat_map(|node| node.running.iter().map(|(id, _)| *id))
            .collect()
    }

    /// Everybody comes back on a store that works, and cleans up.
    fn settle(&mut self) -> Result<(), String> {
        self.memory.set_chaos(None);
        self.controller = None;
        let controller = self.controllers();
        for index in 0..self.nodes.len() {
            let allocator = self.allocator(&self.nodes[index].name);
            let node = &mut self.nodes[index];
            node.running.clear();
            if node.gone {
                node.held.clear();
                block_on(controller.release_node(&node.name, async || true)).map_err(|e| e.to_string())?;
                continue;
            }
            block_on(allocator.recover()).map_err(|e| e.to_string())?;
            for handle in std::mem::take(&mut node.unsure) {
                block_on(allocator.release_by_handle(&handle)).map_err(|e| e.to_string())?;
            }
        }
        let mut collector = Collector::default();
        for _ in 0..2 {
            block_on(collector.pass(&controller)).map_err(|e| e.to_string())?;
        }
        check_settled(&self.memory, &self.held())
    }

    fn run(&mut self, steps: usize) -> Result<(), String> {
        for step in 0..steps {
            self.step().map_err(|error| format!("step {step}: {error}"))?;
        }
        self.settle().map_err(|error| format!("settled: {error}"))?;
        for index in 0..self.nodes.len() {
            let name = self.nodes[index].name.clone();
            self.nodes[index].held.clear();
            block_on(self.controllers().release_node(&name, async || true)).map_err(|e| e.to_string())?;
        }
        let (blocks, handles) = (
            self.memory.snapshot::<IPAMBlockSpec>(),
            self.memory.snapshot::<IPAMHandleSpec>(),
        );
        if blocks.is_empty() && handles.is_empty() {
            return Ok(());
        }
        Err(format!("all nodes are released but {blocks:?} {handles:?} are left"))
    }
}

fn poll(running: &mut Running) -> Option<Outcome> {
    let waker = noop_waker();
    match running.as_mut().poll(&mut Context::from_waker(&waker)) {
        Poll::Ready(outcome) => Some(outcome),
        Poll::Pending => None,
    }
}

fn world_settings(random: &mut Random) -> Settings {
    // Small enough that nodes fill blocks, run out of them, borrow and exhaust.
    let mut settings = settings(vec![pool("v4", "10.0.0.0/27", 29), pool("v6", "fd00::/122", 126)]);
    settings.config.strict_affinity = random.chance(250);
    settings.config.max_blocks_per_host = [0, 0, 1, 2][random.below(4)];
    settings
}

fn chaos(random: &mut Random) -> Chaos {
    Chaos {
        seed: random.next(),
        delay: 400,
        conflict: 30,
        lost_request: [0, 20][random.below(2)],
        lost_answer: [0, 20][random.below(2)],
        late: [0, 20][random.below(2)],
        stale: [0, 100, 300][random.below(3)],
    }
}

const STEPS: usize = 1500;

fn seeds() -> std::ops::Range<u64> {
    let from = |name: &str, default: u64| std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default);
    let start = from("MARGAY_IPAM_SEED", 0);
    start..start + from("MARGAY_IPAM_SEEDS", 2000)
}

#[test]
fn no_address_twice_no_block_with_two_owners_nothing_leaked() {
    let (mut assigned, mut crashes, seeds) = (0, 0, seeds());
    for seed in seeds.clone() {
        let mut random = Random(seed ^ 0x5eed);
        let memory = Memory::new(world_settings(&mut random));
        memory.set_chaos(Some(chaos(&mut random)));
        let mut world = World::new(seed, memory.clone(), memory);
        if let Err(error) = world.run(STEPS) {
            panic!(
                "seed {seed}: {error}\nreplay: MARGAY_IPAM_SEED={seed} MARGAY_IPAM_SEEDS=1 cargo test -p margay-ipam --test it no_address_twice"
            );
        }
        assigned += world.assigned;
        crashes += world.crashes;
    }
    println!("seeds {seeds:?}: {assigned} addresses assigned, {crashes} crashes, no violation");
    assert!(
        assigned > 10 * (seeds.end - seeds.start) && crashes > 0,
        "{assigned} assigned, {crashes} crashes"
    );
}

/// A store whose updates and deletes overwrite whatever is there.
#[derive(Clone)]
struct Overwriting(Memory);

impl Store for Overwriting {
    async fn get<R: Resource>(&self, name: &str) -> Result<Option<Stored<R>>, StoreError> {
        self.0.get(name).await
    }

    async fn get_latest<R: Resource>(&self, name: &str) -> Result<Option<Stored<R>>, StoreError> {
        self.0.get_latest(name).await
    }

    async fn list<R: Resource>(&self, label: Option<(&str, &str)>) -> Result<Vec<Stored<R>>, StoreError> {
        self.0.list(label).await
    }

    async fn create<R: Resource>(&self, spec: R, node: &str) -> Result<Stored<R>, StoreError> {
        self.0.create(spec, node).await
    }

    async fn update<R: Resource>(&self, old: &Stored<R>, spec: R) -> Result<Stored<R>, StoreError> {
        match self.0.get_latest::<R>(&old.name).await? {
            Some(current) => self.0.update(&current, spec).await,
            None => self.0.create(spec, "").await,
        }
    }

    async fn delete<R: Resource>(&self, old: &Stored<R>) -> Result<(), StoreError> {
        match self.0.get_latest::<R>(&old.name).await? {
            Some(current) => self.0.delete(&current).await,
            None => Ok(()),
        }
    }

    async fn settings(&self, node: &str) -> Result<Settings, StoreError> {
        self.0.settings(node).await
    }

    fn now(&self) -> std::time::SystemTime {
        self.0.now()
    }
}

/// The control: without compare-and-swap the same runs are caught.
#[test]
fn a_store_that_ignores_revisions_is_caught() {
    let caught = (0..50u64).filter(|seed| {
        let mut random = Random(seed ^ 0x5eed);
        let memory = Memory::new(world_settings(&mut random));
        memory.set_chaos(Some(chaos(&mut random)));
        World::new(*seed, memory.clone(), Overwriting(memory))
            .run(STEPS)
            .is_err()
    });
    let caught = caught.count();
    println!("{caught} of 50 seeds caught the store that ignores revisions");
    assert!(caught > 40, "only {caught} of 50 seeds caught it");
}
