//! Every operation, dropped at every point where it waits for the store, then mended.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::pin::pin;
use std::task::{Context, Poll};

use futures::executor::block_on;
use futures::task::noop_waker;
use margay_api::v3::{BlockAffinitySpec, IPAMBlockSpec, IPAMHandleSpec};
use margay_ipam::Allocator;
use margay_ipam::gc::Collector;
use margay_ipam::store::memory::{Chaos, Memory};

use crate::harness::{check_always, check_settled, pool, request, settings};

/// Polls up to `limit` times, then drops the future, as a killed process would. Whether it ended before.
fn run_until(future: impl Future, limit: usize) -> bool {
    let waker = noop_waker();
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    (0..limit).any(|_| matches!(future.as_mut().poll(&mut context), Poll::Ready(_)))
}

fn store() -> Memory {
    Memory::new(settings(vec![
        pool("v4", "10.0.0.0/28", 30),
        pool("v6", "fd00::/124", 126),
    ]))
}

const SLOW: Chaos = Chaos {
    seed: 0,
    delay: 1000,
    conflict: 0,
    lost_request: 0,
    lost_answer: 0,
    late: 0,
    stale: 0,
};

/// Runs `operation` on a prepared store, killed after each number of polls, and mends with `mend`.
fn walk<'a, F: Future + 'a>(
    prepare: impl Fn(&Allocator<Memory>),
    operation: impl Fn(Allocator<Memory>) -> F,
    mend: impl Fn(&Allocator<Memory>),
    held: &BTreeMap<IpAddr, String>,
) -> usize {
    for limit in 0..1000 {
        let memory = store();
        let allocator = Allocator::new(memory.clone(), "a");
        prepare(&allocator);
        memory.set_chaos(Some(SLOW));
        let ended = run_until(operation(allocator.clone()), limit);
        memory.set_chaos(None);
        check_always(&memory, &BTreeMap::new()).unwrap_or_else(|e| panic!("killed after {limit} polls: {e}"));
        block_on(allocator.recover()).unwrap();
        mend(&allocator);
        let mut collector = Collector::default();
        block_on(collector.pass(&allocator)).unwrap();
        block_on(collector.pass(&allocator)).unwrap();
        check_settled(&memory, held).unwrap_or_else(|e| panic!("killed after {limit} polls: {e}"));
        if ended {
            return limit;
        }
    }
    panic!("the operation does not end");
}

#[test]
fn assigning_killed_anywhere_is_mended_by_releasing_the_handle() {
    let steps = walk(
        |_| {},
        |allocator| async move { allocator.auto_assign(request("h", 1, 1)).await.unwrap() },
        |allocator| drop(block_on(allocator.release_by_handle("h")).unwrap()),
        &BTreeMap::new(),
    );
    assert!(steps > 30, "only {steps} points");
}

#[test]
fn releasing_killed_anywhere_is_mended_by_releasing_again() {
    let steps = walk(
        |allocator| drop(block_on(allocator.auto_assign(request("h", 5, 1))).unwrap()),
        |allocator| async move { allocator.release_by_handle("h").await.unwrap() },
        |allocator| drop(block_on(allocator.release_by_handle("h")).unwrap()),
        &BTreeMap::new(),
    );
    assert!(steps > 10, "only {steps} points");
}

#[test]
fn giving_up_a_block_killed_anywhere_is_mended_by_recovery() {
    let steps = walk(
        |allocator| {
            block_on(allocator.auto_assign(request("h", 1, 0))).unwrap();
            block_on(allocator.release_by_handle("h")).unwrap();
        },
        |allocator| async move {
            let block = allocator.blocks_of("a").await.unwrap().owned[0].cidr.parse().unwrap();
            assert!(allocator.release_block(block).await.unwrap());
        },
        |_| {},
        &BTreeMap::new(),
    );
    assert!(steps > 8, "only {steps} points");
}

#[test]
fn releasing_a_node_killed_anywhere_is_mended_by_releasing_it_again() {
    let other = "b";
    let steps = walk(
        |allocator| {
            let gone = Allocator::new(allocator.store().clone(), other);
            block_on(gone.auto_assign(request("h1", 5, 1))).unwrap();
            block_on(gone.auto_assign(request("h2", 1, 1))).unwrap();
        },
        |allocator| async move { allocator.release_node(other, async || true).await.unwrap() },
        |allocator| {
            block_on(allocator.release_node(other, async || true)).unwrap();
            assert_eq!(allocator.store().snapshot::<IPAMBlockSpec>(), []);
            assert_eq!(allocator.store().snapshot::<BlockAffinitySpec>(), []);
        },
        &BTreeMap::new(),
    );
    assert!(steps > 30, "only {steps} points");
}

