//! NOTIFICATION (RFC 4271 section 4.5) and its words for people.

use std::fmt;

use bytes::{BufMut, BytesMut};

/// The error that ends a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notification {
    /// Error code of RFC 4271.
    pub code: u8,
    /// Error subcode; its meaning depends on the code.
    pub subcode: u8,
    /// Data that helps the other side to find the fault.
    pub data: Vec<u8>,
}

/// Why a speaker ended a session on purpose (RFC 4486).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cease {
    /// Subcode 1.
    MaxPrefixes,
    /// Subcode 2.
    AdministrativeShutdown,
    /// Subcode 3.
    PeerDeconfigured,
    /// Subcode 4.
    AdministrativeReset,
    /// Subcode 5.
    ConnectionRejected,
    /// Subcode 6.
    OtherConfigurationChange,
    /// Subcode 7.
    CollisionResolution,
    /// Subcode 8.
    OutOfResources,
}

impl Cease {
    /// The subcode on the wire.
    pub fn subcode(self) -> u8 {
        match self {
            Cease::MaxPrefixes => 1,
            Cease::AdministrativeShutdown => 2,
            Cease::PeerDeconfigured => 3,
            Cease::AdministrativeReset => 4,
            Cease::ConnectionRejected => 5,
            Cease::OtherConfigurationChange => 6,
            Cease::CollisionResolution => 7,
            Cease::OutOfResources => 8,
        }
    }
}

impl From<Cease> for Notification {
    fn from(cease: Cease) -> Self {
        Notification::new(6, cease.subcode(), &[])
    }
}

impl Notification {
    /// A notification with these three fields.
    pub fn new(code: u8, subcode: u8, data: &[u8]) -> Self {
        Notification {
            code,
            subcode,
            data: data.to_vec(),
        }
    }

    /// The marker is not all ones.
    pub fn not_synchronized() -> Self {
        Self::new(1, 1, &[])
    }

    /// A message of this total length is impossible for its type.
    pub fn bad_length(length: u16) -> Self {
        Self::new(1, 2, &length.to_be_bytes())
    }

    /// No message has this type.
    pub fn bad_type(kind: u8) -> Self {
        Self::new(1, 3, &[kind])
    }

    /// An OPEN that cannot be read; subcode 0 is "unspecific".
    pub fn open(subcode: u8, data: &[u8]) -> Self {
        Self::new(2, subcode, data)
    }

    /// An UPDATE that cannot be read.
    pub fn update(subcode: u8, data: &[u8]) -> Self {
        Self::new(3, subcode, data)
    }

    /// Nothing was heard from the peer for the hold time.
    pub fn hold_timer_expired() -> Self {
        Self::new(4, 0, &[])
    }

    /// A message of this type that its state does not allow; subcodes of RFC 6608 (1 OpenSent, 2 OpenConfirm,
    /// 3 Established).
    pub fn fsm(subcode: u8, kind: u8) -> Self {
        Self::new(5, subcode, &[kind])
    }
}

impl fmt::Display for Notification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (code, sub) = words(self.code, self.subcode);
        write!(f, "{code}")?;
        if !sub.is_empty() {
            write!(f, "/{sub}")?;
        }
        write!(f, " ({}/{})", self.code, self.subcode)?;
        if self.code == 6 && matches!(self.subcode, 2 | 4) {
            if let Some(text) = shutdown_text(&self.data) {
                write!(f, " \"{text}\"")?;
            }
        } else if !self.data.is_empty() {
            write!(f, " data")?;
            for byte in self.data.iter().take(16) {
                write!(f, " {byte:02x}")?;
            }
        }
        Ok(())
    }
}

/// The shutdown communication of RFC 9003, without control characters.
fn shutdown_text(data: &[u8]) -> Option<String> {
    let (len, rest) = data.split_first()?;
    let text = std::str::from_utf8(rest.get(..usize::from(*len))?).ok()?;
    (!text.is_empty()).then(|| text.chars().filter(|c| !c.is_control()).collect())
}

fn words(code: u8, subcode: u8) -> (&'static str, &'static str) {
    let sub = match (code, subcode) {
        (1, 1) => "connection not synchronized",
        (1, 2) => "bad message length",
        (1, 3) => "bad message type",
        (2, 1) => "unsupported version",
        (2, 2) => "bad peer AS",
        (2, 3) => "bad BGP identifier",
        (2, 4) => "unsupported optional parameter",
        (2, 6) => "unacceptable hold time",
        (2, 7) => "unsupported capability",
        (3, 1) => "malformed attribute list",
        (3, 2) => "unrecognized well-known attribute",
        (3, 3) => "missing well-known attribute",
        (3, 4) => "attribute flags error",
        (3, 5) => "attribute length error",
        (3, 6) => "invalid ORIGIN",
        (3, 8) => "invalid NEXT_HOP",
        (3, 9) => "optional attribute error",
        (3, 10) => "invalid network field",
        (3, 11) => "malformed AS_PATH",
        (5, 1) => "unexpected message in OpenSent",
        (5, 2) => "unexpected message in OpenConfirm",
        (5, 3) => "unexpected message in Established",
        (6, 1) => "maximum number of prefixes reached",
        (6, 2) => "administrative shutdown",
        (6, 3) => "peer de-configured",
        (6, 4) => "administrative reset",
        (6, 5) => "connection rejected",
        (6, 6) => "other configuration change",
        (6, 7) => "connection collision resolution",
        (6, 8) => "out of resources",
        (6, 9) => "hard reset",
        (6, 10) => "BFD down",
        _ => "",
    };
    let code = match code {
        1 => "message header error",
        2 => "OPEN error",
        3 => "UPDATE error",
        4 => "hold timer expired",
        5 => "state machine error",
        6 => "cease",
        7 => "route refresh error",
        8 => "send hold timer expired",
        _ => "unknown error",
    };
    (code, sub)
}

pub(super) fn decode(body: &[u8]) -> Notification {
    // `frame` has checked that code and subcode are there.
    match body {
        [code, subcode, data @ ..] => Notification::new(*code, *subcode, data),
        _ => Notification::new(0, 0, body),
    }
}

pub(super) fn encode(notification: &Notification, out: &mut BytesMut) {
    out.put_u8(notification.code);
    out.put_u8(notification.subcode);
    out.put_slice(&notification.data);
}
