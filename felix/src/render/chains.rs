//! The chains: what every packet meets, and those of each endpoint and each policy.
//!
//! A packet from or to a workload is led by its interface to that endpoint's chain, which leaves a mark when it lets
//! the packet through this endpoint, and drops it otherwise. A packet between two workloads of this node so meets
//! both. The marks are ours: each endpoint's chain clears them first.

mod base;

use std::sync::Arc;

use super::config::{AllowAction, Config};
use super::names;
use super::ruleset::{Chain, ChainName, Connection, Family, Interface, Lookup, Match, Rule, SetName, Target};
use crate::calc::{ActivePolicy, ActivePorts, ActiveRule, LocalEndpoint, SetId};
use crate::model::{Action, PolicyId, PortRange};

/// Traffic seen from a workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Direction {
    /// Into it: ingress policy.
    To,
    /// Out of it: egress policy.
    From,
}

impl Direction {
    pub(super) const BOTH: [Self; 2] = [Self::To, Self::From];

    pub(super) fn dispatch_name(self) -> &'static str {
        match self {
            Self::To => "to-wl",
            Self::From => "from-wl",
        }
    }

    pub(super) fn dispatch_chain(self) -> ChainName {
        names::chain(self.dispatch_name())
    }

    pub(super) fn endpoint_chain(self, interface: &str) -> ChainName {
        names::chain(&format!("{}-{interface}", if self == Self::To { "tw" } else { "fw" }))
    }

    pub(super) fn policy_chain(self, policy: &PolicyId) -> ChainName {
        names::policy_chain(if self == Self::To { "pi" } else { "po" }, policy)
    }

    /// The workload's interface, as the packet meets it.
    pub(super) fn interface(self, interface: Interface) -> Match {
        match self {
            Self::To => Match::OutInterface(interface),
            Self::From => Match::InInterface(interface),
        }
    }
}

/// The multiport match has room for this many numbers.
const PORT_SLOTS: usize = 15;

/// Sets that are always there, without the family.
pub(super) const SOURCES: &str = "src";
pub(super) const POOLS: &str = "pools";
pub(super) const NAT_OUTGOING: &str = "nat";

/// Everything about the chains that does not depend on endpoints and policies.
pub(super) struct Writer<'a> {
    pub(super) config: &'a Config,
}

