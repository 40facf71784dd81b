//! The one task that owns sessions and RIB.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{AbortHandle, JoinHandle};
use tracing::{debug, info, trace, warn};

use super::fib_task::{FibCommand, run_fib};
use super::io::Link;
use super::status::SpeakerStatus;
use super::{Command, Error, Shutdown, status};
use crate::config::{Config, PeerConfig};
use crate::fib::{Fib, Topology};
use crate::rib::{PeerId, PeerUp, Rib};
use crate::session::{ConnectionId, DownReason, Output, Session, State};
use crate::wire::Cease;

/// Prefixes looked at for one peer before it is another's turn.
const BUDGET: usize = 1000;

/// Events taken before timers and output get their turn.
const EVENTS_A_TURN: usize = 64;

/// Times that every peer gets its turn before events and timers get theirs.
const ROUNDS_A_TURN: usize = 16;

/// What tasks tell the core.
pub(super) enum Event {
    Accepted(TcpStream, SocketAddr),
    Dialled(IpAddr, u64, io::Result<TcpStream>),
    Data(ConnectionId, Bytes),
    Closed(ConnectionId, String),
    /// A peer has taken nothing for the send hold time.
    Stalled(ConnectionId),
    /// Some writer has room again.
    Writable,
    Topology(Topology),
    /// The FIB task has finished a batch.
    FibIdle,
}

pub(super) struct Peer {
    pub(super) config: PeerConfig,
    pub(super) session: Session,
    pub(super) rib_id: PeerId,
    dialling: Option<(u64, AbortHandle)>,
    /// Attributes whose faults this session has been warned of.
    faults_told: BTreeSet<u8>,
    /// Why there is no session, as last told.
    reason_told: Option<DownReason>,
}

