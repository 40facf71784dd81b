//! What works and what does not, in words, for `/readyz`, `/healthz` and `margayctl status`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;

/// Name of the part that is about BGP sessions.
pub const BGP: &str = "bgp";
/// Name of the part that says whether pods can be attached.
pub const CNI: &str = "cni";
/// Name of the part that says whether there are addresses for them.
pub const IPAM: &str = "ipam";

/// How one part of the agent is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// Works. The text may add figures.
    Ready(String),
    /// Works, though not as it should: shown, but the node stays ready.
    Degraded(String),
    /// Pods on this node cannot be served. The text says why and what to do.
    NotReady(String),
}

/// Shared board of conditions. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Health {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    parts: BTreeMap<String, Part>,
    beats: BTreeMap<&'static str, (Instant, Duration)>,
}

#[derive(Debug)]
struct Part {
    condition: Condition,
    /// Since when it has not been ready, whatever the reasons were.
    trouble_since: Option<SystemTime>,
}

/// A part that is not ready or degraded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// Which part.
    pub part: String,
    /// Why now.
    pub reason: String,
    /// When it began, whatever the reason was then.
    pub since: SystemTime,
}

/// A rendered answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// True when the probe should succeed.
    pub ok: bool,
    /// One line a part.
    pub text: String,
}

impl Health {
    /// Sets the condition of `part`; logs when it changes.
    pub fn set(&self, part: impl Into<String>, condition: Condition) {
        let part = part.into();
        let mut inner = self.inner.lock();
        let known = inner.parts.get(&part);
        if known.is_some_and(|known| known.condition == condition) {
            return;
        }
        let trouble_since = match &condition {
            Condition::Ready(_) => None,
            Condition::Degraded(_) | Condition::NotReady(_) => {
                let before = known.and_then(|known| known.trouble_since);
                Some(before.unwrap_or_else(SystemTime::now))
            }
        };
        match &condition {
            Condition::Ready(text) => tracing::debug!(%part, %text, "ready"),
            Condition::Degraded(reason) => tracing::warn!(%part, %reason, "degraded"),
            Condition::NotReady(reason) => tracing::warn!(%part, %reason, "not ready"),
        }
        let known = Part {
            condition,
            trouble_since,
        };
        inner.parts.insert(part, known);
    }

    /// Forgets a part that no longer exists.
    pub fn forget(&self, part: &str) {
        self.inner.lock().parts.remove(part);
    }

    /// Says that `task` is alive; it must say so again within `within`.
    pub fn beat(&self, task: &'static str, within: Duration) {
        self.inner.lock().beats.insert(task, (Instant::now(), within));
    }

    /// `/readyz`: every part with its reason.
    pub fn readiness(&self) -> Report {
        let inner = self.inner.lock();
        let mut ok = !inner.parts.is_empty();
        let mut text = String::new();
        for (part, Part { condition, .. }) in &inner.parts {
            let (mark, words) = match condition {
                Condition::Ready(words) => ('+', words),
                Condition::Degraded(words) => ('!', words),
                Condition::NotReady(words) => {
                    ok = false;
                    ('-', words)
                }
            };
            let colon = if words.is_empty() { "" } else { ": " };
            text.push_str(&format!("[{mark}] {part}{colon}{words}\n"));
        }
        text.push_str(if ok { "ready\n" } else { "not ready\n" });
        Report { ok, text }
    }

    /// `/healthz`: fails only when a task hangs, which a restart would cure.
    pub fn liveness(&self) -> Report {
        self.liveness_at(Instant::now())
    }

    fn liveness_at(&self, now: Instant) -> Report {
        let inner = self.inner.lock();
        let late: Vec<_> = inner
            .beats
            .iter()
            .filter(|(_, (at, within))| now.saturating_duration_since(*at) > *within)
            .map(|(task, (at, _))| format!("{task} has not answered for {} s", now.duration_since(*at).as_secs()))
            .collect();
        let ok = late.is_empty();
        Report {
            ok,
            text: if ok { "ok\n".to_owned() } else { late.join("\n") + "\n" },
        }
    }

    /// The condition of one part.
    pub fn get(&self, part: &str) -> Option<Condition> {
        self.inner.lock().parts.get(part).map(|part| part.condition.clone())
    }

    /// Each part that is not ready or degraded.
    pub fn troubles(&self) -> Vec<Trouble> {
        let inner = self.inner.lock();
        let trouble = |(name, part): (&String, &Part)| match &part.condition {
            Condition::Ready(_) => None,
            Condition::Degraded(reason) | Condition::NotReady(reason) => Some(Trouble {
                part: name.clone(),
                reason: reason.clone(),
                since: part.trouble_since?,
            }),
        };
        inner.parts.iter().filter_map(trouble).collect()
    }

