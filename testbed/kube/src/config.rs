//! Configuration files of the programs on a node, and their command lines. Pure.

use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::machine::Unit;
use crate::pki::Identity;
use crate::spec::{Node, ProxyMode, Spec};

/// Folder of certificates on a node.
pub const PKI: &str = "/etc/kubernetes/pki";
/// Where containerd listens on a node.
const CONTAINERD: &str = "/run/containerd/containerd.sock";
/// The image of a pod's own process.
const PAUSE: &str = "registry.k8s.io/pause";

/// A kubeconfig for `identity` that reaches the API server at `server`.
pub fn kubeconfig(server: &str, authority: &str, identity: &Identity) -> String {
    let data = |pem: &str| STANDARD.encode(pem);
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "margay-lab", "cluster": {
            "server": server,
            "certificate-authority-data": data(authority),
        }}],
        "users": [{"name": "user", "user": {
            "client-certificate-data": data(&identity.certificate),
            "client-key-data": data(&identity.key),
        }}],
        "contexts": [{"name": "margay-lab", "context": {"cluster": "margay-lab", "user": "user"}}],
        "current-context": "margay-lab",
    })
    .to_string()
}

/// containerd's configuration, in the form that 1.x and 2.x both read.
pub fn containerd(pause: &str) -> String {
    format!(
        r#"version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs"]
[grpc]
  address = "{CONTAINERD}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  # A lab may lack the capability that lowering a score needs.
  restrict_oom_score_adj = true
"#
    )
}

/// The name of the pause image among `images`.
pub fn pause(images: &[String]) -> Option<&str> {
    images
        .iter()
        .map(String::as_str)
        .find(|name| name.rsplit_once(':').is_some_and(|(name, _)| name == PAUSE))
}

/// kubelet's configuration.
pub fn kubelet(spec: &Spec, node: &Node) -> Value {
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": unspecified(node),
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true},
            "x509": {"clientCAFile": format!("{PKI}/ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "cgroupDriver": "cgroupfs",
        "clusterDNS": spec.dns(),
        "clusterDomain": "cluster.local",
        "containerRuntimeEndpoint": format!("unix://{CONTAINERD}"),
        // The lab shares its machine's disk and memory; how full they are says nothing of the node.
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "imageGCHighThresholdPercent": 100,
        "failCgroupV1": false,
        "failSwapOn": false,
        "healthzBindAddress": "127.0.0.1",
        "nodeStatusUpdateFrequency": "5s",
        "resolvConf": "/etc/resolv.conf",
        "serializeImagePulls": false,
        "tlsCertFile": format!("{PKI}/kubelet.crt"),
        "tlsPrivateKeyFile": format!("{PKI}/kubelet.key"),
    })
}

/// kube-proxy's configuration.
pub fn proxy(spec: &Spec, node: &Node) -> Value {
    let mode = match spec.proxy {
        ProxyMode::Nftables => "nftables",
        ProxyMode::Iptables | ProxyMode::None => "iptables",
    };
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "bindAddress": unspecified(node),
        "clientConnection": {"kubeconfig": "/etc/kubernetes/kube-proxy.conf"},
        "clusterCIDR": joined(&spec.pods),
        // The limit of tracked connections belongs to the whole machine.
        "conntrack": {"maxPerCore": 0, "min": 0},
        "hostnameOverride": node.name,
        "mode": mode,
    })
}

/// The services of a node, in the order they start.
pub fn units(spec: &Spec, node: &Node) -> Vec<Unit> {
    let mut units = Vec::new();
    if node.control_plane {
        units.extend([etcd(), api_server(spec, node), controller_manager(spec), scheduler()]);
    }
    units.extend([containerd_unit(), kubelet_unit(node)]);
    if spec.proxy != ProxyMode::None {
        units.push(unit(
            "kube-proxy",
            ["--config=/etc/kubernetes/kube-proxy.yaml".to_owned()],
        ));
    }
    units
}

fn etcd() -> Unit {
    let args = [
        "--data-dir=/var/lib/etcd",
        // A lab's data need not survive a crash of the machine itself.
        "--unsafe-no-fsync",
        "--listen-client-urls=http://127.0.0.1:2379",
        "--advertise-client-urls=http://127.0.0.1:2379",
        "--listen-peer-urls=http://127.0.0.1:2380",
        "--initial-advertise-peer-urls=http://127.0.0.1:2380",
        "--initial-cluster=default=http://127.0.0.1:2380",
        "--log-level=warn",
    ];
    unit("etcd", args.map(str::to_owned))
}

