//! What the kernel holds of ours, read from `iptables-save` and `ipset save`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::text::COMMENT;
use super::tools::ToolError;
use crate::model::Protocol;
use crate::render::{Builtin, CHAIN_PREFIX, Entry, Family, IpSetKind, Table, set_prefix};

/// Everything of ours in one network namespace.
#[derive(Clone, Debug, Default)]
pub(super) struct Snapshot {
    pub(super) tables: BTreeMap<(Family, Table), TableSnapshot>,
    pub(super) sets: BTreeMap<String, SetSnapshot>,
    /// Families whose tables could not be read, and why.
    pub(super) unread: BTreeMap<Family, ToolError>,
}

/// What is ours in one table, and how much is not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct TableSnapshot {
    /// Our chains, each with its rules' hashes; `None` for a rule that has none.
    pub(super) chains: BTreeMap<String, Vec<Option<String>>>,
    /// The built-in chains that have rules.
    pub(super) builtins: BTreeMap<Builtin, BuiltinSnapshot>,
    /// Rules of others.
    pub(super) foreign: usize,
}

/// What is ours in a built-in chain, and how long that is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct BuiltinSnapshot {
    /// Our rules.
    pub(super) hooks: Vec<HookSnapshot>,
    /// How many rules it has, ours included.
    pub(super) length: usize,
}

/// A rule of ours in a built-in chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HookSnapshot {
    /// Its hash, if it has one.
    pub(super) hash: Option<String>,
    /// Its text after the chain's name, as it was read.
    pub(super) spec: String,
    /// How many rules stand before it.
    pub(super) position: usize,
}

/// One of our sets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SetSnapshot {
    /// What its members are, in `ipset`'s words.
    pub(super) kind: String,
    pub(super) members: BTreeSet<Entry>,
    /// It has members that make no sense to us.
    pub(super) odd: bool,
}

impl Snapshot {
    /// Adds what `iptables-save` or `ip6tables-save` printed.
    pub(super) fn read_tables(&mut self, family: Family, saved: &str) {
        let mut table = None;
        for line in saved.lines() {
            if let Some(name) = line.strip_prefix('*') {
                table = Table::ALL.into_iter().find(|table| table.to_string() == name);
                if let Some(table) = table {
                    self.tables.entry((family, table)).or_default();
                }
            }
            let Some(ours) = table.and_then(|table| self.tables.get_mut(&(family, table))) else {
                continue;
            };
            if let Some(rest) = line.strip_prefix(':') {
                let name = rest.split(' ').next().unwrap_or(rest);
                if name.starts_with(CHAIN_PREFIX) {
                    ours.chains.entry(name.to_owned()).or_default();
                }
            } else if let Some((chain, spec)) = line.strip_prefix("-A ").and_then(|rest| rest.split_once(' ')) {
                ours.read_rule(chain, spec);
            }
        }
    }

    /// Adds what `ipset save` printed.
    pub(super) fn read_sets(&mut self, saved: &str) {
        for line in saved.lines() {
            let mut words = line.split_ascii_whitespace();
            let (Some(verb), Some(name)) = (words.next(), words.next()) else {
                continue;
            };
            if !Family::ALL.iter().any(|&family| name.starts_with(set_prefix(family))) {
                continue;
            }
            let Some(word) = words.next() else { continue };
            match verb {
                "create" => {
                    let set = SetSnapshot {
                        kind: word.to_owned(),
                        members: BTreeSet::new(),
                        odd: false,
                    };
                    self.sets.insert(name.to_owned(), set);
                }
                "add" => {
                    let Some(set) = self.sets.get_mut(name) else { continue };
                    match parse_entry(&set.kind, word).filter(|_| words.next().is_none()) {
                        Some(entry) => _ = set.members.insert(entry),
                        None => set.odd = true,
                    }
                }
                _ => {}
            }
        }
    }

    /// How many rules are not ours.
    pub(super) fn foreign_rules(&self) -> usize {
        self.tables.values().map(|table| table.foreign).sum()
    }

    /// Whether anything in the tables is ours.
    pub(super) fn has_our_rules(&self) -> bool {
        self.tables
            .values()
            .any(|table| !table.chains.is_empty() || table.builtins.values().any(|of| !of.hooks.is_empty()))
    }
}

impl TableSnapshot {
    fn read_rule(&mut self, chain: &str, spec: &str) {
        let hash = hash_of(spec);
        if chain.starts_with(CHAIN_PREFIX) {
            self.chains.entry(chain.to_owned()).or_default().push(hash);
            return;
        }
        let words = || spec.split(' ');
        let into_ours = words()
            .zip(words().skip(1))
            .any(|(verb, target)| ["-j", "-g"].contains(&verb) && target.starts_with(CHAIN_PREFIX));
        let Some(builtin) = builtin(chain) else {
            self.foreign += 1;
            return;
        };
        let builtin = self.builtins.entry(builtin).or_default();
        if hash.is_some() || into_ours {
            builtin.hooks.push(HookSnapshot {
                hash,
                spec: spec.to_owned(),
                position: builtin.length,
            });
        } else {
            self.foreign += 1;
        }
        builtin.length += 1;
    }
}

