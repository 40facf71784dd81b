//! Two speakers in this process, over loopback.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use margay_bgp::config::{Config, Originated, PeerConfig};
use margay_bgp::fib::memory::MemoryFib;
use margay_bgp::fib::{LocalAddress, Topology, UnderlayRoute};
use margay_bgp::filter::Filter;
use margay_bgp::prefix::Family;
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

/// A free port; the listener that found it is closed again, so nobody else may use the address.
fn free_port(host: &str) -> SocketAddr {
    std::net::TcpListener::bind((host, 0))
        .and_then(|l| l.local_addr())
        .expect("a port")
}

struct Ends {
    a: Config,
    b: Config,
}

/// A speaker on `own` that originates a network.
fn config(asn: u32, own: SocketAddr, network: &str) -> Config {
    let mut config = Config::new(asn, [10, 0, 0, asn as u8].into());
    config.listen = vec![own];
    config.connect_retry_time = 1;
    config.filters.insert("all".into(), Filter::accept_all());
    config.networks = vec![Originated {
        prefix: net(network),
        blackhole: false,
        communities: vec![],
    }];
    config
}

/// A peer of `config`, to which it names `next_hop`: a loopback address is none that a peer may believe.
fn peer(config: &Config, other: SocketAddr, remote_as: u32, next_hop: [u8; 4]) -> PeerConfig {
    let mut peer = PeerConfig::new(other.ip(), remote_as);
    peer.port = other.port();
    peer.local_address = Some(config.listen[0].ip());
    peer.next_hop_ipv4 = Some(next_hop.into());
    peer.import = Some("all".into());
    peer.export = Some("all".into());
    peer
}

/// Two that peer with each other, on addresses of the test's own.
fn ends(test: u8) -> Ends {
    let (at_a, at_b) = (
        free_port(&format!("127.0.9.{test}1")),
        free_port(&format!("127.0.9.{test}2")),
    );
    let mut a = config(65001, at_a, "10.1.0.0/16");
    a.peers = vec![peer(&a, at_b, 65002, [192, 0, 2, 1])];
    let mut b = config(65002, at_b, "10.2.0.0/16");
    b.peers = vec![peer(&b, at_a, 65001, [192, 0, 2, 2])];
    Ends { a, b }
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
    let Ends { a, b } = ends(1);
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
    let Ends { a, b } = ends(2);
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
    let Ends { a, .. } = ends(3);
    let fib = MemoryFib::new(topology());
    let one = Speaker::start(a.clone(), fib).await.expect("started");
    let mut bad = a.clone();
    bad.peers.push(bad.peers[0].clone());
    assert!(matches!(one.apply(bad).await, Err(Error::Config(_))));
    let taken = std::net::TcpListener::bind("127.0.9.3:0").expect("a port");
    let mut busy = a.clone();
    busy.listen = vec![taken.local_addr().expect("bound")];
    busy.peers.clear();
    let refused = one.apply(busy).await.expect_err("the port is taken").to_string();
    assert!(
        refused.starts_with("listen: cannot accept sessions on 127.0.9.3:"),
        "{refused}"
    );
    assert_eq!(one.peers().await.expect("running").len(), 1);
    assert!(
        std::net::TcpStream::connect(a.listen[0]).is_ok(),
        "it listens where it did"
    );
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

/// On two threads: a speaker that spins must not take the test's own along.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn routes_that_lead_to_each_other_leave_the_speaker_answering() {
    let at = free_port("127.0.9.50");
    let mut one = config(65001, at, "10.1.0.0/16");
    let mut others = Vec::new();
    // A way of its own, though a longer one, and two routes that lead to each other's next hops.
    let said = [
        ("203.0.113.0/24", [192, 0, 2, 1], 1),
        ("203.0.113.0/24", [203, 0, 113, 70], 0),
        ("203.0.113.64/26", [203, 0, 113, 5], 0),
    ];
    for ((network, next_hop, longer), asn) in said.into_iter().zip(65011..) {
        let mut other = config(asn, free_port(&format!("127.0.9.{}", asn - 65011 + 51)), network);
        let all =
            serde_json::from_value(serde_json::json!({"rules": [{"action": "accept", "set": {"prepend": longer}}]}));
        other.filters.insert("all".into(), all.expect("a filter"));
        other.peers = vec![peer(&other, at, 65001, next_hop)];
        let mut silent = peer(&one, other.listen[0], asn, [192, 0, 2, 99]);
        silent.export = None;
        one.peers.push(silent);
        others.push(
            Speaker::start(other, MemoryFib::new(topology()))
                .await
                .expect("started"),
        );
    }
    let fib = MemoryFib::new(topology());
    let one = Speaker::start(one, fib.clone()).await.expect("started");
    let look = async {
        wait_for("both routes", || async {
            one.status().await.expect("running");
            fib.routes().len() == 2
        })
        .await;
    };
    tokio::time::timeout(DEADLINE * 2, look)
        .await
        .expect("the speaker answers");
}

#[tokio::test]
async fn only_what_a_session_consists_of_ends_it_and_even_that_moves_no_route() {
    let Ends { a, b } = ends(4);
    let (fib_a, fib_b) = (MemoryFib::new(topology()), MemoryFib::new(topology()));
    let one = Speaker::start(a.clone(), fib_a.clone()).await.expect("started");
    let two = Speaker::start(b.clone(), fib_b.clone()).await.expect("started");
    wait_for("routes on both sides", || async {
        fib_a.routes().len() == 1 && fib_b.routes().len() == 1
    })
    .await;
    // What only the next OPEN will say, and families that the other end does not carry.
    let mut without = b.clone();
    without.peers[0].families = vec![Family::Ipv4];
    without.peers[0].multihop = Some(7);
    two.apply(without).await.expect("applied");
    let times = |handle: &Handle| {
        let handle = handle.clone();
        async move { handle.peers().await.expect("running")[0].times_established }
    };
    wait_for("a session anew", || async {
        times(&two).await == 2 && established(&two).await && established(&one).await
    })
    .await;
    let mut later = a.clone();
    later.graceful_restart.restart_time += 1;
    later.hold_time += 1;
    later.peers[0].families = vec![Family::Ipv4];
    one.apply(later).await.expect("applied");
    two.apply({
        let mut network = b.clone();
        network.peers[0].families = vec![Family::Ipv4];
        network.peers[0].multihop = Some(7);
        network.networks.push(Originated {
            prefix: net("10.3.0.0/16"),
            blackhole: false,
            communities: vec![],
        });
        network
    })
    .await
    .expect("applied");
    wait_for("a route over the session that stayed", || async {
        fib_a.routes().len() == 2
    })
    .await;
    assert_eq!((times(&one).await, times(&two).await), (2, 2));
    assert!(
        fib_a.removed().is_empty() && fib_b.removed().is_empty(),
        "{:?} {:?}",
        fib_a.removed(),
        fib_b.removed()
    );
}

#[tokio::test]
async fn a_listening_address_can_become_a_part_of_itself_and_back() {
    let part = free_port("127.0.9.61");
    let mut one = config(65001, ([0, 0, 0, 0], part.port()).into(), "10.1.0.0/16");
    let speaker = Speaker::start(one.clone(), MemoryFib::new(topology()))
        .await
        .expect("started");
    let whole = std::mem::replace(&mut one.listen, vec![part]);
    speaker.apply(one.clone()).await.expect("the narrower address");
    one.listen = whole;
    speaker.apply(one).await.expect("the wider address");
}
