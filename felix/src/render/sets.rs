//! The sets: those of policies, in generations, and those that are always there.

use std::collections::BTreeSet;

use ipnetwork::IpNetwork;

use super::chains::{NAT_OUTGOING, POOLS, SOURCES};
use super::delta::{Delta, SetChange};
use super::ruleset::{Entry, Family, IpSet, IpSetKind, SetName, Table};
use super::{Renderer, names};
use crate::calc::{Member, SetDelta, SetId, SetKind};

impl Renderer {
    /// The addresses that each workload may send from.
    pub(super) fn put_sources(&mut self, delta: &mut Delta) {
        let attachments = self.endpoints.values().map(|endpoint| &endpoint.attachment);
        let entries = attachments.flat_map(|attachment| {
            let entry = |&address| Entry::NetInterface(IpNetwork::from(address), attachment.interface.clone());
            attachment.addresses.iter().map(entry)
        });
        let entries: BTreeSet<_> = entries.collect();
        self.put_fixed(SOURCES, IpSetKind::HashNetIface, &entries, delta);
    }

    pub(super) fn put_pools(&mut self, delta: &mut Delta) {
        for family in Family::ALL {
            self.put_table(family, Table::Nat, delta);
        }
        let entries = |nets: &BTreeSet<IpNetwork>| nets.iter().flat_map(|net| net_entries(*net)).collect();
        let (all, nat): (BTreeSet<_>, BTreeSet<_>) = (entries(&self.pools.all), entries(&self.pools.nat_outgoing));
        self.put_fixed(POOLS, IpSetKind::HashNet, &all, delta);
        self.put_fixed(NAT_OUTGOING, IpSetKind::HashNet, &nat, delta);
    }

    fn put_fixed(&mut self, what: &str, kind: IpSetKind, entries: &BTreeSet<Entry>, delta: &mut Delta) {
        for family in Family::ALL {
            let name = names::fixed_set(family, what);
            let members: BTreeSet<_> = entries
                .iter()
                .filter(|entry| entry.family() == family)
                .cloned()
                .collect();
            let max_size = self.config.max_set_size;
            match self.ruleset.sets.get_mut(&name) {
                None => {
                    self.ruleset.sets.insert(
                        name.clone(),
                        IpSet {
                            family,
                            kind,
                            max_size,
                            members,
                        },
                    );
                    delta.sets.insert(name, SetChange::Created);
                }
                Some(set) => {
                    let added = members.difference(&set.members).cloned().collect();
                    let removed = set.members.difference(&members).cloned().collect();
                    set.members = members;
                    delta.set_changed(name, added, removed);
                }
            }
        }
    }

    pub(super) fn set_name(&self, family: Family, id: &SetId) -> SetName {
        names::policy_set(family, id, self.generations.get(&id.hash).copied().unwrap_or(0))
    }

    pub(super) fn create_set(&mut self, id: &SetId, members: &BTreeSet<Member>, delta: &mut Delta) {
        let kind = match id.kind {
            SetKind::Nets => IpSetKind::HashNet,
            SetKind::AddressPorts => IpSetKind::HashIpPort,
        };
        // The kernel keeps a set of another kind for as long as somebody's rule looks at it.
        let taken = |name: SetName| {
            self.existing
                .get(&*name.0)
                .is_some_and(|there| *there != kind.to_string())
        };
        while families(id).any(|family| taken(self.set_name(family, id))) {
            *self.generations.entry(id.hash.clone()).or_default() += 1;
        }
        for family in families(id) {
            let name = self.set_name(family, id);
            let members = of_family(members, family);
            let set = IpSet {
                family,
                kind,
                max_size: self.config.max_set_size,
                members,
            };
            self.ruleset.sets.insert(name.clone(), set);
            delta.sets.insert(name, SetChange::Created);
        }
    }

    pub(super) fn renew_set(&mut self, id: &SetId, change: &SetDelta, delta: &mut Delta) {
        let current = |renderer: &Self, family| renderer.set_name(family, id);
        let old: Vec<_> = families(id).map(|family| (family, current(self, family))).collect();
        *self.generations.entry(id.hash.clone()).or_default() += 1;
        for (family, old) in old {
            let Some(mut set) = self.ruleset.sets.remove(&old) else {
                continue;
            };
            delta.sets.insert(old, SetChange::Removed);
            of_family(&change.removed, family)
                .iter()
                .for_each(|entry| _ = set.members.remove(entry));
            set.members.extend(of_family(&change.added, family));
            let name = current(self, family);
            self.ruleset.sets.insert(name.clone(), set);
            delta.sets.insert(name, SetChange::Created);
        }
    }

    pub(super) fn change_set(&mut self, id: &SetId, change: &SetDelta, delta: &mut Delta) {
        for family in families(id) {
            let name = self.set_name(family, id);
            let Some(set) = self.ruleset.sets.get_mut(&name) else {
                continue;
            };
            let (added, removed) = (of_family(&change.added, family), of_family(&change.removed, family));
            removed.iter().for_each(|entry| _ = set.members.remove(entry));
            set.members.extend(added.iter().cloned());
            delta.set_changed(name, added, removed);
        }
    }

    pub(super) fn remove_set(&mut self, id: &SetId, delta: &mut Delta) {
        for family in families(id) {
            let name = self.set_name(family, id);
            self.ruleset.sets.remove(&name);
            delta.sets.insert(name, SetChange::Removed);
        }
        self.generations.remove(&id.hash);
    }
}

fn families(id: &SetId) -> impl Iterator<Item = Family> + use<> {
    let (v4, v6) = (id.v4, id.v6);
    Family::ALL
        .into_iter()
        .filter(move |family| if *family == Family::V4 { v4 } else { v6 })
}

fn of_family(members: &BTreeSet<Member>, family: Family) -> BTreeSet<Entry> {
    members
        .iter()
        .filter(|member| member.is_ipv4() == (family == Family::V4))
        .flat_map(entries)
        .collect()
}

fn entries(member: &Member) -> Vec<Entry> {
    match member {
        Member::Net(net) => net_entries(*net),
        Member::AddressPort(address, protocol, port) => vec![Entry::AddressPort(*address, *protocol, *port)],
    }
}

/// `hash:net` refuses /0.
fn net_entries(net: IpNetwork) -> Vec<Entry> {
    if net.prefix() > 0 {
        return vec![Entry::Net(net)];
    }
    let halves = if net.is_ipv4() {
        ["0.0.0.0/1", "128.0.0.0/1"]
    } else {
        ["::/1", "8000::/1"]
    };
    halves
        .iter()
        .map(|half| Entry::Net(half.parse().expect("a CIDR")))
        .collect()
}
