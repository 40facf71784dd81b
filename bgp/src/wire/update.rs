//! UPDATE (RFC 4271 section 4.3), multiprotocol reach and unreach (RFC 4760), error handling (RFC 7606).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bytes::{BufMut, Bytes, BytesMut};
use ipnetwork::IpNetwork;

use super::attr::{self, AsPath, PathAttributes, Segment, code, flag};
use super::notification::Notification;
use super::{AS_TRANS, HEADER_LEN, MAX_LEN, Message, Options, nlri};
use crate::prefix::Family;

/// Routes announced and withdrawn by one message.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Update {
    /// IPv4 prefixes of the withdrawn-routes field.
    pub withdrawn: Vec<IpNetwork>,
    /// Attributes of everything announced here; `None` when nothing is.
    pub attributes: Option<PathAttributes>,
    /// NEXT_HOP, for `nlri`.
    pub next_hop: Option<Ipv4Addr>,
    /// IPv4 prefixes of the NLRI field.
    pub nlri: Vec<IpNetwork>,
    /// MP_REACH_NLRI.
    pub mp_reach: Option<MpReach>,
    /// MP_UNREACH_NLRI.
    pub mp_unreach: Option<MpUnreach>,
    /// What was wrong with it and has been dealt with (RFC 7606); always empty on messages made here.
    pub faults: Vec<Fault>,
}

/// MP_REACH_NLRI (RFC 4760 section 3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MpReach {
    /// The family of the prefixes.
    pub family: Family,
    /// Where to send the packets.
    pub next_hop: NextHop,
    /// The prefixes.
    pub nlri: Vec<IpNetwork>,
}

/// MP_UNREACH_NLRI (RFC 4760 section 4); with no prefixes it is the End-of-RIB of its family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MpUnreach {
    /// The family of the prefixes.
    pub family: Family,
    /// The prefixes.
    pub nlri: Vec<IpNetwork>,
}

/// A next hop: an address and, for IPv6, perhaps the link-local address of the same router (RFC 2545).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NextHop {
    /// The global address.
    pub addr: IpAddr,
    /// The link-local one.
    pub link_local: Option<Ipv6Addr>,
}

impl From<IpAddr> for NextHop {
    fn from(addr: IpAddr) -> Self {
        NextHop { addr, link_local: None }
    }
}

/// A malformed attribute that did not end the session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Attribute type code; 0 for the list as a whole.
    pub code: u8,
    /// Whether the routes of the message were withdrawn (else only the attribute was dropped).
    pub withdrawn: bool,
    /// The first octets of the attribute's value.
    pub bytes: Vec<u8>,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.code {
            0 => write!(f, "attribute list")?,
            code => write!(f, "attribute {code}")?,
        }
        write!(
            f,
            " malformed, {}; bytes",
            if self.withdrawn {
                "routes withdrawn"
            } else {
                "attribute ignored"
            }
        )?;
        self.bytes.iter().try_for_each(|b| write!(f, " {b:02x}"))
    }
}

/// What to do about a malformed attribute.
pub(super) enum Reaction {
    Discard,
    Withdraw,
    Reset(Notification),
}

impl Update {
    /// The family whose End-of-RIB marker this is (RFC 4724 section 2).
    pub fn end_of_rib(&self) -> Option<Family> {
        let no_ipv4 = self.withdrawn.is_empty() && self.nlri.is_empty();
        if !no_ipv4 || self.mp_reach.is_some() || self.attributes.is_some() || !self.faults.is_empty() {
            return None;
        }
        match &self.mp_unreach {
            None => Some(Family::Ipv4),
            Some(unreach) if unreach.nlri.is_empty() => Some(unreach.family),
            Some(_) => None,
        }
    }

    /// The End-of-RIB marker of a family.
    pub fn marker(family: Family) -> Self {
        let mp_unreach = (family != Family::Ipv4).then(|| MpUnreach {
            family,
            nlri: Vec::new(),
        });
        Update {
            mp_unreach,
            ..Update::default()
        }
    }
}

