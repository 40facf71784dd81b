//! BGP messages and their bytes (RFC 4271 section 4).
//!
//! [`frame`] cuts a byte stream into messages, [`Message::decode`] reads one, [`Message::encode`] writes one.
//! A decode error is the [`Notification`] that the session must send before it closes.

pub mod attr;
pub mod nlri;
pub mod notification;
pub mod open;
pub mod update;

use bytes::{Buf, BufMut, Bytes, BytesMut};

pub use attr::{Aggregator, AsPath, Community, LargeCommunity, Origin, PathAttributes, Segment, UnknownAttribute};
pub use notification::{Cease, Notification};
pub use open::{Capability, GracefulFamily, GracefulRestart, Open};
pub use update::{Fault, MpReach, MpUnreach, NextHop, Update};

use crate::prefix::Family;

/// Length of the fixed header: marker, length, type.
pub const HEADER_LEN: usize = 19;

/// Longest message of RFC 4271.
pub const MAX_LEN: usize = 4096;

/// The two-octet stand-in for an AS number that needs four octets (RFC 6793).
pub const AS_TRANS: u16 = 23456;

/// What both sides agreed on and decoding depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// AS numbers in AS_PATH and AGGREGATOR have four octets (RFC 6793).
    pub as4: bool,
    /// The session is internal, so LOCAL_PREF, ORIGINATOR_ID and CLUSTER_LIST are meaningful.
    pub ibgp: bool,
}

/// One BGP message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// RFC 4271 section 4.2.
    Open(Open),
    /// RFC 4271 section 4.3.
    Update(Box<Update>),
    /// RFC 4271 section 4.5.
    Notification(Notification),
    /// RFC 4271 section 4.4.
    Keepalive,
    /// RFC 2918. `None` asks for a family that the speaker does not carry.
    RouteRefresh(Option<Family>),
}

/// The type octet of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// RFC 4271 section 4.2.
    Open = 1,
    /// RFC 4271 section 4.3.
    Update = 2,
    /// RFC 4271 section 4.5.
    Notification = 3,
    /// RFC 4271 section 4.4.
    Keepalive = 4,
    /// RFC 2918.
    RouteRefresh = 5,
}

/// Takes the next whole message off the front of `buf`; `None` when more bytes are needed.
///
/// # Errors
/// The message header error (code 1) of RFC 4271 section 6.1 to send to the peer.
pub fn frame(buf: &mut BytesMut) -> Result<Option<(Kind, Bytes)>, Notification> {
    if buf.len() < HEADER_LEN {
        // A bad marker is worth telling before the rest of a header that may never come.
        return if buf.iter().take(16).all(|b| *b == 0xff) {
            Ok(None)
        } else {
            Err(Notification::not_synchronized())
        };
    }
    if buf[..16].iter().any(|b| *b != 0xff) {
        return Err(Notification::not_synchronized());
    }
    let length = u16::from_be_bytes([buf[16], buf[17]]);
    let kind = match buf[18] {
        1 => Kind::Open,
        2 => Kind::Update,
        3 => Kind::Notification,
        4 => Kind::Keepalive,
        5 => Kind::RouteRefresh,
        other => return Err(Notification::bad_type(other)),
    };
    let size = usize::from(length);
    let fits = match kind {
        Kind::Open => size >= 29,
        Kind::Update => size >= 23,
        Kind::Notification => size >= 21,
        Kind::Keepalive => size == HEADER_LEN,
        Kind::RouteRefresh => size == 23,
    };
    if !fits || size > MAX_LEN {
        return Err(Notification::bad_length(length));
    }
    if buf.len() < size {
        return Ok(None);
    }
    let mut message = buf.split_to(size).freeze();
    message.advance(HEADER_LEN);
    Ok(Some((kind, message)))
}

impl From<Update> for Message {
    fn from(update: Update) -> Self {
        Message::Update(Box::new(update))
    }
}

impl Message {
    /// Reads the body of a message that [`frame`] cut out.
    ///
    /// # Errors
    /// The NOTIFICATION to send. Faults of RFC 7606 that do not end the session are in [`Update::faults`].
    pub fn decode(kind: Kind, body: &[u8], options: Options) -> Result<Message, Notification> {
        match kind {
            Kind::Open => open::decode(body).map(Message::Open),
            Kind::Update => update::decode(body, options).map(Message::from),
            Kind::Notification => Ok(Message::Notification(notification::decode(body))),
            Kind::Keepalive => Ok(Message::Keepalive),
            Kind::RouteRefresh => match body {
                [a, b, _, safi] => Ok(Message::RouteRefresh(Family::from_wire(
                    u16::from_be_bytes([*a, *b]),
                    *safi,
                ))),
                _ => Err(Notification::bad_length((body.len() + HEADER_LEN) as u16)),
            },
        }
    }

    /// Its type; as a number, the type octet.
    pub fn kind(&self) -> Kind {
        match self {
            Message::Open(_) => Kind::Open,
            Message::Update(_) => Kind::Update,
            Message::Notification(_) => Kind::Notification,
            Message::Keepalive => Kind::Keepalive,
            Message::RouteRefresh(_) => Kind::RouteRefresh,
        }
    }

    /// The bytes of this message, header included.
    ///
    /// The caller keeps an UPDATE within [`MAX_LEN`]; [`update::pack_announce`] does so for routes.
    pub fn encode(&self, options: Options) -> Bytes {
        let mut out = BytesMut::with_capacity(64);
        self.encode_into(options, &mut out);
        out.freeze()
    }

    /// Appends the bytes of this message to `out`.
    pub fn encode_into(&self, options: Options, out: &mut BytesMut) {
        let start = out.len();
        out.put_bytes(0xff, 16);
        out.put_u16(0);
        out.put_u8(self.kind() as u8);
        match self {
            Message::Open(open) => open::encode(open, out),
            Message::Update(update) => update::encode(update, options, out),
            Message::Notification(notification) => notification::encode(notification, out),
            Message::Keepalive => {}
            Message::RouteRefresh(family) => {
                out.put_u16(family.map_or(0, Family::afi));
                out.put_u8(0);
                out.put_u8(1);
            }
        }
        let length = (out.len() - start) as u16;
        out[start + 16..start + 18].copy_from_slice(&length.to_be_bytes());
    }
}

#[cfg(test)]
mod tests;
