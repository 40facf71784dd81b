//! What every packet meets, whatever the cluster looks like.

use super::{Direction, NAT_OUTGOING, POOLS, SOURCES, Writer, allow_chain, rule};
use crate::model::Protocol;
use crate::render::config::{AllowAction, EndpointToHost};
use crate::render::names;
use crate::render::ruleset::{
    Builtin, Chain, ChainName, Connection, Family, Interface, Lookup, Match, Rule, Table, TableRules, Target,
};

/// Types of neighbour and multicast listener discovery that a host and its workloads must hear from each other: RFC 4861
/// and RFC 3810.
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
        let forward = either().map(|(direction, of)| rule([of], Target::Jump(direction.dispatch_chain())));
        table.first(Builtin::Forward, "FORWARD", forward.collect());
        if accept {
            // Not before: between the two stand rules of others that refuse, such as kube-proxy's for Services without
            // endpoints and for source ranges.
            let end = either().map(|(_, of)| rule([of, self.is_allowed()], Target::Accept));
            table.last(Builtin::Forward, "FORWARD-end", end.collect());
        }

        let to_host = names::chain("wl-to-host");
        let input = from(workloads).map(|from| rule([from], Target::Goto(to_host.clone())));
        table.first(Builtin::Input, "INPUT", input.collect());
        table.chains.insert(to_host, self.workload_to_host(family));

        let from_host = names::chain("host-to-wl");
        let output = workloads
            .iter()
            .map(|to| rule([Match::OutInterface(to.clone())], Target::Goto(from_host.clone())));
        table.first(Builtin::Output, "OUTPUT", output.collect());
        table.chains.insert(from_host, self.host_to_workload(family));
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

    /// Packets of others pass OUTPUT too, where the node forwards them without FORWARD, as IPVS does.
    fn host_to_workload(&self, family: Family) -> Chain {
        let pass = match self.config.allow_action {
            AllowAction::Accept => Target::Accept,
            AllowAction::Return => Target::Return,
        };
        let own = rule([Match::LocalSource], pass.clone()).noted("a node reaches its own workloads");
        let mut rules = vec![own];
        rules.extend(discovery(family, &pass));
        rules.push(rule([], Target::Jump(Direction::To.dispatch_chain())));
        Chain { rules }
    }

    fn workload_to_host(&self, family: Family) -> Chain {
        let mut rules = discovery(family, &Target::Accept);
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

fn discovery(family: Family, target: &Target) -> Vec<Rule> {
    match family {
        Family::V4 => Vec::new(),
        Family::V6 => DISCOVERY
            .map(|kind| {
                let matches = [Match::Protocol(Protocol::ICMPV6), Match::Icmpv6Type(kind)];
                rule(matches, target.clone())
            })
            .into(),
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
    table.first(Builtin::Prerouting, "PREROUTING", rules);
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
    table.last(Builtin::Postrouting, "POSTROUTING", vec![masquerade]);
    table
}

/// What comes from a workload.
fn from(workloads: &[Interface]) -> impl Iterator<Item = Match> {
    workloads.iter().cloned().map(Match::InInterface)
}

impl TableRules {
    /// A chain that packets meet before every rule of others.
    fn first(&mut self, builtin: Builtin, what: &str, rules: Vec<Rule>) {
        let chain = self.base_chain(what, rules);
        self.hooks.entry(builtin).or_default().first.push(chain);
    }

    /// A chain that packets meet after every rule of others.
    fn last(&mut self, builtin: Builtin, what: &str, rules: Vec<Rule>) {
        let chain = self.base_chain(what, rules);
        self.hooks.entry(builtin).or_default().last.push(chain);
    }

    fn base_chain(&mut self, what: &str, rules: Vec<Rule>) -> ChainName {
        let name = names::chain(what);
        self.chains.insert(name.clone(), Chain { rules });
        name
    }
}
