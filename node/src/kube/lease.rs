//! Leader election by a `coordination.k8s.io/v1` Lease and compare-and-swap on its resourceVersion.

use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::{Value, json};

use super::client::Api;
use super::error::ApiError;
use super::resource::LEASE;
use super::time::micro_time_now;

/// Who wants to lead, and where that is written.
#[derive(Debug, Clone)]
pub struct LeaseConfig {
    /// Namespace of the Lease.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Our identity: unique per process.
    pub identity: String,
    /// A lease not renewed for so long is anybody's.
    pub duration: Duration,
}

/// The election as one participant sees it.
///
/// Expiry is judged by how long *we* have seen the same renewal, never by comparing clocks of two machines.
#[derive(Debug)]
pub struct Election {
    config: LeaseConfig,
    seen: Option<Seen>,
    held_until: Option<Instant>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    version: String,
    since: Instant,
}

/// What to do about a lease read.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Create,
    Take { transitions: i64 },
    Renew,
    Wait,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct LeaseObject {
    #[serde(default)]
    metadata: LeaseMeta,
    #[serde(default)]
    spec: LeaseSpec,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct LeaseMeta {
    resource_version: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct LeaseSpec {
    holder_identity: Option<String>,
    acquire_time: Option<String>,
    lease_transitions: Option<i64>,
}

impl Election {
    /// Takes part; nothing is sent yet.
    pub fn new(config: LeaseConfig) -> Self {
        Self {
            config,
            seen: None,
            held_until: None,
        }
    }

    /// True while our last renewal is surely younger than the lease's duration.
    pub fn leads(&self, now: Instant) -> bool {
        self.held_until.is_some_and(|until| now < until)
    }

    /// Until when [`Self::leads`] holds if nothing happens.
    pub fn held_until(&self) -> Option<Instant> {
        self.held_until
    }

    /// One round: reads the lease, takes or renews it when that is ours to do. Call every third of the duration.
    pub async fn round(&mut self, api: &Api) -> Result<(), ApiError> {
        let LeaseConfig { namespace, name, .. } = self.config.clone();
        let lease = match api.get::<LeaseObject>(&LEASE, Some(&namespace), &name).await {
            Ok(lease) => Some(lease),
            Err(error) if error.is_not_found() => None,
            Err(error) => return Err(error),
        };
        // Valid from before the request was sent: the server may have stored it at any moment since.
        let asked = Instant::now();
        let written = match self.step(lease.as_ref(), asked) {
            Step::Wait => {
                self.held_until = None;
                return Ok(());
            }
            Step::Create => api.create::<Value>(&LEASE, Some(&namespace), &self.body(None, 0)).await,
            Step::Take { transitions } => {
                let body = self.body(lease.as_ref(), transitions);
                api.replace::<Value>(&LEASE, Some(&namespace), &name, &body).await
            }
            Step::Renew => {
                let transitions = lease
                    .as_ref()
                    .and_then(|lease| lease.spec.lease_transitions)
                    .unwrap_or(0);
                let body = self.body(lease.as_ref(), transitions);
                api.replace::<Value>(&LEASE, Some(&namespace), &name, &body).await
            }
        };
        match written {
            Ok(_) => {
                self.held_until = Some(asked + self.config.duration);
                Ok(())
            }
            Err(ApiError::Conflict(_) | ApiError::AlreadyExists(_)) => {
                self.held_until = None;
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Gives the lease up so that another need not wait for it to expire.
    pub async fn resign(&mut self, api: &Api) -> Result<(), ApiError> {
        if self.held_until.take().is_none() {
            return Ok(());
        }
        let LeaseConfig {
            namespace,
            name,
            identity,
            ..
        } = &self.config;
        let lease: LeaseObject = api.get(&LEASE, Some(namespace), name).await?;
        if lease.spec.holder_identity.as_deref() != Some(identity) {
            return Ok(());
        }
        let patch = json!({
            "metadata": { "resourceVersion": lease.metadata.resource_version },
            "spec": { "holderIdentity": "" },
        });
        api.merge(&LEASE, Some(namespace), name, patch).await.map(|_| ())
    }

    fn step(&mut self, lease: Option<&LeaseObject>, now: Instant) -> Step {
        let Some(lease) = lease else { return Step::Create };
        let holder = lease.spec.holder_identity.as_deref().unwrap_or("");
        if holder == self.config.identity {
            return Step::Renew;
        }
        let transitions = lease.spec.lease_transitions.unwrap_or(0) + 1;
        if holder.is_empty() {
            return Step::Take { transitions };
        }
        match &self.seen {
            Some(seen) if seen.version == lease.metadata.resource_version => {
                if now.duration_since(seen.since) >= self.config.duration {
                    return Step::Take { transitions };
                }
            }
            _ => {
                self.seen = Some(Seen {
                    version: lease.metadata.resource_version.clone(),
                    since: now,
                })
            }
        }
        Step::Wait
    }

    fn body(&self, previous: Option<&LeaseObject>, transitions: i64) -> Value {
        let now = micro_time_now();
        let ours = previous.filter(|lease| lease.spec.holder_identity.as_deref() == Some(&self.config.identity));
        let acquired = ours
            .and_then(|lease| lease.spec.acquire_time.clone())
            .unwrap_or_else(|| now.clone());
        let mut metadata = json!({ "name": self.config.name, "namespace": self.config.namespace });
        if let Some(previous) = previous {
            metadata["resourceVersion"] = previous.metadata.resource_version.clone().into();
        }
        json!({
            "apiVersion": LEASE.api_version(),
            "kind": LEASE.kind,
            "metadata": metadata,
            "spec": {
                "holderIdentity": self.config.identity,
                "leaseDurationSeconds": self.config.duration.as_secs(),
                "acquireTime": acquired,
                "renewTime": now,
                "leaseTransitions": transitions,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn election() -> Election {
        Election::new(LeaseConfig {
            namespace: "margay-system".into(),
            name: "margay-controller".into(),
            identity: "me".into(),
            duration: Duration::from_secs(15),
        })
    }

    fn lease(holder: &str, version: &str) -> LeaseObject {
        LeaseObject {
            metadata: LeaseMeta {
                resource_version: version.into(),
            },
            spec: LeaseSpec {
                holder_identity: Some(holder.into()),
                acquire_time: Some("2026-11-23T08:02:21.000000Z".into()),
                lease_transitions: Some(4),
            },
        }
    }

    #[test]
    fn a_missing_lease_is_created_and_a_free_one_taken() {
        let now = Instant::now();
        assert_eq!(election().step(None, now), Step::Create);
        assert_eq!(
            election().step(Some(&lease("", "1")), now),
            Step::Take { transitions: 5 }
        );
    }

    #[test]
    fn anothers_lease_is_taken_only_after_a_full_duration_without_renewal() {
        let mut me = election();
        let start = Instant::now();
        assert_eq!(me.step(Some(&lease("other", "1")), start), Step::Wait);
        assert_eq!(
            me.step(Some(&lease("other", "1")), start + Duration::from_secs(14)),
            Step::Wait
        );
        assert_eq!(
            me.step(Some(&lease("other", "2")), start + Duration::from_secs(15)),
            Step::Wait,
            "it was renewed"
        );
        assert_eq!(
            me.step(Some(&lease("other", "2")), start + Duration::from_secs(29)),
            Step::Wait
        );
        assert_eq!(
            me.step(Some(&lease("other", "2")), start + Duration::from_secs(30)),
            Step::Take { transitions: 5 }
        );
    }

    #[test]
    fn our_own_lease_is_renewed_and_keeps_its_acquire_time() {
        let mut me = election();
        let ours = lease("me", "9");
        assert_eq!(me.step(Some(&ours), Instant::now()), Step::Renew);
        let body = me.body(Some(&ours), 4);
        assert_eq!(body["spec"]["acquireTime"], "2026-11-23T08:02:21.000000Z");
        assert_eq!(body["metadata"]["resourceVersion"], "9");
        assert_eq!(body["spec"]["leaseTransitions"], 4);
    }

    #[test]
    fn leadership_ends_by_itself() {
        let mut me = election();
        let now = Instant::now();
        assert!(!me.leads(now));
        me.held_until = Some(now + Duration::from_secs(15));
        assert!(me.leads(now + Duration::from_secs(14)));
        assert!(!me.leads(now + Duration::from_secs(15)));
    }
}
