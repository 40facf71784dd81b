//! Prefixes on the wire (RFC 4271 section 4.3): a length in bits and as many octets as hold it.

use std::net::IpAddr;

use bytes::{BufMut, BytesMut};
use ipnetwork::IpNetwork;

use crate::prefix::{Family, truncate};

/// Why a list of prefixes cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadPrefix;

/// Reads prefixes of one family to the end of `input`; host bits are cleared.
///
/// # Errors
/// [`BadPrefix`] when a length exceeds the address size or the input ends inside a prefix.
pub fn decode(mut input: &[u8], family: Family) -> Result<Vec<IpNetwork>, BadPrefix> {
    let mut prefixes = Vec::new();
    while let Some((len, rest)) = input.split_first() {
        if *len > family.bits() {
            return Err(BadPrefix);
        }
        let octets = usize::from(len.div_ceil(8));
        let bytes = rest.get(..octets).ok_or(BadPrefix)?;
        input = &rest[octets..];
        let addr: IpAddr = match family {
            Family::Ipv4 => {
                let mut addr = [0; 4];
                addr[..octets].copy_from_slice(bytes);
                addr.into()
            }
            Family::Ipv6 => {
                let mut addr = [0; 16];
                addr[..octets].copy_from_slice(bytes);
                addr.into()
            }
        };
        prefixes.push(truncate(addr, *len));
    }
    Ok(prefixes)
}

/// Appends one prefix.
pub fn encode(prefix: &IpNetwork, out: &mut BytesMut) {
    let len = prefix.prefix();
    let octets = usize::from(len.div_ceil(8));
    out.put_u8(len);
    match prefix {
        IpNetwork::V4(net) => out.put_slice(&net.ip().octets()[..octets]),
        IpNetwork::V6(net) => out.put_slice(&net.ip().octets()[..octets]),
    }
}

/// Octets that [`encode`] writes for this prefix.
pub fn encoded_len(prefix: &IpNetwork) -> usize {
    1 + usize::from(prefix.prefix().div_ceil(8))
}
