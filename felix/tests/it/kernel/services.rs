//! Living with kube-proxy: what it refuses is refused, what it forwards past FORWARD is judged.

use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::pin::Pin;
use std::time::Duration;

use serde_json::json;
use socket2::{Domain, Protocol, Socket, Type};

use super::lab::Via::{Tcp, Udp};
use super::lab::{DEADLINE, Lab, NODE, output};
use super::on_both_backends;

type Test<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;

on_both_backends!(
    services_without_endpoints_are_refused,
    services_of_a_kube_proxy_that_starts_later,
    source_ranges_hold,
    what_policy_allows_passes_a_closed_forward,
    kube_proxys_own_tables,
    only_the_node_itself_reaches_isolated_workloads,
);

/// A service's address in each family. Someone answers at both outside, or rather does not refuse.
const SERVICE: [&str; 2] = ["203.0.113.5", "2001:db8:1::5"];
const PORT: u16 = 8053;

/// Servers that refuse nothing and answer nothing: what is refused is so by rules on the way.
fn servers(lab: &Lab) -> Vec<(TcpListener, UdpSocket)> {
    let at = |address: &str| {
        let address = SocketAddr::new(address.parse().unwrap(), PORT);
        (TcpListener::bind(address).unwrap(), UdpSocket::bind(address).unwrap())
    };
    lab.outside.run(|| SERVICE.map(at).into()).unwrap()
}

fn both_families(lab: &Lab, rule: &str) {
    for (tool, service) in ["iptables", "ip6tables"].into_iter().zip(SERVICE) {
        let tool = format!("{tool}-{}", lab.engine.status().backend);
        let rule = rule.replace("SERVICE", service);
        output(
            &tool,
            &["-w", "10"].into_iter().chain(rule.split(' ')).collect::<Vec<_>>(),
        );
    }
}

/// As kube-proxy writes it for a Service without endpoints; its jumps go before all that is there.
fn refuse(lab: &Lab) {
    for rule in [
        "-N KUBE-SERVICES",
        "-A KUBE-SERVICES -d SERVICE -p tcp --dport 8053 -j REJECT",
        "-A KUBE-SERVICES -d SERVICE -p udp --dport 8053 -j REJECT",
        "-N KUBE-FORWARD",
        "-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP",
        "-A KUBE-FORWARD -m mark --mark 0x4000/0x4000 -j ACCEPT",
        "-A KUBE-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        "-I FORWARD -j KUBE-FORWARD",
        "-I FORWARD -m conntrack --ctstate NEW -j KUBE-SERVICES",
    ] {
        both_families(lab, rule);
    }
}

async fn pods(lab: &mut Lab) {
    lab.begin(&[("shop", "a")]).await;
    lab.pod("shop/open", "open", json!([])).await;
    lab.pod("shop/web", "web", json!([])).await;
    lab.pod("shop/shut", "shut", json!([])).await;
    let egress = |app: &str, to: serde_json::Value| json!({"podSelector": {"matchLabels": {"app": app}}, "policyTypes": ["Egress"], "egress": to});
    let blocks = SERVICE.map(|service| {
        let length = if service.contains(':') { 128 } else { 32 };
        json!({"ipBlock": {"cidr": format!("{service}/{length}")}})
    });
    lab.policy("shop/web", egress("web", json!([{"to": blocks}])));
    lab.policy("shop/shut", egress("shut", json!([])));
    lab.settled().await;
}

/// Probes that are "answered" are refused: the servers do not answer.
async fn expect_refused(lab: &Lab, refused: bool) {
    let mut expectations = Vec::new();
    for service in SERVICE {
        for via in [Tcp, Udp] {
            expectations.push(("shop/open", service, via, PORT, refused));
            expectations.push(("shop/web", service, via, PORT, refused));
            // What policy denies is silent, whoever else would refuse it.
            expectations.push(("shop/shut", service, via, PORT, false));
        }
    }
    lab.expect(&expectations).await;
}

fn services_without_endpoints_are_refused(lab: &mut Lab) -> Test<'_> {
    Box::pin(async move {
        let _servers = servers(lab);
        refuse(lab);
        pods(lab).await;
        expect_refused(lab, true).await;
        // The control: nobody else refuses.
        both_families(lab, "-F KUBE-SERVICES");
        expect_refused(lab, false).await;
    })
}

fn services_of_a_kube_proxy_that_starts_later(lab: &mut Lab) -> Test<'_> {
    Box::pin(async move {
        lab.config.refresh_interval = Duration::from_millis(200);
        lab.restart().await;
        let _servers = servers(lab);
        pods(lab).await;
        refuse(lab);
        let around = |lab: &Lab| {
            let saved = lab.saved();
            let forward: Vec<_> = saved.iter().filter(|line| line.starts_with("-A FORWARD ")).collect();
            // Of two families.
            let ours: Vec<bool> = forward.iter().map(|line| line.contains("mgy-")).collect();
            ours == [true, false, false, true, true, false, false, true]
        };
        lab.condition("ours to stand around kube-proxy's", around).await;
        expect_refused(lab, true).await;
        // Somebody who wants to be last does not stay so.
        both_families(lab, "-A FORWARD -d SERVICE -p tcp --dport 1 -j REJECT");
        let last = |lab: &Lab| {
            let saved = lab.saved();
            let mut tables = saved.split(|line| line == "COMMIT");
            tables.all(|table| {
                let forward = table.iter().rfind(|line| line.starts_with("-A FORWARD "));
                forward.is_none_or(|line| line.contains("mgy-"))
            })
        };
        lab.condition("being last again", last).await;
        expect_refused(lab, true).await;
        lab.expect(&[
            ("shop/open", SERVICE[0], Tcp, 1, true),
            ("shop/shut", SERVICE[0], Tcp, 1, false),
        ])
        .await;
    })
}