fn api_server(spec: &Spec, node: &Node) -> Unit {
    let pki = |file: &str| format!("{PKI}/{file}");
    let args = [
        format!("--advertise-address={}", node.addresses[0]),
        format!("--bind-address={}", unspecified(node)),
        "--secure-port=6443".to_owned(),
        "--etcd-servers=http://127.0.0.1:2379".to_owned(),
        "--authorization-mode=Node,RBAC".to_owned(),
        "--enable-admission-plugins=NodeRestriction".to_owned(),
        "--allow-privileged".to_owned(),
        "--profiling=false".to_owned(),
        format!("--service-cluster-ip-range={}", joined(&spec.services)),
        format!("--client-ca-file={}", pki("ca.crt")),
        format!("--tls-cert-file={}", pki("apiserver.crt")),
        format!("--tls-private-key-file={}", pki("apiserver.key")),
        format!("--service-account-key-file={}", pki("sa.pub")),
        format!("--service-account-signing-key-file={}", pki("sa.key")),
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local".to_owned(),
        format!("--kubelet-certificate-authority={}", pki("ca.crt")),
        format!("--kubelet-client-certificate={}", pki("apiserver-kubelet-client.crt")),
        format!("--kubelet-client-key={}", pki("apiserver-kubelet-client.key")),
        "--kubelet-preferred-address-types=InternalIP".to_owned(),
        "--enable-aggregator-routing".to_owned(),
        format!("--proxy-client-cert-file={}", pki("front-proxy-client.crt")),
        format!("--proxy-client-key-file={}", pki("front-proxy-client.key")),
        format!("--requestheader-client-ca-file={}", pki("ca.crt")),
        "--requestheader-allowed-names=front-proxy-client".to_owned(),
        "--requestheader-extra-headers-prefix=X-Remote-Extra-".to_owned(),
        "--requestheader-group-headers=X-Remote-Group".to_owned(),
        "--requestheader-username-headers=X-Remote-User".to_owned(),
    ];
    unit("kube-apiserver", args)
}

fn controller_manager(spec: &Spec) -> Unit {
    let conf = "/etc/kubernetes/controller-manager.conf";
    let args = [
        format!("--kubeconfig={conf}"),
        format!("--authentication-kubeconfig={conf}"),
        format!("--authorization-kubeconfig={conf}"),
        "--bind-address=127.0.0.1".to_owned(),
        // Margay hands out blocks of its own pools; Nodes get no range of pods.
        "--allocate-node-cidrs=false".to_owned(),
        format!("--service-cluster-ip-range={}", joined(&spec.services)),
        format!("--cluster-signing-cert-file={PKI}/ca.crt"),
        format!("--cluster-signing-key-file={PKI}/ca.key"),
        format!("--root-ca-file={PKI}/ca.crt"),
        format!("--service-account-private-key-file={PKI}/sa.key"),
        "--use-service-account-credentials".to_owned(),
        "--leader-elect=false".to_owned(),
    ];
    unit("kube-controller-manager", args)
}

fn scheduler() -> Unit {
    let conf = "/etc/kubernetes/scheduler.conf";
    let args = [
        format!("--kubeconfig={conf}"),
        format!("--authentication-kubeconfig={conf}"),
        format!("--authorization-kubeconfig={conf}"),
        "--bind-address=127.0.0.1".to_owned(),
        "--leader-elect=false".to_owned(),
    ];
    unit("kube-scheduler", args)
}

fn containerd_unit() -> Unit {
    Unit {
        name: "containerd".to_owned(),
        argv: ["containerd", "--config=/etc/kubernetes/containerd.toml"]
            .map(str::to_owned)
            .to_vec(),
        after: None,
    }
}

fn kubelet_unit(node: &Node) -> Unit {
    let labels: Vec<String> = node
        .labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    let mut args = vec![
        "--config=/etc/kubernetes/kubelet.yaml".to_owned(),
        "--kubeconfig=/etc/kubernetes/kubelet.conf".to_owned(),
        format!("--hostname-override={}", node.name),
        format!("--node-ip={}", joined(&node.addresses)),
    ];
    if !labels.is_empty() {
        args.push(format!("--node-labels={}", labels.join(",")));
    }
    Unit {
        after: Some(CONTAINERD.into()),
        ..unit("kubelet", args)
    }
}

fn unit(name: &str, args: impl IntoIterator<Item = String>) -> Unit {
    Unit {
        name: name.to_owned(),
        argv: [name.to_owned()].into_iter().chain(args).collect(),
        after: None,
    }
}

/// Every address of the node's first family, and of the other one with it where that is possible.
fn unspecified(node: &Node) -> &'static str {
    let v6 = node.addresses.iter().any(IpAddr::is_ipv6);
    if v6 { "::" } else { "0.0.0.0" }
}

fn joined<T: ToString>(items: &[T]) -> String {
    items.iter().map(T::to_string).collect::<Vec<_>>().join(",")
}
