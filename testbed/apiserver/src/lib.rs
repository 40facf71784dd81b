//! A small Kubernetes API server for labs and fast tests: enough for kubectl, kube-rs and Margay's own agents.
//!
//! It serves discovery, OpenAPI as far as kubectl's validation needs it, tables, CRUD with conflicts, list and watch,
//! the four kinds of patch, dry run, field validation, finalizers, the built-in kinds of `builtin/kinds.txt` and custom
//! resources with schemas, defaults and CEL rules, over TLS, for an administrator and for service accounts.
//!
//! What it leaves out answers 501 and says what to do instead: kinds whose controller a lab does not have, `exec`,
//! `log`, `portforward`, webhooks, foreground deletion. Further differences from the real server:
//!
//! - The lab's token is its administrator's. Service accounts have tokens (`serviceaccounts/token`, bound to no object),
//!   and may do what the stored RBAC objects say; nobody checks that a role gives no more than its writer has.
//! - No garbage collection by owner references, no expiry of Events, no volumes with tokens or `kube-root-ca.crt` for pods.
//! - Server-side apply records ownership from an object's first apply on; see `patch/apply.rs`.
//! - In CEL, `oldSelf` of a list's items is found by index, not by list key.
//! - OpenAPI v2 has no definitions: kubectl before 1.25 warns of an unknown field (which is dropped) and does not refuse it.
//! - Services are taken only without a cluster IP (`clusterIP: None`): nothing would route one.
//! - A field that `builtin/types.txt` types `any` is stored as it comes.
//! - Faults on purpose (`/margay-lab/faults`) are the one thing that it has beyond Kubernetes; see [`Fault`].
//! - Answers are JSON only, HTTP/1.1 only; protobuf is read for what `kubectl create` sends.
//!
//! ```text
//! http (TLS, who, bodies) → access → router → registry (semantics, one lock) → store (objects, history) → journal (file)
//!   request, discovery,        table     admission, validation, crd,      └ watch (streams to clients)
//!   openapi                              schema, patch
//! ```

mod access;
mod admission;
mod builtin;
mod catalog;
mod crd;
mod discovery;
mod events;
mod faults;
mod http;
mod identity;
mod openapi;
mod patch;
mod protobuf;
mod rbac;
mod registry;
mod request;
mod router;
mod schema;
mod selector;
mod status;
mod store;
mod table;
mod time;
mod tls;
mod tokens;
mod validation;
mod watch;

use std::{
    io,
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use faults::Faults;
pub use faults::{Effect, Fault, Tally};
use registry::Registry;
use tokens::Tokens;

/// How a server is set up.
#[derive(Debug)]
pub struct Config {
    /// Bound sockets; the caller makes them, perhaps in another network namespace.
    pub listeners: Vec<TcpListener>,
    /// Where state survives a restart, a kill included; in memory when `None`.
    pub state_file: Option<PathBuf>,
    /// Where the certificate authority is kept (`ca.crt`, `ca.key`); made when absent, in memory when `None`.
    pub tls_dir: Option<PathBuf>,
    /// Host names and addresses that clients use, beyond those of the listeners and `localhost`.
    pub names: Vec<String>,
    /// The bearer token that may do everything.
    pub token: String,
    /// Sizes and times that tests make small.
    pub limits: Limits,
}

/// Bounds of what the server keeps for watches.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Changes that a watch can start from; older revisions answer 410.
    pub history: usize,
    /// Changes that a watch may fall behind before it is dropped with 410.
    pub watch_buffer: usize,
    /// Time between bookmarks.
    pub bookmark_interval: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            history: 10_000,
            watch_buffer: 2_000,
            bookmark_interval: Duration::from_secs(60),
        }
    }
}

