//! Kubernetes Events for faults that a person must fix, at a bounded rate.

use std::collections::HashMap;
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use super::client::Api;
use super::error::ApiError;
use super::resource::{EVENT, ResourceType};
use super::time::rfc3339_now;

/// What an Event is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Subject {
    /// Its type.
    pub resource: ResourceType,
    /// Namespace, empty for cluster-wide objects.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// UID where known: `kubectl describe` finds Events by it.
    pub uid: String,
}

/// One thing to tell.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Notice {
    /// The object concerned.
    pub subject: Subject,
    /// CamelCase reason, as `BGPPeerIgnored`.
    pub reason: &'static str,
    /// What happened and the way out.
    pub message: String,
    /// Warning or Normal.
    pub warning: bool,
}

/// The faults that last, so that each is told once.
#[derive(Debug, Default)]
pub struct Standing {
    told: HashMap<Notice, SystemTime>,
}

impl Standing {
    /// Takes the faults of now and tells those that are new.
    pub fn update(&mut self, now: impl IntoIterator<Item = Notice>, events: &EventWriter) {
        let mut before = std::mem::take(&mut self.told);
        for notice in now {
            if self.told.contains_key(&notice) {
                continue;
            }
            let since = match before.remove(&notice) {
                Some(since) => since,
                None if events.notify(notice.clone()) => SystemTime::now(),
                // Again with the next update.
                None => continue,
            };
            self.told.insert(notice, since);
        }
    }

    /// When a fault was first seen, while it lasts.
    pub fn since(&self, notice: &Notice) -> Option<SystemTime> {
        self.told.get(notice).copied()
    }
}

/// Queues notices; never blocks, takes no more when a flood fills the queue.
#[derive(Debug, Clone)]
pub struct EventWriter {
    queue: mpsc::Sender<Notice>,
}

impl EventWriter {
    /// Starts the writer. `host` and `component` become the Event's source.
    pub fn start(api: Api, component: &'static str, host: String) -> Self {
        let (queue, receiver) = mpsc::channel(64);
        tokio::spawn(run(api, component, host, receiver));
        Self { queue }
    }

    /// A writer that only logs: for an agent without an API server, and for tests.
    pub fn to_log() -> Self {
        let (queue, mut receiver) = mpsc::channel::<Notice>(64);
        tokio::spawn(async move {
            while let Some(notice) = receiver.recv().await {
                tracing::info!(reason = notice.reason, object = %notice.subject.name, message = %notice.message, "event");
            }
        });
        Self { queue }
    }

    /// Logs the notice and queues it for the API; false when the queue is full. For a fault that lasts, see [`Standing`].
    fn notify(&self, notice: Notice) -> bool {
        let Ok(place) = self.queue.try_reserve() else {
            return false;
        };
        tracing::warn!(
            reason = notice.reason,
            kind = notice.subject.resource.kind,
            object = %notice.subject.name,
            message = %notice.message,
        );
        place.send(notice);
        true
    }
}

async fn run(api: Api, component: &'static str, host: String, mut receiver: mpsc::Receiver<Notice>) {
    let mut limit = Limiter::new(Duration::from_secs(300), 10, Duration::from_secs(60));
    while let Some(notice) = receiver.recv().await {
        if limit.repeats(&notice, Instant::now()) {
            continue;
        }
        tokio::time::sleep(limit.pause(Instant::now())).await;
        limit.took(&notice, Instant::now());
        let (namespace, body) = event_body(&notice, component, &host);
        match api.create::<Value>(&EVENT, Some(&namespace), &body).await {
            // Another node has said the same.
            Ok(_) | Err(ApiError::AlreadyExists(_)) => {}
            Err(error) => tracing::debug!(%error, "event not written"),
        }
    }
}

/// The same notice at most once in `repeat`; at most `burst` notices in `window`.
#[derive(Debug)]
struct Limiter {
    repeat: Duration,
    burst: usize,
    window: Duration,
    told: HashMap<Notice, Instant>,
    recent: Vec<Instant>,
}

impl Limiter {
    fn new(repeat: Duration, burst: usize, window: Duration) -> Self {
        Self {
            repeat,
            burst,
            window,
            told: HashMap::new(),
            recent: Vec::new(),
        }
    }

