//! OPEN (RFC 4271 section 4.2) and capabilities (RFC 5492).

use std::net::Ipv4Addr;

use bytes::{BufMut, BytesMut};
use nom::IResult;
use nom::Parser;
use nom::bytes::complete::take;
use nom::multi::length_data;
use nom::number::complete::{be_u8, be_u16, be_u32};

use super::notification::Notification;
use crate::prefix::Family;

/// What a speaker says of itself when a connection opens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    /// The two-octet AS number, [`super::AS_TRANS`] when the real one needs four.
    pub my_as: u16,
    /// Seconds; 0 switches keepalives off, 1 and 2 are refused.
    pub hold_time: u16,
    /// The BGP identifier.
    pub router_id: Ipv4Addr,
    /// Capabilities in the order they appear.
    pub capabilities: Vec<Capability>,
}

/// One capability (RFC 5492).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Capability {
    /// Multiprotocol for a family that the speaker carries (RFC 4760), code 1.
    Multiprotocol(Family),
    /// Route refresh (RFC 2918), code 2.
    RouteRefresh,
    /// Graceful restart (RFC 4724), code 64.
    GracefulRestart(GracefulRestart),
    /// The four-octet AS number (RFC 6793), code 65.
    FourOctetAs(u32),
    /// Any other, kept as it came.
    Other {
        /// Capability code.
        code: u8,
        /// Its value.
        value: Vec<u8>,
    },
}

/// The graceful restart capability (RFC 4724 section 3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GracefulRestart {
    /// R bit: this speaker has just restarted; do not wait for its End-of-RIB.
    pub restarted: bool,
    /// Seconds (12 bits) after which the other side may forget a speaker that did not come back.
    pub restart_time: u16,
    /// Families whose forwarding state can be kept; others are omitted.
    pub families: Vec<GracefulFamily>,
}

/// A family within the graceful restart capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GracefulFamily {
    /// The family.
    pub family: Family,
    /// F bit: forwarding state was in fact kept over the last restart.
    pub forwarding: bool,
}

impl Open {
    /// The AS number of the sender, four octets if it told them (RFC 6793).
    pub fn asn(&self) -> u32 {
        self.capabilities
            .iter()
            .find_map(|c| {
                if let Capability::FourOctetAs(asn) = c {
                    Some(*asn)
                } else {
                    None
                }
            })
            .unwrap_or(u32::from(self.my_as))
    }

    /// Families the sender can carry: those of its multiprotocol capabilities, IPv4 when it named none at all.
    pub fn families(&self) -> Vec<Family> {
        let mut families: Vec<Family> = Vec::new();
        let mut any = false;
        for capability in &self.capabilities {
            match capability {
                Capability::Multiprotocol(family) => {
                    any = true;
                    if !families.contains(family) {
                        families.push(*family);
                    }
                }
                Capability::Other { code: 1, .. } => any = true,
                _ => {}
            }
        }
        if any { families } else { vec![Family::Ipv4] }
    }

    /// Whether the sender uses four-octet AS numbers.
    pub fn as4(&self) -> bool {
        self.capabilities
            .iter()
            .any(|c| matches!(c, Capability::FourOctetAs(_)))
    }

    /// Whether the sender answers route refresh.
    pub fn route_refresh(&self) -> bool {
        self.capabilities.contains(&Capability::RouteRefresh)
    }

    /// The sender's graceful restart capability.
    pub fn graceful_restart(&self) -> Option<&GracefulRestart> {
        self.capabilities.iter().find_map(|c| {
            if let Capability::GracefulRestart(g) = c {
                Some(g)
            } else {
                None
            }
        })
    }
}

struct Fixed<'a> {
    version: u8,
    my_as: u16,
    hold_time: u16,
    router_id: u32,
    parameters: &'a [u8],
}

fn fixed(input: &[u8]) -> IResult<&[u8], Fixed<'_>> {
    let (input, (version, my_as, hold_time, router_id)) = (be_u8, be_u16, be_u16, be_u32).parse(input)?;
    let (input, len) = be_u8(input)?;
    // RFC 9072: a length of 255 followed by type 255 announces two-octet lengths.
    let (input, parameters) = match input {
        [255, rest @ ..] if len == 255 => length_data(be_u16).parse(rest)?,
        _ => take(len).parse(input)?,
    };
    Ok((
        input,
        Fixed {
            version,
            my_as,
            hold_time,
            router_id,
            parameters,
        },
    ))
}

fn parameter(input: &[u8], extended: bool) -> IResult<&[u8], (u8, &[u8])> {
    if extended {
        (be_u8, length_data(be_u16)).parse(input)
    } else {
        (be_u8, length_data(be_u8)).parse(input)
    }
}

