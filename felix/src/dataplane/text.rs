//! Rules and sets in the words of `iptables-restore` and `ipset restore`.

use std::fmt::Write as _;

use sha2::{Digest, Sha256};

use crate::render::{
    Builtin, Chain, ChainName, Connection, Entry, Family, Interface, IpSet, Lookup, Match, Rule, SetName, Target,
};

/// What the comment of each of our rules starts with; the rule's hash follows.
pub(super) const COMMENT: &str = "mgy:";

/// A rule as it is written, and the hash in its comment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// 16 hex digits that stand for the rule, those before it and its chain.
    pub(super) hash: String,
    /// Everything after the chain's name.
    pub(super) spec: String,
}

/// A chain's rules.
pub(super) fn chain_lines(name: &ChainName, chain: &Chain) -> Vec<Line> {
    let mut before = name.to_string();
    let lines = chain.rules.iter().map(|rule| {
        let line = line(&before, rule);
        before.clone_from(&line.hash);
        line
    });
    lines.collect()
}

/// The rule that a hook is.
pub(super) fn hook_line(builtin: Builtin, chain: &ChainName) -> Line {
    let rule = Rule {
        matches: Vec::new(),
        target: Target::Jump(chain.clone()),
        note: None,
    };
    line(&builtin.to_string(), &rule)
}

/// `ipset restore`'s line that makes a set; one of that name that is there is kept.
pub(super) fn create(name: &SetName, set: &IpSet) -> String {
    let family = match set.family {
        Family::V4 => "inet",
        Family::V6 => "inet6",
    };
    format!("create {name} {} family {family} maxelem {}\n", set.kind, set.max_size)
}

/// A member as `ipset` takes it.
pub(super) fn entry(entry: &Entry) -> String {
    match entry {
        Entry::Net(net) => net.to_string(),
        Entry::AddressPort(address, protocol, port) => format!("{address},{protocol}:{port}"),
        Entry::NetInterface(net, interface) => format!("{net},{interface}"),
    }
}

fn line(before: &str, rule: &Rule) -> Line {
    let matches: String = rule.matches.iter().map(match_text).collect();
    let target = target_text(&rule.target);
    let note = rule.note.as_deref().unwrap_or("");
    let digest = Sha256::digest(format!("{before}\n{matches}{target}\n{note}").as_bytes());
    let hash: String = digest[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    let comment = format!("{COMMENT}{hash} {note}");
    Line {
        spec: format!("{matches}-m comment --comment \"{}\" {target}", comment.trim_end()),
        hash,
    }
}

fn match_text(r#match: &Match) -> String {
    match r#match {
        Match::InInterface(interface) => format!("-i {} ", interface_text(interface)),
        Match::OutInterface(interface) => format!("-o {} ", interface_text(interface)),
        Match::Source(net) => format!("-s {net} "),
        Match::Destination(net) => format!("-d {net} "),
        Match::LocalSource => "-m addrtype --src-type LOCAL ".to_owned(),
        Match::Protocol(protocol) => format!("-p {protocol} "),
        Match::Icmpv6Type(kind) => format!("-m icmp6 --icmpv6-type {kind} "),
        Match::DestinationPorts(ranges) => {
            let mut text = "-m multiport --dports ".to_owned();
            for (i, range) in ranges.iter().enumerate() {
                write!(text, "{}{range}", if i == 0 { "" } else { "," }).expect("a String takes everything");
            }
            text + " "
        }
        Match::Connection(Connection::EstablishedOrRelated) => "-m conntrack --ctstate RELATED,ESTABLISHED ".to_owned(),
        Match::Connection(Connection::Invalid) => "-m conntrack --ctstate INVALID ".to_owned(),
        Match::Mark { value, mask } => format!("-m mark --mark {value:#x}/{mask:#x} "),
        Match::Set { set, lookup, negated } => {
            let flags = match lookup {
                Lookup::Source => "src",
                Lookup::Destination => "dst",
                Lookup::DestinationAndPort => "dst,dst",
                Lookup::SourceAndInterface => "src,src",
            };
            format!("-m set {}--match-set {set} {flags} ", if *negated { "! " } else { "" })
        }
    }
}

fn interface_text(interface: &Interface) -> String {
    match interface {
        Interface::Named(name) => name.to_string(),
        Interface::Prefixed(prefix) => format!("{prefix}+"),
    }
}

fn target_text(target: &Target) -> String {
    match target {
        Target::Accept => "-j ACCEPT".to_owned(),
        Target::Drop => "-j DROP".to_owned(),
        Target::Return => "-j RETURN".to_owned(),
        Target::Jump(chain) => format!("-j {chain}"),
        Target::Goto(chain) => format!("-g {chain}"),
        Target::SetMark { value, mask } => format!("-j MARK --set-xmark {value:#x}/{mask:#x}"),
        Target::Masquerade => "-j MASQUERADE --random-fully".to_owned(),
    }
}