    /// The first reason why pods cannot be attached, for CNI STATUS and ADD.
    pub fn blocker(&self) -> Option<String> {
        let inner = self.inner.lock();
        inner.parts.iter().find_map(|(part, known)| match &known.condition {
            Condition::NotReady(words) => Some(format!("{part}: {words}")),
            Condition::Ready(_) | Condition::Degraded(_) => None,
        })
    }

    /// Why no pod has been attachable for `patience`: a part that is not ready, or one of those that say so in particular.
    pub fn lasting_blocker(&self, patience: Duration) -> Option<String> {
        let inner = self.inner.lock();
        inner.parts.iter().find_map(|(name, part)| {
            let words = match &part.condition {
                Condition::NotReady(words) => words,
                Condition::Degraded(words) if [CNI, IPAM].contains(&name.as_str()) => words,
                Condition::Degraded(_) | Condition::Ready(_) => return None,
            };
            let lasted = part.trouble_since?.elapsed().unwrap_or_default();
            (lasted >= patience).then(|| format!("{name}: {words}"))
        })
    }

    /// What is wrong with one part, ready or not.
    pub fn trouble_with(&self, part: &str) -> Option<String> {
        let inner = self.inner.lock();
        inner
            .parts
            .iter()
            .find(|(name, _)| **name == part)
            .and_then(|(name, known)| match &known.condition {
                Condition::NotReady(words) | Condition::Degraded(words) => Some(format!("{name}: {words}")),
                Condition::Ready(_) => None,
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_shown_and_degraded_stays_ready() {
        let health = Health::default();
        assert!(!health.readiness().ok, "an agent that has said nothing is not ready");
        health.set("dataplane", Condition::Ready("in sync".into()));
        health.set("bgp", Condition::Degraded("10.0.0.1: connection refused".into()));
        assert_eq!(health.blocker(), None);
        assert_eq!(health.trouble_with("bgp").unwrap(), "bgp: 10.0.0.1: connection refused");
        assert_eq!(health.trouble_with("dataplane"), None);
        let report = health.readiness();
        assert!(report.ok, "{}", report.text);
        assert_eq!(
            report.text,
            "[!] bgp: 10.0.0.1: connection refused\n[+] dataplane: in sync\nready\n"
        );
        health.set("watch pods", Condition::NotReady("no list yet".into()));
        let report = health.readiness();
        assert!(!report.ok);
        assert!(
            report.text.ends_with("[-] watch pods: no list yet\nnot ready\n"),
            "{}",
            report.text
        );
        assert_eq!(health.blocker().unwrap(), "watch pods: no list yet");
        let named: Vec<_> = health.troubles().into_iter().map(|trouble| trouble.part).collect();
        assert_eq!(named, ["bgp", "watch pods"]);
    }

    #[test]
    fn what_keeps_pods_from_being_attached_is_said_once_it_lasts() {
        let health = Health::default();
        let now = || health.lasting_blocker(Duration::ZERO);
        health.set(BGP, Condition::Degraded("connection refused".into()));
        health.set("datastore", Condition::Degraded("bgppeers: HTTP 500".into()));
        assert_eq!(now(), None);
        health.set(IPAM, Condition::Degraded("no IPPool".into()));
        assert_eq!(now().unwrap(), "ipam: no IPPool");
        assert_eq!(health.lasting_blocker(Duration::from_secs(3600)), None);
        health.set("dataplane", Condition::NotReady("no iptables".into()));
        assert_eq!(now().unwrap(), "dataplane: no iptables");
    }

    #[test]
    fn trouble_lasts_until_all_is_well_whatever_the_reason() {
        let health = Health::default();
        let since = || health.troubles().first().map(|trouble| trouble.since);
        health.set("bgp", Condition::Ready(String::new()));
        assert_eq!(since(), None);
        health.set("bgp", Condition::Degraded("connection refused".into()));
        let first = since().unwrap();
        health.set("bgp", Condition::NotReady("no router id".into()));
        assert_eq!(since(), Some(first));
        health.set("bgp", Condition::Ready(String::new()));
        assert_eq!(since(), None);
        health.set("bgp", Condition::Degraded("connection refused".into()));
        assert_ne!(since(), Some(first));
    }

    #[test]
    fn a_silent_task_is_not_alive() {
        let health = Health::default();
        health.beat("agent", Duration::from_secs(30));
        assert!(health.liveness().ok);
        let report = health.liveness_at(Instant::now() + Duration::from_secs(31));
        assert!(!report.ok);
        assert!(
            report.text.starts_with("agent has not answered for 3"),
            "{}",
            report.text
        );
    }
}
