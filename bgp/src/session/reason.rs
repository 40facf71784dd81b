//! Why a session is down, in words.

use std::fmt;

use crate::wire::{Cease, Notification};

/// Why a session ended or did not start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DownReason {
    /// The TCP connection could not be made; the text is the system's.
    ConnectFailed(String),
    /// The TCP connection ended without a NOTIFICATION.
    ConnectionClosed(String),
    /// The peer ended the session.
    Received(Notification),
    /// We ended the session because of something the peer sent.
    Sent(Notification),
    /// The peer's OPEN carries this AS and not the configured one.
    WrongAs(u32),
    /// Nothing was heard for so many seconds.
    HoldTimer {
        /// The hold time.
        seconds: u16,
    },
    /// The peer has taken nothing for the send hold time (RFC 9687).
    SendHoldTimer,
    /// The peer opened a new connection while the session was up (RFC 4724 section 5).
    PeerRestarted,
    /// We stopped it.
    Stopped(Cease),
    /// We are restarting and will be back.
    Restarting,
}

impl DownReason {
    /// The loser of a collision says nothing about the session.
    pub(super) fn is_collision(&self) -> bool {
        let collision = Notification::from(Cease::CollisionResolution);
        matches!(self, DownReason::Received(n) if (n.code, n.subcode) == (collision.code, collision.subcode))
    }
}

impl fmt::Display for DownReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DownReason::ConnectFailed(error) => write!(f, "cannot connect: {error}"),
            DownReason::ConnectionClosed(error) => write!(f, "connection closed: {error}"),
            DownReason::Received(notification) => write!(f, "peer sent NOTIFICATION: {notification}"),
            DownReason::Sent(notification) => write!(f, "we sent NOTIFICATION: {notification}"),
            DownReason::WrongAs(asn) => write!(f, "peer is AS {asn}, which is not the configured remote AS"),
            DownReason::HoldTimer { seconds } => write!(f, "hold timer expired: nothing heard for {seconds} s"),
            DownReason::SendHoldTimer => write!(f, "send hold timer expired: the peer has stopped reading"),
            DownReason::PeerRestarted => write!(f, "peer opened a new connection: it has restarted"),
            DownReason::Stopped(cease) => {
                write!(f, "stopped here: {}", Notification::from(*cease))
            }
            DownReason::Restarting => write!(f, "stopped here for a restart"),
        }
    }
}
