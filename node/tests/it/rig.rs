//! What tests of the whole agent share: a network namespace, an agent in it, an API server before it.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::http::{Response, Uri};
use margay_netlink::Netns;
use margay_node::probe::{self, Which};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::watch;

/// A new namespace; `None`, with a named skip, without root.
pub(crate) fn namespace(test: &str) -> Option<Netns> {
    if !nix::unistd::geteuid().is_root() {
        assert!(std::env::var_os("CI").is_none(), "CI must run {test} as root");
        println!("SKIPPED {test}: needs root");
        return None;
    }
    Some(Netns::create().expect("a network namespace"))
}

/// An API server without any object but a Node and an IPPool. Its list of pods waits as long as it is told to.
pub(crate) struct Api {
    address: String,
    pub(crate) slow: watch::Sender<bool>,
    /// Lists of pods that were asked for.
    pub(crate) asked: Arc<AtomicUsize>,
    pub(crate) gone: Arc<AtomicBool>,
}

impl Api {
    pub(crate) async fn start(netns: &Netns) -> Self {
        let listener = netns
            .run(|| std::net::TcpListener::bind("127.0.0.1:0"))
            .unwrap()
            .unwrap();
        listener.set_nonblocking(true).unwrap();
        let listener = TcpListener::from_std(listener).unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let (slow, wait) = watch::channel(false);
        let (asked, gone) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (count, away) = (asked.clone(), gone.clone());
        let router = Router::new().fallback(async move |uri: Uri| {
            if away.load(Ordering::Relaxed) {
                return Response::builder().status(500).body(Body::empty()).unwrap();
            }
            if uri.query().unwrap_or_default().contains("watch=true") {
                return Response::new(Body::from_stream(futures::stream::pending::<std::io::Result<String>>()));
            }
            let mut items = json!([]);
            if uri.path().ends_with("/pods") {
                count.fetch_add(1, Ordering::Relaxed);
                // An error is the end of the test.
                let _ = wait.clone().wait_for(|slow| !slow).await;
            }
            if uri.path().ends_with("/nodes") {
                items = json!([{"metadata": {"name": "n1", "resourceVersion": "1"},
                    "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.1"}]}}]);
            }
            if uri.path().ends_with("/ippools") {
                items = json!([{"metadata": {"name": "pods", "resourceVersion": "2"},
                    "spec": {"cidr": "10.244.0.0/16", "natOutgoing": true}}]);
            }
            Response::new(Body::from(
                json!({"metadata": {"resourceVersion": "7"}, "items": items}).to_string(),
            ))
        });
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self {
            address,
            slow,
            asked,
            gone,
        }
    }
}

/// An agent, killed at the end if it still runs.
pub(crate) struct Agent<'a> {
    child: Child,
    dir: &'a Path,
}

impl<'a> Agent<'a> {
    pub(crate) fn start(netns: &Netns, dir: &'a Path, api: &Api) -> Self {
        let kubeconfig = dir.join("kubeconfig");
        let text = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c", "users": [],
            "clusters": [{"name": "c", "cluster": {"server": api.address}}],
            "contexts": [{"name": "c", "context": {"cluster": "c"}}],
        });
        std::fs::write(&kubeconfig, text.to_string()).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_margay-node"));
        command
            .args(["--node", "n1", "--health-listen", "off", "--kubeconfig"])
            .arg(&kubeconfig);
        command
            .arg("--state-dir")
            .arg(dir.join("state"))
            .arg("--run-dir")
            .arg(dir.join("run"));
        command
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .env_remove("MARGAY_API_SERVER");
        let child = netns.run(|| command.spawn()).unwrap().unwrap();
        Self { child, dir }
    }

    /// Whether it works with a picture of the cluster.
    pub(crate) async fn is_ready(&self) -> bool {
        let socket = self.dir.join("run/control.sock");
        let probe = probe::ask(&socket, Which::Ready, Duration::from_secs(5)).await;
        probe.is_ok_and(|probe| probe.ok)
    }

    pub(crate) async fn until_ready(&self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !self.is_ready().await {
            assert!(Instant::now() < deadline, "the agent does not become ready");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub(crate) fn stop(mut self) {
        kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGTERM).unwrap();
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Agent<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