fn builtin(chain: &str) -> Option<Builtin> {
    use Builtin::{Forward, Input, Output, Postrouting, Prerouting};
    [Prerouting, Input, Forward, Output, Postrouting]
        .into_iter()
        .find(|builtin| builtin.to_string() == chain)
}

fn hash_of(spec: &str) -> Option<String> {
    let (_, comment) = spec.split_once("--comment ")?;
    let hash = comment.trim_start_matches('"').strip_prefix(COMMENT)?;
    Some(hash.split(['"', ' ']).next().unwrap_or(hash).to_owned())
}

fn parse_entry(kind: &str, text: &str) -> Option<Entry> {
    let net = |text: &str| text.parse::<IpNetwork>().ok();
    if kind == IpSetKind::HashNet.to_string() {
        return net(text).map(Entry::Net);
    }
    let (first, second) = text.split_once(',')?;
    if kind == IpSetKind::HashNetIface.to_string() {
        return Some(Entry::NetInterface(net(first)?, second.into()));
    }
    let (protocol, port) = second.split_once(':')?;
    let protocol = [Protocol::TCP, Protocol::UDP, Protocol::SCTP]
        .into_iter()
        .find(|p| p.to_string() == protocol)?;
    let address: IpAddr = first.parse().ok()?;
    Some(Entry::AddressPort(address, protocol, port.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_our_chains_and_hooks_and_counts_the_rest() {
        let mut snapshot = Snapshot::default();
        snapshot.read_tables(
            Family::V4,
            "# Generated\n*mangle\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -j ACCEPT\nCOMMIT\n*filter\n:INPUT ACCEPT [0:0]\n\
             :KUBE-FORWARD - [0:0]\n:mgy-FORWARD - [0:0]\n:mgy-empty - [0:0]\n-A FORWARD -j KUBE-FORWARD\n\
             -A FORWARD -m comment --comment \"mgy:0123 a note\" -j mgy-FORWARD\n-A INPUT -j mgy-INPUT\n\
             -A OUTPUT -o mgy-uplink -m comment --comment mgy-mine -j ACCEPT\n\
             -A mgy-FORWARD -m comment --comment mgy:4567 -j DROP\n-A mgy-FORWARD -j ACCEPT\nCOMMIT\n",
        );
        let filter = &snapshot.tables[&(Family::V4, Table::Filter)];
        assert_eq!(filter.chains["mgy-FORWARD"], [Some("4567".to_owned()), None]);
        assert!(filter.chains["mgy-empty"].is_empty());
        let forward = &filter.builtins[&Builtin::Forward];
        let hook = &forward.hooks[0];
        assert_eq!(
            (hook.hash.as_deref(), hook.position, forward.length),
            (Some("0123"), 1, 2)
        );
        assert_eq!(hook.spec, "-m comment --comment \"mgy:0123 a note\" -j mgy-FORWARD");
        assert_eq!(filter.builtins[&Builtin::Input].hooks[0].hash, None);
        assert_eq!(snapshot.foreign_rules(), 2);
        assert!(filter.builtins[&Builtin::Output].hooks.is_empty());
    }

    #[test]
    fn reads_our_sets() {
        let mut snapshot = Snapshot::default();
        snapshot.read_sets(
            "create other hash:net family inet\nadd other 10.0.0.0/8\ncreate mgy4-a hash:net family inet hashsize 1024\n\
             add mgy4-a 10.0.0.1\nadd mgy4-a 10.1.0.0/16\ncreate mgy6-p hash:ip,port family inet6\nadd mgy6-p fd00::1,sctp:80\n\
             create mgy4-src hash:net,iface family inet\nadd mgy4-src 10.0.0.1,mgy0\ncreate mgy4-odd hash:net\nadd mgy4-odd 10.0.0.0/8 nomatch\n",
        );
        assert_eq!(snapshot.sets.len(), 4);
        let members = |name: &str| snapshot.sets[name].members.iter().cloned().collect::<Vec<_>>();
        assert_eq!(
            members("mgy4-a"),
            [
                Entry::Net("10.0.0.1/32".parse().unwrap()),
                Entry::Net("10.1.0.0/16".parse().unwrap())
            ]
        );
        assert_eq!(
            members("mgy6-p"),
            [Entry::AddressPort("fd00::1".parse().unwrap(), Protocol::SCTP, 80)]
        );
        assert_eq!(
            members("mgy4-src"),
            [Entry::NetInterface("10.0.0.1/32".parse().unwrap(), "mgy0".into())]
        );
        assert!(snapshot.sets["mgy4-odd"].odd && !snapshot.sets["mgy4-a"].odd);
    }
}