    fn repeats(&mut self, notice: &Notice, now: Instant) -> bool {
        self.told.retain(|_, at| now.duration_since(*at) < self.repeat);
        self.told.contains_key(notice)
    }

    /// How long until there is room for one more.
    fn pause(&mut self, now: Instant) -> Duration {
        self.recent.retain(|at| now.duration_since(*at) < self.window);
        match self.recent.len().checked_sub(self.burst) {
            None => Duration::ZERO,
            Some(over) => self.window.saturating_sub(now.duration_since(self.recent[over])),
        }
    }

    fn took(&mut self, notice: &Notice, now: Instant) {
        self.told.insert(notice.clone(), now);
        self.recent.push(now);
    }
}

/// The same for the same words, so that a fault which all nodes see becomes one Event.
fn event_name(notice: &Notice) -> String {
    let digest = Sha256::digest(format!("{}\n{}", notice.reason, notice.message).as_bytes());
    let hash: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!("{}.{hash}", notice.subject.name)
}

fn event_body(notice: &Notice, component: &str, host: &str) -> (String, Value) {
    // Events about cluster-wide objects live in `default`, as those of other components do.
    let namespace = if notice.subject.namespace.is_empty() {
        "default".to_owned()
    } else {
        notice.subject.namespace.clone()
    };
    let now = rfc3339_now();
    let body = json!({
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": { "name": event_name(notice), "namespace": namespace },
        "involvedObject": {
            "apiVersion": notice.subject.resource.api_version(),
            "kind": notice.subject.resource.kind,
            "namespace": notice.subject.namespace,
            "name": notice.subject.name,
            "uid": notice.subject.uid,
        },
        "reason": notice.reason,
        "message": notice.message.chars().take(1000).collect::<String>(),
        "type": if notice.warning { "Warning" } else { "Normal" },
        "source": { "component": component, "host": host },
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
        "reportingComponent": component,
        "reportingInstance": host,
    });
    (namespace, body)
}

#[cfg(test)]
mod tests {
    use super::super::resource::BGP_PEER;
    use super::*;

    fn notice(name: &str) -> Notice {
        let subject = Subject {
            resource: BGP_PEER,
            namespace: String::new(),
            name: name.to_owned(),
            uid: "u-1".to_owned(),
        };
        Notice {
            subject,
            reason: "BGPPeerIgnored",
            message: "why".to_owned(),
            warning: true,
        }
    }

    #[test]
    fn the_same_notice_is_told_once_and_floods_are_spread() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut limit = Limiter::new(Duration::from_secs(300), 3, Duration::from_secs(60));
        for (seconds, name) in [(0, "a"), (1, "b"), (2, "c")] {
            assert!(!limit.repeats(&notice(name), at(seconds)));
            assert_eq!(limit.pause(at(seconds)), Duration::ZERO);
            limit.took(&notice(name), at(seconds));
        }
        assert!(limit.repeats(&notice("a"), at(3)));
        assert_eq!(limit.pause(at(3)), Duration::from_secs(57), "burst of three is used up");
        assert_eq!(limit.pause(at(60)), Duration::ZERO);
        assert!(!limit.repeats(&notice("a"), at(301)));
    }

    #[test]
    fn what_finds_no_room_is_told_later() {
        let (queue, mut taken) = mpsc::channel(1);
        let events = EventWriter { queue };
        let mut standing = Standing::default();
        let both = || [notice("a"), notice("b")];
        standing.update(both(), &events);
        assert!(standing.since(&notice("a")).is_some() && standing.since(&notice("b")).is_none());
        assert_eq!(taken.try_recv().unwrap(), notice("a"));
        standing.update(both(), &events);
        assert_eq!(taken.try_recv().unwrap(), notice("b"));
        standing.update(both(), &events);
        assert!(taken.try_recv().is_err(), "told twice");
    }

    #[test]
    fn cluster_wide_subjects_report_in_default() {
        let (namespace, body) = event_body(&notice("tor"), "margay-node", "node1");
        assert_eq!(namespace, "default");
        assert_eq!(body["involvedObject"]["kind"], "BGPPeer");
        assert_eq!(body["metadata"]["name"].as_str().unwrap().len(), "tor.".len() + 16);
        assert_eq!(body["type"], "Warning");
    }
}
