//! The chains: what every packet meets, and those of each endpoint and each policy.
//!
//! A packet from or to a workload is led by its interface to that endpoint's chain, which leaves a mark when it lets
//! the packet through this endpoint, and drops it otherwise. A packet between two workloads of this node so meets
//! both. The marks are ours: each endpoint's chain clears them first.

use std::sync::Arc;

use super::config::{AllowAction, Config, EndpointToHost};
use super::names;
use super::ruleset::{
    Builtin, Chain, ChainName, Connection, Family, Hook, Interface, Lookup, Match, Position, Rule, SetName, Table,
    TableRules, Target,
};
use crate::calc::{ActivePolicy, ActivePorts, ActiveRule, LocalEndpoint, SetId};
use crate::model::{Action, PolicyId, PortRange, Protocol};

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

/// Types of neighbour and multicast listener discovery that a host must hear from its workloads: RFC 4861 and RFC 3810.
const DISCOVERY: [u8; 7] = [130, 131, 132, 133, 135, 136, 143];

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
    /// The chains and hooks of a table that are there whatever the cluster looks like.
    pub(super) fn base(&self, family: Family, table: Table, nat_outgoing: bool) -> TableRules {
        match table {
            Table::Raw => self.raw(family),
            Table::Nat if nat_outgoing => self.nat(family),
            Table::Nat => TableRules::default(),
            Table::Filter => self.filter(family),
        }
    }

    /// An endpoint's chain.
    pub(super) fn endpoint(
        &self,
        direction: Direction,
        endpoint: &LocalEndpoint,
        has_rules: impl Fn(&PolicyId) -> bool,
    ) -> Chain {
        let Some(policy) = &endpoint.policy else {
            return Chain {
                rules: vec![rule([], Target::Drop).noted("its policy is not known yet")],
            };
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

    fn filter(&self, family: Family) -> TableRules {
        let mut table = TableRules::default();
        let workloads = || Interface::Prefixed(self.config.interface_prefix.as_str().into());
        let accept = self.config.allow_action == AllowAction::Accept;

        let mut forward = Vec::new();
        for direction in [Direction::From, Direction::To] {
            forward.push(rule(
                [direction.interface(workloads())],
                Target::Jump(direction.dispatch_chain()),
            ));
        }
        if accept {
            for direction in [Direction::From, Direction::To] {
                forward.push(rule(
                    [direction.interface(workloads()), self.is_allowed()],
                    Target::Accept,
                ));
            }
        }
        table.hook(Builtin::Forward, Position::First, "FORWARD", forward);

        let to_host = names::chain("wl-to-host");
        let input = vec![rule([Match::InInterface(workloads())], Target::Goto(to_host.clone()))];
        table.hook(Builtin::Input, Position::First, "INPUT", input);
        table.chains.insert(to_host, self.workload_to_host(family));

        if accept {
            let output = rule([Match::OutInterface(workloads())], Target::Accept);
            let output = output.noted("a node reaches its own workloads");
            table.hook(Builtin::Output, Position::First, "OUTPUT", vec![output]);
        }
        let allowed = rule(
            [],
            Target::SetMark {
                value: self.allowed(),
                mask: self.allowed(),
            },
        );
        table.chains.insert(allow_chain(), Chain { rules: vec![allowed] });
        table
    }

    fn workload_to_host(&self, family: Family) -> Chain {
        let mut rules = Vec::new();
        if family == Family::V6 {
            rules.extend(DISCOVERY.map(|kind| {
                rule(
                    [Match::Protocol(Protocol::ICMPV6), Match::Icmpv6Type(kind)],
                    Target::Accept,
                )
            }));
        }
        rules.push(rule(
            [Match::Connection(Connection::EstablishedOrRelated)],
            Target::Accept,
        ));
        rules.push(rule([], Target::Jump(Direction::From.dispatch_chain())));
        match self.config.endpoint_to_host {
            EndpointToHost::Drop => rules.push(rule([], Target::Drop).noted("workloads may not reach their node")),
            EndpointToHost::Accept => rules.push(rule([], Target::Accept)),
            EndpointToHost::Return => {}
        }
        Chain { rules }
    }

    fn raw(&self, family: Family) -> TableRules {
        let from_workload = || Match::InInterface(Interface::Prefixed(self.config.interface_prefix.as_str().into()));
        let net = |text: &str| text.parse().expect("a CIDR");
        let mut rules = match family {
            Family::V4 => {
                let loopback = rule([from_workload(), Match::Destination(net("127.0.0.0/8"))], Target::Drop);
                vec![loopback.noted("route_localnet is for translated packets only")]
            }
            Family::V6 => {
                let unspecified = Match::Source(net("::/128"));
                let detection = [from_workload(), unspecified, Match::Protocol(Protocol::ICMPV6)];
                vec![
                    rule([from_workload(), Match::Source(net("fe80::/10"))], Target::Return),
                    rule(detection, Target::Return).noted("duplicate address detection"),
                ]
            }
        };
        let set = names::fixed_set(family, SOURCES);
        let foreign = Match::Set {
            set,
            lookup: Lookup::SourceAndInterface,
            negated: true,
        };
        rules.push(rule([from_workload(), foreign], Target::Drop).noted("not the workload's own address"));
        let mut table = TableRules::default();
        table.hook(Builtin::Prerouting, Position::First, "PREROUTING", rules);
        table
    }

    fn nat(&self, family: Family) -> TableRules {
        let set = |what, lookup, negated| Match::Set {
            set: names::fixed_set(family, what),
            lookup,
            negated,
        };
        let leaves = [
            set(NAT_OUTGOING, Lookup::Source, false),
            set(POOLS, Lookup::Destination, true),
        ];
        let mut table = TableRules::default();
        let masquerade = rule(leaves, Target::Masquerade).noted("natOutgoing");
        table.hook(
            Builtin::Postrouting,
            Position::Appended,
            "POSTROUTING",
            vec![masquerade],
        );
        table
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

impl TableRules {
    fn hook(&mut self, builtin: Builtin, position: Position, what: &str, rules: Vec<Rule>) {
        let chain = names::chain(what);
        self.chains.insert(chain.clone(), Chain { rules });
        self.hooks.insert(builtin, Hook { position, chain });
    }
}

impl Rule {
    fn noted(mut self, note: &str) -> Self {
        self.note = Some(note.into());
        self
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
