//! Network interfaces.

use std::fmt;
use std::os::fd::AsRawFd;
use std::str::FromStr;

use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage, State,
};

use crate::error::{Error, Result};
use crate::netns::Netns;

/// A network interface, as the kernel describes it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Link {
    /// Its number in its namespace.
    pub index: u32,
    /// Its name, at most 15 bytes.
    pub name: String,
    /// What it is, in `ip link`'s words: `veth`, `bridge`, …; `None` for hardware and loopback.
    pub kind: Option<String>,
    /// Its Ethernet address.
    pub mac: Option<Mac>,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// Whether it was set up by somebody (`IFF_UP`).
    pub up: bool,
    /// Whether it can carry packets (`IFF_LOWER_UP`): for a veth, whether both ends are up.
    pub carrier: bool,
    /// Whether a packet sent now would leave (RFC 2863 `ifOperStatus` up, or unknown to the driver). It follows `carrier`
    /// a little later; until then the kernel drops what is sent.
    pub operational: bool,
    /// Whether it is a loopback interface.
    pub loopback: bool,
    /// The bridge it is a port of.
    pub master: Option<u32>,
    /// The index of the other end of a veth, in the other end's namespace.
    pub peer: Option<u32>,
    /// The other end's namespace, if it is not this one (a number local to this namespace).
    pub peer_netns: Option<i32>,
}

/// An Ethernet address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

/// A pair of interfaces to make. The other end starts down: the kernel refuses a peer that is up before its pair exists.
#[derive(Debug, Clone, Default)]
pub struct VethSpec<'a> {
    /// Name of the end in the connection's namespace.
    pub name: &'a str,
    /// Name of the other end.
    pub peer_name: &'a str,
    /// Namespace of the other end; `None`: the connection's.
    pub peer_netns: Option<&'a Netns>,
    /// Address of this end; random if `None`.
    pub mac: Option<Mac>,
    /// Address of the other end; random if `None`.
    pub peer_mac: Option<Mac>,
    /// MTU of both ends; 1500 if `None`.
    pub mtu: Option<u32>,
    /// Set this end up at once.
    pub up: bool,
}

/// A bridge to make.
#[derive(Debug, Clone, Default)]
pub struct BridgeSpec<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its MTU; 1500 if `None`.
    pub mtu: Option<u32>,
    /// Its address; random if `None`.
    pub mac: Option<Mac>,
    /// Set it up at once.
    pub up: bool,
}

/// Whether the kernel would take this interface name: 1 to 15 bytes, no `/`, `:` or white space, not `.` or `..`.
pub fn check_name(name: &str) -> Result<()> {
    let reason = if name.is_empty() {
        "is empty"
    } else if name.len() > 15 {
        "is longer than 15 bytes"
    } else if name == "." || name == ".." {
        "is a directory's name"
    } else if name
        .chars()
        .any(|c| c == '/' || c == ':' || c.is_whitespace() || c.is_control())
    {
        "has a slash, colon, space or control character"
    } else {
        return Ok(());
    };
    Err(Error::invalid(
        format!("interface name {name:?}"),
        format!("{reason}; use 1 to 15 letters, digits, '-', '_'"),
    ))
}

impl Mac {
    /// The link-local IPv6 address that the kernel derives from it (modified EUI-64, RFC 4291 appendix A).
    pub fn link_local(self) -> std::net::Ipv6Addr {
        let [a, b, c, d, e, f] = self.0;
        let [hi, lo] = [u16::from_be_bytes([a ^ 2, b]), u16::from_be_bytes([c, 0xff])];
        std::net::Ipv6Addr::new(
            0xfe80,
            0,
            0,
            0,
            hi,
            lo,
            u16::from_be_bytes([0xfe, d]),
            u16::from_be_bytes([e, f]),
        )
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Mac {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || {
            Error::invalid(
                format!("Ethernet address {text:?}"),
                "write six bytes like 0a:58:0a:f4:00:05",
            )
        };
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().filter(|p| p.len() == 2).ok_or_else(wrong)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| wrong())?;
        }
        if parts.next().is_some() {
            Err(wrong())
        } else {
            Ok(Self(bytes))
        }
    }
}

