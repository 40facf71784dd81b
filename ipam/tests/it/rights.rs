//! What an agent may write: the admission policies of `deploy/charts/margay/templates/admission.yaml`, once more and over
//! any store, so that simulations show whether an allocator ever needs more.

use std::any::Any;
use std::time::SystemTime;

use futures::executor::block_on;
use margay_api::v3::{AllocationAttribute, BlockAffinitySpec, IPAMBlockSpec};
use margay_ipam::Allocator;
use margay_ipam::store::memory::Memory;
use margay_ipam::store::{Resource, Settings, Store, StoreError, Stored};

use crate::harness::{pool, request, settings};

const NODE: &str = "margay.io/node";

/// A store that panics at what the agent of a node may not write.
#[derive(Clone)]
pub(crate) struct Guarded<S> {
    store: S,
    /// `None`: somebody who may write everything.
    node: Option<String>,
}

impl<S> Guarded<S> {
    pub(crate) fn new(store: S, node: Option<&str>) -> Self {
        let node = node.map(str::to_owned);
        Self { store, node }
    }

    fn check<R: Resource>(&self, old: Option<&Stored<R>>, new: Option<&R>, mark: Option<&String>) {
        let Some(node) = &self.node else { return };
        let specs = [old.map(|old| &old.spec), new];
        let marked = old.and_then(|old| old.annotations.get(NODE));
        let allowed = match R::KIND {
            "BlockAffinity" => specs
                .into_iter()
                .flatten()
                .all(|spec| typed::<_, BlockAffinitySpec>(spec).node == *node),
            "IPAMHandle" => [marked, mark].into_iter().flatten().all(|mark| mark == node),
            "IPAMBlock" => {
                let [before, after] = specs.map(|spec| spec.map(typed::<_, IPAMBlockSpec>));
                may_write_block(node, before, after)
            }
            other => panic!("a kind without rules: {other}"),
        };
        let told = |spec: Option<&R>| serde_json::to_string(&spec).unwrap();
        assert!(
            allowed,
            "{node} may not change {}\nfrom {} (of {marked:?})\nto {} (of {mark:?})",
            R::KIND,
            told(specs[0]),
            told(specs[1])
        );
    }
}

fn typed<R: Resource, T: 'static>(spec: &R) -> &T {
    let spec: &dyn Any = spec;
    spec.downcast_ref().expect("the kind says the type")
}

fn may_write_block(node: &str, before: Option<&IPAMBlockSpec>, after: Option<&IPAMBlockSpec>) -> bool {
    let own = format!("host:{node}");
    let owned = |spec: &IPAMBlockSpec| spec.affinity.as_ref() == Some(&own);
    let unnamed = if before.is_some_and(owned) { node } else { "" };
    fn others<'a>(spec: &'a IPAMBlockSpec, node: &str, unnamed: &str) -> Vec<Option<&'a AllocationAttribute>> {
        let holder = |index: &Option<u32>| Some(&spec.attributes[(*index)? as usize]);
        let of_other = |holder: &&AllocationAttribute| {
            let holds = holder.secondary.get("node").map_or(unnamed, String::as_str);
            holds != node
        };
        spec.allocations
            .iter()
            .map(|index| holder(index).filter(of_other))
            .collect()
    }
    let others = |spec| others(spec, node, unnamed);
    let has_none = |spec| others(spec).iter().all(Option::is_none);
    match (before, after) {
        (None, Some(new)) => owned(new) && has_none(new),
        (Some(old), Some(new)) => {
            let adopts = old.affinity.is_none() && owned(new);
            (adopts || old.affinity == new.affinity)
                && others(old) == others(new)
                && (&old.cidr, old.deleted) == (&new.cidr, new.deleted)
        }
        (Some(old), None) => old.deleted || (owned(old) || old.affinity.is_none()) && has_none(old),
        (None, None) => true,
    }
}

impl<S: Store> Store for Guarded<S> {
    async fn get<R: Resource>(&self, name: &str) -> Result<Option<Stored<R>>, StoreError> {
        self.store.get(name).await
    }

    async fn get_latest<R: Resource>(&self, name: &str) -> Result<Option<Stored<R>>, StoreError> {
        self.store.get_latest(name).await
    }

    async fn list<R: Resource>(&self, label: Option<(&str, &str)>) -> Result<Vec<Stored<R>>, StoreError> {
        self.store.list(label).await
    }

    async fn create<R: Resource>(&self, spec: R, node: &str) -> Result<Stored<R>, StoreError> {
        let annotations = R::annotations(node);
        self.check(None, Some(&spec), annotations.get(NODE));
        self.store.create(spec, node).await
    }

    async fn update<R: Resource>(&self, old: &Stored<R>, spec: R) -> Result<Stored<R>, StoreError> {
        self.check(Some(old), Some(&spec), None);
        self.store.update(old, spec).await
    }

    async fn delete<R: Resource>(&self, old: &Stored<R>) -> Result<(), StoreError> {
        self.check(Some(old), None, None);
        self.store.delete(old).await
    }

    async fn settings(&self, node: &str) -> Result<Settings, StoreError> {
        self.store.settings(node).await
    }

    fn now(&self) -> SystemTime {
        self.store.now()
    }
}

#[test]
#[should_panic(expected = "b may not change")]
fn releasing_another_node_is_more_than_an_agent_may() {
    let memory = Memory::new(settings(vec![pool("main", "10.0.0.0/24", 26)]));
    let a = Allocator::new(Guarded::new(memory.clone(), Some("a")), "a");
    block_on(a.auto_assign(request("h", 1, 0))).unwrap();
    let b = Allocator::new(Guarded::new(memory, Some("b")), "b");
    let _ = block_on(b.release_node("a", async || true));
}