impl Config {
    /// A server in memory on these sockets.
    pub fn new(listeners: Vec<TcpListener>, token: impl Into<String>) -> Self {
        let limits = Limits::default();
        Self {
            listeners,
            state_file: None,
            tls_dir: None,
            names: Vec::new(),
            token: token.into(),
            limits,
        }
    }
}

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A file or socket.
    #[error("the API server cannot start: {0}")]
    Io(#[from] io::Error),
    /// Making or reading certificates.
    #[error("the API server's certificates: {0}")]
    Certificate(#[from] rcgen::Error),
    /// Using them.
    #[error("the API server's TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// An empty token would let everyone in, or no one.
    #[error("the API server needs a token that is not empty")]
    EmptyToken,
}

/// A running server; it runs on threads of its own until it is stopped or dropped.
#[derive(Debug)]
pub struct Server {
    runtime: Option<tokio::runtime::Runtime>,
    addresses: Vec<SocketAddr>,
    ca_pem: String,
    token: String,
    shared: Arc<http::Shared>,
}

impl Server {
    /// Opens the state, then serves every listener.
    ///
    /// # Errors
    /// When the state file is damaged (the message names the line), or certificates or sockets cannot be used.
    pub fn start(config: Config) -> Result<Self, StartError> {
        if config.token.is_empty() {
            return Err(StartError::EmptyToken);
        }
        let addresses: Vec<SocketAddr> = config
            .listeners
            .iter()
            .map(TcpListener::local_addr)
            .collect::<Result<_, _>>()?;
        let tls = tls::prepare(config.tls_dir.as_deref(), certificate_names(&addresses, config.names))?;
        let limits = config.limits;
        let registry = Registry::open(config.state_file.as_deref(), limits.history, limits.watch_buffer)?;
        let bookmark_interval = limits.bookmark_interval;
        let shared = Arc::new(http::Shared {
            registry,
            tokens: Tokens::new(&config.token),
            token: config.token.clone(),
            faults: Faults::default(),
            cut: tokio::sync::watch::Sender::new(0),
            bookmark_interval,
        });
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("apiserver")
            .enable_all()
            .build()?;
        let guard = runtime.enter();
        for listener in config.listeners {
            listener.set_nonblocking(true)?;
            let listener = tokio::net::TcpListener::from_std(listener)?;
            runtime.spawn(http::serve(listener, tls.acceptor.clone(), shared.clone()));
        }
        drop(guard);
        Ok(Self {
            runtime: Some(runtime),
            addresses,
            ca_pem: tls.ca_pem,
            token: config.token,
            shared,
        })
    }

    /// The listeners' addresses, in the order given.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The certificate authority that clients must trust, as PEM.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// A kubeconfig for this server at `url`, such as `https://127.0.0.1:6443`.
    pub fn kubeconfig(&self, url: &str) -> String {
        let ca = STANDARD.encode(&self.ca_pem);
        let token = serde_json::Value::from(self.token.as_str());
        format!(
            "apiVersion: v1\nkind: Config\nclusters:\n- name: margay-lab\n  cluster:\n    server: {url}\n    \
             certificate-authority-data: {ca}\nusers:\n- name: margay-lab\n  user:\n    token: {token}\ncontexts:\n- name: \
             margay-lab\n  context:\n    cluster: margay-lab\n    user: margay-lab\ncurrent-context: margay-lab\n"
        )
    }

    /// Lets something go wrong from now on, beside what does already.
    pub fn add_fault(&self, fault: Fault) {
        self.shared.faults.add(fault);
    }

    /// Ends all faults and tells what they did.
    pub fn clear_faults(&self) -> Vec<Tally> {
        self.shared.faults.clear()
    }

    /// Ends the connection of every watch.
    pub fn cut_watches(&self) {
        self.shared.cut_watches();
    }

    /// The version of the last change.
    pub fn revision(&self) -> u64 {
        self.shared.registry.revision()
    }

    /// Goes back to what was at an earlier version, and counts on from there: a datastore put back from a backup.
    ///
    /// # Errors
    /// In words, when the version is of the future or no longer known, or the state file cannot be written.
    pub fn restore(&self, revision: u64) -> Result<(), String> {
        self.shared.restore(revision).map_err(|e| e.message)
    }

    /// Stops serving; open watches end.
    pub fn stop(mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(2));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn certificate_names(addresses: &[SocketAddr], extra: Vec<String>) -> Vec<String> {
    let mut names: Vec<String> = ["localhost", "127.0.0.1", "::1", "kubernetes.default.svc"]
        .map(str::to_owned)
        .into();
    names.extend(
        addresses
            .iter()
            .map(|a| a.ip())
            .filter(|ip| !ip.is_unspecified())
            .map(|ip| ip.to_string()),
    );
    names.extend(extra);
    names.sort();
    names.dedup();
    names
}
