//! List and watch one resource type for ever, into whatever slim type the caller wants.
//!
//! An object is decoded once, into a transient JSON value and from there into `T`; only `T` survives. An object that does
//! not decode is reported and treated as absent, or as what the caller makes of it where absence would open something, so
//! that one odd object cannot blind us to all others.

use std::time::Duration;

use futures::{StreamExt, pin_mut};
use kube::core::WatchEvent;
use kube::core::params::{ListParams, WatchParams};
use kube::core::request::Request;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use tokio::sync::watch as latest;

use super::backoff::Backoff;
use super::client::Api;
use super::error::ApiError;
use super::resource::ResourceType;

/// Namespace (empty for cluster-wide objects) and name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey {
    /// Namespace, empty for cluster-wide objects.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl std::fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.namespace.is_empty() {
            f.write_str(&self.name)
        } else {
            write!(f, "{}/{}", self.namespace, self.name)
        }
    }
}

/// What a watch says.
#[derive(Debug, Clone, PartialEq)]
pub enum Change<T> {
    /// The complete collection: what is not in it is gone.
    Reset(Vec<T>),
    /// This object is now so.
    Put(T),
    /// This object is gone, or no longer understood.
    Gone(ObjectKey),
}

/// How a watch is doing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WatchState {
    /// True once a complete list was handed on.
    pub synced: bool,
    /// Why the last attempt failed; `None` while connected.
    pub error: Option<String>,
    /// Objects that could not be decoded, with the reason.
    pub undecodable: Vec<(ObjectKey, String)>,
}

/// Restricts a watch.
#[derive(Debug, Clone, Default)]
pub struct Scope {
    /// Field selector, as `metadata.name=node1`.
    pub fields: Option<String>,
    /// Label selector.
    pub labels: Option<String>,
}

/// What to go by in place of an object that does not decode; nothing where it shall count as absent.
pub type Salvage<T> = fn(&serde_json::Value) -> Option<T>;

/// Lists and watches until the receiver of `sink` is gone. Every change goes through `sink`, in order.
pub async fn watch<T, S>(
    api: Api,
    resource: ResourceType,
    scope: Scope,
    sink: tokio::sync::mpsc::Sender<S>,
    (wrap, salvage): (impl Fn(Change<T>) -> S, Salvage<T>),
    state: latest::Sender<WatchState>,
) where
    T: DeserializeOwned + Clone,
{
    let seed = u64::from(std::process::id()) ^ (resource.plural.len() as u64) << 32;
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10), seed);
    let mut from: Option<String> = None;
    loop {
        let result = match from.take() {
            None => list(&api, &resource, &scope, salvage).await.map(Turn::Listed),
            Some(version) => follow(&api, &resource, &scope, version, &sink, (&wrap, salvage), &state).await,
        };
        match result {
            Ok(Turn::Listed(listed)) => {
                let Listed { items, bad, version } = listed;
                tracing::debug!(resource = %resource.full_name(), objects = items.len(), %version, "listed");
                if sink.send(wrap(Change::Reset(items))).await.is_err() {
                    return;
                }
                state.send_replace(WatchState {
                    synced: true,
                    error: None,
                    undecodable: bad,
                });
                // Only a watch that gets on resets the pauses: a server that expires every version at once would
                // otherwise be asked for whole lists in a tight loop.
                from = Some(version);
            }
            Ok(Turn::Ended { version, progress }) => {
                if progress {
                    backoff.reset();
                } else {
                    tokio::time::sleep(backoff.pause()).await;
                }
                from = Some(version);
            }
            Ok(Turn::ReceiverGone) => return,
            Err((error, resume)) => {
                let text = explain(&resource, &error);
                if !matches!(error, ApiError::Expired(_)) {
                    tracing::warn!(resource = %resource.full_name(), error = %text, "watch failed");
                    state.send_if_modified(|state| {
                        let changed = state.error.as_deref() != Some(&text);
                        state.error = Some(text.clone());
                        changed
                    });
                }
                tokio::time::sleep(backoff.pause()).await;
                from = resume;
            }
        }
        if sink.is_closed() {
            return;
        }
    }
}

enum Turn<T> {
    Listed(Listed<T>),
    Ended { version: String, progress: bool },
    ReceiverGone,
}

struct Listed<T> {
    items: Vec<T>,
    bad: Vec<(ObjectKey, String)>,
    version: String,
}

/// The error of a turn and, where the watch may go on from there, the version to resume from.
type TurnError = (ApiError, Option<String>);

async fn list<T: DeserializeOwned>(
    api: &Api,
    resource: &ResourceType,
    scope: &Scope,
    salvage: Salvage<T>,
) -> Result<Listed<T>, TurnError> {
    let mut params = ListParams {
        field_selector: scope.fields.clone(),
        label_selector: scope.labels.clone(),
        limit: Some(500),
        ..ListParams::default()
    };
    let (mut items, mut bad) = (Vec::new(), Vec::new());
    loop {
        let page: Page<T> = api.list_page(resource, &params).await.map_err(|e| (e, None))?;
        for item in page.items {
            match item.object {
                Ok(object) => items.push(object),
                Err(Odd { why, value }) => {
                    tracing::warn!(resource = %resource.full_name(), object = %item.meta.key(), error = %why, "object not understood");
                    bad.push((item.meta.key(), why));
                    items.extend(salvage(&value));
                }
            }
        }
        match page.metadata.more() {
            Some(token) => params.continue_token = Some(token.to_owned()),
            None => {
                return Ok(Listed {
                    items,
                    bad,
                    version: page.metadata.resource_version,
                });
            }
        }
    }
}