fn tlv(input: &[u8]) -> IResult<&[u8], (u8, &[u8])> {
    (be_u8, length_data(be_u8)).parse(input)
}

pub(super) fn decode(body: &[u8]) -> Result<Open, Notification> {
    let unspecific = |_| Notification::open(0, &[]);
    let (rest, open) = fixed(body).map_err(unspecific)?;
    if open.version != 4 {
        return Err(Notification::open(1, &[0, 4]));
    }
    if !rest.is_empty() {
        return Err(Notification::open(0, &[]));
    }
    if matches!(open.hold_time, 1 | 2) {
        return Err(Notification::open(6, &[]));
    }
    if open.router_id == 0 {
        return Err(Notification::open(3, &[]));
    }
    let extended = body.get(9) == Some(&255) && body.get(10) == Some(&255);
    let mut capabilities = Vec::new();
    let mut parameters = open.parameters;
    while !parameters.is_empty() {
        let (rest, (kind, mut value)) = parameter(parameters, extended).map_err(unspecific)?;
        parameters = rest;
        if kind != 2 {
            return Err(Notification::open(4, &[]));
        }
        while !value.is_empty() {
            let (rest, (code, data)) = tlv(value).map_err(unspecific)?;
            value = rest;
            capabilities.push(capability(code, data));
        }
    }
    Ok(Open {
        my_as: open.my_as,
        hold_time: open.hold_time,
        router_id: open.router_id.into(),
        capabilities,
    })
}

fn capability(code: u8, value: &[u8]) -> Capability {
    match (code, value) {
        (1, [a, b, _, safi]) => {
            if let Some(family) = Family::from_wire(u16::from_be_bytes([*a, *b]), *safi) {
                return Capability::Multiprotocol(family);
            }
        }
        (2, []) => return Capability::RouteRefresh,
        (64, [high, low, families @ ..]) if families.len() % 4 == 0 => {
            return Capability::GracefulRestart(GracefulRestart {
                restarted: high & 0x80 != 0,
                restart_time: u16::from_be_bytes([high & 0x0f, *low]),
                families: families
                    .chunks_exact(4)
                    .filter_map(|c| {
                        let family = Family::from_wire(u16::from_be_bytes([c[0], c[1]]), c[2])?;
                        Some(GracefulFamily {
                            family,
                            forwarding: c[3] & 0x80 != 0,
                        })
                    })
                    .collect(),
            });
        }
        (65, [a, b, c, d]) => return Capability::FourOctetAs(u32::from_be_bytes([*a, *b, *c, *d])),
        _ => {}
    }
    Capability::Other {
        code,
        value: value.to_vec(),
    }
}

pub(super) fn encode(open: &Open, out: &mut BytesMut) {
    out.put_u8(4);
    out.put_u16(open.my_as);
    out.put_u16(open.hold_time);
    out.put_u32(open.router_id.into());
    let mut capabilities = BytesMut::new();
    for capability in &open.capabilities {
        encode_capability(capability, &mut capabilities);
    }
    if capabilities.is_empty() {
        out.put_u8(0);
    } else if capabilities.len() + 2 < 255 {
        out.put_u8(capabilities.len() as u8 + 2);
        out.put_u8(2);
        out.put_u8(capabilities.len() as u8);
    } else {
        out.put_slice(&[255, 255]);
        out.put_u16(capabilities.len() as u16 + 3);
        out.put_u8(2);
        out.put_u16(capabilities.len() as u16);
    }
    out.put_slice(&capabilities);
}

fn encode_capability(capability: &Capability, out: &mut BytesMut) {
    match capability {
        Capability::Multiprotocol(family) => {
            out.put_slice(&[1, 4]);
            out.put_u16(family.afi());
            out.put_slice(&[0, 1]);
        }
        Capability::RouteRefresh => out.put_slice(&[2, 0]),
        Capability::GracefulRestart(graceful) => {
            out.put_slice(&[64, 2 + 4 * graceful.families.len() as u8]);
            out.put_u16(graceful.restart_time & 0x0fff | if graceful.restarted { 0x8000 } else { 0 });
            for family in &graceful.families {
                out.put_u16(family.family.afi());
                out.put_u8(1);
                out.put_u8(if family.forwarding { 0x80 } else { 0 });
            }
        }
        Capability::FourOctetAs(asn) => {
            out.put_slice(&[65, 4]);
            out.put_u32(*asn);
        }
        Capability::Other { code, value } => {
            out.put_slice(&[*code, value.len() as u8]);
            out.put_slice(value);
        }
    }
}
