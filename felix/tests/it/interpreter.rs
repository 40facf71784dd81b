//! What the kernel does with a packet, given a ruleset: tables, chains, marks and sets, as far as we use them.
//!
//! What the kernel would refuse to load (a name that is too long, a jump to nowhere, a /0 in a `hash:net`) is an error
//! here too.

use std::net::IpAddr;

use margay_felix::model::Protocol;
use margay_felix::render::{
    Builtin, ChainName, Connection, Entry, Family, Hooks, Interface, IpSetKind, Lookup, Match, Rule, Ruleset, Table,
    Target,
};

/// The first packet of a connection.
#[derive(Clone, Debug)]
pub(crate) struct Packet {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) protocol: Protocol,
    /// The destination port; 0 where the protocol has none.
    pub(crate) port: u16,
    pub(crate) input: Option<String>,
    pub(crate) output: Option<String>,
    /// Whether the source is an address of the node that it passes.
    pub(crate) from_here: bool,
}

/// Where a packet ends, and how it got there.
#[derive(Debug)]
pub(crate) struct Walk {
    pub(crate) allowed: bool,
    /// Every rule that matched.
    pub(crate) trace: Vec<String>,
}

/// Passes the packet through the built-in chains that it meets, in order.
pub(crate) fn walk(ruleset: &Ruleset, packet: &Packet, through: &[(Table, Builtin)]) -> Result<Walk, String> {
    let mut walker = Walker {
        ruleset,
        packet,
        family: Family::of(packet.source),
        mark: 0,
        trace: Vec::new(),
    };
    for &(table, builtin) in through {
        let rules = ruleset.tables.get(&(walker.family, table));
        let Some(hooks) = rules.and_then(|rules| rules.hooks.get(&builtin)) else {
            continue;
        };
        for chain in hooks.chains() {
            match walker.chain(table, chain, 0)? {
                Flow::Ended => {}
                Flow::Accepted => break,
                Flow::Dropped => {
                    return Ok(Walk {
                        allowed: false,
                        trace: walker.trace,
                    });
                }
            }
        }
    }
    Ok(Walk {
        allowed: true,
        trace: walker.trace,
    })
}

/// What the kernel would not load.
pub(crate) fn check_loadable(ruleset: &Ruleset) -> Result<(), String> {
    for (name, set) in &ruleset.sets {
        if name.0.len() > 31 {
            return Err(format!("set {name}: name too long"));
        }
        for member in &set.members {
            let fits = match (set.kind, member) {
                (IpSetKind::HashNet, Entry::Net(net)) => net.prefix() > 0,
                (IpSetKind::HashNetIface, Entry::NetInterface(net, interface)) => {
                    net.prefix() > 0 && interface.len() < 16
                }
                (IpSetKind::HashIpPort, Entry::AddressPort(..)) => true,
                _ => false,
            };
            if !fits || member.family() != set.family {
                return Err(format!("set {name}: {member:?} does not fit"));
            }
        }
    }
    for ((family, table), rules) in &ruleset.tables {
        for chain in rules.hooks.values().flat_map(Hooks::chains) {
            rules.chains.get(chain).ok_or(format!("hook to {chain}"))?;
        }
        for (name, chain) in &rules.chains {
            let wrong = |what: &str| Err(format!("{family:?} {table} {name}: {what}"));
            if name.0.len() > 28 {
                return wrong("name too long");
            }
            for rule in &chain.rules {
                if let Target::Jump(to) | Target::Goto(to) = &rule.target
                    && !rules.chains.contains_key(to)
                {
                    return wrong(&format!("no chain {to}"));
                }
                for r#match in &rule.matches {
                    match r#match {
                        Match::Set { set, .. } if ruleset.sets.get(set).is_none_or(|set| set.family != *family) => {
                            return wrong(&format!("no set {set} of the family"));
                        }
                        Match::DestinationPorts(ranges) => {
                            let slots: usize = ranges.iter().map(|r| if r.first == r.last { 1 } else { 2 }).sum();
                            if slots > 15 || slots == 0 {
                                return wrong("too many or no ports");
                            }
                        }
                        _ => {}
                    }
                }
            }
        }
    }
    Ok(())
}