fn source_ranges_hold(lab: &mut Lab) -> Test<'_> {
    Box::pin(async move {
        // loadBalancerSourceRanges: who is outside of them is not translated, and dropped here.
        for rule in [
            "-N KUBE-PROXY-FIREWALL",
            "-A KUBE-PROXY-FIREWALL -d SERVICE -p tcp --dport 443 -j DROP",
            "-I FORWARD -m conntrack --ctstate NEW -j KUBE-PROXY-FIREWALL",
        ] {
            both_families(lab, rule);
        }
        pods(lab).await;
        let to_service = |port, passes| SERVICE.map(|service| ("shop/open", service, Tcp, port, passes));
        lab.expect(&to_service(443, false)).await;
        lab.expect(&to_service(80, true)).await;
        lab.expect(&[
            ("shop/web", SERVICE[0], Tcp, 443, false),
            ("shop/web", SERVICE[0], Tcp, 80, true),
        ])
        .await;
    })
}

/// Docker and others set FORWARD's policy to DROP.
fn what_policy_allows_passes_a_closed_forward(lab: &mut Lab) -> Test<'_> {
    Box::pin(async move {
        both_families(lab, "-P FORWARD DROP");
        // Marks of others lie beside ours.
        both_families(lab, "-A FORWARD -j MARK --set-xmark 0x4000/0x4000");
        pods(lab).await;
        let mut expectations = Vec::new();
        for service in SERVICE {
            expectations.push(("shop/open", service, Tcp, 80, true));
            expectations.push(("shop/web", service, Tcp, 80, true));
            expectations.push(("shop/shut", service, Tcp, 80, false));
        }
        expectations.push(("192.0.2.1", "shop/open", Tcp, 80, true));
        expectations.push(("shop/open", "shop/web", Tcp, 80, true));
        expectations.push(("shop/web", "shop/open", Tcp, 80, false));
        lab.expect(&expectations).await;
    })
}

/// In its nftables mode kube-proxy has tables and base chains of its own. That we accept ends none of them, whether they
/// come before ours or after.
fn kube_proxys_own_tables(lab: &mut Lab) -> Test<'_> {
    Box::pin(async move {
        let _servers = servers(lab);
        pods(lab).await;
        expect_refused(lab, false).await;
        for priority in ["-110", "10"] {
            for (family, service) in ["ip", "ip6"].into_iter().zip(SERVICE) {
                for rule in ["tcp dport 8053 reject", "udp dport 8053 reject", "tcp dport 443 drop"] {
                    let (table, chain) = (format!("{family} kube-proxy"), "filter-forward");
                    let hook = format!("{{ type filter hook forward priority {priority}; }}");
                    output("nft", &[&format!("add table {table}")]);
                    output("nft", &[&format!("add chain {table} {chain} {hook}")]);
                    output(
                        "nft",
                        &[&format!(
                            "add rule {table} {chain} ct state new {family} daddr {service} {rule}"
                        )],
                    );
                }
            }
            // Where it comes before us, it refuses what policy would have denied.
            let shut = priority == "-110";
            for service in SERVICE {
                lab.expect(&[
                    ("shop/open", service, Tcp, PORT, true),
                    ("shop/web", service, Tcp, PORT, true),
                    ("shop/web", service, Udp, PORT, true),
                    ("shop/shut", service, Tcp, PORT, shut),
                    ("shop/open", service, Tcp, 443, false),
                    ("shop/open", service, Tcp, 80, true),
                    ("shop/shut", service, Tcp, 80, false),
                ])
                .await;
            }
            output("nft", &["delete table ip kube-proxy"]);
            output("nft", &["delete table ip6 kube-proxy"]);
        }
    })
}

/// IPVS sends on what others send, through OUTPUT and not FORWARD.
fn only_the_node_itself_reaches_isolated_workloads(lab: &mut Lab) -> Test<'_> {
    Box::pin(async move {
        lab.begin(&[("shop", "a")]).await;
        lab.pod("shop/web", "web", json!([])).await;
        let from = |cidrs: [&str; 2]| json!({"podSelector": {}, "ingress": [{"from": cidrs.map(|cidr| json!({"ipBlock": {"cidr": cidr}}))}]});
        lab.policy("shop/some", from(["192.0.2.77/32", "2001:db8::77/128"]));
        lab.settled().await;
        let pod = lab.at("shop/web");
        for (i, (denied, allowed)) in [("192.0.2.1", "192.0.2.77"), ("2001:db8::1", "2001:db8::77")]
            .into_iter()
            .enumerate()
        {
            let at = SocketAddr::new(pod.addresses[i], 9);
            let receiver = pod.netns.run(|| UdpSocket::bind(at).unwrap()).unwrap();
            receiver.set_read_timeout(Some(DEADLINE)).unwrap();
            for source in [denied, allowed, NODE[i]] {
                send_from(source.parse().unwrap(), at);
            }
            let receive = || receiver.recv_from(&mut [0; 16]).unwrap().1.ip().to_string();
            assert_eq!([receive(), receive()], [allowed, NODE[i]]);
        }
    })
}

/// From the node, as if it came from somewhere else.
fn send_from(source: IpAddr, to: SocketAddr) {
    let socket = Socket::new(Domain::for_address(to), Type::DGRAM, Some(Protocol::UDP)).unwrap();
    match source {
        IpAddr::V4(_) => socket.set_ip_transparent_v4(true).unwrap(),
        IpAddr::V6(_) => socket.set_freebind_v6(true).unwrap(),
    }
    socket.bind(&SocketAddr::new(source, 0).into()).unwrap();
    // What a rule drops in OUTPUT is refused here.
    let _ = socket.send_to(b"margay", &to.into());
}
