//! Watches: a stream of events, one JSON object a line.

use std::{
    convert::Infallible,
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
}

/// Turns an object into what this client sees of it.
pub(crate) type Render = Box<dyn Fn(&Value) -> Value + Send>;

/// The body of a watch's answer.
pub(crate) struct WatchBody(mpsc::Receiver<Bytes>);

impl Body for WatchBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(cx).map(|bytes| bytes.map(|b| Ok(Frame::data(b))))
    }
}

/// Starts the watch; `initial` are the objects there are, shown as added.
pub(crate) fn start(watch: Watch, initial: Vec<Arc<Value>>, subscription: Subscription, render: Render) -> WatchBody {
    // Small: a client that does not read fills the store's buffer for this watch, which ends it.
    let (sender, receiver) = mpsc::channel(16);
    tokio::spawn(run(watch, initial, subscription, render, sender));
    WatchBody(receiver)
}

/// An answer whose only event is an error: what went wrong once the request itself was understood.
pub(crate) fn failed(error: &ApiError) -> WatchBody {
    let (sender, receiver) = mpsc::channel(1);
    // There is room for one: this cannot fail.
    let _ = sender.try_send(line("ERROR", error.to_json()));
    WatchBody(receiver)
}

async fn run(
    watch: Watch,
    initial: Vec<Arc<Value>>,
    mut subscription: Subscription,
    render: Render,
    out: mpsc::Sender<Bytes>,
) {
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
            () = out.closed() => return,
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