pub(super) fn decode(body: &[u8], options: Options) -> Result<Update, Notification> {
    let malformed = || Notification::update(1, &[]);
    let (withdrawn, rest) = counted(body).ok_or_else(malformed)?;
    let (attributes, announced) = counted(rest).ok_or_else(malformed)?;
    let bad_network = |_| Notification::update(10, &[]);
    let mut update = Update {
        withdrawn: nlri::decode(withdrawn, Family::Ipv4).map_err(bad_network)?,
        nlri: nlri::decode(announced, Family::Ipv4).map_err(bad_network)?,
        ..Update::default()
    };
    let mut attrs = PathAttributes::default();
    let mut extra = attr::Extra::default();
    let mut seen = [false; 256];
    let mut unknown_family = false;
    let mut input = attributes;
    while !input.is_empty() {
        let Ok((rest, raw)) = attr::split(input) else {
            // RFC 7606 section 3 (j): only routes that are seen can be withdrawn.
            let multiprotocol = [code::MP_REACH, code::MP_UNREACH].map(usize::from);
            if update.nlri.is_empty() && !multiprotocol.iter().any(|c| seen[*c]) {
                return Err(malformed());
            }
            update.fault(0, true, input);
            break;
        };
        input = rest;
        let repeated = std::mem::replace(&mut seen[usize::from(raw.code)], true);
        let reaction = match raw.code {
            code::MP_REACH | code::MP_UNREACH if repeated => return Err(malformed()),
            // RFC 7606 section 3 (g): all but the first are dropped.
            _ if repeated => Err(Reaction::Discard),
            code::MP_REACH => mp_reach(raw.value).and_then(|reach| {
                unknown_family |= reach.is_none();
                update.mp_reach = reach;
                attr::check_flags(&raw)
            }),
            code::MP_UNREACH => mp_unreach(raw.value).and_then(|unreach| {
                unknown_family |= unreach.is_none();
                update.mp_unreach = unreach;
                attr::check_flags(&raw)
            }),
            _ => attr::decode_attribute(&raw, options, &mut attrs, &mut extra),
        };
        match reaction {
            Ok(()) => {}
            Err(Reaction::Discard) => update.fault(raw.code, false, raw.value),
            Err(Reaction::Withdraw) => update.fault(raw.code, true, raw.value),
            Err(Reaction::Reset(notification)) => return Err(notification),
        }
    }
    let announces = !update.nlri.is_empty() || update.mp_reach.is_some();
    if announces {
        // RFC 7606 section 3 (d).
        if !extra.origin_seen && !seen[usize::from(code::ORIGIN)] {
            update.fault(code::ORIGIN, true, &[]);
        }
        if !extra.as_path_seen && !seen[usize::from(code::AS_PATH)] {
            update.fault(code::AS_PATH, true, &[]);
        }
        if !update.nlri.is_empty() && !seen[usize::from(code::NEXT_HOP)] {
            update.fault(code::NEXT_HOP, true, &[]);
        }
    }
    if update.faults.iter().any(|f| f.withdrawn) {
        update.treat_as_withdraw();
    } else if announces {
        merge_as4(&mut attrs, extra.as4_path, extra.as4_aggregator);
        update.next_hop = extra.next_hop.filter(|_| !update.nlri.is_empty());
        update.attributes = Some(attrs);
    } else if unknown_family || !attributes.is_empty() && update.mp_unreach.is_none() {
        // Says nothing that concerns us, and must not be taken for an End-of-RIB.
        update.attributes = Some(attrs);
    }
    Ok(update)
}

impl Update {
    fn fault(&mut self, code: u8, withdrawn: bool, value: &[u8]) {
        self.faults.push(Fault {
            code,
            withdrawn,
            bytes: value.iter().take(16).copied().collect(),
        });
    }

    fn treat_as_withdraw(&mut self) {
        self.withdrawn.append(&mut self.nlri);
        if let Some(reach) = self.mp_reach.take() {
            match &mut self.mp_unreach {
                Some(unreach) if unreach.family == reach.family => unreach.nlri.extend(reach.nlri),
                None => {
                    self.mp_unreach = Some(MpUnreach {
                        family: reach.family,
                        nlri: reach.nlri,
                    })
                }
                Some(_) if reach.family == Family::Ipv4 => self.withdrawn.extend(reach.nlri),
                Some(unreach) => {
                    // IPv4 withdrawals have a field of their own; make room for the other family.
                    self.withdrawn.append(&mut unreach.nlri);
                    *unreach = MpUnreach {
                        family: reach.family,
                        nlri: reach.nlri,
                    };
                }
            }
        }
    }
}

/// A field with a two-octet length in front, and what follows it.
fn counted(input: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = input.split_first_chunk::<2>()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*len)))
}

