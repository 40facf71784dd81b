//! New settings while a session runs.

use std::time::Instant;

use super::connection::Phase;
use super::open::common;
use super::{DownReason, Negotiated, Output, Session, SessionConfig};
use crate::wire::{Cease, Message, Notification};

impl Session {
    /// Takes new settings. What only an OPEN says waits for the next one; a session that would agree on other families,
    /// or is to be had `anew`, is closed and tried again at once. Where both ends have graceful restart it is closed
    /// without a word, so that they keep their routes meanwhile (RFC 4724 section 4).
    ///
    /// AS numbers and our identifier make a session what it is: where they change, make another [`Session`].
    pub fn reconfigure(&mut self, config: SessionConfig, anew: bool, now: Instant) {
        if config == self.config && !anew {
            return;
        }
        let stays = |n: &Negotiated| common(&config.families, &n.offered) == n.families;
        let stays = !anew && self.negotiated.as_ref().is_some_and(stays);
        let agreed = |n: &Negotiated| n.graceful.is_some() && n.restart_time.is_some();
        let graceful = self.negotiated.as_ref().is_some_and(agreed);
        self.config = config;
        // Connections on their way have brought an OPEN that holds no more.
        for connection in std::mem::take(&mut self.connections) {
            let established = connection.phase == Phase::Established;
            if established && stays {
                self.connections.push(connection);
                continue;
            }
            if !(established && graceful) {
                let cease = Message::Notification(Notification::from(Cease::OtherConfigurationChange));
                self.send(connection.id, &cease, connection.options);
            }
            self.outputs.push_back(Output::Close(connection.id));
        }
        if !stays {
            self.halt(DownReason::Stopped(Cease::OtherConfigurationChange), graceful, now);
            self.retry_at = self.running.then_some(now);
            self.handle_timeout(now);
        }
    }
}
