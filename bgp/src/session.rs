//! The state machine of one peer (RFC 4271 section 8), without sockets or clocks.
//!
//! The shell feeds it connections, bytes and the time, and carries out each [`Output`]:
//!
//! ```text
//! start/stop ─┐                          ┌─ Connect / AbortConnect
//! connected ──┤                          ├─ Send / Close
//! incoming ───┼─▶ Session ─▶ poll_output ┼─ Up / Update / EndOfRib / Refresh
//! data ───────┤      │                   └─ Down
//! timeout ────┘      └─▶ poll_timeout
//! ```
//!
//! A peer has at most one session but, while both sides connect at once, may have two connections; each is a
//! `connection::Connection` until collision detection (RFC 4271 section 6.8) leaves one.

mod connection;
mod reason;
mod reconfigure;

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::prefix::Family;
use crate::wire::{
    self, Capability, Cease, GracefulFamily, GracefulRestart, Message, Notification, Open, Options, Update,
};
use connection::{Connection, Phase};

pub use reason::DownReason;

/// How long a connection may take to bring an OPEN (RFC 4271 section 8.2.2 suggests four minutes).
const OPEN_HOLD_TIME: Duration = Duration::from_secs(240);

/// An incoming connection to a session this old is the peer's restart, not a late collision (RFC 4724 section 5).
const TAKEOVER_AGE: Duration = Duration::from_secs(5);

/// How long a connection may wait for what becomes of the other one.
const CONFIRM_WAIT: Duration = Duration::from_secs(3);

/// The longest wait before a failed session is tried again.
const MAX_BACKOFF: Duration = Duration::from_secs(60);

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

/// One peer's state machine.
#[derive(Debug)]
pub struct Session {
    config: SessionConfig,
    restarting: bool,
    forwarding_kept: bool,
    random: u64,
    running: bool,
    connecting: bool,
    connections: Vec<Connection>,
    retry_at: Option<Instant>,
    failures: u32,
    negotiated: Option<Negotiated>,
    established_at: Option<Instant>,
    outputs: VecDeque<Output>,
    last_error: Option<DownReason>,
    state: State,
    since: Instant,
    counters: Counters,
}

impl Session {
    /// A stopped session. `seed` drives the jitter of its timers (RFC 4271 section 10).
    pub fn new(config: SessionConfig, seed: u64, now: Instant) -> Self {
        Session {
            config,
            restarting: false,
            forwarding_kept: false,
            random: seed | 1,
            running: false,
            connecting: false,
            connections: Vec::new(),
            retry_at: None,
            failures: 0,
            negotiated: None,
            established_at: None,
            outputs: VecDeque::new(),
            last_error: None,
            state: State::Idle,
            since: now,
            counters: Counters::default(),
        }
    }

    /// What later OPENs say of our own restart: the R bit, and the F bit of every family (RFC 4724 section 3).
    pub fn set_restarting(&mut self, restarting: bool, forwarding_kept: bool) {
        self.restarting = restarting;
        self.forwarding_kept = forwarding_kept;
    }

    /// Starts trying (ManualStart).
    pub fn start(&mut self, now: Instant) {
        if !self.running {
            self.running = true;
            self.failures = 0;
            self.retry_at = Some(now);
            self.handle_timeout(now);
        }
    }

    /// Ends everything with this cease (ManualStop).
    pub fn stop(&mut self, cease: Cease, now: Instant) {
        self.running = false;
        let notification = Notification::from(cease);
        for connection in std::mem::take(&mut self.connections) {
            self.send(
                connection.id,
                &Message::Notification(notification.clone()),
                connection.options,
            );
            self.outputs.push_back(Output::Close(connection.id));
        }
        self.halt(DownReason::Stopped(cease), false, now);
    }

    /// Ends everything without a word, so that peers keep our routes while we restart (RFC 4724).
    pub fn stop_for_restart(&mut self, now: Instant) {
        self.running = false;
        for connection in std::mem::take(&mut self.connections) {
            self.outputs.push_back(Output::Close(connection.id));
        }
        self.halt(DownReason::Restarting, false, now);
    }

    fn halt(&mut self, reason: DownReason, restarting: bool, now: Instant) {
        if std::mem::take(&mut self.connecting) {
            self.outputs.push_back(Output::AbortConnect);
        }
        self.retry_at = None;
        self.down(reason, restarting, now);
    }

    /// The attempt to connect succeeded.
    pub fn handle_connected(&mut self, id: ConnectionId, now: Instant) {
        if !self.running || !std::mem::take(&mut self.connecting) {
            self.outputs.push_back(Output::Close(id));
            return;
        }
        self.open(id, false, now);
    }

