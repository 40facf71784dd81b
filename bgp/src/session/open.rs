//! From a connection to a session: OPENs, collisions, confirmation.

use std::time::{Duration, Instant};

use super::connection::{Connection, Phase};
use super::{ConnectionId, DownReason, Negotiated, OPEN_HOLD_TIME, Output, Session, SessionConfig};
use crate::prefix::Family;
use crate::wire::{self, Capability, Cease, GracefulFamily, GracefulRestart, Message, Notification, Open, Options};

/// An incoming connection to a session this old is the peer's restart, not a late collision (RFC 4724 section 5).
const TAKEOVER_AGE: Duration = Duration::from_secs(5);

/// How long a connection may wait for what becomes of the other one.
const CONFIRM_WAIT: Duration = Duration::from_secs(3);

impl Session {
    pub(super) fn open(&mut self, id: ConnectionId, incoming: bool, now: Instant) {
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

    pub(super) fn handle_open(&mut self, id: ConnectionId, open: Open, now: Instant) {
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
    pub(super) fn confirm(&mut self, now: Instant) {
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

    pub(super) fn establish(&mut self, id: ConnectionId, now: Instant) {
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
}

/// Families of ours that the peer offers too.
pub(super) fn common(ours: &[Family], offered: &[Family]) -> Vec<Family> {
    ours.iter().copied().filter(|f| offered.contains(f)).collect()
}
