//! Services through kube-proxy: what they reach, whom they show, and what is refused.

use std::collections::BTreeSet;

use super::harness::{CLIENT, Kube, NODES, PATIENCE, wait};

const WEB: &str = include_str!("manifests/web.yaml");

#[rstest::rstest]
#[case::iptables("iptables")]
#[case::nftables("nftables")]
fn services_lead_to_their_pods_and_nowhere_else(#[case] mode: &str) {
    let test = format!("services::services_lead_to_their_pods_and_nowhere_else ({mode})");
    let Some(kube) = Kube::up(&test, &["--kube-proxy", mode]) else {
        return;
    };
    kube.install();
    kube.ready();
    kube.apply(WEB);
    kube.sh("kubectl rollout status -n web deployment/web --timeout=90s");
    kube.sh("kubectl wait -n web --for=condition=Ready pod/user --timeout=90s");

    endpoints_follow_the_deployment(&kube);
    node_ports(&kube);
    local_keeps_the_source(&kube);
    without_endpoints_is_refused_at_once(&kube);
    source_ranges_hold(&kube);
}

fn cluster_ip(kube: &Kube, service: &str) -> String {
    kube.field(&format!("service -n web {service}"), "{.spec.clusterIP}")
}

/// Which pods answer at a ClusterIP.
fn who_answers(kube: &Kube, address: &str) -> BTreeSet<String> {
    let script = format!(
        "for i in $(seq 40); do curl -s --max-time 2 http://{address}/hostname || echo none; echo; done | sort -u"
    );
    let said = kube.pod("web/user", &script).unwrap_or_else(|e| panic!("{e}"));
    said.lines()
        .filter(|line| !line.is_empty())
        .map(str::to_owned)
        .collect()
}

fn endpoints_follow_the_deployment(kube: &Kube) {
    let address = cluster_ip(kube, "web");
    for replicas in [2, 5, 1, 3] {
        kube.sh(&format!("kubectl scale -n web deployment/web --replicas={replicas}"));
        kube.sh("kubectl rollout status -n web deployment/web --timeout=90s");
        wait(&format!("{replicas} replicas answer"), PATIENCE, || {
            let wanted = kube.sh("kubectl get pods -n web -l app=web -o name");
            let wanted: BTreeSet<String> = wanted
                .lines()
                .filter_map(|line| line.strip_prefix("pod/"))
                .map(str::to_owned)
                .collect();
            let answer = who_answers(kube, &address);
            match answer == wanted && answer.len() == replicas {
                true => Ok(()),
                false => Err(format!("{answer:?} answer, {wanted:?} are there")),
            }
        });
    }
}

fn node_ports(kube: &Kube) {
    for n in 1..=NODES.len() {
        let answer = kube.client(&format!("curl -sS --max-time 3 http://10.10.0.{n}:30080/hostname"));
        assert!(
            answer.as_ref().is_ok_and(|a| a.starts_with("web-")),
            "node{n}: {answer:?}"
        );
    }
}

/// A node that has a pod of the Service shows it the client's address; one that has none does not answer.
fn local_keeps_the_source(kube: &Kube) {
    kube.sh("kubectl scale -n web deployment/web --replicas=1");
    let node = wait("one replica is left", PATIENCE, || {
        let nodes = kube.field("pods -n web -l app=web", "{.items[*].spec.nodeName}");
        match nodes.split(' ').count() {
            1 => Ok(nodes),
            _ => Err(nodes),
        }
    });
    for (n, name) in (1..).zip(NODES) {
        let ask = format!("curl -sS --max-time 2 http://10.10.0.{n}:30081/clientip");
        wait(&format!("{name} does with the port what Local says"), PATIENCE, || {
            let answer = kube.client(&ask);
            let right = match &answer {
                Ok(seen) => name == node && seen.starts_with(&format!("{CLIENT}:")),
                Err(_) => name != node,
            };
            match right {
                true => Ok(()),
                false => Err(format!("the pod is on {node}: {answer:?}")),
            }
        });
    }
}

/// Code 7 of curl: refused. 28 would be a hanging packet.
fn without_endpoints_is_refused_at_once(kube: &Kube) {
    let address = cluster_ip(kube, "nobody");
    let inside = format!("curl -sS --max-time 5 http://{address}/");
    let policy = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n\
                  metadata: {name: dns-only, namespace: web}\n\
                  spec: {podSelector: {matchLabels: {app: user}}, policyTypes: [Egress, Ingress], \
                  egress: [{to: [{ipBlock: {cidr: 10.96.0.0/16}}]}]}\n";
    for under in ["no policy", "policy"] {
        if under == "policy" {
            kube.apply(policy);
        }
        let answer = kube.pod("web/user", &inside);
        assert_eq!(
            answer.as_ref().err().map(|e| e.code),
            Some(7),
            "from a pod under {under}: {answer:?}"
        );
    }
    kube.sh("kubectl delete networkpolicy -n web dns-only");
    let answer = kube.client("curl -sS --max-time 5 http://10.10.0.2:30082/");
    assert_eq!(
        answer.as_ref().err().map(|e| e.code),
        Some(7),
        "from outside: {answer:?}"
    );
}

/// A load balancer's address, which the fabric routes to a node with a pod of the Service: only the given ranges get in.
fn source_ranges_hold(kube: &Kube) {
    let balancer = "198.51.100.7";
    let patch = format!("{{\"status\":{{\"loadBalancer\":{{\"ingress\":[{{\"ip\":\"{balancer}\"}}]}}}}}}");
    kube.sh(&format!(
        "kubectl patch service -n web balanced --subresource=status --type=merge -p '{patch}'"
    ));
    let node = kube.field("pods -n web -l app=web", "{.items[0].spec.nodeName}");
    let n = node.strip_prefix("node").unwrap();
    kube.beyond("spine1", &format!("ip route add {balancer}/32 via 10.0.1.1"))
        .unwrap();
    kube.beyond("tor1", &format!("ip route add {balancer}/32 via 10.1.1{n}.1"))
        .unwrap();
    // The second address of the client is outside the ranges.
    kube.client("ip address add 10.9.0.99/32 dev lo").unwrap();
    for router in ["spine1", "tor1", "tor2"] {
        let via = match router {
            "spine1" => "10.0.3.1",
            "tor1" => "10.0.1.0",
            _ => "10.0.2.0",
        };
        kube.beyond(router, &format!("ip route add 10.9.0.99/32 via {via}"))
            .unwrap();
    }
    let ask = |source: &str| {
        kube.client(&format!(
            "curl -sS --max-time 2 --interface {source} http://{balancer}/clientip"
        ))
    };
    wait(
        "the range's client gets in with its own address",
        PATIENCE,
        || match ask(CLIENT) {
            Ok(seen) if seen.starts_with(&format!("{CLIENT}:")) => Ok(()),
            other => Err(format!("{other:?}")),
        },
    );
    let other = ask("10.9.0.99");
    assert!(
        other.is_err(),
        "an address outside loadBalancerSourceRanges got in: {other:?}"
    );
    // It is the range that keeps it out.
    kube.sh("kubectl patch service -n web balanced --type=merge -p '{\"spec\":{\"loadBalancerSourceRanges\":[\"10.9.0.0/24\"]}}'");
    wait(
        "the other address gets in once its range is allowed",
        PATIENCE,
        || match ask("10.9.0.99") {
            Ok(seen) if seen.starts_with("10.9.0.99:") => Ok(()),
            other => Err(format!("{other:?}")),
        },
    );
}