    /// The attempt to connect failed.
    pub fn handle_connect_failed(&mut self, error: &str, now: Instant) {
        if std::mem::take(&mut self.connecting) {
            if self.negotiated.is_none() {
                self.last_error = Some(DownReason::ConnectFailed(error.to_owned()));
            }
            self.retry_later(now);
            self.confirm(now);
            self.update_state(now);
        }
    }

    /// The peer has connected to us.
    pub fn handle_incoming(&mut self, id: ConnectionId, now: Instant) {
        if !self.running {
            let options = Options {
                as4: false,
                ibgp: false,
            };
            self.send(id, &Message::Notification(Cease::ConnectionRejected.into()), options);
            self.outputs.push_back(Output::Close(id));
            return;
        }
        // A second connection of the peer means that it has given up the first.
        let stale = self
            .connections
            .iter()
            .position(|c| c.incoming && c.phase != Phase::Established);
        if let Some(stale) = stale {
            let old = self.connections.swap_remove(stale);
            self.outputs.push_back(Output::Close(old.id));
        }
        self.open(id, true, now);
    }

    /// Bytes arrived on a connection. Bytes of a connection that has been closed are ignored.
    pub fn handle_data(&mut self, id: ConnectionId, data: &[u8], now: Instant) {
        let Some(connection) = self.connection(id) else { return };
        connection.buffer.extend_from_slice(data);
        while let Some(connection) = self.connection(id) {
            let framed = wire::frame(&mut connection.buffer);
            let options = connection.options;
            let decoded = match framed {
                Ok(None) => return,
                Ok(Some((kind, body))) => Message::decode(kind, &body, options),
                Err(notification) => Err(notification),
            };
            match decoded {
                Ok(message) => self.handle_message(id, message, now),
                Err(notification) => self.fail(id, notification, now),
            }
        }
    }

    /// A connection was closed by the other side or broke.
    pub fn handle_closed(&mut self, id: ConnectionId, error: &str, now: Instant) {
        let Some(index) = self.connections.iter().position(|c| c.id == id) else {
            return;
        };
        let connection = self.connections.swap_remove(index);
        let reason = DownReason::ConnectionClosed(error.to_owned());
        self.outputs.push_back(Output::Close(id));
        self.after_loss(connection.phase, reason, true, now);
    }

    /// The peer has taken nothing for so long that its connection was given up (RFC 9687). Its NOTIFICATION cannot be
    /// sent: the connection may have stopped within a message.
    pub fn handle_stalled(&mut self, id: ConnectionId, now: Instant) {
        if let Some(phase) = self.connection(id).map(|c| c.phase) {
            self.drop_connection(id);
            self.after_loss(phase, DownReason::SendHoldTimer, false, now);
        }
    }

