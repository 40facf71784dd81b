//! Path attributes (RFC 4271 section 5, 1997, 4360, 4456, 6793, 8092) and their faults (RFC 7606).

mod decode;

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use bytes::{BufMut, BytesMut};
use serde::{Deserialize, Serialize};

use super::AS_TRANS;

pub(super) use decode::{Extra, check_flags, decode_attribute, split};

/// Attribute type codes.
pub(crate) mod code {
    pub(crate) const ORIGIN: u8 = 1;
    pub(crate) const AS_PATH: u8 = 2;
    pub(crate) const NEXT_HOP: u8 = 3;
    pub(crate) const MED: u8 = 4;
    pub(crate) const LOCAL_PREF: u8 = 5;
    pub(crate) const ATOMIC_AGGREGATE: u8 = 6;
    pub(crate) const AGGREGATOR: u8 = 7;
    pub(crate) const COMMUNITIES: u8 = 8;
    pub(crate) const ORIGINATOR_ID: u8 = 9;
    pub(crate) const CLUSTER_LIST: u8 = 10;
    pub(crate) const MP_REACH: u8 = 14;
    pub(crate) const MP_UNREACH: u8 = 15;
    pub(crate) const EXT_COMMUNITIES: u8 = 16;
    pub(crate) const AS4_PATH: u8 = 17;
    pub(crate) const AS4_AGGREGATOR: u8 = 18;
    pub(crate) const LARGE_COMMUNITIES: u8 = 32;
}

/// Attribute flag bits.
pub(crate) mod flag {
    pub(crate) const OPTIONAL: u8 = 0x80;
    pub(crate) const TRANSITIVE: u8 = 0x40;
    pub(crate) const PARTIAL: u8 = 0x20;
    pub(crate) const EXTENDED: u8 = 0x10;
}

/// Everything said about a set of routes except the next hop.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct PathAttributes {
    /// ORIGIN.
    pub origin: Origin,
    /// AS_PATH, already merged with AS4_PATH.
    pub as_path: AsPath,
    /// MULTI_EXIT_DISC.
    pub med: Option<u32>,
    /// LOCAL_PREF; only inside an AS.
    pub local_pref: Option<u32>,
    /// ATOMIC_AGGREGATE is present.
    pub atomic_aggregate: bool,
    /// AGGREGATOR.
    pub aggregator: Option<Aggregator>,
    /// COMMUNITIES (RFC 1997).
    pub communities: Vec<Community>,
    /// ORIGINATOR_ID (RFC 4456).
    pub originator_id: Option<Ipv4Addr>,
    /// CLUSTER_LIST (RFC 4456).
    pub cluster_list: Vec<Ipv4Addr>,
    /// Extended communities (RFC 4360), opaque.
    pub ext_communities: Vec<[u8; 8]>,
    /// Large communities (RFC 8092).
    pub large_communities: Vec<LargeCommunity>,
    /// Type codes of understood attributes that came with the partial bit: somebody before us did not understand them.
    pub partial: Vec<u8>,
    /// Attributes that are not understood; transitive ones are passed on with the partial bit.
    pub unknown: Vec<UnknownAttribute>,
}

/// ORIGIN, in order of preference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// Interior to the originating AS.
    Igp,
    /// Learnt by EGP.
    Egp,
    /// By some other means.
    #[default]
    Incomplete,
}

/// AS_PATH: the nearest AS first.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct AsPath(pub Vec<Segment>);

/// One segment of an AS_PATH.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Segment {
    /// AS_SEQUENCE.
    Sequence(Vec<u32>),
    /// AS_SET.
    Set(Vec<u32>),
}

/// AGGREGATOR.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Aggregator {
    /// The AS that aggregated.
    pub asn: u32,
    /// The speaker that did.
    pub router_id: Ipv4Addr,
}

/// A standard community, written `65000:100`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Community(pub u32);

impl Community {
    /// Not to be told to eBGP peers.
    pub const NO_EXPORT: Community = Community(0xffff_ff01);
    /// Not to be told to anyone.
    pub const NO_ADVERTISE: Community = Community(0xffff_ff02);
    /// Not to be told outside the member AS.
    pub const NO_EXPORT_SUBCONFED: Community = Community(0xffff_ff03);
}

