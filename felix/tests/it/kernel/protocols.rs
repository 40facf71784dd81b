//! Protocols other than TCP and UDP.

use std::io::Read;
use std::net::SocketAddr;
use std::pin::Pin;

use serde_json::json;
use socket2::{Domain, Protocol, Socket, Type};

use super::lab::Via::{Icmp, Tcp, Udp};
use super::lab::{DEADLINE, Lab};
use super::on_both_backends;

type Test<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;

on_both_backends!(case_16_sctp_only, case_39_echo_needs_a_rule_without_ports);

fn case_16_sctp_only(lab: &mut Lab) -> Test<'_> {
    Box::pin(async move {
        lab.begin(&[("shop", "a")]).await;
        lab.pod("shop/a", "web", json!([])).await;
        lab.pod("shop/b", "web", json!([])).await;
        // The control: without a policy everything arrives.
        assert_eq!(arrivals(lab, "shop/b", "shop/a", &[7, 8]), [7, 8]);
        let policy = |ports: serde_json::Value| json!({"podSelector": {}, "ingress": [{"ports": ports}]});
        lab.policy("shop/sctp", policy(json!([{"protocol": "SCTP"}])));
        lab.settled().await;
        lab.expect(&[
            ("shop/b", "shop/a", Tcp, 7, false),
            ("shop/b", "shop/a", Udp, 7, false),
            ("shop/b", "shop/a", Icmp, 0, false),
        ])
        .await;
        assert_eq!(arrivals(lab, "shop/b", "shop/a", &[17, 18]), [17, 18]);
        lab.policy(
            "shop/sctp",
            policy(json!([{"protocol": "SCTP", "port": 28}, {"protocol": "TCP", "port": 27}])),
        );
        lab.settled().await;
        lab.expect(&[
            ("shop/b", "shop/a", Tcp, 27, true),
            ("shop/b", "shop/a", Tcp, 28, false),
        ])
        .await;
        assert_eq!(arrivals(lab, "shop/b", "shop/a", &[27, 28]), [28]);
    })
}

fn case_39_echo_needs_a_rule_without_ports(lab: &mut Lab) -> Test<'_> {
    Box::pin(async move {
        lab.begin(&[("shop", "a")]).await;
        lab.pod("shop/a", "web", json!([])).await;
        lab.pod("shop/b", "web", json!([])).await;
        let echo = |passes| {
            [
                ("shop/b", "shop/a", Icmp, 0, passes),
                ("shop/b", "shop/a", Tcp, 80, true),
            ]
        };
        lab.expect(&echo(true)).await;
        lab.policy(
            "shop/tcp",
            json!({"podSelector": {}, "ingress": [{"ports": [{"protocol": "TCP"}]}]}),
        );
        lab.settled().await;
        lab.expect(&echo(false)).await;
        lab.policy(
            "shop/tcp",
            json!({"podSelector": {}, "ingress": [{"from": [{"podSelector": {}}]}]}),
        );
        lab.settled().await;
        lab.expect(&echo(true)).await;
    })
}

/// Sends an INIT to each port, in both families, and answers the ports of those that arrive in both. The last one must: then
/// the others will not come any more.
fn arrivals(lab: &Lab, from: &str, to: &str, ports: &[u16]) -> Vec<u16> {
    let families = lab.address_pairs(from, to).into_iter().map(|(source, destination)| {
        let raw = |place: &str, address| {
            let open = || {
                let domain = Domain::for_address(SocketAddr::new(address, 0));
                let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(132))).unwrap();
                socket.bind(&SocketAddr::new(address, 0).into()).unwrap();
                socket
            };
            lab.netns(place).run(open).unwrap()
        };
        let (sender, mut receiver) = (raw(from, source), raw(to, destination));
        receiver.set_read_timeout(Some(DEADLINE)).unwrap();
        for &port in ports {
            sender
                .send_to(&init(port), &SocketAddr::new(destination, 0).into())
                .unwrap();
        }
        let mut arrived = Vec::new();
        while arrived.last() != ports.last() {
            let mut buffer = [0; 256];
            let length = receiver.read(&mut buffer).unwrap();
            // IPv4 comes with its header.
            let packet = &buffer[if destination.is_ipv4() { 20 } else { 0 }..length];
            if packet.starts_with(&4000u16.to_be_bytes()) {
                arrived.push(u16::from_be_bytes([packet[2], packet[3]]));
            }
        }
        arrived
    });
    let families: Vec<_> = families.collect();
    assert_eq!(families[0], families[1]);
    families[0].clone()
}

/// A packet with an INIT chunk, from port 4000: RFC 9260, sections 3.1 and 3.3.2.
fn init(port: u16) -> Vec<u8> {
    let mut packet = [&4000u16.to_be_bytes()[..], &port.to_be_bytes(), &[0; 8]].concat();
    packet.extend([1, 0, 0, 20, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1]);
    let checksum = crc32c(&packet);
    packet[8..12].copy_from_slice(&checksum.to_le_bytes());
    packet
}

/// RFC 9260, appendix A: connection tracking looks at it.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            crc >> 1 ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 }
        })
    })
}
