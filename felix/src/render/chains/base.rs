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
    pub(in crate::render) fn base(&self, family: Family, table: Table, nat_outgoing: bool) -> TableRules {
        match table {
            Table::Raw => self.raw(family),
            Table::Nat if nat_outgoing => self.nat(family),
            Table::Nat => TableRules::default(),
            Table::Filter => self.filter(family),
        }
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
}

impl TableRules {
    fn hook(&mut self, builtin: Builtin, position: Position, what: &str, rules: Vec<Rule>) {
        let chain = names::chain(what);
        self.chains.insert(chain.clone(), Chain { rules });
        self.hooks.insert(builtin, Hook { position, chain });
    }
}