impl Writer<'_> {
    /// An endpoint's chain.
    pub(super) fn endpoint(
        &self,
        direction: Direction,
        endpoint: &LocalEndpoint,
        has_rules: impl Fn(&PolicyId) -> bool,
    ) -> Chain {
        let Some(policy) = &endpoint.policy else {
            return denied("its policy is not known yet");
        };
        let established = match self.config.allow_action {
            AllowAction::Accept => Target::Accept,
            AllowAction::Return => Target::Goto(allow_chain()),
        };
        let mut rules = vec![
            rule([Match::Connection(Connection::EstablishedOrRelated)], established),
            rule([Match::Connection(Connection::Invalid)], Target::Drop),
            rule(
                [],
                Target::SetMark {
                    value: 0,
                    mask: self.allowed(),
                },
            ),
        ];
        let tiers = match direction {
            Direction::To => &policy.ingress,
            Direction::From => &policy.egress,
        };
        for tier in tiers {
            for policy in tier.policies.iter().filter(|policy| has_rules(policy)) {
                rules.push(rule([], Target::Jump(direction.policy_chain(policy))));
                rules.push(rule([self.is_allowed()], Target::Return));
            }
            rules.push(rule([], self.act(tier.default_action)).noted("no policy allows it"));
        }
        if tiers.is_empty() {
            rules.push(rule([], self.act(Action::Allow)).noted("no policy applies"));
        }
        Chain { rules }
    }

    /// A policy's chain in one family; `set` names a set.
    pub(super) fn policy(
        &self,
        direction: Direction,
        family: Family,
        id: &PolicyId,
        policy: &ActivePolicy,
        set: impl Fn(&SetId) -> SetName,
    ) -> Chain {
        let active = match direction {
            Direction::To => &policy.ingress,
            Direction::From => &policy.egress,
        };
        let note: Arc<str> = id.to_string().into();
        let mut rules = Vec::new();
        for active in active.iter().filter(|active| can_match(active, family)) {
            let mut matches: Vec<Match> = active.protocol.map(Match::Protocol).into_iter().collect();
            let peers = [
                (&active.source, Lookup::Source),
                (&active.destination, Lookup::Destination),
            ];
            for (peer, lookup) in peers {
                matches.extend(peer.iter().map(|id| Match::Set {
                    set: set(id),
                    lookup,
                    negated: false,
                }));
            }
            let with = |more: Option<Match>| Rule {
                matches: matches.iter().cloned().chain(more).collect(),
                target: self.act(active.action),
                note: Some(note.clone()),
            };
            match &active.ports {
                ActivePorts::Any => rules.push(with(None)),
                ActivePorts::Ranges(ranges) => {
                    rules.extend(
                        slots(ranges)
                            .into_iter()
                            .map(|ranges| with(Some(Match::DestinationPorts(ranges)))),
                    );
                }
                ActivePorts::Named(id) => {
                    let (set, lookup) = (set(id), Lookup::DestinationAndPort);
                    rules.push(with(Some(Match::Set {
                        set,
                        lookup,
                        negated: false,
                    })));
                }
            }
        }
        Chain { rules }
    }

    fn act(&self, action: Action) -> Target {
        match action {
            Action::Allow => Target::Goto(allow_chain()),
            Action::Deny => Target::Drop,
        }
    }

    /// The lowest bit of the mask: this endpoint lets the packet through.
    fn allowed(&self) -> u32 {
        self.config.mark_mask & self.config.mark_mask.wrapping_neg()
    }

    fn is_allowed(&self) -> Match {
        Match::Mark {
            value: self.allowed(),
            mask: self.allowed(),
        }
    }
}

impl Rule {
    pub(super) fn noted(mut self, note: &str) -> Self {
        self.note = Some(note.into());
        self
    }
}

/// The chain of an endpoint that nothing passes, and why.
pub(super) fn denied(note: &str) -> Chain {
    Chain {
        rules: vec![rule([], Target::Drop).noted(note)],
    }
}

pub(super) fn rule<const N: usize>(matches: [Match; N], target: Target) -> Rule {
    Rule {
        matches: matches.into(),
        target,
        note: None,
    }
}

/// Marks the packet as allowed; whoever goes there returns to its own caller.
fn allow_chain() -> ChainName {
    names::chain("allow")
}

/// Whether every set the rule needs can have members of the family.
fn can_match(rule: &ActiveRule, family: Family) -> bool {
    let ports = match &rule.ports {
        ActivePorts::Named(set) => Some(set),
        ActivePorts::Any | ActivePorts::Ranges(_) => None,
    };
    [&rule.source, &rule.destination]
        .into_iter()
        .flatten()
        .chain(ports)
        .all(|set| match family {
            Family::V4 => set.v4,
            Family::V6 => set.v6,
        })
}

/// The ranges in portions that one match has room for.
fn slots(ranges: &[PortRange]) -> Vec<Vec<PortRange>> {
    let mut portions: Vec<Vec<PortRange>> = Vec::new();
    let mut free = 0;
    for &range in ranges {
        let needed = if range.first == range.last { 1 } else { 2 };
        if needed > free {
            portions.push(Vec::new());
            free = PORT_SLOTS;
        }
        free -= needed;
        portions.last_mut().expect("pushed above").push(range);
    }
    portions
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_portioned() {
        let one = |port| PortRange {
            first: port,
            last: port,
        };
        let sizes = |ranges: &[PortRange]| slots(ranges).iter().map(Vec::len).collect::<Vec<_>>();
        assert_eq!(sizes(&(1..=15).map(one).collect::<Vec<_>>()), [15]);
        assert_eq!(sizes(&(1..=16).map(one).collect::<Vec<_>>()), [15, 1]);
        assert_eq!(
            sizes(&(1..=8).map(|n| PortRange { first: n, last: 100 }).collect::<Vec<_>>()),
            [7, 1]
        );
    }
}
