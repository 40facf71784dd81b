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
mod open;
mod reason;
mod reconfigure;
mod types;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::prefix::Family;
use crate::wire::{self, Cease, Message, Notification, Options};
use connection::{Connection, Phase};

pub use reason::DownReason;
pub use types::{ConnectionId, Counters, Negotiated, Output, SessionConfig, State};

/// How long a connection may take to bring an OPEN (RFC 4271 section 8.2.2 suggests four minutes).
const OPEN_HOLD_TIME: Duration = Duration::from_secs(240);

/// The longest wait before a failed session is tried again.
const MAX_BACKOFF: Duration = Duration::from_secs(60);

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
