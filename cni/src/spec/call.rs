//! What the runtime says in the environment.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use margay_netlink::{Mac, check_name};

use super::is_name;
use crate::protocol::{Failure, Pod, code};

/// `CNI_COMMAND`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Attach.
    Add,
    /// Detach.
    Del,
    /// Look whether all is as ADD left it.
    Check,
    /// Would an ADD work?
    Status,
    /// Which versions of the specification?
    Version,
}

/// A call's variables, checked. Those that the command does not need are empty if they are missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// `CNI_COMMAND`.
    pub command: Command,
    /// `CNI_CONTAINERID`.
    pub container_id: String,
    /// `CNI_NETNS`: a path.
    pub netns: String,
    /// `CNI_IFNAME`.
    pub ifname: String,
    /// `CNI_ARGS`.
    pub args: Args,
}

/// `CNI_ARGS`: `KEY=VALUE;KEY=VALUE`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Args {
    /// The pod, if it was named.
    pub pod: Option<Pod>,
    /// `MAC`: wanted Ethernet address.
    pub mac: Option<Mac>,
    /// `IP`: wanted addresses, comma-separated.
    pub ips: Vec<IpAddr>,
}

impl Command {
    /// Reads `CNI_COMMAND` alone: VERSION needs nothing else.
    pub fn from_env(env: &dyn Fn(&str) -> Option<String>) -> Result<Self, Failure> {
        const COMMANDS: &str = "ADD, DEL, CHECK, STATUS or VERSION";
        match env("CNI_COMMAND").as_deref() {
            Some("ADD") => Ok(Self::Add),
            Some("DEL") => Ok(Self::Del),
            Some("CHECK") => Ok(Self::Check),
            Some("STATUS") => Ok(Self::Status),
            Some("VERSION") => Ok(Self::Version),
            Some("") | None => Err(wrong(
                "CNI_COMMAND is not set",
                &format!("This program is a CNI plugin, called by a container runtime with CNI_COMMAND={COMMANDS}."),
            )),
            Some(other) => Err(wrong(
                &format!("CNI_COMMAND={other:?} is not supported"),
                &format!("Use {COMMANDS}."),
            )),
        }
    }
}

impl Call {
    /// Reads and checks the variables that the command needs.
    pub fn from_env(command: Command, env: &dyn Fn(&str) -> Option<String>) -> Result<Self, Failure> {
        let (needs_interface, needs_netns) = match command {
            Command::Add | Command::Check => (true, true),
            Command::Del => (true, false),
            Command::Status | Command::Version => (false, false),
        };
        let variable = |name: &str, needed: bool| match env(name).filter(|value| !value.is_empty()) {
            None if needed => Err(wrong(
                &format!("{name} is not set"),
                "The runtime must set it for this command.",
            )),
            value => Ok(value.unwrap_or_default()),
        };
        let container_id = variable("CNI_CONTAINERID", needs_interface)?;
        if needs_interface && !is_name(&container_id) {
            return Err(wrong(
                &format!("CNI_CONTAINERID={container_id:?} is not a container id"),
                "It must start with a letter or digit and hold only letters, digits, '_', '.' and '-'.",
            ));
        }
        let ifname = variable("CNI_IFNAME", needs_interface)?;
        if needs_interface {
            check_name(&ifname).map_err(|error| {
                wrong(
                    &format!("CNI_IFNAME: {error}"),
                    "The runtime names the interface, usually eth0.",
                )
            })?;
        }
        let netns = variable("CNI_NETNS", needs_netns)?;
        if !netns.is_empty() && !netns.starts_with('/') {
            return Err(wrong(
                &format!("CNI_NETNS={netns:?} is not an absolute path"),
                "Use a path like /run/netns/NAME.",
            ));
        }
        let args = match env("CNI_ARGS") {
            // What cannot be read must not keep a container from being removed.
            Some(text) if command == Command::Del => Args::parse(&text).unwrap_or_default(),
            Some(text) => Args::parse(&text)?,
            None => Args::default(),
        };
        Ok(Self {
            command,
            container_id,
            netns,
            ifname,
            args,
        })
    }
}

impl Args {
    fn parse(text: &str) -> Result<Self, Failure> {
        let mut pairs = Vec::new();
        for item in text.split(';').filter(|item| !item.trim().is_empty()) {
            let pair = item.split_once('=').ok_or_else(|| {
                wrong(
                    &format!("CNI_ARGS: {item:?} has no '='"),
                    "Write KEY=VALUE pairs with semicolons between them.",
                )
            })?;
            pairs.push(pair);
        }
        let lenient = pairs.iter().any(|(key, value)| {
            *key == "IgnoreUnknown" && matches!(value.to_ascii_lowercase().as_str(), "1" | "true" | "yes" | "on")
        });
        let (mut namespace, mut name, mut uid, mut infra) = (None, None, None, None);
        let mut args = Self::default();
        for (key, value) in pairs {
            let text = Some(value.to_owned()).filter(|value| !value.is_empty());
            match key {
                "IgnoreUnknown" => {}
                "K8S_POD_NAMESPACE" => namespace = text,
                "K8S_POD_NAME" => name = text,
                "K8S_POD_UID" => uid = text,
                "K8S_POD_INFRA_CONTAINER_ID" => infra = text,
                "MAC" => args.mac = text.map(|text| parse_mac("CNI_ARGS: MAC", &text)).transpose()?,
                "IP" => {
                    args.ips = text
                        .iter()
                        .flat_map(|text| text.split(','))
                        .map(|text| parse_ip("CNI_ARGS: IP", text))
                        .collect::<Result<_, _>>()?;
                }
                _ if lenient => {}
                _ => {
                    return Err(wrong(
                        &format!("CNI_ARGS: {key:?} is not known"),
                        "Remove it, or add IgnoreUnknown=1.",
                    ));
                }
            }
        }
        if let (Some(namespace), Some(name)) = (namespace, name) {
            args.pod = Some(Pod {
                namespace,
                name,
                uid,
                infra_container_id: infra,
            });
        }
        Ok(args)
    }
}

/// A unicast Ethernet address.
pub(super) fn parse_mac(field: &str, text: &str) -> Result<Mac, Failure> {
    let mac: Mac = text.parse().map_err(|error| wrong(&format!("{field}: {error}"), ""))?;
    if mac.0[0] & 1 == 1 || mac.0 == [0; 6] {
        return Err(wrong(
            &format!("{field}: {mac} is not a unicast address"),
            "Make the first byte even, like 0a.",
        ));
    }
    Ok(mac)
}

/// An address; a prefix length after it is allowed and ignored.
pub(super) fn parse_ip(field: &str, text: &str) -> Result<IpAddr, Failure> {
    let network: Result<IpNetwork, _> = text.trim().parse();
    network
        .map(|network| network.ip())
        .map_err(|_| wrong(&format!("{field}: {text:?} is not an IP address"), ""))
}

fn wrong(msg: &str, details: &str) -> Failure {
    Failure::new(code::INVALID_ENVIRONMENT, msg, details)
}