/// `Ok(None)` for a family that the speaker does not carry.
fn mp_reach(value: &[u8]) -> Result<Option<MpReach>, Reaction> {
    let reset = || Reaction::Reset(Notification::update(9, value));
    let [a, b, safi, len, rest @ ..] = value else {
        return Err(reset());
    };
    let (hop, rest) = rest.split_at_checked(usize::from(*len)).ok_or_else(reset)?;
    let Some((_, prefixes)) = rest.split_first() else {
        return Err(reset());
    };
    let Some(family) = Family::from_wire(u16::from_be_bytes([*a, *b]), *safi) else {
        return Ok(None);
    };
    let next_hop = next_hop(family, hop).ok_or_else(reset)?;
    let nlri = nlri::decode(prefixes, family).map_err(|_| reset())?;
    Ok(Some(MpReach { family, next_hop, nlri }))
}

fn next_hop(family: Family, bytes: &[u8]) -> Option<NextHop> {
    if let (Family::Ipv4, Ok(v4)) = (family, <[u8; 4]>::try_from(bytes)) {
        return Some(NextHop::from(IpAddr::from(v4)));
    }
    let (global, rest) = bytes.split_first_chunk::<16>()?;
    let global = Ipv6Addr::from(*global);
    match rest.len() {
        0 => Some(NextHop::from(IpAddr::from(global))),
        16 => {
            let local = Ipv6Addr::from(<[u8; 16]>::try_from(rest).ok()?);
            let link_local = local.is_unicast_link_local().then_some(local);
            let addr = if global.is_unspecified() {
                link_local.unwrap_or(global)
            } else {
                global
            };
            Some(NextHop {
                addr: addr.into(),
                link_local,
            })
        }
        _ => None,
    }
}

fn mp_unreach(value: &[u8]) -> Result<Option<MpUnreach>, Reaction> {
    let reset = || Reaction::Reset(Notification::update(9, value));
    let [a, b, safi, prefixes @ ..] = value else {
        return Err(reset());
    };
    let Some(family) = Family::from_wire(u16::from_be_bytes([*a, *b]), *safi) else {
        return Ok(None);
    };
    let nlri = nlri::decode(prefixes, family).map_err(|_| reset())?;
    Ok(Some(MpUnreach { family, nlri }))
}

/// RFC 6793 section 4.2.3: rebuilds the four-octet path behind two-octet speakers.
fn merge_as4(attrs: &mut PathAttributes, path: Option<AsPath>, aggregator: Option<attr::Aggregator>) {
    if let Some(aggregator) = aggregator {
        match attrs.aggregator {
            // An aggregator that is not AS_TRANS was set after the twin, so both twins are stale.
            Some(old) if old.asn != u32::from(AS_TRANS) => return,
            Some(_) => attrs.aggregator = Some(aggregator),
            None => {}
        }
    }
    let Some(path) = path else { return };
    let (have, want) = (attrs.as_path.length(), path.length());
    if have < want {
        return;
    }
    let mut keep = have - want;
    let mut merged: Vec<Segment> = Vec::new();
    for segment in &attrs.as_path.0 {
        match segment {
            Segment::Set(_) if keep > 0 => {
                keep -= 1;
                merged.push(segment.clone());
            }
            Segment::Sequence(asns) if keep > 0 => {
                let take = keep.min(asns.len());
                keep -= take;
                merged.push(Segment::Sequence(asns[..take].to_vec()));
            }
            Segment::Set(_) | Segment::Sequence(_) => break,
        }
    }
    for segment in path.0 {
        match (merged.last_mut(), segment) {
            (Some(Segment::Sequence(head)), Segment::Sequence(tail)) if head.len() + tail.len() <= 255 => {
                head.extend(tail);
            }
            (_, segment) => merged.push(segment),
        }
    }
    attrs.as_path = AsPath(merged);
}

