//! etcd, kube-apiserver and a few controllers as Kubernetes ships them, on this machine's loopback.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::ensure;
use margay_testkit::{needs, shell::wait_for};

use crate::client::Client;

const TOKEN: &str = "table-administrator";
const READY_LIMIT: Duration = Duration::from_secs(90);
/// What acts on the objects of the table in every cluster.
const CONTROLLERS: &str = "namespace-controller,serviceaccount-controller,clusterrole-aggregation-controller";

/// Processes that end with the value.
pub(super) struct Server {
    pub(super) client: Client,
    // Ended in this order.
    _processes: Vec<Process>,
    _dir: tempfile::TempDir,
}

impl Server {
    /// `None`, with a named skip for `test`, where the pieces are not built.
    pub(super) fn start(test: &str) -> Option<Self> {
        let Some(bin) = pieces() else {
            needs::skip(test, "the pieces of Kubernetes; `make kube` builds them");
            return None;
        };
        let dir = tempfile::tempdir().expect("directory");
        let (etcd, api) = (free_port(), free_port());
        let etcd = start_etcd(&bin, dir.path(), etcd);
        let ca = dir.path().join("certificates/apiserver.crt");
        let server = start_api_server(&bin, dir.path(), &etcd.1, api);
        let client = wait_for("the API server is ready", READY_LIMIT, || {
            // The certificate is made by the server itself; it is not there at once.
            let ca = fs::read_to_string(&ca).unwrap_or_default();
            let client = Client::new(api, &ca, TOKEN);
            let ready = client.open("GET", "/readyz", "Connection: close\r\n", "");
            let log = || tail(&dir.path().join("kube-apiserver.log"));
            ensure!(ready.is_ok_and(|(code, ..)| code == 200), "its log ends with {}", log());
            Ok(client)
        });
        let client = client.unwrap_or_else(|e| panic!("{e:#}"));
        let controllers = start_controllers(&bin, dir.path(), api);
        Some(Self {
            client,
            _processes: vec![controllers, server, etcd.0],
            _dir: dir,
        })
    }
}

/// A process and its log.
struct Process(Child);

impl Process {
    fn start(program: &Path, dir: &Path, args: &[String]) -> Self {
        let name = program.file_name().and_then(|n| n.to_str()).expect("name");
        let log = fs::File::create(dir.join(format!("{name}.log"))).expect("log");
        let child = Command::new(program)
            .args(args)
            .current_dir(dir)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("log"))
            .stderr(log)
            .spawn();
        Self(child.unwrap_or_else(|e| panic!("{}: {e}", program.display())))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start_etcd(bin: &Path, dir: &Path, port: u16) -> (Process, String) {
    let (url, peers) = (
        format!("http://127.0.0.1:{port}"),
        format!("http://127.0.0.1:{}", free_port()),
    );
    let args = [
        format!("--data-dir={}", dir.join("etcd").display()),
        "--unsafe-no-fsync".to_owned(),
        format!("--listen-client-urls={url}"),
        format!("--advertise-client-urls={url}"),
        format!("--listen-peer-urls={peers}"),
        format!("--initial-advertise-peer-urls={peers}"),
        format!("--initial-cluster=default={peers}"),
        "--log-level=warn".to_owned(),
    ];
    (Process::start(&bin.join("etcd"), dir, &args), url)
}

fn start_api_server(bin: &Path, dir: &Path, etcd: &str, port: u16) -> Process {
    let file = |name: &str| dir.join(name).display().to_string();
    let key = rcgen::KeyPair::generate().expect("key");
    fs::write(dir.join("sa.key"), key.serialize_pem()).expect("key");
    fs::write(dir.join("sa.pub"), key.public_key_pem()).expect("key");
    fs::write(dir.join("tokens"), format!("{TOKEN},administrator,1,system:masters\n")).expect("tokens");
    let args = [
        "--bind-address=127.0.0.1".to_owned(),
        format!("--secure-port={port}"),
        format!("--cert-dir={}", file("certificates")),
        format!("--etcd-servers={etcd}"),
        "--authorization-mode=RBAC".to_owned(),
        format!("--token-auth-file={}", file("tokens")),
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local".to_owned(),
        format!("--service-account-key-file={}", file("sa.pub")),
        format!("--service-account-signing-key-file={}", file("sa.key")),
        "--service-cluster-ip-range=10.96.0.0/16".to_owned(),
        // Nobody but the table writes.
        "--endpoint-reconciler-type=none".to_owned(),
    ];
    Process::start(&bin.join("kube-apiserver"), dir, &args)
}

fn start_controllers(bin: &Path, dir: &Path, api: u16) -> Process {
    let kubeconfig = dir.join("kubeconfig");
    let text = format!(
        "apiVersion: v1\nkind: Config\nclusters:\n- name: a\n  cluster: {{server: 'https://127.0.0.1:{api}', \
         certificate-authority: certificates/apiserver.crt}}\nusers:\n- name: a\n  user: {{token: {TOKEN}}}\ncontexts:\n\
         - name: a\n  context: {{cluster: a, user: a}}\ncurrent-context: a\n"
    );
    fs::write(&kubeconfig, text).expect("kubeconfig");
    let args = [
        format!("--kubeconfig={}", kubeconfig.display()),
        "--bind-address=127.0.0.1".to_owned(),
        "--secure-port=0".to_owned(),
        "--leader-elect=false".to_owned(),
        format!("--controllers={CONTROLLERS}"),
    ];
    Process::start(&bin.join("kube-controller-manager"), dir, &args)
}

/// Folder of the programs that `make kube` built, or of those the user points to.
fn pieces() -> Option<PathBuf> {
    if let Some(dir) = std::env::var_os("MARGAY_KUBE_ASSETS").filter(|d| !d.is_empty()) {
        let bin = PathBuf::from(dir).join("bin");
        assert!(
            bin.join("kube-apiserver").exists(),
            "MARGAY_KUBE_ASSETS: no kube-apiserver in {}",
            bin.display()
        );
        return Some(bin);
    }
    let script = margay_testkit::repository().join("scripts/kube");
    let out = Command::new(script).arg("path").output().ok()?;
    let dir = String::from_utf8_lossy(&out.stdout).trim().to_owned();
    out.status.success().then(|| PathBuf::from(dir).join("bin"))
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
    listener.local_addr().expect("address").port()
}

fn tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().rev().take(5).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("\n")
}