#[test]
fn a_killed_assignment_never_takes_what_is_held() {
    let mut held = BTreeMap::new();
    let memory = store();
    let first = block_on(Allocator::new(memory, "a").auto_assign(request("kept", 2, 0))).unwrap();
    held.extend(
        first
            .addresses
            .iter()
            .map(|assignment| (assignment.address, "kept".to_owned())),
    );
    walk(
        |allocator| drop(block_on(allocator.auto_assign(request("kept", 2, 0))).unwrap()),
        |allocator| async move { allocator.auto_assign(request("h", 5, 0)).await.unwrap() },
        |allocator| drop(block_on(allocator.release_by_handle("h")).unwrap()),
        &held,
    );
}

/// Whoever gives up waiting for a write may see it happen after all.
#[test]
fn a_write_that_comes_after_its_handles_release_leaves_nothing() {
    let mut late = 0;
    for seed in 0..2000 {
        let memory = store();
        let allocator = Allocator::new(memory.clone(), "a");
        block_on(allocator.auto_assign(request("kept", 1, 1))).unwrap();
        memory.set_chaos(Some(Chaos {
            seed,
            late: 250,
            ..Chaos::default()
        }));
        if block_on(allocator.auto_assign(request("h", 2, 1))).is_ok() {
            continue;
        }
        while block_on(allocator.release_by_handle("h")).is_err() {}
        late += usize::from(memory.is_waiting());
        memory.set_chaos(None);
        let leaked = block_on(allocator.release_by_handle("h")).unwrap();
        let blocks = memory.snapshot::<IPAMBlockSpec>();
        let held = blocks
            .iter()
            .flat_map(|stored| margay_ipam::block::allocations(&stored.spec));
        let held: Vec<_> = held.filter(|a| a.handle.as_deref() == Some("h")).collect();
        assert!(held.is_empty() && leaked.is_empty(), "seed {seed}: {held:?} {leaked:?}");
    }
    assert!(late > 100, "only {late} writes were late");
}

#[test]
fn a_node_that_comes_back_during_its_release_keeps_what_it_takes_from_then_on() {
    for limit in 0..1000 {
        let memory = store();
        let (controller, back) = (Allocator::new(memory.clone(), "c"), Allocator::new(memory.clone(), "b"));
        block_on(back.auto_assign(request("before1", 5, 1))).unwrap();
        block_on(back.auto_assign(request("before2", 1, 1))).unwrap();
        memory.set_chaos(Some(SLOW));
        let gone = Cell::new(true);
        let mut release = pin!(controller.release_node("b", async || gone.get()));
        let ended = run_until(release.as_mut(), limit);
        memory.set_chaos(None);
        let assigned = block_on(back.auto_assign(request("after", 3, 1))).unwrap();
        let held = assigned
            .addresses
            .iter()
            .map(|a| (a.address, "after".to_owned()))
            .collect();
        gone.set(false);
        if !ended {
            block_on(release).unwrap();
        }
        check_always(&memory, &held).unwrap_or_else(|e| panic!("back after {limit} polls: {e}"));
        assert_eq!(
            block_on(back.addresses_of("after")).unwrap().len(),
            4,
            "back after {limit} polls"
        );
        if ended {
            assert!(limit > 30, "only {limit} points");
            return;
        }
    }
    panic!("the release does not end");
}

/// The control: without the mending, some point leaves something behind.
#[test]
fn without_mending_a_crash_leaks() {
    let leaks = (0..60).filter(|limit| {
        let memory = store();
        memory.set_chaos(Some(SLOW));
        let allocator = Allocator::new(memory.clone(), "a");
        run_until(allocator.auto_assign(request("h", 1, 1)), *limit);
        let leaked = check_settled(&memory, &BTreeMap::new()).is_err();
        leaked && !memory.snapshot::<IPAMHandleSpec>().is_empty()
    });
    assert!(leaks.count() > 5);
}
