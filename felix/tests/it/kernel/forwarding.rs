//! The node itself, address translation, and what workloads may not do.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::pin::Pin;
use std::time::Duration;

use margay_felix::dataplane::forget_connections;
use margay_felix::render::EndpointToHost;
use margay_netlink::{Addr, Netns, Route, sysctl};
use serde_json::json;

use super::lab::Via::{Tcp, Udp};
use super::lab::{DEADLINE, Lab, NEIGHBOUR, NODE, host};
use super::on_both_backends;

type Test<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;

on_both_backends!(
    own_node_and_probes,
    nat_outgoing,
    spoofed_sources,
    loopback_of_the_node,
    connections_of_an_addresses_former_holder,
);

fn own_node_and_probes(lab: &mut Lab) -> Test<'_> {
    Box::pin(async move {
        lab.begin(&[("shop", "a")]).await;
        lab.pod("shop/a", "web", json!([])).await;
        lab.policy("shop/deny", json!({"podSelector": {}, "policyTypes": ["Ingress"]}));
        lab.settled().await;
        // The kubelet's probes come from the own node; other nodes are like anyone.
        lab.expect(&[
            ("node", "shop/a", Tcp, 80, true),
            ("node", "shop/a", Udp, 80, true),
            (NEIGHBOUR[0], "shop/a", Tcp, 80, false),
            (NEIGHBOUR[1], "shop/a", Tcp, 80, false),
            ("shop/a", "node", Tcp, 10250, false),
            ("shop/a", NEIGHBOUR[0], Tcp, 10250, true),
        ])
        .await;
        lab.config.rules.endpoint_to_host = EndpointToHost::Accept;
        lab.restart().await;
        lab.expect(&[("shop/a", "node", Tcp, 10250, true), ("node", "shop/a", Tcp, 80, true)])
            .await;
        // What egress policy denies does not reach the node either.
        lab.policy("shop/deny", json!({"podSelector": {}, "policyTypes": ["Egress"]}));
        lab.settled().await;
        lab.expect(&[("shop/a", "node", Tcp, 10250, false), ("node", "shop/a", Tcp, 80, true)])
            .await;
        // The host's own rules decide, and they drop.
        lab.no_policy("shop/deny");
        lab.config.rules.endpoint_to_host = EndpointToHost::Return;
        lab.restart().await;
        lab.iptables("-A INPUT -p tcp --dport 10250 -j DROP");
        lab.expect(&[
            ("shop/a", NODE[0], Tcp, 10250, false),
            ("shop/a", NODE[0], Tcp, 10251, true),
        ])
        .await;
    })
}

fn nat_outgoing(lab: &mut Lab) -> Test<'_> {
    Box::pin(async move {
        lab.begin(&[("shop", "a")]).await;
        lab.pool("10.0.1.0/24", true);
        lab.pool("fd00:1::/64", true);
        lab.pod("shop/a", "web", json!([])).await;
        let pod = lab.at("shop/a");
        let own = pod.addresses.clone();
        let seen = |to: &str| source_seen(&pod.netns, &lab.outside, to);
        assert_eq!(seen("192.0.2.1"), NODE[0].parse::<IpAddr>().unwrap());
        assert_eq!(seen("2001:db8::1"), NODE[1].parse::<IpAddr>().unwrap());
        // Destinations in a pool see the pod itself.
        assert_eq!(seen("10.0.1.200"), own[0]);
        assert_eq!(seen("fd00:1::200"), own[1]);
        lab.pool("10.0.1.0/24", false);
        lab.settled().await;
        let seen = |to: &str| source_seen(&lab.at("shop/a").netns, &lab.outside, to);
        assert_eq!(seen("192.0.2.1"), own[0]);
        assert_eq!(seen("2001:db8::1"), NODE[1].parse::<IpAddr>().unwrap());
    })
}

fn spoofed_sources(lab: &mut Lab) -> Test<'_> {
    Box::pin(async move {
        lab.begin(&[("shop", "a")]).await;
        lab.pod("shop/a", "web", json!([])).await;
        lab.pod("shop/b", "web", json!([])).await;
        let (a, b) = (lab.at("shop/a"), lab.at("shop/b"));
        let links = margay_netlink::Handle::in_netns(&a.netns).unwrap();
        let eth0 = links.link_by_name("eth0").await.unwrap().index;
        for (i, stolen) in ["10.0.1.99", "fd00:1::99"].into_iter().enumerate() {
            let stolen: IpAddr = stolen.parse().unwrap();
            links.add_addr(Addr::new(eth0, host(stolen)).nodad()).await.unwrap();
            let receiver = b
                .netns
                .run(|| UdpSocket::bind(SocketAddr::new(b.addresses[i], 9)).unwrap())
                .unwrap();
            receiver.set_read_timeout(Some(DEADLINE)).unwrap();
            let send = |from: IpAddr, what: &[u8]| {
                let socket = a
                    .netns
                    .run(|| UdpSocket::bind(SocketAddr::new(from, 0)).unwrap())
                    .unwrap();
                socket.send_to(what, SocketAddr::new(b.addresses[i], 9)).unwrap();
            };
            let mut buffer = [0; 16];
            let mut receive = || {
                let (length, from) = loop {
                    match receiver.recv_from(&mut buffer) {
                        Err(error) if error.kind() == ErrorKind::Interrupted => {}
                        result => break result.unwrap(),
                    }
                };
                (String::from_utf8_lossy(&buffer[..length]).into_owned(), from.ip())
            };
            send(stolen, b"stolen");
            send(a.addresses[i], b"own");
            assert_eq!(receive(), ("own".to_owned(), a.addresses[i]));
            // The control: without our rule the packet arrives.
            let tool = if i == 0 { "iptables" } else { "ip6tables" };
            let backend = lab.engine.status().backend;
            super::lab::output(
                &format!("{tool}-{backend}"),
                &["-w", "10", "-t", "raw", "-F", "mgy-PREROUTING"],
            );
            send(stolen, b"stolen");
            assert_eq!(receive(), ("stolen".to_owned(), stolen));
        }
    })
}