#[derive(PartialEq, Eq)]
enum Flow {
    /// The chain has ended: its caller goes on.
    Ended,
    Accepted,
    Dropped,
}

struct Walker<'a> {
    ruleset: &'a Ruleset,
    packet: &'a Packet,
    family: Family,
    mark: u32,
    trace: Vec<String>,
}

impl Walker<'_> {
    fn chain(&mut self, table: Table, name: &ChainName, depth: usize) -> Result<Flow, String> {
        if depth > 16 {
            return Err(format!("{name}: chains go in circles"));
        }
        let chain = self
            .ruleset
            .chain(self.family, table, name)
            .ok_or_else(|| format!("no chain {name}"))?;
        for rule in &chain.rules {
            if !self.matches(rule)? {
                continue;
            }
            self.trace.push(format!(
                "{table} {name}: {:?} ({})",
                rule.target,
                rule.note.as_deref().unwrap_or("")
            ));
            match &rule.target {
                Target::Accept => return Ok(Flow::Accepted),
                Target::Drop => return Ok(Flow::Dropped),
                Target::Return => return Ok(Flow::Ended),
                Target::Goto(to) => return self.chain(table, to, depth + 1),
                Target::Jump(to) => match self.chain(table, to, depth + 1)? {
                    Flow::Ended => {}
                    done => return Ok(done),
                },
                Target::SetMark { value, mask } => self.mark = (self.mark & !mask) ^ value,
                Target::Masquerade => {}
            }
        }
        Ok(Flow::Ended)
    }

    fn matches(&self, rule: &Rule) -> Result<bool, String> {
        for r#match in &rule.matches {
            if !self.holds(r#match)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn holds(&self, r#match: &Match) -> Result<bool, String> {
        let packet = self.packet;
        let named = |name: &Option<String>, interface: &Interface| match (name, interface) {
            (None, _) => false,
            (Some(name), Interface::Named(wanted)) => **name == **wanted,
            (Some(name), Interface::Prefixed(prefix)) => name.starts_with(&**prefix),
        };
        Ok(match r#match {
            Match::InInterface(interface) => named(&packet.input, interface),
            Match::OutInterface(interface) => named(&packet.output, interface),
            Match::Source(net) => net.contains(packet.source),
            Match::Destination(net) => net.contains(packet.destination),
            Match::LocalSource => packet.from_here,
            Match::Protocol(protocol) => packet.protocol == *protocol,
            Match::Icmpv6Type(_) => false,
            Match::DestinationPorts(ranges) => ranges.iter().any(|r| (r.first..=r.last).contains(&packet.port)),
            Match::Connection(Connection::EstablishedOrRelated | Connection::Invalid) => false,
            Match::Mark { value, mask } => self.mark & mask == *value,
            Match::Set {
                set: name,
                lookup,
                negated,
            } => {
                let set = self.ruleset.sets.get(name).ok_or_else(|| format!("no set {name}"))?;
                let found = set.members.iter().any(|member| match (lookup, member) {
                    (Lookup::Source, Entry::Net(net)) => net.contains(packet.source),
                    (Lookup::Destination, Entry::Net(net)) => net.contains(packet.destination),
                    (Lookup::DestinationAndPort, Entry::AddressPort(address, protocol, port)) => {
                        (*address, *protocol, *port) == (packet.destination, packet.protocol, packet.port)
                    }
                    (Lookup::SourceAndInterface, Entry::NetInterface(net, interface)) => {
                        net.contains(packet.source) && packet.input.as_deref() == Some(&**interface)
                    }
                    _ => false,
                });
                found != *negated
            }
        })
    }
}
