//! One TCP connection of a peer, from OPEN sent to established.

use std::time::Instant;

use bytes::BytesMut;

use super::{ConnectionId, State};
use crate::wire::{Open, Options};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    OpenSent,
    OpenConfirm,
    Established,
}

impl Phase {
    pub(super) fn state(self) -> State {
        match self {
            Phase::OpenSent => State::OpenSent,
            Phase::OpenConfirm => State::OpenConfirm,
            Phase::Established => State::Established,
        }
    }

    /// RFC 6608.
    pub(super) fn fsm_subcode(self) -> u8 {
        match self {
            Phase::OpenSent => 1,
            Phase::OpenConfirm => 2,
            Phase::Established => 3,
        }
    }
}

#[derive(Debug)]
pub(super) struct Connection {
    pub(super) id: ConnectionId,
    pub(super) incoming: bool,
    pub(super) phase: Phase,
    pub(super) options: Options,
    pub(super) buffer: BytesMut,
    /// The peer's OPEN between its arrival and the session's start.
    pub(super) open: Option<Open>,
    /// Negotiated seconds, once the peer's OPEN is there.
    pub(super) hold_time: u16,
    pub(super) hold_at: Option<Instant>,
    /// We have not confirmed the peer's OPEN yet, and will by then at the latest.
    pub(super) confirm_by: Option<Instant>,
    /// The peer has confirmed ours in the meantime.
    pub(super) peer_confirmed: bool,
    pub(super) keepalive_at: Option<Instant>,
}

impl Connection {
    pub(super) fn new(id: ConnectionId, incoming: bool, ibgp: bool) -> Self {
        Connection {
            id,
            incoming,
            phase: Phase::OpenSent,
            options: Options { as4: false, ibgp },
            buffer: BytesMut::new(),
            open: None,
            hold_time: 0,
            hold_at: None,
            confirm_by: None,
            peer_confirmed: false,
            keepalive_at: None,
        }
    }
}
