//! What every packet meets, whatever the cluster looks like.

use super::{Direction, NAT_OUTGOING, POOLS, SOURCES, Writer, allow_chain, rule};
use crate::model::Protocol;
use crate::render::config::{AllowAction, EndpointToHost};
use crate::render::names;
use crate::render::ruleset::{
    Builtin, Chain, Connection, Family, Hook, Interface, Lookup, Match, Position, Rule, Table, TableRules, Target,
};

/// Types of neighbour and multicast listener discovery that a host must hear from its workloads: RFC 4861 and RFC 3810.
const DISCOVERY: [u8; 7] = [130, 131, 132, 133, 135, 136, 143];

impl Writer<'_> {
    /// The chains and hooks of a table that are there whatever the cluster looks like.
    pub(in crate::render) fn base(
        &self,
        family: Family,
        table: Table,
        workloads: &[Interface],
        nat_outgoing: bool,
    ) -> TableRules {
        match table {
            Table::Raw => raw(family, workloads),
            Table::Nat if nat_outgoing => nat(family),
            Table::Nat => TableRules::default(),
            Table::Filter => self.filter(family, workloads),
        }
    }

    fn filter(&self, family: Family, workloads: &[Interface]) -> TableRules {
        let mut table = TableRules::default();
        let accept = self.config.allow_action == AllowAction::Accept;

        let either = || {
            let matches = |direction: Direction| {
                workloads
                    .iter()
                    .map(move |of| (direction, direction.interface(of.clone())))
            };
            [Direction::From, Direction::To].into_iter().flat_map(matches)
        };
        let mut forward: Vec<_> = either()
            .map(|(direction, of)| rule([of], Target::Jump(direction.dispatch_chain())))
            .collect();
        if accept {
            forward.extend(either().map(|(_, of)| rule([of, self.is_allowed()], Target::Accept)));
        }
        table.hook(Builtin::Forward, Position::First, "FORWARD", forward);

        let to_host = names::chain("wl-to-host");
        let input = from(workloads).map(|from| rule([from], Target::Goto(to_host.clone())));
        table.hook(Builtin::Input, Position::First, "INPUT", input.collect());
        table.chains.insert(to_host, self.workload_to_host(family));

        if accept {
            let output = workloads.iter().map(|to| {
                let rule = rule([Match::OutInterface(to.clone())], Target::Accept);
                rule.noted("a node reaches its own workloads")
            });
            table.hook(Builtin::Output, Position::First, "OUTPUT", output.collect());
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
}

fn raw(family: Family, workloads: &[Interface]) -> TableRules {
    let net = |text: &str| text.parse().expect("a CIDR");
    let own = |from: Match| match family {
        Family::V4 => {
            let loopback = rule([from, Match::Destination(net("127.0.0.0/8"))], Target::Drop);
            vec![loopback.noted("route_localnet is for translated packets only")]
        }
        Family::V6 => {
            let unspecified = Match::Source(net("::/128"));
            let detection = [from.clone(), unspecified, Match::Protocol(Protocol::ICMPV6)];
            vec![
                rule([from, Match::Source(net("fe80::/10"))], Target::Return),
                rule(detection, Target::Return).noted("duplicate address detection"),
            ]
        }
    };
    let mut rules: Vec<_> = from(workloads).flat_map(own).collect();
    rules.extend(from(workloads).map(|from| {
        let foreign = Match::Set {
            set: names::fixed_set(family, SOURCES),
            lookup: Lookup::SourceAndInterface,
            negated: true,
        };
        rule([from, foreign], Target::Drop).noted("not the workload's own address")
    }));
    let mut table = TableRules::default();
    table.hook(Builtin::Prerouting, Position::First, "PREROUTING", rules);
    table
}

fn nat(family: Family) -> TableRules {
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

/// What comes from a workload.
fn from(workloads: &[Interface]) -> impl Iterator<Item = Match> {
    workloads.iter().cloned().map(Match::InInterface)
}

impl TableRules {
    fn hook(&mut self, builtin: Builtin, position: Position, what: &str, rules: Vec<Rule>) {
        let chain = names::chain(what);
        self.chains.insert(chain.clone(), Chain { rules });
        self.hooks.insert(builtin, Hook { position, chain });
    }
}