pub(super) fn encode(update: &Update, options: Options, out: &mut BytesMut) {
    counted_block(out, |out| update.withdrawn.iter().for_each(|p| nlri::encode(p, out)));
    counted_block(out, |out| {
        // RFC 7606 section 5.1: the multiprotocol attributes come first.
        if let Some(reach) = &update.mp_reach {
            let mut value = BytesMut::new();
            value.put_u16(reach.family.afi());
            value.put_u8(1);
            put_next_hop(&reach.next_hop, &mut value);
            value.put_u8(0);
            reach.nlri.iter().for_each(|p| nlri::encode(p, &mut value));
            attr::put(out, flag::OPTIONAL, code::MP_REACH, &value);
        }
        if let Some(unreach) = &update.mp_unreach {
            let mut value = BytesMut::new();
            value.put_u16(unreach.family.afi());
            value.put_u8(1);
            unreach.nlri.iter().for_each(|p| nlri::encode(p, &mut value));
            attr::put(out, flag::OPTIONAL, code::MP_UNREACH, &value);
        }
        if let Some(attributes) = &update.attributes {
            attr::encode_low(attributes, update.next_hop, options.as4, out);
        }
    });
    update.nlri.iter().for_each(|p| nlri::encode(p, out));
}

fn put_next_hop(next_hop: &NextHop, out: &mut BytesMut) {
    match next_hop.addr {
        IpAddr::V4(addr) => {
            out.put_u8(4);
            out.put_slice(&addr.octets());
        }
        IpAddr::V6(addr) => {
            out.put_u8(if next_hop.link_local.is_some() { 32 } else { 16 });
            out.put_slice(&addr.octets());
            if let Some(local) = next_hop.link_local {
                out.put_slice(&local.octets());
            }
        }
    }
}

fn counted_block(out: &mut BytesMut, fill: impl FnOnce(&mut BytesMut)) {
    let start = out.len();
    out.put_u16(0);
    fill(out);
    let len = (out.len() - start - 2) as u16;
    out[start..start + 2].copy_from_slice(&len.to_be_bytes());
}

/// Writes announcements of prefixes of one family that share attributes, as many to a message as fit.
///
/// Returns the messages, or `None` when the attributes alone exceed a message and nothing can be sent.
pub fn pack_announce(
    attributes: &PathAttributes,
    next_hop: NextHop,
    family: Family,
    prefixes: &[IpNetwork],
    options: Options,
) -> Option<Vec<Bytes>> {
    let classic = match (family, next_hop.addr) {
        (Family::Ipv4, IpAddr::V4(addr)) => Some(addr),
        _ => None,
    };
    let make = |prefixes: &[IpNetwork]| {
        let attributes = Some(attributes.clone());
        Message::from(match classic {
            Some(_) => Update {
                attributes,
                next_hop: classic,
                nlri: prefixes.to_vec(),
                ..Update::default()
            },
            None => {
                let mp_reach = Some(MpReach {
                    family,
                    next_hop,
                    nlri: prefixes.to_vec(),
                });
                Update {
                    attributes,
                    mp_reach,
                    ..Update::default()
                }
            }
        })
    };
    // One octet spare: MP_REACH may need the two-octet length that its empty form does not.
    let overhead = make(&[]).encode(options).len() + 1;
    pack(overhead, prefixes, |chunk| make(chunk).encode(options))
}

/// Writes withdrawals of prefixes of one family, as many to a message as fit.
pub fn pack_withdraw(family: Family, prefixes: &[IpNetwork], options: Options) -> Vec<Bytes> {
    let make = |prefixes: &[IpNetwork]| {
        Message::from(match family {
            Family::Ipv4 => Update {
                withdrawn: prefixes.to_vec(),
                ..Update::default()
            },
            Family::Ipv6 => {
                let mp_unreach = Some(MpUnreach {
                    family,
                    nlri: prefixes.to_vec(),
                });
                Update {
                    mp_unreach,
                    ..Update::default()
                }
            }
        })
    };
    let overhead = HEADER_LEN + 4 + 8;
    pack(overhead, prefixes, |chunk| make(chunk).encode(options)).unwrap_or_default()
}

fn pack(overhead: usize, prefixes: &[IpNetwork], make: impl Fn(&[IpNetwork]) -> Bytes) -> Option<Vec<Bytes>> {
    let mut messages = Vec::new();
    let (mut start, mut size) = (0, overhead);
    for (i, prefix) in prefixes.iter().enumerate() {
        let len = nlri::encoded_len(prefix);
        if overhead + len > MAX_LEN {
            return None;
        }
        if size + len > MAX_LEN {
            messages.push(make(&prefixes[start..i]));
            (start, size) = (i, overhead);
        }
        size += len;
    }
    if start < prefixes.len() {
        messages.push(make(&prefixes[start..]));
    }
    Some(messages)
}
