//! Two speakers (session and RIB each) joined by an in-memory network under a fake clock.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ipnetwork::IpNetwork;
use margay_bgp::config::Originated;
use margay_bgp::fib::{FibRoute, LocalAddress, Topology, UnderlayRoute};
use margay_bgp::filter::Filter;
use margay_bgp::prefix::Family;
use margay_bgp::rib::{PeerId, PeerPolicy, PeerUp, Rib, RibConfig};
use margay_bgp::session::{ConnectionId, DownReason, Output, Session, SessionConfig, State};
use margay_bgp::wire::Cease;

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Side {
    A,
    B,
}

use Side::{A, B};

impl Side {
    fn other(self) -> Side {
        if self == A { B } else { A }
    }
}

/// A speaker with one peer.
pub(crate) struct Node {
    pub(crate) session: Session,
    pub(crate) rib: Rib,
    pub(crate) peer: PeerId,
    /// What the forwarding plane has been told.
    pub(crate) fib: BTreeMap<IpNetwork, FibRoute>,
    /// Prefixes that were taken out of the forwarding plane at any time.
    pub(crate) ever_removed: Vec<IpNetwork>,
    pub(crate) downs: Vec<DownReason>,
    /// It runs; a dead one does nothing at all.
    pub(crate) alive: bool,
    address: IpAddr,
}

/// Something on its way.
enum Event {
    Dial(Side),
    Data(Side, ConnectionId, Bytes),
    Closed(Side, ConnectionId),
}

/// Both, and the network between them.
pub(crate) struct Pair {
    pub(crate) now: Instant,
    pub(crate) a: Node,
    pub(crate) b: Node,
    events: VecDeque<Event>,
    open: Vec<ConnectionId>,
    next: u64,
    /// Packets vanish without a trace.
    pub(crate) silent: bool,
    /// Every byte sent, for tests that look at the wire.
    pub(crate) sent: Vec<(Side, Bytes)>,
}

pub(crate) fn net(s: &str) -> IpNetwork {
    s.parse().expect("a prefix")
}

pub(crate) fn session_config(local_as: u32, remote_as: u32, id: [u8; 4]) -> SessionConfig {
    SessionConfig {
        local_as,
        remote_as,
        router_id: id.into(),
        hold_time: 90,
        connect_retry: Duration::from_secs(5),
        passive: false,
        families: Family::ALL.to_vec(),
        restart_time: Some(120),
    }
}

impl Node {
    fn new(config: SessionConfig, side: Side, seed: u64, now: Instant) -> Node {
        let (own, other): (IpAddr, IpAddr) = match side {
            A => ([10, 0, 0, 1].into(), [10, 0, 0, 2].into()),
            B => ([10, 0, 0, 2].into(), [10, 0, 0, 1].into()),
        };
        let (own6, last) = if side == A { ("fd00::1", 1) } else { ("fd00::2", 2) };
        let mut rib = Rib::new(RibConfig {
            local_as: config.local_as,
            router_id: config.router_id,
            max_paths: 8,
            multipath_relax: true,
            graceful_restart: true,
            stale_routes_time: Duration::from_secs(60),
        });
        rib.set_topology(Topology {
            routes: vec![
                UnderlayRoute {
                    prefix: net("10.0.0.0/24"),
                    via: None,
                    oif: last,
                },
                UnderlayRoute {
                    prefix: net("fd00::/64"),
                    via: None,
                    oif: last,
                },
            ],
            addresses: vec![
                LocalAddress { addr: own, oif: last },
                LocalAddress {
                    addr: own6.parse().expect("an address"),
                    oif: last,
                },
            ],
        });
        let accept = Some(Arc::new(Filter::accept_all()));
        let peer = rib.add_peer(PeerPolicy {
            address: other,
            remote_as: config.remote_as,
            families: config.families.clone(),
            import: accept.clone(),
            export: accept,
            next_hop_ipv4: None,
            next_hop_ipv6: None,
            next_hop_self: false,
        });
        Node {
            session: Session::new(config, seed, now),
            rib,
            peer,
            fib: BTreeMap::new(),
            ever_removed: Vec::new(),
            downs: Vec::new(),
            alive: true,
            address: own,
        }
    }

    pub(crate) fn originate(&mut self, prefixes: &[&str]) {
        let networks: Vec<Originated> = prefixes
            .iter()
            .map(|p| Originated {
                prefix: net(p),
                blackhole: false,
                communities: vec![],
            })
            .collect();
        self.rib.set_networks(&networks);
    }

    pub(crate) fn stale(&self) -> usize {
        self.rib.counts()[&self.peer].stale
    }
}

impl Pair {
    pub(crate) fn new(a: SessionConfig, b: SessionConfig) -> Pair {
        let now = Instant::now();
        Pair {
            now,
            a: Node::new(a, A, 1, now),
            b: Node::new(b, B, 2, now),
            events: VecDeque::new(),
            open: Vec::new(),
            next: 0,
            silent: false,
            sent: Vec::new(),
        }
    }

    /// AS 65001 with the lower identifier, and AS 65002.
    pub(crate) fn ebgp() -> Pair {
        Pair::new(
            session_config(65001, 65002, Ipv4Addr::new(10, 0, 0, 1).octets()),
            session_config(65002, 65001, Ipv4Addr::new(10, 0, 0, 2).octets()),
        )
    }

    pub(crate) fn node(&mut self, side: Side) -> &mut Node {
        match side {
            A => &mut self.a,
            B => &mut self.b,
        }
    }

