//! Reading attributes, with the reaction to each fault that RFC 7606 section 7 asks for.

use std::net::Ipv4Addr;

use nom::IResult;
use nom::Parser;
use nom::bytes::complete::take;
use nom::number::complete::{be_u8, be_u16};

use super::{Aggregator, AsPath, Community, LargeCommunity, Origin, PathAttributes, Segment, UnknownAttribute};
use super::{code, flag};
use crate::wire::update::Reaction;
use crate::wire::{Notification, Options};

/// One attribute before its value is understood.
pub(in crate::wire) struct RawAttribute<'a> {
    pub(in crate::wire) flags: u8,
    pub(in crate::wire) code: u8,
    pub(in crate::wire) value: &'a [u8],
}

/// Takes the next attribute off the list; an error means that the list's lengths do not add up.
pub(in crate::wire) fn split(input: &[u8]) -> IResult<&[u8], RawAttribute<'_>> {
    let (input, (flags, code)) = (be_u8, be_u8).parse(input)?;
    let (input, len) = if flags & flag::EXTENDED != 0 {
        be_u16(input)?
    } else {
        let (input, len) = be_u8(input)?;
        (input, u16::from(len))
    };
    let (input, value) = take(len).parse(input)?;
    Ok((
        input,
        RawAttribute {
            flags: flags & !flag::EXTENDED,
            code,
            value,
        },
    ))
}

/// Attributes that only matter until all are read: the four-octet twins of RFC 6793.
#[derive(Default)]
pub(in crate::wire) struct Extra {
    pub(in crate::wire) next_hop: Option<Ipv4Addr>,
    pub(in crate::wire) origin_seen: bool,
    pub(in crate::wire) as_path_seen: bool,
    pub(in crate::wire) as4_path: Option<AsPath>,
    pub(in crate::wire) as4_aggregator: Option<Aggregator>,
}

/// Understands one attribute into `attrs` and `extra`.
///
/// # Errors
/// What RFC 7606 asks to do about a malformed one.
pub(in crate::wire) fn decode_attribute(
    raw: &RawAttribute<'_>,
    options: Options,
    attrs: &mut PathAttributes,
    extra: &mut Extra,
) -> Result<(), Reaction> {
    check_flags(raw)?;
    let value = raw.value;
    match raw.code {
        code::ORIGIN => {
            attrs.origin = match value {
                [0] => Origin::Igp,
                [1] => Origin::Egp,
                [2] => Origin::Incomplete,
                _ => return Err(Reaction::Withdraw),
            };
            extra.origin_seen = true;
        }
        code::AS_PATH => {
            attrs.as_path = as_path(value, options.as4, false).ok_or(Reaction::Withdraw)?;
            extra.as_path_seen = true;
        }
        code::NEXT_HOP => {
            let addr = Ipv4Addr::from(array::<4>(value).ok_or(Reaction::Withdraw)?);
            if addr.is_unspecified() || addr.is_multicast() || addr.is_broadcast() || addr.is_loopback() {
                return Err(Reaction::Withdraw);
            }
            extra.next_hop = Some(addr);
        }
        code::MED => attrs.med = Some(u32::from_be_bytes(array(value).ok_or(Reaction::Withdraw)?)),
        code::LOCAL_PREF | code::ORIGINATOR_ID | code::CLUSTER_LIST if !options.ibgp => {
            return Err(Reaction::Discard);
        }
        code::LOCAL_PREF => attrs.local_pref = Some(u32::from_be_bytes(array(value).ok_or(Reaction::Withdraw)?)),
        code::ORIGINATOR_ID => attrs.originator_id = Some(array::<4>(value).ok_or(Reaction::Withdraw)?.into()),
        code::CLUSTER_LIST => {
            attrs.cluster_list = chunks::<4>(value)
                .ok_or(Reaction::Withdraw)?
                .map(Ipv4Addr::from)
                .collect();
        }
        code::ATOMIC_AGGREGATE => {
            if !value.is_empty() {
                return Err(Reaction::Discard);
            }
            attrs.atomic_aggregate = true;
        }
        code::AGGREGATOR => {
            attrs.aggregator = Some(aggregator(value, options.as4).ok_or(Reaction::Discard)?);
        }
        code::COMMUNITIES => {
            attrs.communities = chunks::<4>(value)
                .ok_or(Reaction::Withdraw)?
                .map(|c| Community(u32::from_be_bytes(c)))
                .collect();
        }
        code::EXT_COMMUNITIES => {
            attrs.ext_communities = chunks::<8>(value).ok_or(Reaction::Withdraw)?.collect();
        }
        code::LARGE_COMMUNITIES => {
            attrs.large_communities = chunks::<12>(value)
                .ok_or(Reaction::Withdraw)?
                .map(|c| LargeCommunity(std::array::from_fn(|i| word(&c[4 * i..]))))
                .collect();
        }
        // RFC 6793 section 4.1: a speaker with four-octet numbers must not send these; drop them.
        code::AS4_PATH | code::AS4_AGGREGATOR if options.as4 => return Err(Reaction::Discard),
        code::AS4_PATH => {
            // RFC 6793 section 6: segments of confederations are left out.
            extra.as4_path = Some(as_path(value, true, true).ok_or(Reaction::Discard)?);
        }
        code::AS4_AGGREGATOR => extra.as4_aggregator = Some(aggregator(value, true).ok_or(Reaction::Discard)?),
        other => {
            if raw.flags & flag::OPTIONAL == 0 {
                return Err(Reaction::Reset(Notification::update(2, &[raw.flags, other])));
            }
            if raw.flags & flag::TRANSITIVE != 0 {
                attrs.unknown.push(UnknownAttribute {
                    flags: raw.flags | flag::PARTIAL,
                    code: other,
                    value: value.to_vec(),
                });
            }
        }
    }
    let kept = [
        code::AGGREGATOR,
        code::COMMUNITIES,
        code::EXT_COMMUNITIES,
        code::LARGE_COMMUNITIES,
    ];
    if raw.flags & flag::PARTIAL != 0 && kept.contains(&raw.code) {
        attrs.partial.push(raw.code);
    }
    Ok(())
}

