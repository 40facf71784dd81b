//! Faults that the types cannot exclude.

use std::collections::HashSet;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use super::{Config, PeerConfig};
use crate::filter::{Filter, PrefixRange};
use crate::prefix::{Family, canonical};

/// One fault: where it is, what is wrong, what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// Path of the field, like `peers[1].remote_as`.
    pub field: String,
    /// What is wrong and the way out.
    pub message: String,
}

/// All faults of a configuration; never empty.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.0.iter().enumerate() {
            let newline = if i > 0 { "\n" } else { "" };
            write!(f, "{newline}{}: {}", error.field, error.message)?;
        }
        Ok(())
    }
}

struct Faults(Vec<ConfigError>);

impl Faults {
    fn add(&mut self, field: impl Into<String>, message: impl Into<String>) {
        self.0.push(ConfigError {
            field: field.into(),
            message: message.into(),
        });
    }
}

pub(super) fn check(config: &Config) -> Result<(), ConfigErrors> {
    let mut faults = Faults(Vec::new());
    speaker(config, &mut faults);
    networks(config, &mut faults);
    for (name, filter) in &config.filters {
        check_filter(&format!("filters.{name}"), filter, &mut faults);
    }
    let mut addresses = HashSet::new();
    for (i, peer) in config.peers.iter().enumerate() {
        let field = format!("peers[{i}]");
        if !addresses.insert(peer.address) {
            let message = format!(
                "{} is the address of another peer too; remove one of the two",
                peer.address
            );
            faults.add(format!("{field}.address"), message);
        }
        check_peer(config, &field, peer, &mut faults);
    }
    if faults.0.is_empty() {
        Ok(())
    } else {
        Err(ConfigErrors(faults.0))
    }
}

pub(super) fn check_one(config: &Config, peer: &PeerConfig) -> Result<(), ConfigErrors> {
    let mut faults = Faults(Vec::new());
    check_peer(config, "peer", peer, &mut faults);
    if faults.0.is_empty() {
        Ok(())
    } else {
        Err(ConfigErrors(faults.0))
    }
}

fn speaker(config: &Config, faults: &mut Faults) {
    asn("local_as", config.local_as, faults);
    let id = config.router_id;
    if id.is_unspecified() || id.is_multicast() || id.is_broadcast() {
        faults.add(
            "router_id",
            format!("{id} cannot identify a router; use an IPv4 address of this one"),
        );
    }
    hold_time("hold_time", config.hold_time, faults);
    if config.connect_retry_time == 0 {
        faults.add(
            "connect_retry_time",
            "0 would retry without a pause; use at least 1 second",
        );
    }
    if config.max_paths == 0 {
        faults.add("max_paths", "0 would use no path at all; use 1 to switch multipath off");
    }
    restart_time(
        "graceful_restart.restart_time",
        config.graceful_restart.restart_time,
        faults,
    );
    let mut listen = HashSet::new();
    for (i, addr) in config.listen.iter().enumerate() {
        if !listen.insert(addr) {
            faults.add(format!("listen[{i}]"), format!("{addr} is listed twice; remove one"));
        }
    }
}

fn networks(config: &Config, faults: &mut Faults) {
    let mut prefixes = HashSet::new();
    for (i, network) in config.networks.iter().enumerate() {
        let field = format!("networks[{i}].prefix");
        host_bits(&field, network.prefix, faults);
        if !prefixes.insert(canonical(network.prefix)) {
            faults.add(field, format!("{} is originated twice; remove one", network.prefix));
        }
    }
}

fn check_peer(config: &Config, field: &str, peer: &PeerConfig, faults: &mut Faults) {
    asn(&format!("{field}.remote_as"), peer.remote_as, faults);
    let address = format!("{field}.address");
    if peer.address.is_unspecified() || peer.address.is_multicast() {
        faults.add(&address, format!("{} is not the address of one router", peer.address));
    }
    if is_link_local(&peer.address) {
        faults.add(
            &address,
            format!(
                "{} is link-local, which needs an interface; use a global address",
                peer.address
            ),
        );
    }
    if peer.port == 0 {
        faults.add(format!("{field}.port"), "0 is not a port; leave the field out for 179");
    }
    if let Some(seconds) = peer.hold_time {
        hold_time(&format!("{field}.hold_time"), seconds, faults);
    }
    if let Some(seconds) = peer.restart_time {
        restart_time(&format!("{field}.restart_time"), seconds, faults);
    }
    if let Some(local) = peer.local_address {
        let name = format!("{field}.local_address");
        if Family::of_addr(&local) != Family::of_addr(&peer.address) {
            faults.add(
                name,
                format!("{local} is not of the family of the peer's address {}", peer.address),
            );
        } else if local == peer.address {
            faults.add(
                name,
                format!("{local} is the peer's own address; use one of this router"),
            );
        }
    }
    if peer.families.is_empty() {
        faults.add(
            format!("{field}.families"),
            "no family is offered; name ipv4, ipv6 or both, or leave it out",
        );
    }
    if peer.families.iter().collect::<HashSet<_>>().len() < peer.families.len() {
        faults.add(format!("{field}.families"), "a family is named twice; remove one");
    }
    if peer.multihop == Some(0) {
        faults.add(
            format!("{field}.multihop"),
            "0 hops reach nothing; use 1 to 255 or leave it out",
        );
    }
    if peer.multihop.is_some() && peer.remote_as == config.local_as {
        let message = "an iBGP peer may be any number of hops away; leave the field out";
        faults.add(format!("{field}.multihop"), message);
    }
    for (name, value) in [("import", &peer.import), ("export", &peer.export)] {
        if let Some(filter) = value.as_ref().filter(|f| !config.filters.contains_key(*f)) {
            let message = format!("there is no filter \"{filter}\"; define it under filters");
            faults.add(format!("{field}.{name}"), message);
        }
    }
}

