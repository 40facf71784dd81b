//! List and watch one resource type for ever, into whatever slim type the caller wants.
//!
//! An object is decoded once, into a transient JSON value and from there into `T`; only `T` survives. An object that does
//! not decode is reported and treated as absent, or as what the caller makes of it where absence would open something, so
//! that one odd object cannot blind us to all others.
//!
//! ```text
//!           ┌──────── expired, gone, or the datastore has fallen back ────────┐
//!           ▼                                                                 │
//!  list, page by page ──▶ follow ──stream broke, or ended in silence──▶ check the version
//!                            ▲                                                │
//!                            └────────────────── not behind us ───────────────┘
//! ```

mod decode;
mod follow;
mod list;
mod version;

use std::time::{Duration, Instant};

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use kube::core::params::ListParams;
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, watch as latest};

use super::client::Api;
use super::error::ApiError;
use super::resource::ResourceType;

use decode::Page;
pub(crate) use decode::{Lenient, ListMeta, Odd};
use follow::{End, Sink};
use list::{Listing, Turned};

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
    /// What the last attempt failed with; `None` while the API server answers.
    pub error: Option<Trouble>,
    /// Objects that could not be decoded, with the reason.
    pub undecodable: Vec<(ObjectKey, String)>,
}

/// Why a watch does not get on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// What kind of trouble, for those who decide by it.
    pub kind: TroubleKind,
    /// What happened and what to do.
    pub text: String,
    /// When the first of the attempts was begun that have failed since.
    pub since: Instant,
}

/// What may be hoped for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TroubleKind {
    /// The API server does not know the resource type: until somebody adds it there are no such objects.
    NotServed,
    /// We may not read it: until somebody allows it, or for good.
    NotPermitted,
    /// The API server is there and asks for patience.
    Busy,
    /// No answer, or none of use.
    Away,
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
    sink: mpsc::Sender<S>,
    (wrap, salvage): (impl Fn(Change<T>) -> S, Salvage<T>),
    state: latest::Sender<WatchState>,
) where
    T: DeserializeOwned + Clone,
{
    let source = Source { api, resource, scope };
    let sink = Sink { sink, wrap, salvage };
    let mut pauses = pauses();
    let mut next = Next::List(Listing::default());
    while !sink.is_closed() {
        let begun = Instant::now();
        let (then, result) = step(&source, &sink, next, &state).await;
        next = then;
        let pause = match result {
            Ok(Progress::Made) => {
                pauses = self::pauses();
                Duration::ZERO
            }
            Ok(Progress::Hoped) => Duration::ZERO,
            Ok(Progress::None) | Err(ApiError::Expired(_)) => pause(&mut pauses),
            Err(error) => {
                source.tell(&error, begun, &state);
                // All who were told the same would come back together.
                error.retry_after().unwrap_or_default() + pause(&mut pauses)
            }
        };
        tokio::time::sleep(pause).await;
    }
}

/// What to do next.
enum Next<T> {
    /// Ask for the next page.
    List(Listing<T>),
    /// See that the API server is not behind this version, and follow from there.
    Check(String),
    /// Watch from this version.
    Follow(String),
}

/// Whether a step was worth it.
enum Progress {
    /// The watch gets on: pauses start over.
    Made,
    /// The next step shows. Only a watch that gets on resets the pauses: a server that expires every version at once would
    /// otherwise be asked for whole lists in a tight loop.
    Hoped,
    /// It must not go on like this without a pause.
    None,
}

