//! Containers of one pod, pods of one node, pods of different racks.

use super::harness::{CLIENT, Kube, wait};
use super::sidecar;

const PODS: &str = include_str!("manifests/pods.yaml");

#[test]
fn containers_share_localhost_and_pods_keep_their_addresses() {
    let Some(kube) = Kube::installed("pods::containers_share_localhost_and_pods_keep_their_addresses") else {
        return;
    };
    kube.apply(PODS);
    kube.sh("kubectl wait -n pods --for=condition=Ready pod/near pod/beside pod/far --timeout=90s");

    one_pod(&kube);
    let address = |name: &str| kube.field(&format!("pod -n pods {name}"), "{.status.podIP}");
    let (near, beside, far) = (address("near"), address("beside"), address("far"));
    source_is_kept(&kube, &near, &beside, &far);
    one_node_stays_inside(&kube, &near, &beside, &far);
    sidecar::envoy_stands_before_its_neighbour(&kube);
}

/// Two containers and a sidecar on one localhost; a second server on a taken port fails and says why.
fn one_pod(kube: &Kube) {
    for (from, port, name) in [
        ("app", 9090, "metrics"),
        ("metrics", 8080, "app"),
        ("app", 9091, "sidecar"),
    ] {
        let answer = kube.pod(
            &format!("pods/near/{from}"),
            &format!("curl -sS --max-time 3 http://localhost:{port}/hostname -o /dev/null -w '%{{http_code}}'"),
        );
        assert_eq!(answer.unwrap(), "200", "{name} from {from} over localhost");
    }
    wait(
        "the second server on one port gives up",
        super::harness::PATIENCE,
        || {
            let log = kube
                .try_sh("kubectl logs -n pods clash -c second --tail=20")
                .map_err(|e| e.to_string())?;
            match log.contains("address already in use") {
                true => Ok(()),
                false => Err(log),
            }
        },
    );
    let restarts = "{.status.containerStatuses[?(@.name==\"first\")].restartCount}";
    assert_eq!(kube.field("pod -n pods clash", restarts), "0", "the first goes on");
}

/// On one node, across racks, from and to the outside: the other end sees the sender's own address.
fn source_is_kept(kube: &Kube, near: &str, beside: &str, far: &str) {
    let seen = |said: Result<String, super::harness::Failed>| {
        let said = said.unwrap_or_else(|e| panic!("{e}"));
        said.rsplit_once(':')
            .map(|(address, _)| address.to_owned())
            .unwrap_or(said)
    };
    let ask = |to: &str| format!("curl -sS --max-time 3 http://{to}:8080/clientip");
    for (from, own, to) in [
        ("near", near, beside),
        ("near", near, far),
        ("far", far, near),
        ("beside", beside, far),
    ] {
        assert_eq!(seen(kube.pod(&format!("pods/{from}"), &ask(to))), own, "{from} to {to}");
    }
    for to in [near, far] {
        assert_eq!(seen(kube.client(&ask(to))), CLIENT, "the client to {to}");
    }
    let v6 = kube.field("pod -n pods far", "{.status.podIPs[1].ip}");
    let own = kube.field("pod -n pods near", "{.status.podIPs[1].ip}");
    let answer = kube.pod(
        "pods/near",
        &format!("curl -sS --max-time 3 'http://[{v6}]:8080/clientip'"),
    );
    assert_eq!(seen(answer).trim_matches(['[', ']']), own, "over IPv6");
}

/// Packets between pods of a node cross no uplink; those between racks do, which shows that the counter counts.
fn one_node_stays_inside(kube: &Kube, near: &str, beside: &str, far: &str) {
    let counter = "nft add table inet probe; \
         nft add chain inet probe out '{ type filter hook postrouting priority 300; }'; \
         nft add rule inet probe out oifname eth1 icmp type echo-request counter; \
         nft add rule inet probe out oifname eth2 icmp type echo-request counter";
    kube.node("node2", counter).unwrap();
    let crossed = || -> u64 {
        let list = kube.node("node2", "nft list chain inet probe out").unwrap();
        let counts = list.split("packets ").skip(1);
        counts
            .map(|rest| rest.split(' ').next().unwrap().parse::<u64>().unwrap())
            .sum()
    };
    let ping = |to: &str| {
        let said = kube.pod("pods/near", &format!("ping -c 50 -i 0.01 -q {to}")).unwrap();
        assert!(said.contains(" 0% packet loss"), "{near} to {to}: {said}");
    };
    ping(beside);
    assert_eq!(crossed(), 0, "packets from {near} to {beside} left the node");
    ping(far);
    assert_eq!(crossed(), 50, "packets from {near} to {far} cross an uplink");
    kube.node("node2", "nft delete table inet probe").unwrap();
}
