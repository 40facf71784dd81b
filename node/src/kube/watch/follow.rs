//! One watch request, from a version to its end.

use std::time::Duration;

use futures::{StreamExt, pin_mut};
use kube::core::WatchEvent;
use kube::core::params::WatchParams;
use kube::core::request::Request;
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, watch as latest};

use super::decode::Lenient;
use super::{ApiError, Change, ObjectKey, ResourceType, Salvage, Source, WatchState, version};

/// Where changes go.
pub(super) struct Sink<T, S, W> {
    pub(super) sink: mpsc::Sender<S>,
    pub(super) wrap: W,
    pub(super) salvage: Salvage<T>,
}

impl<T, S, W: Fn(Change<T>) -> S> Sink<T, S, W> {
    /// Hands a change on; whether anybody takes it is for [`Self::is_closed`] to say.
    pub(super) async fn send(&self, change: Change<T>) {
        let _ = self.sink.send((self.wrap)(change)).await;
    }

    pub(super) fn is_closed(&self) -> bool {
        self.sink.is_closed()
    }
}

/// How a watch request ended.
pub(super) enum End {
    /// As it should, or nobody listens; `progress` says whether anything was heard.
    Over { progress: bool },
    /// With word of a version before the one that was reached.
    FellBack(String),
    /// Not as it should.
    Failed(ApiError),
}

/// Follows the collection from `version` until the request ends. Answers the version that was reached.
pub(super) async fn follow<T, S>(
    source: &Source,
    sink: &Sink<T, S, impl Fn(Change<T>) -> S>,
    mut version: String,
    state: &latest::Sender<WatchState>,
) -> (String, End)
where
    T: DeserializeOwned + Clone,
{
    // All watches of all nodes begin when the API server does: they shall not end together as well.
    let seconds = SECONDS + fastrand::u32(0..SECONDS / 2);
    let params = WatchParams {
        field_selector: source.scope.fields.clone(),
        label_selector: source.scope.labels.clone(),
        timeout: Some(seconds),
        bookmarks: true,
        send_initial_events: false,
    };
    let request = match Request::new(source.resource.path(None)).watch(&params, &version) {
        Ok(request) => request,
        Err(error) => return (version, End::Failed(ApiError::Invalid(error.to_string()))),
    };
    let begun = tokio::time::timeout(PATIENCE, source.api.raw().request_events::<Lenient<T>>(request)).await;
    let stream = match begun {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return (version, End::Failed(error.into())),
        Err(_) => {
            let why = format!("a watch had no answer within {} s", PATIENCE.as_secs());
            return (version, End::Failed(ApiError::Unreachable(why)));
        }
    };
    pin_mut!(stream);
    state.send_if_modified(|state| state.error.take().is_some());
    let mut progress = false;
    let silence = Duration::from_secs(u64::from(seconds) + 5);
    loop {
        let event = match tokio::time::timeout(silence, stream.next()).await {
            Err(_) | Ok(None) => return (version, End::Over { progress }),
            Ok(Some(Err(error))) => return (version, End::Failed(ApiError::from(error))),
            Ok(Some(Ok(event))) => event,
        };
        let (now, change) = match event {
            WatchEvent::Bookmark(bookmark) => (bookmark.metadata.resource_version, None),
            WatchEvent::Error(status) => return (version, End::Failed(ApiError::from_status(&status))),
            WatchEvent::Added(item) | WatchEvent::Modified(item) => {
                let odd = item.object.as_ref().err();
                note_decoding(state, &source.resource, item.meta.key(), odd.map(|odd| &odd.why));
                let (key, now) = (item.meta.key(), item.meta.resource_version);
                let change = match item.object {
                    Ok(object) => Change::Put(object),
                    Err(odd) => (sink.salvage)(&odd.value).map_or(Change::Gone(key), Change::Put),
                };
                (now, Some(change))
            }
            WatchEvent::Deleted(item) => {
                note_decoding(state, &source.resource, item.meta.key(), None);
                (item.meta.resource_version.clone(), Some(Change::Gone(item.meta.key())))
            }
        };
        if version::is_before(&now, &version) {
            return (version, End::FellBack(now));
        }
        (version, progress) = (now, true);
        if let Some(change) = change {
            sink.send(change).await;
        }
        if sink.is_closed() {
            return (version, End::Over { progress });
        }
    }
}

/// How long the API server may take to begin its answer to a watch.
const PATIENCE: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 15 });

/// Server-side end of a watch request, and up to half as much on top; also bounds how long a silently dead connection goes
/// unnoticed.
const SECONDS: u32 = 50;

fn note_decoding(state: &latest::Sender<WatchState>, resource: &ResourceType, key: ObjectKey, error: Option<&String>) {
    state.send_if_modified(|state| {
        let before = state.undecodable.len();
        state.undecodable.retain(|(bad, _)| *bad != key);
        let had = state.undecodable.len() != before;
        if let Some(error) = error {
            tracing::warn!(resource = %resource.full_name(), object = %key, %error, "object not understood");
            state.undecodable.push((key, error.clone()));
        }
        had || error.is_some()
    });
}
