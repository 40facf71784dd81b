//! From one configuration to the next without touching what stays the same.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::warn;

use super::Error;
use super::core::Core;
use crate::config::{Config, PeerConfig};
use crate::filter::Filter;
use crate::rib::{PeerPolicy, RibConfig};
use crate::session::SessionConfig;
use crate::wire::Cease;

impl Core {
    /// Takes a valid configuration, or leaves everything as it was.
    pub(super) async fn reconfigure(&mut self, config: Config, now: Instant) -> Result<(), Error> {
        // First those that go: an address may be part of another, as any is of 0.0.0.0.
        let going: Vec<SocketAddr> = self
            .listeners
            .keys()
            .filter(|a| !config.listen.contains(a))
            .copied()
            .collect();
        for task in going.iter().filter_map(|address| self.listeners.remove(address)) {
            task.abort();
            let _ = task.await;
        }
        let new = config.listen.iter().filter(|a| !self.listeners.contains_key(a));
        match super::io::listen_on(new) {
            Ok(listeners) => listeners.into_iter().for_each(|(a, l)| self.start_listener(a, l)),
            Err(error) => {
                match super::io::listen_on(&going) {
                    Ok(listeners) => listeners.into_iter().for_each(|(a, l)| self.start_listener(a, l)),
                    Err(error) => warn!(%error, "no way back to the old listening sockets"),
                }
                return Err(error);
            }
        }
        self.take_config(config, now);
        Ok(())
    }

    /// The part that cannot fail.
    pub(super) fn take_config(&mut self, config: Config, now: Instant) {
        let old = std::mem::replace(&mut self.config, config);
        let identity = |c: &Config| (c.local_as, c.router_id);
        let everyone = identity(&old) != identity(&self.config);
        let addresses: Vec<IpAddr> = self.peers.keys().copied().collect();
        for address in addresses {
            let new = self.config.peers.iter().find(|p| p.address == address).cloned();
            match new {
                None => self.remove_peer(address, Cease::PeerDeconfigured, now),
                Some(new)
                    if everyone
                        || self
                            .peers
                            .get(&address)
                            .is_some_and(|p| p.config.remote_as != new.remote_as) =>
                {
                    self.remove_peer(address, Cease::OtherConfigurationChange, now);
                }
                Some(new) => self.change_peer(new, now),
            }
        }
        self.rib.set_config(rib_config(&self.config));
        self.rib.set_networks(&self.config.networks.clone());
        let new: Vec<PeerConfig> = self
            .config
            .peers
            .iter()
            .filter(|p| !self.peers.contains_key(&p.address))
            .cloned()
            .collect();
        new.into_iter().for_each(|peer| self.add_peer(peer, now));
    }

    fn change_peer(&mut self, new: PeerConfig, now: Instant) {
        let Some(peer) = self.peers.get_mut(&new.address) else {
            return;
        };
        self.rib.set_policy(peer.rib_id, policy(&self.config, &new));
        let transport = |c: &PeerConfig| (c.port, c.local_address, c.multihop);
        let anew = transport(&peer.config) != transport(&new);
        let (address, settings) = (new.address, session_config(&self.config, &new));
        peer.config = new;
        peer.session.reconfigure(settings, anew, now);
        self.carry_out(address, now);
    }
}

pub(super) fn session_config(config: &Config, peer: &PeerConfig) -> SessionConfig {
    let graceful = config.graceful_restart;
    SessionConfig {
        local_as: config.local_as,
        remote_as: peer.remote_as,
        router_id: config.router_id,
        hold_time: peer.hold_time.unwrap_or(config.hold_time),
        connect_retry: Duration::from_secs(config.connect_retry_time.into()),
        passive: peer.passive,
        families: peer.families.clone(),
        restart_time: graceful
            .enabled
            .then_some(peer.restart_time.unwrap_or(graceful.restart_time)),
    }
}

pub(super) fn rib_config(config: &Config) -> RibConfig {
    RibConfig {
        local_as: config.local_as,
        router_id: config.router_id,
        max_paths: config.max_paths.into(),
        multipath_relax: config.multipath_relax,
        graceful_restart: config.graceful_restart.enabled,
        stale_routes_time: Duration::from_secs(config.graceful_restart.stale_routes_time.into()),
    }
}

pub(super) fn policy(config: &Config, peer: &PeerConfig) -> PeerPolicy {
    let filter = |name: &Option<String>| -> Option<Arc<Filter>> {
        name.as_ref().and_then(|n| config.filters.get(n)).cloned().map(Arc::new)
    };
    PeerPolicy {
        address: peer.address,
        remote_as: peer.remote_as,
        families: peer.families.clone(),
        import: filter(&peer.import),
        export: filter(&peer.export),
        next_hop_ipv4: peer.next_hop_ipv4,
        next_hop_ipv6: peer.next_hop_ipv6,
        next_hop_self: peer.next_hop_self,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peers_restart_time_is_its_own() {
        let config = Config::new(65001, [10, 0, 0, 1].into());
        let mut peer = PeerConfig::new("10.0.0.2".parse().unwrap(), 65002);
        assert_eq!(session_config(&config, &peer).restart_time, Some(120));
        peer.restart_time = Some(30);
        assert_eq!(session_config(&config, &peer).restart_time, Some(30));
    }
}
