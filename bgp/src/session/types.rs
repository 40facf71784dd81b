//! What goes into a session and comes out of it.

use std::net::Ipv4Addr;
use std::time::Duration;

use bytes::Bytes;

use super::DownReason;
use crate::prefix::Family;
use crate::wire::{GracefulRestart, Options, Update};

/// Names one connection of a peer; the shell never uses a number twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(pub u64);

/// What the session needs to know of both ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionConfig {
    /// Our AS.
    pub local_as: u32,
    /// The AS the peer must have.
    pub remote_as: u32,
    /// Our BGP identifier.
    pub router_id: Ipv4Addr,
    /// Seconds we propose; 0 switches keepalives off.
    pub hold_time: u16,
    /// Base wait between attempts to connect.
    pub connect_retry: Duration,
    /// Never connect, only accept.
    pub passive: bool,
    /// Families to offer.
    pub families: Vec<Family>,
    /// Seconds peers should keep our routes when we restart; `None` leaves the capability out.
    pub restart_time: Option<u16>,
}

/// State of RFC 4271 section 8.2.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Stopped.
    Idle,
    /// Waiting to be connected to, or for the retry timer.
    Active,
    /// An attempt to connect is under way.
    Connect,
    /// OPEN sent.
    OpenSent,
    /// OPEN received too.
    OpenConfirm,
    /// Routes flow.
    Established,
}

impl State {
    /// The name as routers print it.
    pub fn name(self) -> &'static str {
        match self {
            State::Idle => "Idle",
            State::Active => "Active",
            State::Connect => "Connect",
            State::OpenSent => "OpenSent",
            State::OpenConfirm => "OpenConfirm",
            State::Established => "Established",
        }
    }
}

/// What the two ends agreed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Negotiated {
    /// The connection that carries the session.
    pub connection: ConnectionId,
    /// The peer's BGP identifier.
    pub router_id: Ipv4Addr,
    /// The peer's AS.
    pub remote_as: u32,
    /// Seconds; 0 for no keepalives.
    pub hold_time: u16,
    /// Families the peer offers.
    pub offered: Vec<Family>,
    /// Families both sides carry.
    pub families: Vec<Family>,
    /// How to encode and decode.
    pub options: Options,
    /// The peer answers route refresh.
    pub route_refresh: bool,
    /// The peer's graceful restart capability.
    pub graceful: Option<GracefulRestart>,
    /// Our restart time, if we have told ours.
    pub restart_time: Option<u16>,
}

/// What the shell must do, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Open a TCP connection to the peer.
    Connect,
    /// Give up the attempt.
    AbortConnect,
    /// Write these bytes.
    Send(ConnectionId, Bytes),
    /// Close once everything sent has been written.
    Close(ConnectionId),
    /// The session is established.
    Up(Box<Negotiated>),
    /// Routes.
    Update(Box<Update>),
    /// The peer has sent everything of a family (RFC 4724 section 2).
    EndOfRib(Family),
    /// The peer asks for everything of a family again (RFC 2918).
    Refresh(Family),
    /// The session is no longer established.
    Down {
        /// Why.
        reason: DownReason,
        /// The peer may be restarting: its routes may be kept if it said it can (RFC 4724 section 4.2).
        restarting: bool,
    },
}

/// Messages counted since the session object was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Counters {
    /// Messages received of any type.
    pub messages_in: u64,
    /// UPDATEs received.
    pub updates_in: u64,
    /// NOTIFICATIONs received.
    pub notifications_in: u64,
    /// Malformed attributes survived (RFC 7606).
    pub faults_in: u64,
    /// Messages sent of any type.
    pub messages_out: u64,
    /// UPDATEs sent.
    pub updates_out: u64,
    /// NOTIFICATIONs sent.
    pub notifications_out: u64,
    /// Times the session was established.
    pub established: u64,
}