impl Link {
    pub(crate) fn from_message(message: LinkMessage) -> Self {
        let flags = message.header.flags;
        let mut link = Self {
            index: message.header.index,
            up: flags.contains(LinkFlags::Up),
            carrier: flags.contains(LinkFlags::LowerUp),
            loopback: flags.contains(LinkFlags::Loopback),
            ..Self::default()
        };
        let mut parent = None;
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name = name,
                LinkAttribute::Address(bytes) => link.mac = <[u8; 6]>::try_from(bytes).ok().map(Mac),
                LinkAttribute::Mtu(mtu) => link.mtu = mtu,
                LinkAttribute::Controller(index) => link.master = Some(index),
                LinkAttribute::OperState(state) => link.operational = matches!(state, State::Up | State::Unknown),
                LinkAttribute::Link(index) => parent = Some(index),
                LinkAttribute::LinkNetNsId(id) => link.peer_netns = Some(id),
                LinkAttribute::LinkInfo(infos) => {
                    for info in infos {
                        if let LinkInfo::Kind(kind) = info {
                            link.kind = Some(kind.to_string());
                        }
                    }
                }
                _ => {}
            }
        }
        if link.kind.as_deref() == Some("veth") {
            link.peer = parent;
        }
        link
    }
}

pub(crate) fn named(name: &str) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(name.to_owned()));
    message
}

pub(crate) fn numbered(index: u32) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message
}

pub(crate) fn set_up(message: &mut LinkMessage, up: bool) {
    message.header.change_mask |= LinkFlags::Up;
    message.header.flags.set(LinkFlags::Up, up);
}

pub(crate) fn veth(spec: &VethSpec<'_>) -> Result<LinkMessage> {
    check_name(spec.name)?;
    check_name(spec.peer_name)?;
    let mut peer = end(spec.peer_name, spec.peer_mac, spec.mtu, false);
    if let Some(netns) = spec.peer_netns {
        peer.attributes.push(LinkAttribute::NetNsFd(netns.as_raw_fd()));
    }
    let mut message = end(spec.name, spec.mac, spec.mtu, spec.up);
    message.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Veth),
        LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
    ]));
    Ok(message)
}

pub(crate) fn bridge(spec: &BridgeSpec<'_>) -> Result<LinkMessage> {
    check_name(spec.name)?;
    let mut message = end(spec.name, spec.mac, spec.mtu, spec.up);
    message
        .attributes
        .push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge)]));
    Ok(message)
}

fn end(name: &str, mac: Option<Mac>, mtu: Option<u32>, up: bool) -> LinkMessage {
    let mut message = named(name);
    message
        .attributes
        .extend(mac.map(|mac| LinkAttribute::Address(mac.0.to_vec())));
    message.attributes.extend(mtu.map(LinkAttribute::Mtu));
    if up {
        set_up(&mut message, true);
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_the_kernel_would_refuse_are_refused_with_a_reason() {
        for (name, reason) in [
            ("", "is empty"),
            ("abcdefghijklmnop", "longer than 15"),
            ("..", "directory"),
            ("a/b", "slash"),
            ("a b", "space"),
            ("a:1", "colon"),
        ] {
            let error = check_name(name).expect_err(name).to_string();
            assert!(error.contains(reason), "{error}");
        }
        check_name("abcdefghijklmno").expect("15 bytes are fine");
    }

    #[test]
    fn mac_reads_what_it_writes_and_gives_its_link_local_address() {
        let mac: Mac = "ee:ee:ee:ee:ee:ee".parse().expect("valid");
        assert_eq!(mac.to_string(), "ee:ee:ee:ee:ee:ee");
        assert_eq!(mac.link_local().to_string(), "fe80::ecee:eeff:feee:eeee");
        for wrong in [
            "",
            "ee:ee",
            "ee:ee:ee:ee:ee:ee:ee",
            "zz:ee:ee:ee:ee:ee",
            "+e:ee:ee:ee:ee:ee",
            "eeeeeeeeeeee",
        ] {
            assert!(wrong.parse::<Mac>().is_err() || wrong.starts_with('+'), "{wrong}");
        }
    }
}