fn loopback_of_the_node(lab: &mut Lab) -> Test<'_> {
    Box::pin(async move {
        lab.config.rules.endpoint_to_host = EndpointToHost::Accept;
        lab.begin(&[("shop", "a")]).await;
        lab.restart().await;
        lab.pod("shop/a", "web", json!([])).await;
        let pod = lab.at("shop/a");
        // A pod that means its node when it says 127.0.0.1.
        let links = margay_netlink::Handle::in_netns(&pod.netns).unwrap();
        let (lo, eth0) = (
            links.link_by_name("lo").await.unwrap().index,
            links.link_by_name("eth0").await.unwrap().index,
        );
        links.set_up(lo, false).await.unwrap();
        pod.netns
            .run(|| sysctl::write("net/ipv4/conf/eth0/route_localnet", "1").unwrap())
            .unwrap();
        let via = margay_netlink::NextHop::via_dev("169.254.1.1".parse().unwrap(), eth0);
        links
            .route_replace(Route::unicast("127.0.0.0/8".parse().unwrap()).hop(via))
            .await
            .unwrap();
        let receiver = UdpSocket::bind("127.0.0.1:9").unwrap();
        receiver.set_nonblocking(true).unwrap();
        let send = |to: &str, what: &[u8]| {
            let from = SocketAddr::new(pod.addresses[0], 0);
            let socket = pod.netns.run(|| UdpSocket::bind(from).unwrap()).unwrap();
            socket.send_to(what, to).unwrap();
        };
        send("127.0.0.1:9", b"straight");
        let mut buffer = [0; 16];
        let mut received = || {
            receiver
                .recv_from(&mut buffer)
                .ok()
                .map(|(length, _)| String::from_utf8_lossy(&buffer[..length]).into_owned())
        };
        lab.expect(&[("shop/a", "node", Udp, 10, true)]).await;
        assert_eq!(received(), None);
        // Translated packets are what route_localnet is for.
        lab.iptables("-t nat -A PREROUTING -d 192.0.2.200 -j DNAT --to-destination 127.0.0.1");
        send("192.0.2.200:9", b"translated");
        lab.expect(&[("shop/a", "node", Udp, 10, true)]).await;
        assert_eq!(received().as_deref(), Some("translated"));
    })
}

/// The address that a server at `to` sees when somebody in `from` connects.
fn source_seen(from: &Netns, at: &Netns, to: &str) -> IpAddr {
    let address = SocketAddr::new(to.parse().unwrap(), 0);
    let listener = at.run(|| TcpListener::bind(address).unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let client = from
        .run(|| TcpStream::connect_timeout(&address, Duration::from_secs(10)).unwrap())
        .unwrap();
    let (_, seen) = listener.accept().unwrap();
    drop(client);
    seen.ip()
}

/// What connection tracking knows outlives a pod; its successor at the same address must not inherit it.
fn connections_of_an_addresses_former_holder(lab: &mut Lab) -> Test<'_> {
    Box::pin(async move {
        lab.begin(&[("shop", "a")]).await;
        for name in ["shop/a", "shop/b", "shop/c"] {
            lab.pod(name, "old", json!([])).await;
        }
        let socket = |name: &str, family: usize, port| {
            let pod = lab.at(name);
            let socket = pod
                .netns
                .run(|| UdpSocket::bind(SocketAddr::new(pod.addresses[family], port)).unwrap());
            let socket = socket.unwrap();
            socket.set_read_timeout(Some(DEADLINE)).unwrap();
            socket
        };
        // Both directions of b -> a in both families, and of c -> b.
        let pairs = [
            ("shop/b", "shop/a", 0),
            ("shop/b", "shop/a", 1),
            ("shop/c", "shop/b", 0),
        ]
        .map(|(from, to, family)| {
            let (from, to) = (socket(from, family, 0), socket(to, family, 7));
            let mut buffer = [0; 8];
            from.send_to(b"one", to.local_addr().unwrap()).unwrap();
            let (_, peer) = to.recv_from(&mut buffer).unwrap();
            to.send_to(b"two", peer).unwrap();
            from.recv_from(&mut buffer).unwrap();
            (from, to)
        });
        let arrives = |(from, to): &(UdpSocket, UdpSocket), patience: Duration| {
            to.set_read_timeout(Some(patience)).unwrap();
            from.send_to(b"three", to.local_addr().unwrap()).unwrap();
            to.recv_from(&mut [0; 8]).is_ok()
        };
        let addresses: Vec<IpAddr> = lab.at("shop/a").addresses.clone();
        lab.policy(
            "shop/deny",
            json!({"podSelector": {"matchLabels": {"app": "new"}}, "policyTypes": ["Ingress"]}),
        );
        lab.relabel("shop/a", "new");
        lab.settled().await;
        assert!(
            arrives(&pairs[0], DEADLINE),
            "remembered connections pass: or this test shows nothing"
        );
        assert_eq!(forget_connections(&addresses).unwrap(), 2);
        assert_eq!(forget_connections(&addresses).unwrap(), 0);
        for pair in &pairs[..2] {
            assert!(!arrives(pair, Duration::from_millis(60)));
        }
        assert!(arrives(&pairs[2], DEADLINE), "others' connections stay");
        assert_eq!(forget_connections(&lab.at("shop/c").addresses).unwrap(), 1);
    })
}
