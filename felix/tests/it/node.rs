//! One node's policy engine without a kernel: calc and render, and what the kernel would hold.

use std::collections::BTreeMap;

use margay_api::slim;
use margay_felix::calc::{Calc, Change};
use margay_felix::convert;
use margay_felix::model::{Attachment, Update};
use margay_felix::render::{Config, Delta, EndpointToHost, Renderer, Ruleset, SetChange};
use margay_felix::verdict::{Cluster, is_faulty};

/// Changes what calc puts out, before render sees it.
pub(crate) type Tamper = fn(&mut Vec<Change>);

pub(crate) struct Node {
    name: String,
    calc: Calc,
    renderer: Renderer,
    tamper: Option<Tamper>,
}

impl Node {
    pub(crate) fn new(name: &str) -> Self {
        let config = Config {
            endpoint_to_host: EndpointToHost::Accept,
            ..Config::default()
        };
        let mut calc = Calc::new();
        calc.in_sync();
        Self {
            name: name.to_owned(),
            calc,
            renderer: Renderer::new(config, BTreeMap::new()),
            tamper: None,
        }
    }

    pub(crate) fn tampered(name: &str, tamper: Tamper) -> Self {
        Self {
            tamper: Some(tamper),
            ..Self::new(name)
        }
    }

    /// Updates, as the node's agent would send them, for what differs between the two states.
    pub(crate) fn update(&mut self, before: &Cluster, after: &Cluster) {
        self.updates(before, after)
            .into_iter()
            .for_each(|update| self.calc.update(update));
    }

    /// Brings the rules in line; answers what the batch changed.
    pub(crate) fn flush(&mut self) -> Delta {
        let mut changes = self.calc.flush();
        if let Some(tamper) = self.tamper {
            tamper(&mut changes);
        }
        self.renderer.apply(changes)
    }

    pub(crate) fn ruleset(&self) -> &Ruleset {
        self.renderer.ruleset()
    }

    pub(crate) fn updates(&self, before: &Cluster, after: &Cluster) -> Vec<Update> {
        let mut updates = Vec::new();
        for namespace in gone(&before.namespaces, &after.namespaces, |n| n.metadata.full_name()) {
            updates.push(Update::Namespace(namespace.metadata.name.as_str().into(), None));
        }
        for pod in gone(&before.pods, &after.pods, |p| p.metadata.full_name()) {
            let id = convert::endpoint_id(&pod.metadata);
            updates.push(Update::Attachment(id.clone(), None));
            updates.push(Update::Workload(id, None));
        }
        for policy in gone(&before.policies, &after.policies, |p| p.metadata.full_name()) {
            updates.push(Update::Policy(convert::policy_id(&policy.metadata), None));
        }
        let changed = |pod: &&slim::Pod| !before.pods.contains(pod);
        for pod in after.pods.iter().filter(changed) {
            updates.push(convert::pod(pod));
            let here = pod.spec.node_name == self.name && !pod.is_host_network();
            let attachment = here.then(|| Attachment {
                uid: pod.metadata.uid.as_str().into(),
                interface: interface(pod).into(),
                addresses: pod.ips(),
            });
            updates.push(Update::Attachment(convert::endpoint_id(&pod.metadata), attachment));
        }
        let namespaces = after
            .namespaces
            .iter()
            .filter(|namespace| !before.namespaces.contains(namespace));
        updates.extend(namespaces.map(convert::namespace));
        let policies = after.policies.iter().filter(|policy| !before.policies.contains(policy));
        updates.extend(policies.map(|policy| {
            let (update, problems) = convert::network_policy(policy);
            assert_eq!(!problems.is_empty(), is_faulty(policy), "{problems:?} in {policy:?}");
            update
        }));
        updates
    }
}

/// The host's interface of a pod.
pub(crate) fn interface(pod: &slim::Pod) -> String {
    let name = pod.metadata.full_name();
    let hash = name.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    format!("mgy{hash:08x}")
}

fn gone<'a, T>(before: &'a [T], after: &'a [T], name: fn(&T) -> String) -> Vec<&'a T> {
    before
        .iter()
        .filter(|old| !after.iter().any(|new| name(new) == name(old)))
        .collect()
}

/// The kernel's steps from one ruleset to the next: after each of them packets may be judged.
pub(crate) fn steps(before: &Ruleset, after: &Ruleset, delta: &Delta) -> Vec<Ruleset> {
    let mut kernel = before.clone();
    for (name, change) in &delta.sets {
        match change {
            SetChange::Created => _ = kernel.sets.insert(name.clone(), after.sets[name].clone()),
            SetChange::Changed { removed, .. } => {
                let set = kernel.sets.get_mut(name).unwrap();
                removed
                    .iter()
                    .for_each(|member| assert!(set.members.remove(member), "{name} has no {member:?}"));
            }
            SetChange::Removed => {}
        }
    }
    let departed = kernel.clone();
    for (family, table, name) in &delta.chains {
        let chains = &mut kernel.tables.entry((*family, *table)).or_default().chains;
        match after.chain(*family, *table, name) {
            Some(chain) => _ = chains.insert(name.clone(), chain.clone()),
            None => _ = chains.remove(name),
        }
    }
    for key in &delta.hooks {
        kernel.tables.entry(*key).or_default().hooks = after.tables[key].hooks.clone();
    }
    let switched = kernel.clone();
    for (name, change) in &delta.sets {
        match change {
            SetChange::Changed { added, .. } => {
                kernel.sets.get_mut(name).unwrap().members.extend(added.iter().cloned())
            }
            SetChange::Removed => _ = kernel.sets.remove(name),
            SetChange::Created => {}
        }
    }
    vec![departed, switched, kernel]
}