    pub(crate) fn start(&mut self) {
        let now = self.now;
        for node in [&mut self.a, &mut self.b].into_iter().filter(|n| n.alive) {
            node.session.start(now);
        }
        self.settle();
    }

    pub(crate) fn established(&self) -> bool {
        self.a.session.state() == State::Established && self.b.session.state() == State::Established
    }

    /// Replaces a node by one that has just started, keeping its forwarding plane; its sockets break.
    pub(crate) fn restart(&mut self, side: Side, kept: bool) {
        let now = self.now;
        let old = self.node(side);
        let mut new = Node::new(old.session.config().clone(), side, 77, now);
        new.fib = std::mem::take(&mut old.fib);
        new.session.set_restarting(kept, kept);
        if kept {
            new.rib.defer_selection(Duration::from_secs(30), now);
        } else {
            new.fib.clear();
        }
        *self.node(side) = new;
    }

    /// Kills a node: its sockets break at once, as the kernel does for a dead process.
    pub(crate) fn kill(&mut self, side: Side) {
        self.node(side).alive = false;
        for id in std::mem::take(&mut self.open) {
            self.events.push_back(Event::Closed(side.other(), id));
        }
        self.settle();
    }

    /// Lets time pass, running every timer on the way.
    pub(crate) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            self.settle();
            let timers = [&self.a, &self.b]
                .into_iter()
                .filter(|n| n.alive)
                .flat_map(|n| [n.session.poll_timeout(), n.rib.poll_timeout()]);
            let Some(next) = timers.flatten().min().filter(|at| *at <= end) else {
                break;
            };
            self.now = self.now.max(next);
            let now = self.now;
            for node in [&mut self.a, &mut self.b].into_iter().filter(|n| n.alive) {
                node.session.handle_timeout(now);
                node.rib.handle_timeout(now);
            }
        }
        self.now = end;
        self.settle();
    }

    /// Carries out outputs and delivers what is on its way until nothing is left.
    pub(crate) fn settle(&mut self) {
        loop {
            let mut busy = false;
            for side in [A, B] {
                busy |= self.carry_out(side);
            }
            if let Some(event) = self.events.pop_front() {
                self.deliver(event);
                busy = true;
            }
            if !busy {
                return;
            }
        }
    }

    fn carry_out(&mut self, side: Side) -> bool {
        let now = self.now;
        if !self.node(side).alive {
            while self.node(side).session.poll_output().is_some() {}
            return false;
        }
        let mut busy = false;
        while let Some(output) = self.node(side).session.poll_output() {
            busy = true;
            let node = self.node(side);
            let peer = node.peer;
            match output {
                Output::Connect => self.events.push_back(Event::Dial(side)),
                Output::AbortConnect => {}
                Output::Send(id, bytes) => self.send(side, id, bytes),
                Output::Close(id) => {
                    if self.open.contains(&id) {
                        self.open.retain(|o| *o != id);
                        self.events.push_back(Event::Closed(side.other(), id));
                    }
                }
                Output::Up(up) => {
                    let up = PeerUp {
                        router_id: up.router_id,
                        local_addr: node.address,
                        families: up.families,
                        options: up.options,
                        graceful: up.graceful,
                    };
                    node.rib.peer_up(peer, up, now);
                    node.session.set_restarting(false, true);
                }
                Output::Update(update) => node.rib.update(peer, *update),
                Output::EndOfRib(family) => node.rib.end_of_rib(peer, family),
                Output::Refresh(family) => node.rib.refresh(peer, family),
                Output::Down { reason, restarting } => {
                    node.downs.push(reason);
                    node.rib.peer_down(peer, restarting, now);
                }
            }
        }
        let node = self.node(side);
        node.rib.process();
        while let Some(batch) = node.rib.poll_fib() {
            for change in batch.changes {
                match change.route {
                    Some(route) => {
                        node.fib.insert(change.prefix, route);
                    }
                    None => {
                        node.fib.remove(&change.prefix);
                        node.ever_removed.push(change.prefix);
                    }
                }
            }
        }
        let peer = node.peer;
        if let Some(id) = node.session.negotiated().map(|n| n.connection) {
            for message in node.rib.poll_messages(peer, 100) {
                busy = true;
                self.send(side, id, message);
            }
        }
        busy
    }

    fn send(&mut self, side: Side, id: ConnectionId, bytes: Bytes) {
        self.sent.push((side, bytes.clone()));
        if self.open.contains(&id) && !self.silent {
            self.events.push_back(Event::Data(side.other(), id, bytes));
        }
    }

    fn deliver(&mut self, event: Event) {
        let now = self.now;
        match event {
            Event::Dial(from) => {
                if self.silent || !self.node(from.other()).alive {
                    return self.node(from).session.handle_connect_failed("connection refused", now);
                }
                self.next += 1;
                let id = ConnectionId(self.next);
                self.open.push(id);
                self.node(from).session.handle_connected(id, now);
                self.node(from.other()).session.handle_incoming(id, now);
            }
            Event::Data(to, id, bytes) => self.node(to).session.handle_data(id, &bytes, now),
            Event::Closed(to, id) => {
                if self.node(to).alive {
                    self.node(to).session.handle_closed(id, "connection reset by peer", now);
                }
            }
        }
    }

    pub(crate) fn stop(&mut self, side: Side, cease: Cease) {
        let now = self.now;
        self.node(side).session.stop(cease, now);
        self.settle();
    }
}