/// RFC 7606 section 3 (c): flags that contradict the type make the attribute malformed.
pub(in crate::wire) fn check_flags(raw: &RawAttribute<'_>) -> Result<(), Reaction> {
    let expected = match raw.code {
        code::ORIGIN | code::AS_PATH | code::NEXT_HOP | code::LOCAL_PREF | code::ATOMIC_AGGREGATE => flag::TRANSITIVE,
        code::MED | code::ORIGINATOR_ID | code::CLUSTER_LIST | code::MP_REACH | code::MP_UNREACH => flag::OPTIONAL,
        code::AGGREGATOR
        | code::COMMUNITIES
        | code::EXT_COMMUNITIES
        | code::AS4_PATH
        | code::AS4_AGGREGATOR
        | code::LARGE_COMMUNITIES => flag::OPTIONAL | flag::TRANSITIVE,
        _ => return Ok(()),
    };
    if raw.flags & (flag::OPTIONAL | flag::TRANSITIVE) == expected {
        Ok(())
    } else {
        Err(Reaction::Withdraw)
    }
}

/// AS 0 is no AS (RFC 7607). We are in no confederation, so a neighbour must not show us the inside of its own (RFC 5065
/// section 5), unless it is to be left out.
fn as_path(mut input: &[u8], as4: bool, leave_out_confederations: bool) -> Option<AsPath> {
    let width = if as4 { 4 } else { 2 };
    let mut segments = Vec::new();
    while let [kind, count, rest @ ..] = input {
        let octets = usize::from(*count) * width;
        if *count == 0 || rest.len() < octets {
            return None;
        }
        let asns: Vec<u32> = rest[..octets]
            .chunks_exact(width)
            .map(|c| {
                if as4 {
                    word(c)
                } else {
                    u32::from(u16::from_be_bytes([c[0], c[1]]))
                }
            })
            .collect();
        match kind {
            _ if asns.contains(&0) => return None,
            1 => segments.push(Segment::Set(asns)),
            2 => segments.push(Segment::Sequence(asns)),
            3 | 4 if leave_out_confederations => {}
            _ => return None,
        }
        input = &rest[octets..];
    }
    input.is_empty().then_some(AsPath(segments))
}

fn aggregator(value: &[u8], as4: bool) -> Option<Aggregator> {
    let aggregator = match (value, as4) {
        ([a, b, c, d, rest @ ..], true) => Some(Aggregator {
            asn: word(&[*a, *b, *c, *d]),
            router_id: array::<4>(rest)?.into(),
        }),
        ([a, b, rest @ ..], false) => Some(Aggregator {
            asn: u16::from_be_bytes([*a, *b]).into(),
            router_id: array::<4>(rest)?.into(),
        }),
        _ => None,
    };
    aggregator.filter(|a| a.asn != 0)
}

fn array<const N: usize>(value: &[u8]) -> Option<[u8; N]> {
    value.try_into().ok()
}

/// The value as a non-empty list of fixed-size items.
fn chunks<const N: usize>(value: &[u8]) -> Option<impl Iterator<Item = [u8; N]> + '_> {
    let (items, rest) = value.as_chunks::<N>();
    (rest.is_empty() && !items.is_empty()).then(|| items.iter().copied())
}

fn word(bytes: &[u8]) -> u32 {
    u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}