fn check_filter(field: &str, filter: &Filter, faults: &mut Faults) {
    for (i, rule) in filter.rules.iter().enumerate() {
        for (j, range) in rule.prefixes.iter().enumerate() {
            check_range(&format!("{field}.rules[{i}].prefixes[{j}]"), range, faults);
        }
    }
}

fn check_range(field: &str, range: &PrefixRange, faults: &mut Faults) {
    host_bits(&format!("{field}.prefix"), range.prefix, faults);
    let (own, bits) = (range.prefix.prefix(), Family::of(&range.prefix).bits());
    for (name, value) in [("ge", range.ge), ("le", range.le)] {
        if let Some(value) = value.filter(|v| *v < own || *v > bits) {
            let message = format!(
                "{value} is outside of {own} to {bits}, the lengths inside {}",
                range.prefix
            );
            faults.add(format!("{field}.{name}"), message);
        }
    }
    if let (Some(ge), Some(le)) = (range.ge, range.le)
        && ge > le
    {
        faults.add(
            format!("{field}.ge"),
            format!("{ge} is longer than le, {le}, so nothing can match; swap them"),
        );
    }
}

fn asn(field: &str, asn: u32, faults: &mut Faults) {
    if matches!(asn, 0 | 23456 | u32::MAX) {
        faults.add(
            field,
            format!("AS {asn} is reserved (RFC 7607, 6793, 7300); use the number of a real AS"),
        );
    }
}

fn hold_time(field: &str, seconds: u16, faults: &mut Faults) {
    if matches!(seconds, 1 | 2) {
        faults.add(
            field,
            format!("{seconds} s is too short for RFC 4271; use 0 (never) or at least 3"),
        );
    }
}

fn restart_time(field: &str, seconds: u16, faults: &mut Faults) {
    if seconds > 4095 {
        faults.add(
            field,
            format!("{seconds} does not fit RFC 4724's 12 bits; use at most 4095"),
        );
    }
}

fn host_bits(field: &str, prefix: ipnetwork::IpNetwork, faults: &mut Faults) {
    if canonical(prefix) != prefix {
        faults.add(
            field,
            format!("{prefix} has host bits; did you mean {}?", canonical(prefix)),
        );
    }
}

fn is_link_local(addr: &IpAddr) -> bool {
    matches!(addr, IpAddr::V6(v6) if Ipv6Addr::is_unicast_link_local(v6))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Originated;
    use crate::filter::{Action, Changes, Rule};

    fn config() -> Config {
        let mut config = Config::new(65301, [10, 1, 1, 2].into());
        config.filters.insert("all".into(), Filter::accept_all());
        let mut peer = PeerConfig::new("10.1.1.1".parse().unwrap(), 65201);
        peer.import = Some("all".into());
        config.peers.push(peer);
        config
    }

    fn faults(config: &Config) -> Vec<String> {
        config
            .validate()
            .err()
            .map_or_else(Vec::new, |e| e.0.iter().map(|e| e.field.clone()).collect())
    }

    #[test]
    fn a_sound_configuration_passes() {
        assert_eq!(config().validate(), Ok(()));
    }

    #[test]
    fn every_fault_is_named_with_its_field() {
        let mut config = config();
        config.local_as = 0;
        config.router_id = [0, 0, 0, 0].into();
        config.hold_time = 2;
        config.networks.push(Originated {
            prefix: "10.244.0.1/26".parse().unwrap(),
            blackhole: false,
            communities: vec![],
        });
        let mut twin = config.peers[0].clone();
        twin.export = Some("nowhere".into());
        twin.local_address = Some("fd00::1".parse().unwrap());
        config.peers.push(twin);
        config.filters.insert(
            "bad".into(),
            Filter {
                rules: vec![Rule {
                    prefixes: vec![PrefixRange {
                        prefix: "10.0.0.0/8".parse().unwrap(),
                        ge: Some(33),
                        le: None,
                    }],
                    source: None,
                    communities: vec![],
                    as_path_prefix: vec![],
                    action: Action::Accept,
                    set: Changes::default(),
                }],
                default: Action::Reject,
            },
        );
        let expected = [
            "local_as",
            "router_id",
            "hold_time",
            "networks[0].prefix",
            "filters.bad.rules[0].prefixes[0].ge",
            "peers[1].address",
            "peers[1].local_address",
            "peers[1].export",
        ];
        assert_eq!(faults(&config), expected);
        let text = config.validate().unwrap_err().to_string();
        assert!(
            text.contains("networks[0].prefix: 10.244.0.1/26 has host bits; did you mean 10.244.0.0/26?"),
            "{text}"
        );
    }
}
