//! Connections while policies change: new ones meet what is in force now, established ones live on.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::pin::Pin;

use serde_json::json;

use super::lab::Via::{Tcp, Udp};
use super::lab::{DEADLINE, Lab};
use super::on_both_backends;

type Test<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;

on_both_backends!(
    case_31_a_newly_selected_pod_is_isolated,
    case_34_tightening_stops_new_connections_and_no_established_one,
    case_35_an_established_connection_survives_its_policys_end,
    case_38_through_a_service_to_itself,
    another_interface_prefix_opens_nothing,
);

/// A TCP connection in each family, and whether both directions still work.
struct Established(Vec<(TcpStream, TcpStream)>);

impl Established {
    fn open(lab: &Lab, from: &str, to: &str, port: u16) -> Self {
        let pairs = lab.address_pairs(from, to).into_iter().map(|(_, to_address)| {
            let address = SocketAddr::new(to_address, port);
            let listener = lab.netns(to).run(|| TcpListener::bind(address).unwrap()).unwrap();
            let client = lab
                .netns(from)
                .run(|| TcpStream::connect_timeout(&address, DEADLINE).unwrap());
            let pair = (client.unwrap(), listener.accept().unwrap().0);
            for end in [&pair.0, &pair.1] {
                end.set_read_timeout(Some(DEADLINE)).unwrap();
            }
            pair
        });
        Self(pairs.collect())
    }

    fn carries(&self) {
        for (client, server) in &self.0 {
            for (mut from, mut to) in [(client, server), (server, client)] {
                from.write_all(b"margay").unwrap();
                to.read_exact(&mut [0; 6]).unwrap();
            }
        }
    }
}

fn case_31_a_newly_selected_pod_is_isolated(lab: &mut Lab) -> Test<'_> {
    Box::pin(async move {
        lab.begin(&[("shop", "a")]).await;
        lab.pod("shop/a", "web", json!([])).await;
        lab.pod("shop/b", "web", json!([])).await;
        lab.policy(
            "shop/quarantine",
            json!({"podSelector": {"matchLabels": {"app": "quarantine"}}, "policyTypes": ["Ingress", "Egress"]}),
        );
        lab.settled().await;
        let both = |passes| {
            [
                ("shop/b", "shop/a", Tcp, 80, passes),
                ("192.0.2.1", "shop/a", Udp, 80, passes),
                ("shop/a", "shop/b", Tcp, 80, passes),
                ("shop/a", "2001:db8::1", Tcp, 80, passes),
                ("192.0.2.1", "shop/b", Tcp, 80, true),
            ]
        };
        lab.expect(&both(true)).await;
        lab.relabel("shop/a", "quarantine");
        lab.settled().await;
        lab.expect(&both(false)).await;
        lab.relabel("shop/a", "web");
        lab.settled().await;
        lab.expect(&both(true)).await;
    })
}

fn case_34_tightening_stops_new_connections_and_no_established_one(lab: &mut Lab) -> Test<'_> {
    Box::pin(async move {
        lab.begin(&[("shop", "a")]).await;
        lab.pod("shop/a", "web", json!([])).await;
        lab.pod("shop/b", "web", json!([])).await;
        let only = |port: u16| json!({"podSelector": {}, "ingress": [{"ports": [{"port": port}]}]});
        lab.policy("shop/port", only(80));
        lab.settled().await;
        let established = Established::open(lab, "shop/b", "shop/a", 80);
        established.carries();
        lab.policy("shop/port", only(81));
        lab.settled().await;
        lab.expect(&[
            ("shop/b", "shop/a", Tcp, 80, false),
            ("shop/b", "shop/a", Tcp, 81, true),
        ])
        .await;
        established.carries();
    })
}

fn case_35_an_established_connection_survives_its_policys_end(lab: &mut Lab) -> Test<'_> {
    Box::pin(async move {
        lab.begin(&[("shop", "a")]).await;
        lab.pod("shop/a", "web", json!([])).await;
        lab.pod("shop/b", "web", json!([])).await;
        lab.policy(
            "shop/port",
            json!({"podSelector": {}, "ingress": [{"ports": [{"port": 80}]}]}),
        );
        lab.settled().await;
        let established = Established::open(lab, "shop/b", "shop/a", 80);
        established.carries();
        lab.no_policy("shop/port");
        lab.settled().await;
        lab.expect(&[("shop/b", "shop/a", Tcp, 81, true)]).await;
        established.carries();
    })
}

/// The Service's address is translated before policy sees the packet, and the source after.
fn case_38_through_a_service_to_itself(lab: &mut Lab) -> Test<'_> {
    Box::pin(async move {
        lab.begin(&[("shop", "a")]).await;
        lab.pod("shop/a", "web", json!([])).await;
        lab.pod("shop/b", "db", json!([])).await;
        lab.iptables("-t nat -A PREROUTING -d 192.0.2.200 -j DNAT --to-destination 10.0.1.1");
        lab.iptables("-t nat -A POSTROUTING -s 10.0.1.1 -d 10.0.1.1 -j MASQUERADE");
        let from = |app: &str| json!({"podSelector": {}, "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": app}}}]}]});
        for (app, itself) in [("web", true), ("db", false)] {
            lab.policy("shop/from", from(app));
            lab.settled().await;
            lab.expect(&[
                ("shop/a", "192.0.2.200", Tcp, 80, itself),
                ("shop/b", "192.0.2.200", Tcp, 80, !itself),
            ])
            .await;
        }
    })
}

/// Interfaces keep the names that they got under the prefix of their time.
fn another_interface_prefix_opens_nothing(lab: &mut Lab) -> Test<'_> {
    Box::pin(async move {
        lab.begin(&[("shop", "a")]).await;
        lab.pod("shop/a", "web", json!([])).await;
        lab.pod("shop/b", "db", json!([])).await;
        lab.policy(
            "shop/deny",
            json!({"podSelector": {"matchLabels": {"app": "web"}}, "policyTypes": ["Ingress", "Egress"]}),
        );
        lab.settled().await;
        let expected = [
            ("shop/b", "shop/a", Tcp, 80, false),
            ("192.0.2.1", "shop/a", Tcp, 80, false),
            ("shop/a", "192.0.2.1", Tcp, 80, false),
            ("shop/a", "node", Tcp, 80, false),
            ("shop/b", "node", Tcp, 80, false),
            ("shop/b", "192.0.2.1", Tcp, 80, true),
            ("node", "shop/a", Tcp, 80, true),
        ];
        lab.expect(&expected).await;
        lab.config.rules.interface_prefix = "pod".to_owned();
        lab.restart().await;
        lab.expect(&expected).await;
    })
}