async fn step<T, S>(
    source: &Source,
    sink: &Sink<T, S, impl Fn(Change<T>) -> S>,
    next: Next<T>,
    state: &latest::Sender<WatchState>,
) -> (Next<T>, Result<Progress, ApiError>)
where
    T: DeserializeOwned + Clone,
{
    match next {
        Next::List(listing) => match listing.turn(source, sink.salvage).await {
            Ok(Turned::Page(listing)) => {
                state.send_if_modified(|state| state.error.take().is_some());
                (Next::List(listing), Ok(Progress::Hoped))
            }
            Ok(Turned::Whole { items, bad, version }) => {
                tracing::debug!(resource = %source.resource.full_name(), objects = items.len(), %version, "listed");
                sink.send(Change::Reset(items)).await;
                state.send_replace(WatchState {
                    synced: true,
                    error: None,
                    undecodable: bad,
                });
                (Next::Follow(version), Ok(Progress::Hoped))
            }
            Err((error, listing)) => (Next::List(listing), Err(error)),
        },
        Next::Check(known) => match source.version().await {
            Ok(now) if version::is_before(&now, &known) => (source.fallen(&known, &now), Ok(Progress::Hoped)),
            Ok(_) => (Next::Follow(known), Ok(Progress::Hoped)),
            Err(error) => (after_failure(&error, known), Err(error)),
        },
        Next::Follow(from) => {
            let (version, end) = follow::follow(source, sink, from, state).await;
            match end {
                End::Over { progress: true } => (Next::Follow(version), Ok(Progress::Made)),
                End::Over { progress: false } => (Next::Check(version), Ok(Progress::None)),
                End::FellBack(now) => (source.fallen(&version, &now), Ok(Progress::Hoped)),
                End::Failed(error) => (after_failure(&error, version), Err(error)),
            }
        }
    }
}

/// A version that the server does not know any more is not resumed from. Whatever else broke may have been a restart, with
/// another datastore behind it.
fn after_failure<T>(error: &ApiError, version: String) -> Next<T> {
    match error {
        ApiError::Expired(_) | ApiError::NotFound(_) => Next::List(Listing::default()),
        _ => Next::Check(version),
    }
}

/// Random in each process: agents that fail together must not come back together.
fn pauses() -> ExponentialBackoff {
    ExponentialBuilder::new()
        .with_min_delay(Duration::from_millis(100))
        .with_max_delay(Duration::from_secs(5))
        .with_jitter()
        .without_max_times()
        .build()
}

fn pause(pauses: &mut ExponentialBackoff) -> Duration {
    // Its number is not limited.
    pauses.next().unwrap_or(Duration::from_secs(5))
}

/// What is watched, and where.
struct Source {
    api: Api,
    resource: ResourceType,
    scope: Scope,
}

impl Source {
    fn list_params(&self) -> ListParams {
        ListParams {
            field_selector: self.scope.fields.clone(),
            label_selector: self.scope.labels.clone(),
            ..ListParams::default()
        }
    }

    /// The version that the collection is at: asked of the datastore itself, which a watch does not do. One from a version
    /// that a restored datastore has not reached yet stays silent, and then begins in the middle.
    async fn version(&self) -> Result<String, ApiError> {
        let params = self.list_params().limit(1);
        let page: Page<serde::de::IgnoredAny> = self.api.list_page(&self.resource, &params).await?;
        Ok(page.metadata.version().to_owned())
    }

    fn fallen<T>(&self, known: &str, now: &str) -> Next<T> {
        let resource = self.resource.full_name();
        tracing::warn!(%resource, %known, %now, "resourceVersion fell: the datastore was restored; listing anew");
        Next::List(Listing::default())
    }

    fn tell(&self, error: &ApiError, begun: Instant, state: &latest::Sender<WatchState>) {
        let (kind, text) = (kind(error), explain(&self.resource, error));
        tracing::warn!(resource = %self.resource.full_name(), error = %text, "watch failed");
        state.send_if_modified(|state| {
            let since = state.error.as_ref().map_or(begun, |trouble| trouble.since);
            let trouble = Some(Trouble { kind, text, since });
            let changed = state.error != trouble;
            state.error = trouble;
            changed
        });
    }
}

fn kind(error: &ApiError) -> TroubleKind {
    match error {
        ApiError::NotFound(_) => TroubleKind::NotServed,
        ApiError::Forbidden(_) => TroubleKind::NotPermitted,
        ApiError::Busy { code: 429, .. } => TroubleKind::Busy,
        _ => TroubleKind::Away,
    }
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
                "may not list or watch {}: {text}; apply deploy/margay.yaml or renew the credentials",
                resource.full_name()
            )
        }
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests;
