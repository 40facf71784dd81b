//! Two speakers in this process, over loopback.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use margay_bgp::config::{Config, Originated, PeerConfig};
use margay_bgp::fib::memory::MemoryFib;
use margay_bgp::fib::{LocalAddress, Topology, UnderlayRoute};
use margay_bgp::filter::Filter;
use margay_bgp::speaker::{Error, Handle, Shutdown, Speaker};

use crate::lab::net;

const DEADLINE: Duration = Duration::from_secs(20);

fn topology() -> Topology {
    Topology {
        routes: vec![UnderlayRoute {
            prefix: net("192.0.2.0/24"),
            via: None,
            oif: 1,
        }],
        addresses: vec![LocalAddress {
            addr: "192.0.2.99".parse().expect("an address"),
            oif: 1,
        }],
    }
}

/// A free port; the listener that found it is closed again.
fn free_port(host: &str) -> SocketAddr {
    std::net::TcpListener::bind((host, 0))
        .and_then(|l| l.local_addr())
        .expect("a port")
}

struct Ends {
    a: Config,
    b: Config,
}

fn ends() -> Ends {
    let (at_a, at_b) = (free_port("127.0.9.1"), free_port("127.0.9.2"));
    let config = |asn, own: SocketAddr, other: SocketAddr, remote, network: &str| {
        let mut config = Config::new(asn, [10, 0, 0, asn as u8].into());
        config.listen = vec![own];
        config.connect_retry_time = 1;
        config.filters.insert("all".into(), Filter::accept_all());
        config.networks = vec![Originated {
            prefix: net(network),
            blackhole: false,
            communities: vec![],
        }];
        let mut peer = PeerConfig::new(other.ip(), remote);
        peer.port = other.port();
        peer.local_address = Some(own.ip());
        // A loopback address is no next hop that a peer may believe.
        peer.next_hop_ipv4 = Some([192, 0, 2, asn as u8].into());
        peer.import = Some("all".into());
        peer.export = Some("all".into());
        config.peers = vec![peer];
        config
    };
    Ends {
        a: config(65001, at_a, at_b, 65002, "10.1.0.0/16"),
        b: config(65002, at_b, at_a, 65001, "10.2.0.0/16"),
    }
}

async fn wait_for<F: Future<Output = bool>>(what: &str, mut look: impl FnMut() -> F) {
    let deadline = Instant::now() + DEADLINE;
    while !look().await {
        assert!(Instant::now() < deadline, "{what} did not happen within {DEADLINE:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn established(handle: &Handle) -> bool {
    handle
        .peers()
        .await
        .expect("running")
        .iter()
        .all(|p| p.state == "Established")
}

#[tokio::test]
async fn routes_cross_and_a_new_filter_does_not_flap() {
    let Ends { a, b } = ends();
    let (fib_a, fib_b) = (MemoryFib::new(topology()), MemoryFib::new(topology()));
    let one = Speaker::start(a.clone(), fib_a.clone()).await.expect("started");
    let two = Speaker::start(b, fib_b.clone()).await.expect("started");
    wait_for("routes on both sides", || async {
        fib_a.routes().contains_key(&net("10.2.0.0/16")) && fib_b.routes().contains_key(&net("10.1.0.0/16"))
    })
    .await;
    let mut closed = a.clone();
    closed.peers[0].import = None;
    one.apply(closed).await.expect("applied");
    wait_for("an empty forwarding plane", || async { fib_a.routes().is_empty() }).await;
    let peers = one.peers().await.expect("running");
    assert_eq!(
        (peers[0].state, peers[0].times_established, peers[0].prefixes_received),
        ("Established", 1, 1)
    );
    assert_eq!(peers[0].prefixes_accepted, 0);
    assert!(
        peers[0].notes.iter().any(|n| n.contains("no import filter")),
        "{:?}",
        peers[0].notes
    );
    one.apply(a).await.expect("applied");
    wait_for("the route again", || async { fib_a.routes().len() == 1 }).await;
    two.shutdown(Shutdown::Cease).await;
    wait_for("a reason", || async {
        let peers = one.peers().await.expect("running");
        let told = peers[0].last_error.clone().unwrap_or_default();
        told.contains("administrative shutdown") || told.contains("refused")
    })
    .await;
    assert!(
        fib_b.routes().is_empty(),
        "a speaker that leaves for good takes its routes along"
    );
    one.shutdown(Shutdown::Restart).await;
    assert!(matches!(one.peers().await, Err(Error::Stopped)));
}

#[tokio::test]
async fn a_restart_moves_nothing() {
    let Ends { a, b } = ends();
    let (fib_a, fib_b) = (MemoryFib::new(topology()), MemoryFib::new(topology()));
    let one = Speaker::start(a.clone(), fib_a.clone()).await.expect("started");
    let two = Speaker::start(b, fib_b.clone()).await.expect("started");
    wait_for("routes on both sides", || async {
        fib_a.routes().len() == 1 && fib_b.routes().len() == 1
    })
    .await;
    one.shutdown(Shutdown::Restart).await;
    wait_for("the helper", || async { !established(&two).await }).await;
    assert_eq!((fib_a.routes().len(), fib_b.routes().len()), (1, 1));
    let one = Speaker::start(a, fib_a.clone()).await.expect("started");
    assert!(one.status().await.expect("running").restarting);
    wait_for("the end of the restart", || async {
        !one.status().await.expect("running").restarting && established(&one).await && established(&two).await
    })
    .await;
    wait_for("no stale routes", || async {
        two.peers().await.expect("running")[0].prefixes_stale == 0
    })
    .await;
    assert_eq!((fib_a.routes().len(), fib_b.routes().len()), (1, 1));
    assert!(fib_a.removed().is_empty() && fib_b.removed().is_empty());
}

#[tokio::test]
async fn bad_configurations_change_nothing() {
    let Ends { a, .. } = ends();
    let fib = MemoryFib::new(topology());
    let one = Speaker::start(a.clone(), fib).await.expect("started");
    let mut bad = a.clone();
    bad.peers.push(bad.peers[0].clone());
    assert!(matches!(one.apply(bad).await, Err(Error::Config(_))));
    let taken = std::net::TcpListener::bind("127.0.9.3:0").expect("a port");
    let mut busy = a.clone();
    busy.listen.push(taken.local_addr().expect("bound"));
    busy.peers.clear();
    let refused = one.apply(busy).await.expect_err("the port is taken").to_string();
    assert!(
        refused.starts_with("listen: cannot accept sessions on 127.0.9.3:"),
        "{refused}"
    );
    assert_eq!(one.peers().await.expect("running").len(), 1);
    let peers = {
        wait_for("a reason", || async {
            one.peers().await.expect("running")[0].last_error.is_some()
        })
        .await;
        one.peers().await.expect("running")
    };
    assert_eq!(
        peers[0].last_error.as_deref(),
        Some("cannot connect: Connection refused (os error 111)")
    );
}
