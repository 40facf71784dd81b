//! Bytes from a peer into a session and a RIB; shared by the fuzzer and the test that replays its corpus.
//!
//! The first byte chooses how the stream is cut, the rest is what the peer sends.

use std::sync::Arc;
use std::time::{Duration, Instant};

use margay_bgp::fib::{LocalAddress, Topology, UnderlayRoute};
use margay_bgp::filter::Filter;
use margay_bgp::prefix::Family;
use margay_bgp::rib::{PeerPolicy, PeerUp, Rib, RibConfig};
use margay_bgp::session::{ConnectionId, Output, Session, SessionConfig};

/// Runs one input; true when it got a session established.
pub(super) fn run(data: &[u8]) -> bool {
    let Some((cut, mut stream)) = data.split_first() else {
        return false;
    };
    let mut now = Instant::now();
    let mut session = Session::new(
        SessionConfig {
            local_as: 65301,
            remote_as: 65201,
            router_id: [10, 0, 0, 2].into(),
            hold_time: 90,
            connect_retry: Duration::from_secs(5),
            passive: false,
            families: Family::ALL.to_vec(),
            restart_time: Some(120),
        },
        u64::from(*cut),
        now,
    );
    let mut rib = rib();
    let accept = Some(Arc::new(Filter::accept_all()));
    let peer = |address: [u8; 4], remote_as| PeerPolicy {
        address: address.into(),
        remote_as,
        families: Family::ALL.to_vec(),
        import: accept.clone(),
        export: accept.clone(),
        next_hop_ipv4: None,
        next_hop_ipv6: None,
        next_hop_self: false,
    };
    let (source, sink) = (
        rib.add_peer(peer([10, 0, 0, 1], 65201)),
        rib.add_peer(peer([10, 0, 1, 1], 65202)),
    );
    session.start(now);
    session.handle_connected(ConnectionId(1), now);
    let mut established = false;
    let size = usize::from(*cut).max(1) * 4;
    while !stream.is_empty() {
        let (piece, rest) = stream.split_at(size.min(stream.len()));
        stream = rest;
        session.handle_data(ConnectionId(1), piece, now);
        now += Duration::from_secs(1);
        session.handle_timeout(now);
        rib.handle_timeout(now);
        while let Some(output) = session.poll_output() {
            match output {
                Output::Up(up) => {
                    established = true;
                    let up = PeerUp {
                        router_id: up.router_id,
                        local_addr: [10, 0, 0, 2].into(),
                        families: up.families,
                        options: up.options,
                        graceful: up.graceful,
                    };
                    rib.peer_up(
                        sink,
                        PeerUp {
                            local_addr: [10, 0, 1, 2].into(),
                            ..up.clone()
                        },
                        now,
                    );
                    rib.peer_up(source, up, now);
                }
                Output::Update(update) => rib.update(source, *update),
                Output::EndOfRib(family) => rib.end_of_rib(source, family),
                Output::Refresh(family) => rib.refresh(source, family),
                Output::Down { restarting, .. } => rib.peer_down(source, restarting, now),
                Output::Connect | Output::AbortConnect | Output::Send(..) | Output::Close(_) => {}
            }
        }
        rib.process();
        while rib.poll_fib().is_some() {}
        for id in [source, sink] {
            while rib.has_messages(id) {
                assert!(
                    rib.poll_messages(id, 16).iter().all(|m| m.len() <= 4096),
                    "a message too long to send"
                );
            }
        }
    }
    established
}

fn rib() -> Rib {
    let mut rib = Rib::new(RibConfig {
        local_as: 65301,
        router_id: [10, 0, 0, 2].into(),
        max_paths: 4,
        multipath_relax: true,
        graceful_restart: true,
        stale_routes_time: Duration::from_secs(60),
    });
    let connected = |prefix: &str, oif| UnderlayRoute {
        prefix: prefix.parse().expect("a prefix"),
        via: None,
        oif,
    };
    let local = |addr: &str, oif| LocalAddress {
        addr: addr.parse().expect("an address"),
        oif,
    };
    rib.set_topology(Topology {
        routes: vec![
            connected("10.0.0.0/24", 1),
            connected("10.0.1.0/24", 2),
            connected("fd00::/64", 1),
        ],
        addresses: vec![
            local("10.0.0.2", 1),
            local("10.0.1.2", 2),
            local("fd00::2", 1),
            local("fd00:1::2", 2),
        ],
    });
    rib
}
