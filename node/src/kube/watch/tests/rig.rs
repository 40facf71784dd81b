//! An API server that does as a test says, and a watch of it.

use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::http::{Response, Uri};
use futures::StreamExt;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::super::super::client::ApiAddress;
use super::super::super::resource::NODE;
use super::*;

/// What the API server does with a request.
pub(super) enum Reply {
    /// 200 with this.
    Json(Value),
    /// An error, with what it says about coming back.
    Error(u16, Option<u32>),
    /// These events and the end of the stream.
    Events(Vec<Value>),
    /// These events, and then it breaks off.
    Cut(Vec<Value>),
    /// These events, and then no word.
    Open(Vec<Value>),
    /// Nothing at all.
    Mute,
}

/// A watch at work, and what was seen of it.
pub(super) struct Rig {
    pub(super) changes: mpsc::Receiver<Change<Thing>>,
    pub(super) state: latest::Receiver<WatchState>,
    asked: latest::Receiver<Vec<(Instant, String)>>,
}

impl Rig {
    /// `script` is given each request's query, and the number of requests before it.
    pub(super) async fn start(script: impl FnMut(usize, &str) -> Reply + Send + 'static) -> Self {
        // Another test may have been first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = format!("http://{}", listener.local_addr().unwrap());
        let (requests, asked) = latest::channel(Vec::new());
        let script = Arc::new(Mutex::new(script));
        let router = axum::Router::new().fallback(async move |uri: Uri| {
            let query = uri.query().unwrap_or_default().to_owned();
            let number = requests.borrow().len();
            requests.send_modify(|all: &mut Vec<_>| all.push((Instant::now(), query.clone())));
            let reply = (script.lock())(number, &query);
            answer(reply).await
        });
        tokio::spawn(async move { axum::serve(listener, router).await });
        let dir = tempfile::tempdir().unwrap();
        let kubeconfig = dir.path().join("kubeconfig");
        let text = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c", "users": [],
            "clusters": [{"name": "c", "cluster": {"server": server}}],
            "contexts": [{"name": "c", "context": {"cluster": "c"}}],
        });
        std::fs::write(&kubeconfig, text.to_string()).unwrap();
        let address = ApiAddress {
            kubeconfig: Some(&kubeconfig),
            ..ApiAddress::default()
        };
        let api = Api::connect(&address).await.unwrap();
        let (sink, changes) = mpsc::channel(64);
        let (told, state) = latest::channel(WatchState::default());
        let wrap = (|change: Change<Thing>| change, (|_| None) as Salvage<Thing>);
        tokio::spawn(watch(api, NODE, Scope::default(), sink, wrap, told));
        Self { changes, state, asked }
    }

    /// The next change; a watch that tells none in time is at fault.
    pub(super) async fn change(&mut self) -> Change<Thing> {
        let next = tokio::time::timeout(PATIENCE, self.changes.recv()).await;
        next.unwrap_or_else(|_| panic!("no change; asked: {:#?}", self.queries()))
            .expect("the watch goes on")
    }

    /// Waits until so many requests have come.
    pub(super) async fn requests(&mut self, count: usize) -> Vec<(Instant, String)> {
        let enough = self.asked.wait_for(|asked| asked.len() >= count);
        let asked = tokio::time::timeout(PATIENCE, enough)
            .await
            .unwrap_or_else(|_| panic!("fewer than {count} requests"));
        asked.unwrap().clone()
    }

    /// What was asked for so far.
    pub(super) fn queries(&self) -> Vec<String> {
        self.asked.borrow().iter().map(|(_, query)| query.clone()).collect()
    }
}

const PATIENCE: Duration = Duration::from_secs(30);

async fn answer(reply: Reply) -> Response<Body> {
    let response = Response::builder().header("content-type", "application/json");
    match reply {
        Reply::Json(value) => response.body(Body::from(value.to_string())),
        Reply::Error(code, after) => {
            let mut response = response.status(code);
            if let Some(after) = after {
                response = response.header("retry-after", after);
            }
            let body = json!({"kind": "Status", "status": "Failure", "code": code, "message": "as the test says"});
            response.body(Body::from(body.to_string()))
        }
        Reply::Events(events) => response.body(Body::from(lines(&events))),
        Reply::Cut(events) => {
            // Pending once, for what was said to be sent off.
            let cut = futures::stream::once(async {
                tokio::task::yield_now().await;
                Err(std::io::Error::other("cut"))
            });
            response.body(Body::from_stream(
                futures::stream::iter([Ok(lines(&events))]).chain(cut),
            ))
        }
        Reply::Open(events) => {
            let open = futures::stream::iter([Ok::<_, std::io::Error>(lines(&events))]);
            response.body(Body::from_stream(open.chain(futures::stream::pending())))
        }
        Reply::Mute => std::future::pending().await,
    }
    .unwrap()
}

fn lines(events: &[Value]) -> String {
    events.iter().map(|event| format!("{event}\n")).collect()
}

/// The object `name` as of `version`.
pub(super) fn thing(name: &str, version: u32) -> Value {
    json!({"metadata": {"name": name, "resourceVersion": version.to_string()}, "spec": {"number": 1}})
}

/// One page of a list; `more` is the token of the next.
pub(super) fn page(version: u32, names: &[&str], more: &str) -> Value {
    let items: Vec<_> = names.iter().map(|name| thing(name, 1)).collect();
    json!({"metadata": {"resourceVersion": version.to_string(), "continue": more}, "items": items})
}

/// An event of a watch.
pub(super) fn event(kind: &str, object: Value) -> Value {
    json!({"type": kind, "object": object})
}

/// That the collection is as far as `version`.
pub(super) fn bookmark(version: u32) -> Value {
    let metadata = json!({"resourceVersion": version.to_string(), "annotations": {}});
    event(
        "BOOKMARK",
        json!({"kind": "Node", "apiVersion": "v1", "metadata": metadata}),
    )
}