/// A large community, written `64496:1:2`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LargeCommunity(pub [u32; 3]);

/// An attribute the speaker does not know.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UnknownAttribute {
    /// Flags without the extended-length bit.
    pub flags: u8,
    /// Type code.
    pub code: u8,
    /// Value as it came.
    pub value: Vec<u8>,
}

impl UnknownAttribute {
    /// Whether it is passed on to other peers.
    pub fn is_transitive(&self) -> bool {
        self.flags & flag::TRANSITIVE != 0
    }
}

impl Segment {
    /// The AS numbers of the segment.
    pub fn asns(&self) -> &[u32] {
        match self {
            Segment::Sequence(v) | Segment::Set(v) => v,
        }
    }

    fn wire_type(&self) -> u8 {
        match self {
            Segment::Set(_) => 1,
            Segment::Sequence(_) => 2,
        }
    }
}

impl AsPath {
    /// A path of one sequence.
    pub fn sequence(asns: &[u32]) -> Self {
        if asns.is_empty() {
            AsPath::default()
        } else {
            AsPath(vec![Segment::Sequence(asns.to_vec())])
        }
    }

    /// Length for the decision process: a set counts one.
    pub fn length(&self) -> usize {
        self.0
            .iter()
            .map(|s| match s {
                Segment::Sequence(v) => v.len(),
                Segment::Set(_) => 1,
            })
            .sum()
    }

    /// Whether the AS appears anywhere in the path.
    pub fn contains(&self, asn: u32) -> bool {
        self.0.iter().any(|s| s.asns().contains(&asn))
    }

    /// The AS the route came from: the first of a leading sequence.
    pub fn neighbor_as(&self) -> Option<u32> {
        match self.0.first()? {
            Segment::Sequence(v) => v.first().copied(),
            Segment::Set(_) => None,
        }
    }

    /// The AS that originated the route: the last of the path.
    pub fn origin_as(&self) -> Option<u32> {
        self.0.last().and_then(|s| s.asns().last().copied())
    }

    /// The path with `asn` put in front, as an eBGP speaker sends it.
    pub fn prepended(&self, asn: u32) -> Self {
        let mut segments = self.0.clone();
        match segments.first_mut() {
            Some(Segment::Sequence(v)) if v.len() < 255 => v.insert(0, asn),
            _ => segments.insert(0, Segment::Sequence(vec![asn])),
        }
        AsPath(segments)
    }

    fn needs_as4(&self) -> bool {
        self.0
            .iter()
            .flat_map(Segment::asns)
            .any(|asn| *asn > u32::from(u16::MAX))
    }
}

impl fmt::Display for AsPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, segment) in self.0.iter().enumerate() {
            if i > 0 {
                write!(f, " ")?;
            }
            let asns: Vec<String> = segment.asns().iter().map(u32::to_string).collect();
            match segment {
                Segment::Sequence(_) => write!(f, "{}", asns.join(" "))?,
                Segment::Set(_) => write!(f, "{{{}}}", asns.join(","))?,
            }
        }
        Ok(())
    }
}

impl fmt::Display for Community {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.0 >> 16, self.0 & 0xffff)
    }
}

impl FromStr for Community {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (high, low) = s.split_once(':')?;
            Some(Community(
                u32::from(high.parse::<u16>().ok()?) << 16 | u32::from(low.parse::<u16>().ok()?),
            ))
        };
        match s {
            "no-export" => Ok(Community::NO_EXPORT),
            "no-advertise" => Ok(Community::NO_ADVERTISE),
            _ => parse().ok_or_else(|| format!("\"{s}\" is not a community: write it like 65000:100")),
        }
    }
}

impl Serialize for Community {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Community {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for LargeCommunity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.0[0], self.0[1], self.0[2])
    }
}

