//! Watches: a stream of events, one JSON object a line.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use hyper::body::{Body, Frame};
use serde_json::{Value, json};
use tokio::{sync::mpsc, time::Instant};

use super::{
    catalog::Resource,
    registry::{Filter, present},
    status::ApiError,
    store::{Change, Subscription},
};

/// What a watch asks for.
pub(crate) struct Watch {
    pub(crate) resource: Arc<Resource>,
    pub(crate) filter: Filter,
    pub(crate) bookmarks: bool,
    /// Ends the initial events with a marked bookmark (`sendInitialEvents`).
    pub(crate) mark_initial: bool,
    pub(crate) timeout: Duration,
    pub(crate) bookmark_interval: Duration,
    /// Events before a cut that a fault makes.
    pub(crate) cut_after: Option<usize>,
    /// Cuts every watch when it changes.
    pub(crate) cut: tokio::sync::watch::Receiver<u64>,
}

/// Turns an object into what this client sees of it.
pub(crate) type Render = Box<dyn Fn(&Value) -> Value + Send>;

/// The body of a watch's answer. An error cuts the connection.
pub(crate) struct WatchBody(mpsc::Receiver<io::Result<Bytes>>);

impl Body for WatchBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.0.poll_recv(cx).map(|bytes| bytes.map(|b| b.map(Frame::data)))
    }
}

/// Where events go: to the client, or nowhere any more.
struct Out {
    sender: mpsc::Sender<io::Result<Bytes>>,
    /// Events that are sent whole before the connection is cut within the next one.
    whole: Option<usize>,
}

/// The client has gone, or is cut off.
struct Gone;

impl Out {
    async fn send(&mut self, event: Bytes) -> Result<(), Gone> {
        match &mut self.whole {
            Some(0) => {
                let half = event.slice(..event.len() / 2);
                let _ = self.sender.send(Ok(half)).await;
                self.cut().await;
                return Err(Gone);
            }
            Some(left) => *left -= 1,
            None => {}
        }
        self.sender.send(Ok(event)).await.map_err(|_| Gone)
    }

    async fn cut(&self) {
        let _ = self.sender.send(Err(io::ErrorKind::ConnectionReset.into())).await;
    }
}

/// Starts the watch; `initial` are the objects there are, shown as added.
pub(crate) fn start(watch: Watch, initial: Vec<Arc<Value>>, subscription: Subscription, render: Render) -> WatchBody {
    // Small: a client that does not read fills the store's buffer for this watch, which ends it.
    let (sender, receiver) = mpsc::channel(16);
    let whole = watch.cut_after;
    tokio::spawn(run(watch, initial, subscription, render, Out { sender, whole }));
    WatchBody(receiver)
}

/// An answer whose only event is an error: what went wrong once the request itself was understood.
pub(crate) fn failed(error: &ApiError) -> WatchBody {
    let (sender, receiver) = mpsc::channel(1);
    // There is room for one: this cannot fail.
    let _ = sender.try_send(Ok(line("ERROR", error.to_json())));
    WatchBody(receiver)
}

async fn run(mut watch: Watch, initial: Vec<Arc<Value>>, mut subscription: Subscription, render: Render, mut out: Out) {
    let mut revision = subscription.revision;
    for object in initial {
        let object = present(&watch.resource, &object);
        if watch.filter.matches(&object) && out.send(line("ADDED", render(&object))).await.is_err() {
            return;
        }
    }
    if watch.mark_initial && out.send(bookmark(&watch, &render, revision, true)).await.is_err() {
        return;
    }
    for change in std::mem::take(&mut subscription.backlog) {
        if let Some(event) = event(&watch, &render, &change)
            && out.send(event).await.is_err()
        {
            return;
        }
    }
    let end = Instant::now() + watch.timeout;
    let mut next_bookmark = Instant::now() + watch.bookmark_interval;
    loop {
        let sent = tokio::select! {
            biased;
            () = out.sender.closed() => return,
            Ok(()) = watch.cut.changed() => {
                out.cut().await;
                return;
            }
            () = tokio::time::sleep_until(end) => break,
            () = tokio::time::sleep_until(next_bookmark), if watch.bookmarks => {
                next_bookmark = Instant::now() + watch.bookmark_interval;
                out.send(bookmark(&watch, &render, revision, false)).await
            }
            change = subscription.changes.recv() => match change {
                Some(change) => {
                    revision = change.revision;
                    match event(&watch, &render, &change) {
                        Some(event) => out.send(event).await,
                        None => Ok(()),
                    }
                }
                None => {
                    let error = ApiError::expired(format!("too old resource version: {revision}: the watch fell behind"));
                    let _ = out.send(line("ERROR", error.to_json())).await;
                    return;
                }
            },
        };
        if sent.is_err() {
            return;
        }
    }
    if watch.bookmarks {
        let _ = out.send(bookmark(&watch, &render, revision, false)).await;
    }
}

/// How a change looks through the filter: an object that stops to match is deleted, as far as this watch can tell.
fn event(watch: &Watch, render: &Render, change: &Change) -> Option<Bytes> {
    let seen = |object: &Option<Arc<Value>>| {
        object
            .as_ref()
            .map(|o| present(&watch.resource, o))
            .filter(|o| watch.filter.matches(o))
    };
    let (now, before) = (seen(&change.object), seen(&change.previous));
    match (now, before) {
        (Some(now), None) => Some(line("ADDED", render(&now))),
        (Some(now), Some(_)) => Some(line("MODIFIED", render(&now))),
        (None, Some(mut before)) => {
            before["metadata"]["resourceVersion"] = change.revision.to_string().into();
            Some(line("DELETED", render(&before)))
        }
        (None, None) => None,
    }
}

fn bookmark(watch: &Watch, render: &Render, revision: u64, end_of_initial: bool) -> Bytes {
    let mut object = json!({
        "kind": watch.resource.kind, "apiVersion": watch.resource.api_version(),
        "metadata": {"resourceVersion": revision.to_string(), "creationTimestamp": null},
    });
    if end_of_initial {
        object["metadata"]["annotations"] = json!({"k8s.io/initial-events-end": "true"});
    }
    line("BOOKMARK", render(&object))
}

fn line(kind: &str, object: Value) -> Bytes {
    format!("{}\n", json!({"type": kind, "object": object})).into()
}
