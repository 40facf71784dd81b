//! What connection tracking remembers of an address.
//!
//! Rules let a connection through for as long as it is remembered. An address that passes from one workload to another must
//! not bring the connections of the former one along.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;

use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr};

/// `IPCTNL_MSG_CT_GET` and `IPCTNL_MSG_CT_DELETE` of `NFNL_SUBSYS_CTNETLINK`.
const GET: u16 = 1 << 8 | 1;
const DELETE: u16 = 1 << 8 | 2;

/// `NLM_F_REQUEST` with `NLM_F_DUMP`, and with `NLM_F_ACK`.
const DUMP: u16 = 0x301;
const ACKNOWLEDGE: u16 = 0x005;

/// `NLMSG_ERROR` and `NLMSG_DONE`.
const ERROR: u16 = 2;
const DONE: u16 = 3;

/// `CTA_TUPLE_ORIG`, `CTA_TUPLE_REPLY`, `CTA_ID` and `CTA_ZONE`; within a tuple `CTA_TUPLE_IP`.
const ORIGINAL: u16 = 1;
const REPLY: u16 = 2;
const ID: u16 = 12;
const ZONE: u16 = 18;
const ADDRESSES: u16 = 1;

/// Makes the kernel, in the network namespace of the calling thread, forget every connection from or to any of the
/// addresses, and says how many those were. Blocks; its cost grows with the number of connections of the node.
///
/// # Errors
///
/// When the kernel has no netlink for connection tracking, or without `CAP_NET_ADMIN`.
pub fn forget_connections(addresses: &[IpAddr]) -> io::Result<usize> {
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind(&SocketAddr::new(0, 0))?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let families: BTreeSet<u8> = addresses.iter().map(|address| family(*address)).collect();
    let mut forgotten = 0;
    for family in families {
        for connection in connections(&socket, family, addresses)? {
            socket.send(&message(DELETE, ACKNOWLEDGE, family, &connection), 0)?;
            match receive(&socket, |_| ()) {
                Ok(()) => forgotten += 1,
                // It ended by itself.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(forgotten)
}

/// What names each connection of the addresses, as the kernel wants it back.
fn connections(socket: &Socket, family: u8, addresses: &[IpAddr]) -> io::Result<Vec<Vec<u8>>> {
    let mut found = Vec::new();
    socket.send(&message(GET, DUMP, family, &[]), 0)?;
    receive(socket, |attributes| {
        let concerned = self::attributes(attributes)
            .filter(|attribute| [ORIGINAL, REPLY].contains(&attribute.kind))
            .flat_map(|tuple| self::attributes(tuple.value))
            .filter(|attribute| attribute.kind == ADDRESSES)
            .flat_map(|part| self::attributes(part.value))
            .filter_map(|attribute| address(attribute.value))
            .any(|address| addresses.contains(&address));
        if concerned {
            let names = self::attributes(attributes).filter(|attribute| [ORIGINAL, ID, ZONE].contains(&attribute.kind));
            found.push(names.flat_map(|attribute| attribute.padded()).collect());
        }
    })?;
    Ok(found)
}

/// Reads one answer to its end; `each` sees the attributes of what comes before that.
fn receive(socket: &Socket, mut each: impl FnMut(&[u8])) -> io::Result<()> {
    loop {
        let (datagram, _) = socket.recv_from_full()?;
        let mut messages = &datagram[..];
        while let Some((header, _)) = messages.split_first_chunk::<16>() {
            let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
            let Some(body) = messages.get(16..length) else { break };
            match u16::from_ne_bytes([header[4], header[5]]) {
                DONE => return Ok(()),
                ERROR => {
                    let code = body.first_chunk().map_or(0, |code| i32::from_ne_bytes(*code));
                    return if code == 0 {
                        Ok(())
                    } else {
                        Err(io::Error::from_raw_os_error(-code))
                    };
                }
                // The family, version and resource come first.
                _ => each(body.get(4..).unwrap_or_default()),
            }
            messages = messages.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
    }
}

fn message(kind: u16, flags: u16, family: u8, attributes: &[u8]) -> Vec<u8> {
    let mut message = ((20 + attributes.len()) as u32).to_ne_bytes().to_vec();
    message.extend(kind.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend([0; 8]);
    message.extend([family, 0, 0, 0]);
    message.extend(attributes);
    message
}

/// A netlink attribute.
struct Attribute<'a> {
    kind: u16,
    whole: &'a [u8],
    value: &'a [u8],
}

impl Attribute<'_> {
    fn padded(&self) -> Vec<u8> {
        let mut bytes = self.whole.to_vec();
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }
}

fn attributes(mut rest: &[u8]) -> impl Iterator<Item = Attribute<'_>> {
    std::iter::from_fn(move || {
        let header = rest.first_chunk::<4>()?;
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let kind = u16::from_ne_bytes([header[2], header[3]]);
        let (whole, value) = (rest.get(..length)?, rest.get(4..length)?);
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        // The upper two bits are flags.
        Some(Attribute {
            kind: kind & 0x3fff,
            whole,
            value,
        })
    })
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

/// `AF_INET` or `AF_INET6`.
fn family(address: IpAddr) -> u8 {
    if address.is_ipv4() { 2 } else { 10 }
}
