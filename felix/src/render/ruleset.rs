//! Tables, chains, rules and sets as values. Nothing here knows how a back end writes them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnetwork::IpNetwork;

use crate::model::{PortRange, Protocol};

/// Everything of ours that the kernel should hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ruleset {
    /// Sets by name.
    pub sets: BTreeMap<SetName, IpSet>,
    /// Chains and hooks by family and table.
    pub tables: BTreeMap<(Family, Table), TableRules>,
}

impl Ruleset {
    /// A chain, if it is there.
    pub fn chain(&self, family: Family, table: Table, name: &ChainName) -> Option<&Chain> {
        self.tables.get(&(family, table))?.chains.get(name)
    }
}

/// An address family; each has tables of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// The family of an address.
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// A table that we have chains in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Table {
    /// Before connection tracking.
    Raw,
    /// Address translation.
    Nat,
    /// Where policy is.
    Filter,
}

impl Table {
    /// All of them, in the order in which a packet passes.
    pub const ALL: [Self; 3] = [Self::Raw, Self::Nat, Self::Filter];
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Raw => "raw",
            Self::Nat => "nat",
            Self::Filter => "filter",
        })
    }
}

/// Our part of one table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableRules {
    /// Our chains.
    pub chains: BTreeMap<ChainName, Chain>,
    /// The only rules that we have in chains that are not ours.
    pub hooks: BTreeMap<Builtin, Hooks>,
}

/// A chain that the kernel itself calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Builtin {
    /// Packets as they arrive.
    Prerouting,
    /// Packets to this host.
    Input,
    /// Packets through this host.
    Forward,
    /// Packets of this host.
    Output,
    /// Packets as they leave.
    Postrouting,
}

impl fmt::Display for Builtin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Prerouting => "PREROUTING",
            Self::Input => "INPUT",
            Self::Forward => "FORWARD",
            Self::Output => "OUTPUT",
            Self::Postrouting => "POSTROUTING",
        })
    }
}

/// The rules that lead from a built-in chain into ours: each jumps to one, whatever the packet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hooks {
    /// Chains that are called before every rule of others, in this order.
    pub first: Vec<ChainName>,
    /// Chains that are called after every rule of others, in this order.
    pub last: Vec<ChainName>,
}

impl Hooks {
    /// All chains that are called, in the order in which a packet meets them.
    pub fn chains(&self) -> impl Iterator<Item = &ChainName> {
        self.first.iter().chain(&self.last)
    }
}

/// The name of one of our chains: `mgy-…`, at most 28 characters.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChainName(pub Arc<str>);

impl fmt::Display for ChainName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A chain's rules, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    /// Its rules.
    pub rules: Vec<Rule>,
}

/// A rule: when every match holds, the target is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// What must hold; nothing always holds.
    pub matches: Vec<Match>,
    /// What is done then.
    pub target: Target,
    /// A word for people: the policy that it comes from, or what it is for.
    pub note: Option<Arc<str>>,
}

/// Something that can hold for a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Match {
    /// It came in here.
    InInterface(Interface),
    /// It goes out here.
    OutInterface(Interface),
    /// Its source is in the range.
    Source(IpNetwork),
    /// Its destination is in the range.
    Destination(IpNetwork),
    /// Its source is an address of this node's own.
    LocalSource,
    /// Its protocol.
    Protocol(Protocol),
    /// Its ICMPv6 type.
    Icmpv6Type(u8),
    /// Its destination port is in one of these: at most 15 slots, of which a true range takes two.
    DestinationPorts(Vec<PortRange>),
    /// What connection tracking says of it.
    Connection(Connection),
    /// The mark's bits under `mask` equal `value`.
    Mark {
        /// What they must be.
        value: u32,
        /// The bits that count.
        mask: u32,
    },
    /// A part of it is in a set.
    Set {
        /// The set.
        set: SetName,
        /// What is looked up.
        lookup: Lookup,
        /// Holds when it is *not* there.
        negated: bool,
    },
}

/// Interfaces by name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Interface {
    /// The one of this name.
    Named(Arc<str>),
    /// All whose name starts so.
    Prefixed(Arc<str>),
}

/// What connection tracking says of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connection {
    /// Part of a connection that was let through, or an error about one.
    EstablishedOrRelated,
    /// No connection that makes sense.
    Invalid,
}

/// The part of a packet that is looked up in a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// Its source address.
    Source,
    /// Its destination address.
    Destination,
    /// Its destination address, protocol and destination port.
    DestinationAndPort,
    /// Its source address and the interface it came in by.
    SourceAndInterface,
}

/// What a rule does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// The packet passes this table.
    Accept,
    /// The packet is gone.
    Drop,
    /// Back to the chain that called.
    Return,
    /// Into a chain, and back here when that ends.
    Jump(ChainName),
    /// Into a chain, and back to this one's caller when that ends.
    Goto(ChainName),
    /// The mark's bits under `mask` become `value`; the next rule follows.
    SetMark {
        /// What they become.
        value: u32,
        /// The bits that change.
        mask: u32,
    },
    /// It leaves with the address of the interface it leaves by.
    Masquerade,
}

/// The name of one of our sets: `mgy4-…` or `mgy6-…`, at most 31 characters.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SetName(pub Arc<str>);

impl fmt::Display for SetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A set of the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IpSet {
    /// The family of its members.
    pub family: Family,
    /// What its members are.
    pub kind: IpSetKind,
    /// The most members it can have.
    pub max_size: u32,
    /// Its members.
    pub members: BTreeSet<Entry>,
}

/// What a set's members are, by the kernel's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IpSetKind {
    /// Ranges of addresses, never /0.
    HashNet,
    /// Addresses with protocol and port.
    HashIpPort,
    /// Ranges of addresses with an interface.
    HashNetIface,
}

impl fmt::Display for IpSetKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::HashNet => "hash:net",
            Self::HashIpPort => "hash:ip,port",
            Self::HashNetIface => "hash:net,iface",
        })
    }
}

/// A member of a set.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Entry {
    /// Of a `hash:net`.
    Net(IpNetwork),
    /// Of a `hash:ip,port`.
    AddressPort(IpAddr, Protocol, u16),
    /// Of a `hash:net,iface`.
    NetInterface(IpNetwork, Arc<str>),
}

impl Entry {
    /// The family of its address.
    pub fn family(&self) -> Family {
        match self {
            Self::Net(net) | Self::NetInterface(net, _) => Family::of(net.ip()),
            Self::AddressPort(address, ..) => Family::of(*address),
        }
    }
}
