//! `deploy/guides/from-calico.md`, typed on a cluster that looks as Calico leaves one: its objects, its rules, its routes.

use super::harness::{API_SERVER, Kube, NODES, PATIENCE, commands, section, wait};

const GUIDE: &str = "deploy/guides/from-calico.md";

/// Kinds of Calico's own group that the guide asks for: plural, kind and whether they belong to a namespace.
const KINDS: [(&str, &str, bool); 5] = [
    ("globalnetworkpolicies", "GlobalNetworkPolicy", false),
    ("networkpolicies", "NetworkPolicy", true),
    ("hostendpoints", "HostEndpoint", false),
    ("globalnetworksets", "GlobalNetworkSet", false),
    ("ippools", "IPPool", false),
];

/// What Calico leaves on a node, beside rules of somebody else's that name it.
const LEFT: &str = r#"set -e
mkdir -p /etc/cni/net.d /opt/cni/bin
cp -n /usr/lib/cni/bridge /usr/lib/cni/host-local /opt/cni/bin/
echo '{"cniVersion": "1.0.0", "name": "k8s-pod-network", "plugins": [{"type": "bridge", "bridge": "cni0", "isGateway": true,
  "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.244.1.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}}]}' \
  >/etc/cni/net.d/10-calico.conflist
touch /etc/cni/net.d/calico-kubeconfig
for t in iptables-nft iptables-legacy ip6tables-nft; do
  $t -N cali-FORWARD
  $t -N cali-fw-cali0123456789a
  $t -A cali-FORWARD -m comment --comment "cali:Gb0123456789abcd" -g cali-fw-cali0123456789a
  $t -I FORWARD -m comment --comment "cali:wUHhoiAYhphO9Mso" -j cali-FORWARD
  $t -N SITE
  $t -A SITE -m comment --comment "the site calico-apiserver" -j ACCEPT
done
ipset create cali40s:test hash:net
ip link add cali0123456789a type veth peer name calipeer
ip link set cali0123456789a up
ip route add 10.244.1.9/32 dev cali0123456789a proto bird
ip route add blackhole 10.244.1.0/26 proto bird
"#;

/// What of it is there.
const SEEN: &str = "for t in iptables-nft iptables-legacy ip6tables-nft; do $t-save | grep -e 'cali[-:]'; done; \
                    ipset list -name | grep '^cali'; ip -o link | grep cali; ip route show table all proto bird; \
                    ls /etc/cni/net.d | grep calico; true";

#[test]
fn nodes_move_one_by_one() {
    let Some(kube) = Kube::up("from_calico::nodes_move_one_by_one", &[]) else {
        return;
    };
    kube.load_image();
    for node in NODES {
        kube.node(node, LEFT).unwrap_or_else(|e| panic!("{node}: {e}"));
        assert!(!kube.node(node, SEEN).unwrap().is_empty());
    }
    for (plural, kind, namespaced) in KINDS {
        kube.apply(&crd(plural, kind, namespaced));
    }
    kube.sh("kubectl wait --for=condition=Established crds --all");
    kube.apply(include_str!("manifests/calico.yaml"));
    kube.sh("kubectl wait --for=condition=Ready node --all --timeout=90s");
    kube.sh("kubectl -n kube-system rollout status daemonset/calico-node --timeout=90s");

    for heading in [
        "## 1. Before you begin",
        "## 2. Make room in the API",
        "## 3. Install Margay for the nodes that have moved",
    ] {
        for command in commands(&section(GUIDE, heading)) {
            kube.sh(&command.replace("https://<control plane>:6443", API_SERVER));
        }
    }
    let steps = section(GUIDE, "## 4. Each node");
    let (before, rest) = steps.split_once("\n### On the node, as root").unwrap();
    let (on_it, after) = rest.split_once("\n### And back").unwrap();
    for (moved, node) in NODES.into_iter().rev().enumerate() {
        let typed = |text: &str| -> Vec<String> {
            let commands = commands(text).into_iter();
            commands.map(|command| command.replace("node2", node)).collect()
        };
        for command in typed(before) {
            kube.sh(&command);
        }
        for command in typed(on_it) {
            kube.node(node, &command).unwrap_or_else(|e| panic!("{command}: {e}"));
        }
        let left = kube.node(node, SEEN).unwrap();
        assert!(left.is_empty(), "left on {node}: {left}");
        for command in typed(after) {
            kube.sh(&command);
        }
        let agents = kube.sh("kubectl -n margay-system get pods -l app.kubernetes.io/name=margay-node -o name");
        assert_eq!(agents.lines().count(), moved + 1, "{agents}");
    }
    for node in NODES {
        for table in ["iptables-nft", "iptables-legacy", "ip6tables-nft"] {
            let rules = kube.node(node, &format!("{table}-save")).unwrap();
            assert!(
                rules.contains("the site calico-apiserver"),
                "{node}: somebody else's rule is gone: {rules}"
            );
        }
    }
    for command in commands(&section(GUIDE, "## 5. When all nodes have moved")) {
        kube.sh(&command);
    }
    works(&kube);
}

/// Pods of different nodes reach each other at addresses of the new range, and only where policy lets them.
fn works(kube: &Kube) {
    kube.ready();
    kube.apply(include_str!("manifests/flows.yaml"));
    kube.sh("kubectl wait -n flows --for=condition=Ready pod --all --timeout=90s");
    let server = kube.field("pod -n flows server", "{.status.podIP}");
    let range = "10.244.128.0/17".parse::<ipnetwork::Ipv4Network>().unwrap();
    assert!(range.contains(server.parse().unwrap()), "{server}");
    let ask = format!("curl -sS --max-time 2 http://{server}:8080/clientip");
    wait("the friend gets through", PATIENCE, || {
        kube.pod("flows/friend", &ask).map_err(|e| e.to_string())
    });
    let denied = kube.pod("flows/intruder", &ask);
    assert_eq!(denied.as_ref().err().map(|e| e.code), Some(28), "{denied:?}");
    let crds = kube.sh("kubectl get crds -o name");
    assert!(!crds.contains(".crd.projectcalico.org"), "{crds}");
}

/// A kind of Calico's group, with whatever fields.
fn crd(plural: &str, kind: &str, namespaced: bool) -> String {
    let scope = if namespaced { "Namespaced" } else { "Cluster" };
    format!(
        "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\n\
         metadata: {{name: {plural}.crd.projectcalico.org}}\n\
         spec:\n  group: crd.projectcalico.org\n  scope: {scope}\n  names: {{plural: {plural}, kind: {kind}}}\n  \
         versions:\n    - name: v1\n      served: true\n      storage: true\n      \
         schema: {{openAPIV3Schema: {{type: object, x-kubernetes-preserve-unknown-fields: true}}}}\n"
    )
}
