//! What the changes that calc puts out come to.

use std::collections::{BTreeMap, BTreeSet};

use margay_felix::calc::{ActivePolicy, Change, LocalEndpoint, Member, Pools, SetId};
use margay_felix::model::{EndpointId, PolicyId};

/// What all changes so far come to.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct State {
    sets: BTreeMap<SetId, BTreeSet<Member>>,
    policies: BTreeMap<PolicyId, ActivePolicy>,
    endpoints: BTreeMap<EndpointId, LocalEndpoint>,
    pools: Pools,
}

impl State {
    /// Takes a flush, and checks that it keeps its word: one change a key, and nothing is used before it is there.
    pub(crate) fn take(&mut self, changes: Vec<Change>) {
        for change in changes {
            match change {
                Change::SetAdded(id, members) => assert!(self.sets.insert(id, members).is_none()),
                Change::SetChanged(id, delta) => {
                    let members = self.sets.get_mut(&id).unwrap();
                    delta.removed.iter().for_each(|member| assert!(members.remove(member)));
                    delta
                        .added
                        .into_iter()
                        .for_each(|member| assert!(members.insert(member)));
                }
                Change::SetRemoved(id) => {
                    assert!(self.sets.remove(&id).is_some());
                    assert!(self.policies.values().all(|policy| policy.sets().all(|set| *set != id)));
                }
                Change::PolicyUpdated(id, policy) => {
                    assert!(policy.sets().all(|set| self.sets.contains_key(set)));
                    self.policies.insert(id, (*policy).clone());
                }
                Change::PolicyRemoved(id) => assert!(self.policies.remove(&id).is_some()),
                Change::EndpointUpdated(id, endpoint) => {
                    let tiers = endpoint
                        .policy
                        .iter()
                        .flat_map(|policy| policy.ingress.iter().chain(&policy.egress));
                    let mut policies = tiers.flat_map(|tier| &tier.policies);
                    assert!(policies.all(|policy| self.policies.contains_key(policy)));
                    self.endpoints.insert(id, (*endpoint).clone());
                }
                Change::EndpointRemoved(id) => assert!(self.endpoints.remove(&id).is_some()),
                Change::PoolsChanged(pools) => self.pools = pools,
            }
        }
    }
}