/// Appends the attributes in order of type code; NEXT_HOP, MP_REACH and MP_UNREACH are the caller's.
pub(super) fn encode_low(attrs: &PathAttributes, next_hop: Option<Ipv4Addr>, as4: bool, out: &mut BytesMut) {
    put(out, flag::TRANSITIVE, code::ORIGIN, &[attrs.origin as u8]);
    put(out, flag::TRANSITIVE, code::AS_PATH, &path_bytes(&attrs.as_path, as4));
    if let Some(next_hop) = next_hop {
        put(out, flag::TRANSITIVE, code::NEXT_HOP, &next_hop.octets());
    }
    if let Some(med) = attrs.med {
        put(out, flag::OPTIONAL, code::MED, &med.to_be_bytes());
    }
    if let Some(local_pref) = attrs.local_pref {
        put(out, flag::TRANSITIVE, code::LOCAL_PREF, &local_pref.to_be_bytes());
    }
    if attrs.atomic_aggregate {
        put(out, flag::TRANSITIVE, code::ATOMIC_AGGREGATE, &[]);
    }
    let optional_transitive = flag::OPTIONAL | flag::TRANSITIVE;
    // RFC 4271 section 5: the partial bit, once set, stays.
    let known = |code| match attrs.partial.contains(&code) {
        true => optional_transitive | flag::PARTIAL,
        false => optional_transitive,
    };
    if let Some(aggregator) = attrs.aggregator {
        let mut value = Vec::with_capacity(8);
        if as4 {
            value.extend_from_slice(&aggregator.asn.to_be_bytes());
        } else {
            value.extend_from_slice(&u16::try_from(aggregator.asn).unwrap_or(AS_TRANS).to_be_bytes());
        }
        value.extend_from_slice(&aggregator.router_id.octets());
        put(out, known(code::AGGREGATOR), code::AGGREGATOR, &value);
    }
    if !attrs.communities.is_empty() {
        let value: Vec<u8> = attrs.communities.iter().flat_map(|c| c.0.to_be_bytes()).collect();
        put(out, known(code::COMMUNITIES), code::COMMUNITIES, &value);
    }
    if let Some(id) = attrs.originator_id {
        put(out, flag::OPTIONAL, code::ORIGINATOR_ID, &id.octets());
    }
    if !attrs.cluster_list.is_empty() {
        let value: Vec<u8> = attrs.cluster_list.iter().flat_map(|c| c.octets()).collect();
        put(out, flag::OPTIONAL, code::CLUSTER_LIST, &value);
    }
    if !attrs.ext_communities.is_empty() {
        put(
            out,
            known(code::EXT_COMMUNITIES),
            code::EXT_COMMUNITIES,
            attrs.ext_communities.as_flattened(),
        );
    }
    if !as4 && attrs.as_path.needs_as4() {
        let path = path_bytes(&attrs.as_path, true);
        put(out, optional_transitive, code::AS4_PATH, &path);
    }
    if let Some(aggregator) = attrs.aggregator.filter(|a| !as4 && a.asn > u32::from(u16::MAX)) {
        let mut value = aggregator.asn.to_be_bytes().to_vec();
        value.extend_from_slice(&aggregator.router_id.octets());
        put(out, optional_transitive, code::AS4_AGGREGATOR, &value);
    }
    if !attrs.large_communities.is_empty() {
        let value: Vec<u8> = attrs
            .large_communities
            .iter()
            .flat_map(|c| c.0)
            .flat_map(u32::to_be_bytes)
            .collect();
        put(out, known(code::LARGE_COMMUNITIES), code::LARGE_COMMUNITIES, &value);
    }
    for unknown in &attrs.unknown {
        put(out, unknown.flags & !flag::EXTENDED, unknown.code, &unknown.value);
    }
}

/// Appends one attribute, with a two-octet length only where it is needed.
pub(super) fn put(out: &mut BytesMut, flags: u8, code: u8, value: &[u8]) {
    if value.len() > 255 {
        out.put_slice(&[flags | flag::EXTENDED, code]);
        out.put_u16(value.len() as u16);
    } else {
        out.put_slice(&[flags, code, value.len() as u8]);
    }
    out.put_slice(value);
}

fn path_bytes(path: &AsPath, as4: bool) -> Vec<u8> {
    let mut out = Vec::new();
    for segment in &path.0 {
        for chunk in segment.asns().chunks(255) {
            out.push(segment.wire_type());
            out.push(chunk.len() as u8);
            for asn in chunk {
                if as4 {
                    out.extend_from_slice(&asn.to_be_bytes());
                } else {
                    out.extend_from_slice(&u16::try_from(*asn).unwrap_or(AS_TRANS).to_be_bytes());
                }
            }
        }
    }
    out
}