impl Peer {
    /// Says why there is no session, each time that the reason is another.
    fn tell_why_not(&mut self, address: IpAddr) {
        let reason = self
            .session
            .last_error()
            .filter(|_| self.session.negotiated().is_none());
        if let Some(reason) = reason.filter(|reason| self.reason_told.as_ref() != Some(reason)) {
            warn!(peer = %address, %reason, "no session yet");
            self.reason_told = Some(reason.clone());
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        if let Some((_, task)) = &self.dialling {
            task.abort();
        }
    }
}

pub(super) struct Core {
    pub(super) config: Config,
    pub(super) rib: Rib,
    pub(super) peers: BTreeMap<IpAddr, Peer>,
    pub(super) listeners: BTreeMap<SocketAddr, JoinHandle<()>>,
    pub(super) events: mpsc::Sender<Event>,
    links: HashMap<ConnectionId, Link>,
    /// Connections that are being told their last words.
    closing: Vec<JoinHandle<()>>,
    fib: mpsc::Sender<FibCommand>,
    next_number: u64,
    seeds: RandomState,
    /// The forwarding plane was kept over our own restart.
    pub(super) forwarding_kept: bool,
}

pub(super) async fn start(config: Config, mut fib: impl Fib, commands: mpsc::Receiver<Command>) -> Result<(), Error> {
    let listeners = super::io::listen_on(&config.listen)?;
    let started = fib.start().await.map_err(Error::Fib)?;
    let (events, receiver) = mpsc::channel(256);
    let (fib_commands, fib_receiver) = mpsc::channel(1);
    tokio::spawn(run_fib(fib, fib_receiver, events.clone()));
    let mut rib = Rib::new(super::reconfigure::rib_config(&config));
    rib.set_topology(started.topology);
    let now = Instant::now();
    if started.restored {
        let limit = Duration::from_secs(config.graceful_restart.selection_deferral_time.into());
        rib.defer_selection(limit, now);
    }
    let mut core = Core {
        config: Config {
            peers: Vec::new(),
            networks: Vec::new(),
            listen: Vec::new(),
            ..config.clone()
        },
        rib,
        peers: BTreeMap::new(),
        listeners: BTreeMap::new(),
        events,
        links: HashMap::new(),
        closing: Vec::new(),
        fib: fib_commands,
        next_number: 0,
        seeds: RandomState::new(),
        forwarding_kept: started.restored,
    };
    for (address, listener) in listeners {
        core.start_listener(address, listener);
    }
    core.take_config(config, now);
    tokio::spawn(core.run(commands, receiver));
    Ok(())
}

impl Core {
    async fn run(mut self, mut commands: mpsc::Receiver<Command>, mut events: mpsc::Receiver<Event>) {
        loop {
            let busy = self.pump(Instant::now());
            let deadline = self.deadline();
            let timer = async {
                match deadline {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                command = commands.recv() => match command {
                    Some(Command::Shutdown(how, done)) => {
                        // Nobody takes events any more; whoever waits for room must not wait for ever.
                        events.close();
                        self.leave(how).await;
                        let _ = done.send(());
                        return;
                    }
                    Some(command) => self.handle_command(command).await,
                    None => {
                        events.close();
                        return self.leave(Shutdown::Restart).await;
                    }
                },
                Some(event) = events.recv() => {
                    self.handle_event(event, Instant::now());
                    for _ in 0..EVENTS_A_TURN {
                        let Ok(event) = events.try_recv() else { break };
                        self.handle_event(event, Instant::now());
                    }
                }
                () = timer => {}
                () = std::future::ready(()), if busy => tokio::task::yield_now().await,
            }
            self.handle_timeouts(Instant::now());
        }
    }

    fn deadline(&self) -> Option<Instant> {
        self.peers
            .values()
            .filter_map(|p| p.session.poll_timeout())
            .chain(self.rib.poll_timeout())
            .min()
    }

    fn handle_timeouts(&mut self, now: Instant) {
        self.rib.handle_timeout(now);
        self.peers.values_mut().for_each(|p| p.session.handle_timeout(now));
    }

    fn handle_event(&mut self, event: Event, now: Instant) {
        match event {
            Event::Accepted(stream, from) => self.accept(stream, from, now),
            Event::Dialled(address, attempt, result) => self.dialled(address, attempt, result, now),
            Event::Data(id, data) => {
                if let Some(peer) = self.links.get(&id).and_then(|l| self.peers.get_mut(&l.peer)) {
                    peer.session.handle_data(id, &data, now);
                    // What was read is carried out before more is read: a session's outputs stay few.
                    let address = peer.config.address;
                    self.carry_out(address, now);
                }
            }
            Event::Closed(id, error) => {
                if let Some(link) = self.links.remove(&id)
                    && let Some(peer) = self.peers.get_mut(&link.peer)
                {
                    peer.session.handle_closed(id, &error, now);
                }
            }
            Event::Stalled(id) => {
                if let Some(link) = self.links.remove(&id)
                    && let Some(peer) = self.peers.get_mut(&link.peer)
                {
                    peer.session.handle_stalled(id, now);
                }
            }
            Event::Writable | Event::FibIdle => {}
            Event::Topology(topology) => self.rib.set_topology(topology),
        }
    }

    async fn handle_command(&mut self, command: Command) {
        let now = Instant::now();
        // Whoever asked may have gone away; that is no error of ours.
        match command {
            Command::Apply(config, reply) => {
                let _ = reply.send(self.reconfigure(*config, now).await);
            }
            Command::Peers(reply) => {
                let mut counts = self.rib.counts();
                let peers = self
                    .peers
                    .values()
                    .map(|p| status::peer(&p.config, &p.session, counts.remove(&p.rib_id).unwrap_or_default(), now));
                let _ = reply.send(peers.collect());
            }
            Command::Routes(reply) => {
                let _ = reply.send(self.rib.routes().into_iter().map(status::route).collect());
            }
            Command::Status(reply) => {
                let established = self.peers.values().filter(|p| p.session.state() == State::Established);
                let _ = reply.send(SpeakerStatus {
                    local_as: self.config.local_as,
                    router_id: self.config.router_id,
                    restarting: self.rib.is_deferring(),
                    peers: self.peers.len(),
                    established: established.count(),
                });
            }
            Command::Shutdown(..) => {}
        }
    }

    /// Does what can be done without waiting; true when its turn ended before that.
    fn pump(&mut self, now: Instant) -> bool {
        let addresses: Vec<IpAddr> = self.peers.keys().copied().collect();
        let mut busy = true;
        for _ in 0..ROUNDS_A_TURN {
            addresses.iter().for_each(|a| self.carry_out(*a, now));
            self.rib.process();
            if let Ok(place) = self.fib.try_reserve()
                && let Some(batch) = self.rib.poll_fib()
            {
                trace!(changes = batch.changes.len(), "telling the forwarding plane");
                place.send(FibCommand::Apply(batch));
            }
            busy = false;
            for address in &addresses {
                busy |= self.send_routes(*address);
            }
            if !busy {
                break;
            }
        }
        self.closing.retain(|task| !task.is_finished());
        busy
    }

    pub(super) fn carry_out(&mut self, address: IpAddr, now: Instant) {
        while let Some(output) = self.peers.get_mut(&address).and_then(|p| p.session.poll_output()) {
            self.carry_out_one(address, output, now);
        }
        if let Some(peer) = self.peers.get_mut(&address) {
            peer.tell_why_not(address);
        }
    }

    fn carry_out_one(&mut self, address: IpAddr, output: Output, now: Instant) {
        let Some(peer) = self.peers.get_mut(&address) else {
            return;
        };
        match output {
            Output::Connect => {
                self.next_number += 1;
                let hops = hops(&self.config, &peer.config);
                let dial = super::io::dial(peer.config.clone(), hops, self.next_number, self.events.clone());
                peer.dialling = Some((self.next_number, tokio::spawn(dial).abort_handle()));
            }
            Output::AbortConnect => {
                if let Some((_, task)) = peer.dialling.take() {
                    task.abort();
                }
            }
            Output::Send(id, bytes) => {
                if self.links.get(&id).is_some_and(|link| !link.send(vec![bytes])) {
                    debug!(peer = %address, "a message is dropped: the peer does not read");
                }
            }
            Output::Close(id) => {
                if let Some(link) = self.links.remove(&id) {
                    self.closing.push(link.finish());
                }
            }
            Output::Up(negotiated) => {
                info!(peer = %address, asn = negotiated.remote_as, hold_time = negotiated.hold_time, "session established");
                let Some(link) = self.links.get(&negotiated.connection) else {
                    return;
                };
                let up = PeerUp {
                    router_id: negotiated.router_id,
                    local_addr: link.local.ip(),
                    families: negotiated.families,
                    options: negotiated.options,
                    graceful: negotiated.graceful,
                };
                self.rib.peer_up(peer.rib_id, up, now);
                peer.faults_told.clear();
                peer.reason_told = None;
                // Should only the connection break from now on, forwarding goes on.
                peer.session.set_restarting(false, true);
            }
            Output::Update(update) => {
                for fault in &update.faults {
                    if peer.faults_told.insert(fault.code) {
                        warn!(peer = %address, %fault, "malformed UPDATE; more of this kind are told at debug level");
                    } else {
                        debug!(peer = %address, %fault, "malformed UPDATE");
                    }
                }
                self.rib.update(peer.rib_id, *update);
            }
            Output::EndOfRib(family) => {
                debug!(peer = %address, ?family, "end of RIB");
                self.rib.end_of_rib(peer.rib_id, family);
            }
            Output::Refresh(family) => self.rib.refresh(peer.rib_id, family),
            Output::Down { reason, restarting } => {
                warn!(peer = %address, %reason, "session down");
                peer.reason_told = Some(reason);
                self.rib.peer_down(peer.rib_id, restarting, now);
            }
        }
    }

    /// Moves routes to a peer's writer if there is room; true when there are more and room for them.
    fn send_routes(&mut self, address: IpAddr) -> bool {
        let Some(peer) = self.peers.get_mut(&address) else {
            return false;
        };
        let Some(link) = peer.session.negotiated().and_then(|n| self.links.get(&n.connection)) else {
            return false;
        };
        if !link.has_room() || !self.rib.has_messages(peer.rib_id) {
            return false;
        }
        let messages = self.rib.poll_messages(peer.rib_id, BUDGET);
        peer.session.note_updates_sent(messages.len() as u64);
        if !messages.is_empty() && !link.send(messages) {
            debug!(peer = %address, "the connection is gone");
        }
        link.has_room() && self.rib.has_messages(peer.rib_id)
    }

    fn accept(&mut self, stream: TcpStream, from: SocketAddr, now: Instant) {
        let Some(peer) = self.peers.get(&from.ip()) else {
            info!(%from, "refusing a connection: no peer has this address");
            return;
        };
        let local = stream.local_addr().map(|a| a.ip());
        if let (Some(wanted), Ok(got)) = (peer.config.local_address, &local)
            && wanted != *got
        {
            info!(peer = %from.ip(), %got, %wanted, "refusing a connection to an address other than local_address");
            return;
        }
        if let Some(hops) = hops(&self.config, &peer.config)
            && let Err(error) = super::io::set_stream_hops(&stream, from.ip(), hops)
        {
            warn!(peer = %from.ip(), %error, "cannot limit the hops of a connection");
        }
        if let Some(id) = self.adopt(stream, from.ip())
            && let Some(peer) = self.peers.get_mut(&from.ip())
        {
            peer.session.handle_incoming(id, now);
        }
    }

    fn dialled(&mut self, address: IpAddr, attempt: u64, result: io::Result<TcpStream>, now: Instant) {
        let Some(peer) = self.peers.get_mut(&address) else {
            return;
        };
        if peer.dialling.take_if(|(number, _)| *number == attempt).is_none() {
            return;
        }
        match result {
            Ok(stream) => {
                let id = self.adopt(stream, address);
                let Some(peer) = self.peers.get_mut(&address) else {
                    return;
                };
                match id {
                    Some(id) => peer.session.handle_connected(id, now),
                    None => peer.session.handle_connect_failed("the connection broke at once", now),
                }
            }
            Err(error) => {
                debug!(peer = %address, %error, "cannot connect");
                peer.session.handle_connect_failed(&error.to_string(), now);
            }
        }
    }

    fn adopt(&mut self, stream: TcpStream, peer: IpAddr) -> Option<ConnectionId> {
        self.next_number += 1;
        let id = ConnectionId(self.next_number);
        match Link::start(id, stream, peer, &self.events) {
            Ok(link) => {
                self.links.insert(id, link);
                Some(id)
            }
            Err(error) => {
                debug!(%peer, %error, "a connection broke at once");
                None
            }
        }
    }

    pub(super) fn start_listener(&mut self, address: SocketAddr, listener: tokio::net::TcpListener) {
        let task = tokio::spawn(super::io::accept_all(listener, self.events.clone()));
        self.listeners.insert(address, task);
    }

    pub(super) fn add_peer(&mut self, config: PeerConfig, now: Instant) {
        let settings = super::reconfigure::session_config(&self.config, &config);
        let mut session = Session::new(settings, self.seeds.hash_one(config.address), now);
        session.set_restarting(self.rib.is_deferring(), self.forwarding_kept);
        session.start(now);
        let rib_id = self.rib.add_peer(super::reconfigure::policy(&self.config, &config));
        self.peers.insert(
            config.address,
            Peer {
                config,
                session,
                rib_id,
                dialling: None,
                faults_told: BTreeSet::new(),
                reason_told: None,
            },
        );
    }

    pub(super) fn remove_peer(&mut self, address: IpAddr, cease: Cease, now: Instant) {
        if let Some(peer) = self.peers.get_mut(&address) {
            peer.session.stop(cease, now);
        }
        self.carry_out(address, now);
        if let Some(peer) = self.peers.remove(&address) {
            self.rib.remove_peer(peer.rib_id);
        }
    }

    async fn leave(mut self, how: Shutdown) {
        let now = Instant::now();
        self.listeners.values().for_each(JoinHandle::abort);
        let addresses: Vec<IpAddr> = self.peers.keys().copied().collect();
        for address in addresses {
            if let Some(peer) = self.peers.get_mut(&address) {
                match how {
                    Shutdown::Cease => peer.session.stop(Cease::AdministrativeShutdown, now),
                    Shutdown::Restart => peer.session.stop_for_restart(now),
                }
            }
            self.carry_out(address, now);
        }
        for task in std::mem::take(&mut self.closing) {
            let _ = task.await;
        }
        let (done, finished) = oneshot::channel();
        let flush = how == Shutdown::Cease;
        if self.fib.send(FibCommand::Finish { flush, done }).await.is_ok() {
            let _ = finished.await;
        }
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        self.listeners.values().for_each(JoinHandle::abort);
    }
}

/// eBGP peers are one hop away unless the configuration says otherwise.
fn hops(config: &Config, peer: &PeerConfig) -> Option<u32> {
    match (peer.remote_as == config.local_as, peer.multihop) {
        (true, _) => None,
        (false, Some(hops)) => Some(hops.into()),
        (false, None) => Some(1),
    }
}