async fn follow<T, S>(
    api: &Api,
    resource: &ResourceType,
    scope: &Scope,
    mut version: String,
    sink: &tokio::sync::mpsc::Sender<S>,
    (wrap, salvage): (&impl Fn(Change<T>) -> S, Salvage<T>),
    state: &latest::Sender<WatchState>,
) -> Result<Turn<T>, TurnError>
where
    T: DeserializeOwned + Clone,
{
    let params = WatchParams {
        field_selector: scope.fields.clone(),
        label_selector: scope.labels.clone(),
        timeout: Some(WATCH_SECONDS),
        bookmarks: true,
        send_initial_events: false,
    };
    let request = Request::new(resource.path(None))
        .watch(&params, &version)
        .map_err(|e| (ApiError::Invalid(e.to_string()), None))?;
    let begun = tokio::time::timeout(PATIENCE, api.raw().request_events::<Lenient<T>>(request)).await;
    let stream = match begun {
        Ok(begun) => begun.map_err(|e| resume(e.into(), &version))?,
        Err(_) => {
            let why = format!("a watch had no answer within {} s", PATIENCE.as_secs());
            return Err(resume(ApiError::Unreachable(why), &version));
        }
    };
    pin_mut!(stream);
    state.send_if_modified(|state| state.error.take().is_some());
    let mut progress = false;
    let silence = Duration::from_secs(u64::from(WATCH_SECONDS) + 5);
    loop {
        let event = match tokio::time::timeout(silence, stream.next()).await {
            Err(_) | Ok(None) => return Ok(Turn::Ended { version, progress }),
            Ok(Some(event)) => event.map_err(|e: kube::Error| resume(e.into(), &version))?,
        };
        let change = match event {
            WatchEvent::Bookmark(bookmark) => {
                version = bookmark.metadata.resource_version;
                progress = true;
                continue;
            }
            WatchEvent::Error(status) => return Err(resume(ApiError::from_status(&status), &version)),
            WatchEvent::Added(item) | WatchEvent::Modified(item) => {
                let odd = item.object.as_ref().err();
                note_decoding(state, resource, item.meta.key(), odd.map(|odd| &odd.why));
                let key = item.meta.key();
                version = item.meta.resource_version;
                match item.object {
                    Ok(object) => Change::Put(object),
                    Err(odd) => salvage(&odd.value).map_or(Change::Gone(key), Change::Put),
                }
            }
            WatchEvent::Deleted(item) => {
                note_decoding(state, resource, item.meta.key(), None);
                let key = item.meta.key();
                version = item.meta.resource_version;
                Change::Gone(key)
            }
        };
        progress = true;
        if sink.send(wrap(change)).await.is_err() {
            return Ok(Turn::ReceiverGone);
        }
    }
}

/// How long the API server may take to begin its answer to a watch.
const PATIENCE: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 15 });

/// Server-side end of one watch request; also bounds how long a silently dead connection goes unnoticed.
const WATCH_SECONDS: u32 = 60;

fn resume(error: ApiError, version: &str) -> TurnError {
    let from = (!matches!(error, ApiError::Expired(_) | ApiError::NotFound(_))).then(|| version.to_owned());
    (error, from)
}

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

fn explain(resource: &ResourceType, error: &ApiError) -> String {
    match error {
        ApiError::NotFound(_) if resource.group == "projectcalico.org" => {
            format!(
                "the API server does not serve {}: apply deploy/crds",
                resource.full_name()
            )
        }
        ApiError::Forbidden(text) => {
            format!(
                "may not list or watch {}: {text}; apply deploy/rbac.yaml or renew the credentials",
                resource.full_name()
            )
        }
        _ => error.to_string(),
    }
}

#[derive(Deserialize)]
#[serde(bound = "T: DeserializeOwned")]
struct Page<T> {
    #[serde(default)]
    metadata: ListMeta,
    #[serde(default = "Vec::new")]
    items: Vec<Lenient<T>>,
}

/// `metadata` of a list.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ListMeta {
    resource_version: String,
    #[serde(rename = "continue")]
    continue_token: Option<String>,
}

impl ListMeta {
    /// The token of the next page, if there is one.
    pub(crate) fn more(&self) -> Option<&str> {
        self.continue_token.as_deref().filter(|token| !token.is_empty())
    }
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Meta {
    namespace: String,
    name: String,
    resource_version: String,
}

impl Meta {
    pub(crate) fn key(&self) -> ObjectKey {
        ObjectKey {
            namespace: self.namespace.clone(),
            name: self.name.clone(),
        }
    }
}

/// An object, or why it is none.
#[derive(Debug, Clone)]
pub(crate) struct Lenient<T> {
    pub(crate) meta: Meta,
    pub(crate) object: Result<T, Odd>,
}

/// What does not decode.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Odd {
    pub(crate) why: String,
    pub(crate) value: serde_json::Value,
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for Lenient<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = serde_json::Value::deserialize(deserializer)?;
        let meta = value
            .get("metadata")
            .and_then(|meta| Meta::deserialize(meta).ok())
            .unwrap_or_default();
        let object = T::deserialize(&value).map_err(|error| Odd {
            why: error.to_string(),
            value,
        });
        Ok(Self { meta, object })
    }
}

#[cfg(test)]
mod tests;