    /// When [`Session::handle_timeout`] wants to be called next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let timers = self
            .connections
            .iter()
            .flat_map(|c| [c.hold_at, c.keepalive_at, c.confirm_by]);
        timers.chain([self.retry_at]).flatten().min()
    }

    /// Acts on every timer that has run out.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.retry_at.is_some_and(|at| at <= now) {
            self.retry_at = None;
            // A connection that was accepted but brings no OPEN must not keep us from trying ourselves.
            let promising = |c: &Connection| !c.incoming || c.phase != Phase::OpenSent;
            let busy = self.connecting || self.connections.iter().any(promising);
            if self.running && !self.config.passive && !busy {
                self.connecting = true;
                self.outputs.push_back(Output::Connect);
                self.update_state(now);
            }
        }
        let expired: Vec<ConnectionId> = self
            .connections
            .iter()
            .filter(|c| c.hold_at.is_some_and(|at| at <= now))
            .map(|c| c.id)
            .collect();
        for id in expired {
            self.expire(id, now);
        }
        self.confirm(now);
        for index in 0..self.connections.len() {
            let (id, options, due) = {
                let c = &self.connections[index];
                (c.id, c.options, c.keepalive_at.is_some_and(|at| at <= now))
            };
            if due {
                self.send(id, &Message::Keepalive, options);
                self.arm_keepalive(index, now);
            }
        }
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Tells the counters of `updates` messages that the shell sent for the RIB.
    pub fn note_updates_sent(&mut self, updates: u64) {
        self.counters.messages_out += updates;
        self.counters.updates_out += updates;
    }

    /// Asks the peer to send a family again; does nothing when it cannot.
    pub fn request_refresh(&mut self, family: Family) {
        if let Some(negotiated) = self.negotiated.as_ref().filter(|n| n.route_refresh) {
            let (id, options) = (negotiated.connection, negotiated.options);
            self.send(id, &Message::RouteRefresh(Some(family)), options);
        }
    }

    /// The present state; with two connections the further one.
    pub fn state(&self) -> State {
        self.state
    }

    /// When the present state was entered.
    pub fn since(&self) -> Instant {
        self.since
    }

    /// Why the session is down, or was the last time.
    pub fn last_error(&self) -> Option<&DownReason> {
        self.last_error.as_ref()
    }

    /// What was agreed, while established.
    pub fn negotiated(&self) -> Option<&Negotiated> {
        self.negotiated.as_ref()
    }

    /// Message counters.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// The configuration in use.
    pub fn config(&self) -> &SessionConfig {
        &self.config
    }

    fn connection(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        self.connections.iter_mut().find(|c| c.id == id)
    }

    fn open(&mut self, id: ConnectionId, incoming: bool, now: Instant) {
        let mut connection = Connection::new(id, incoming, self.config.local_as == self.config.remote_as);
        connection.hold_at = Some(now + OPEN_HOLD_TIME);
        let options = connection.options;
        self.connections.push(connection);
        let open = Message::Open(self.our_open());
        self.send(id, &open, options);
        self.update_state(now);
    }

    fn our_open(&self) -> Open {
        let config = &self.config;
        let mut capabilities: Vec<Capability> = config.families.iter().map(|f| Capability::Multiprotocol(*f)).collect();
        capabilities.push(Capability::RouteRefresh);
        if let Some(restart_time) = config.restart_time {
            let families = config.families.iter().map(|f| GracefulFamily {
                family: *f,
                forwarding: self.forwarding_kept,
            });
            capabilities.push(Capability::GracefulRestart(GracefulRestart {
                restarted: self.restarting,
                restart_time,
                families: families.collect(),
            }));
        }
        capabilities.push(Capability::FourOctetAs(config.local_as));
        Open {
            my_as: u16::try_from(config.local_as).unwrap_or(wire::AS_TRANS),
            hold_time: config.hold_time,
            router_id: config.router_id,
            capabilities,
        }
    }

    fn handle_message(&mut self, id: ConnectionId, message: Message, now: Instant) {
        self.counters.messages_in += 1;
        let Some(phase) = self.connection(id).map(|c| c.phase) else {
            return;
        };
        match (phase, message) {
            (_, Message::Notification(notification)) => {
                self.counters.notifications_in += 1;
                self.drop_connection(id);
                self.after_loss(phase, DownReason::Received(notification), false, now);
            }
            (Phase::OpenSent, Message::Open(open)) => self.handle_open(id, open, now),
            (Phase::OpenConfirm, Message::Keepalive) => match self.connection(id) {
                Some(waiting) if waiting.confirm_by.is_some() => {
                    waiting.peer_confirmed = true;
                    self.arm_hold(id, now);
                }
                _ => self.establish(id, now),
            },
            (Phase::Established, Message::Keepalive) => self.arm_hold(id, now),
            (Phase::Established, Message::Update(update)) => {
                self.counters.updates_in += 1;
                self.counters.faults_in += update.faults.len() as u64;
                self.arm_hold(id, now);
                self.outputs.push_back(match update.end_of_rib() {
                    Some(family) => Output::EndOfRib(family),
                    None => Output::Update(update),
                });
            }
            (Phase::Established, Message::RouteRefresh(family)) => {
                self.arm_hold(id, now);
                self.outputs.extend(family.map(Output::Refresh));
            }
            (phase, other) => self.fail(id, Notification::fsm(phase.fsm_subcode(), other.kind() as u8), now),
        }
    }

    fn handle_open(&mut self, id: ConnectionId, open: Open, now: Instant) {
        let config = &self.config;
        if open.asn() != config.remote_as {
            let asn = open.asn();
            let told = u16::try_from(asn).unwrap_or(wire::AS_TRANS).to_be_bytes();
            return self.fail_because(id, Notification::open(2, &told), DownReason::WrongAs(asn), now);
        }
        if open.router_id == config.router_id && config.local_as == config.remote_as {
            return self.fail(id, Notification::open(3, &u32::from(open.router_id).to_be_bytes()), now);
        }
        if let Some(loser) = self.collision(id, &open, now) {
            let Some(connection) = self.connection(loser) else {
                return;
            };
            let (options, was) = (connection.options, connection.phase);
            self.send(
                loser,
                &Message::Notification(Cease::CollisionResolution.into()),
                options,
            );
            self.drop_connection(loser);
            if was == Phase::Established {
                self.down(DownReason::PeerRestarted, true, now);
            }
            if loser == id {
                self.confirm(now);
                return self.update_state(now);
            }
        }
        let hold_time = self.config.hold_time.min(open.hold_time);
        let as4 = open.as4();
        let Some(connection) = self.connection(id) else { return };
        connection.phase = Phase::OpenConfirm;
        connection.hold_time = hold_time;
        connection.options.as4 = as4;
        connection.open = Some(open);
        connection.confirm_by = Some(now + CONFIRM_WAIT);
        self.arm_hold(id, now);
        self.confirm(now);
        self.update_state(now);
    }

    /// Confirms the peer's OPEN with a KEEPALIVE, once it is clear what becomes of the other connection.
    ///
    /// The KEEPALIVE lets the peer's session come up. Were a connection of ours still on its way then, a peer that
    /// supports graceful restart would take it for our next restart (RFC 4724 section 5), end the new session and
    /// drop the routes it has kept.
    fn confirm(&mut self, now: Instant) {
        let undecided = self.connecting || self.connections.iter().any(|c| c.phase == Phase::OpenSent);
        let due = |c: &&Connection| c.confirm_by.is_some_and(|at| !undecided || at <= now);
        let ready: Vec<ConnectionId> = self.connections.iter().filter(due).map(|c| c.id).collect();
        for id in ready {
            let Some(index) = self.connections.iter().position(|c| c.id == id) else {
                continue;
            };
            let connection = &mut self.connections[index];
            connection.confirm_by = None;
            let (options, peer_confirmed) = (connection.options, connection.peer_confirmed);
            self.send(id, &Message::Keepalive, options);
            self.arm_keepalive(index, now);
            if peer_confirmed {
                self.establish(id, now);
            }
        }
    }

    /// The connection to close, if the OPEN on `id` shows that there is one too many (RFC 4271 section 6.8).
    fn collision(&self, id: ConnectionId, open: &Open, now: Instant) -> Option<ConnectionId> {
        let incoming = self.connections.iter().find(|c| c.id == id)?.incoming;
        let other = self
            .connections
            .iter()
            .find(|c| c.id != id && c.phase != Phase::OpenSent)?;
        if other.phase == Phase::Established {
            let age = self.established_at.map(|at| now.saturating_duration_since(at));
            let graceful = self.negotiated.as_ref().is_some_and(|n| n.graceful.is_some());
            let same = self.negotiated.as_ref().is_some_and(|n| n.router_id == open.router_id);
            let takeover = incoming && graceful && same && age.is_some_and(|age| age >= TAKEOVER_AGE);
            return Some(if takeover { other.id } else { id });
        }
        if incoming == other.incoming {
            return Some(other.id);
        }
        // RFC 6286: equal identifiers of different ASes are told apart by the AS.
        let ours = (u32::from(self.config.router_id), self.config.local_as);
        let theirs = (u32::from(open.router_id), open.asn());
        let keep_incoming = ours < theirs;
        Some(if incoming == keep_incoming { other.id } else { id })
    }

    fn establish(&mut self, id: ConnectionId, now: Instant) {
        let SessionConfig {
            families, restart_time, ..
        } = self.config.clone();
        let Some(connection) = self.connection(id) else { return };
        let Some(open) = connection.open.take() else { return };
        connection.phase = Phase::Established;
        let offered = open.families();
        let negotiated = Negotiated {
            connection: id,
            router_id: open.router_id,
            remote_as: open.asn(),
            hold_time: connection.hold_time,
            families: common(&families, &offered),
            offered,
            options: connection.options,
            route_refresh: open.route_refresh(),
            graceful: open.graceful_restart().cloned(),
            restart_time,
        };
        self.arm_hold(id, now);
        if std::mem::take(&mut self.connecting) {
            self.outputs.push_back(Output::AbortConnect);
        }
        // Whatever else is still opening has lost (RFC 4271 section 6.8).
        let others: Vec<(ConnectionId, Options)> = self
            .connections
            .iter()
            .filter(|c| c.id != id)
            .map(|c| (c.id, c.options))
            .collect();
        for (other, options) in others {
            self.send(
                other,
                &Message::Notification(Cease::CollisionResolution.into()),
                options,
            );
            self.drop_connection(other);
        }
        self.retry_at = None;
        self.counters.established += 1;
        self.established_at = Some(now);
        self.negotiated = Some(negotiated.clone());
        self.outputs.push_back(Output::Up(Box::new(negotiated)));
        self.update_state(now);
    }

    fn expire(&mut self, id: ConnectionId, now: Instant) {
        let Some(connection) = self.connection(id) else { return };
        let seconds = match connection.phase {
            Phase::OpenSent => OPEN_HOLD_TIME.as_secs() as u16,
            Phase::OpenConfirm | Phase::Established => connection.hold_time,
        };
        self.fail_because(
            id,
            Notification::hold_timer_expired(),
            DownReason::HoldTimer { seconds },
            now,
        );
    }

    fn fail(&mut self, id: ConnectionId, notification: Notification, now: Instant) {
        let reason = DownReason::Sent(notification.clone());
        self.fail_because(id, notification, reason, now);
    }

    /// Tells the peer what is wrong and closes.
    fn fail_because(&mut self, id: ConnectionId, notification: Notification, reason: DownReason, now: Instant) {
        let Some(connection) = self.connection(id) else { return };
        let (phase, options) = (connection.phase, connection.options);
        self.send(id, &Message::Notification(notification), options);
        self.drop_connection(id);
        self.after_loss(phase, reason, false, now);
    }

    fn drop_connection(&mut self, id: ConnectionId) {
        self.connections.retain(|c| c.id != id);
        self.outputs.push_back(Output::Close(id));
    }

    fn after_loss(&mut self, phase: Phase, reason: DownReason, restarting: bool, now: Instant) {
        let collision = reason.is_collision();
        if phase == Phase::Established {
            self.down(reason, restarting, now);
        } else if self.negotiated.is_none() && !collision {
            self.last_error = Some(reason);
        }
        if self.connections.is_empty() || (self.negotiated.is_none() && !collision) {
            self.retry_later(now);
        }
        self.confirm(now);
        self.update_state(now);
    }

    /// Leaves Established, if that is where we are.
    fn down(&mut self, reason: DownReason, restarting: bool, now: Instant) {
        self.last_error = Some(reason.clone());
        if self.negotiated.take().is_some() {
            // A session that worked for a while starts over with short waits.
            if self
                .established_at
                .take()
                .is_some_and(|at| now.saturating_duration_since(at) > MAX_BACKOFF)
            {
                self.failures = 0;
            }
            self.outputs.push_back(Output::Down { reason, restarting });
        }
        self.update_state(now);
    }

    /// DampPeerOscillations of RFC 4271 section 8.1.1: each failure in a row doubles the wait.
    fn retry_later(&mut self, now: Instant) {
        if self.running && !self.config.passive && self.retry_at.is_none() && !self.connecting {
            let wait = (self.config.connect_retry * (1 << self.failures.min(6))).min(MAX_BACKOFF);
            let wait = wait.max(self.config.connect_retry);
            self.failures = self.failures.saturating_add(1);
            let wait = self.jitter(wait);
            self.retry_at = Some(now + wait);
        }
    }

    fn arm_hold(&mut self, id: ConnectionId, now: Instant) {
        if let Some(c) = self.connection(id) {
            c.hold_at = (c.hold_time > 0).then(|| now + Duration::from_secs(c.hold_time.into()));
        }
    }

    fn arm_keepalive(&mut self, index: usize, now: Instant) {
        let hold_time = self.connections[index].hold_time;
        let at = (hold_time > 0).then(|| now + self.jitter(Duration::from_secs(hold_time.into()) / 3));
        self.connections[index].keepalive_at = at;
    }

    /// Between 75 % and 100 % of `base` (RFC 4271 section 10).
    fn jitter(&mut self, base: Duration) -> Duration {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        base.mul_f64(0.75 + 0.25 * (self.random % 1024) as f64 / 1024.0)
    }

    fn send(&mut self, id: ConnectionId, message: &Message, options: Options) {
        self.counters.messages_out += 1;
        if matches!(message, Message::Notification(_)) {
            self.counters.notifications_out += 1;
        }
        self.outputs.push_back(Output::Send(id, message.encode(options)));
    }

    fn update_state(&mut self, now: Instant) {
        let waiting = match (self.running, self.connecting) {
            (false, _) => State::Idle,
            (true, false) => State::Active,
            (true, true) => State::Connect,
        };
        let state = self
            .connections
            .iter()
            .map(|c| c.phase.state())
            .max()
            .unwrap_or(waiting);
        if state != self.state {
            self.state = state;
            self.since = now;
        }
    }
}

/// Families of ours that the peer offers too.
fn common(ours: &[Family], offered: &[Family]) -> Vec<Family> {
    ours.iter().copied().filter(|f| offered.contains(f)).collect()
}
