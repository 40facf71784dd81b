//! Faults on purpose: which requests they hit, how often, and what goes wrong then.

use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::{
    identity::Identity,
    rbac::Action,
    status::{ApiError, Result},
};

/// What goes wrong with some requests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Fault {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`; all when empty.
    #[serde(default)]
    pub verbs: Vec<String>,
    /// Resources by their plural names, `pods/status` for a subresource; all when empty.
    #[serde(default)]
    pub resources: Vec<String>,
    /// Names of users, such as `system:serviceaccount:margay-system:margay-node`; all when empty.
    #[serde(default)]
    pub users: Vec<String>,
    /// Of the requests that fit, every how manieth is hit; every one when absent.
    #[serde(default)]
    pub every: Option<u32>,
    /// How many are hit before the fault is over; it stays when absent.
    #[serde(default)]
    pub times: Option<u32>,
    /// What happens to those that are hit.
    pub effect: Effect,
}

/// What happens to a request that is hit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Effect {
    /// Answered 429 with `Retry-After`.
    TooManyRequests {
        /// The header's value.
        retry_after_seconds: u32,
    },
    /// Answered 500.
    InternalError,
    /// Answered 410, as a list or watch from a version that is forgotten is.
    Gone,
    /// Answered later.
    Slow {
        /// By how much.
        milliseconds: u64,
    },
    /// A watch's connection ends in the middle of an event. Other requests are not hit.
    CutStream {
        /// How many events are whole.
        after_events: usize,
    },
}

/// A fault and what has come of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// The fault as it was given.
    pub fault: Fault,
    /// Requests that it fitted.
    pub fitted: u32,
    /// Requests that it hit.
    pub hit: u32,
}

/// The faults of a server.
#[derive(Debug, Default)]
pub(crate) struct Faults(Mutex<Vec<Tally>>);

/// What a request has to bear.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Blow {
    pub(crate) delay: Duration,
    pub(crate) cut_after: Option<usize>,
    pub(crate) error: Option<ApiError>,
}

impl Faults {
    pub(crate) fn add(&self, fault: Fault) {
        let tally = Tally {
            fault,
            fitted: 0,
            hit: 0,
        };
        self.0.lock().push(tally);
    }

    /// Ends all faults and tells what they did.
    pub(crate) fn clear(&self) -> Vec<Tally> {
        std::mem::take(&mut self.0.lock())
    }

    pub(crate) fn list(&self) -> Vec<Tally> {
        self.0.lock().clone()
    }

    /// Counts a request and says what happens to it. Delays add up; the first error counts.
    pub(crate) fn strike(&self, who: &Identity, action: &Action) -> Blow {
        let mut blow = Blow::default();
        for tally in self.0.lock().iter_mut() {
            if tally.strikes(who, action) {
                blow.add(&tally.fault.effect);
            }
        }
        blow
    }
}

impl Tally {
    fn strikes(&mut self, who: &Identity, action: &Action) -> bool {
        let over = self.fault.times.is_some_and(|times| self.hit >= times);
        if over || !self.fault.fits(who, action) {
            return false;
        }
        self.fitted += 1;
        let hit = self.fitted.is_multiple_of(self.fault.every.unwrap_or(1).max(1));
        self.hit += u32::from(hit);
        hit
    }
}

impl Fault {
    /// Every request of every user, for ever.
    pub fn new(effect: Effect) -> Self {
        Self {
            verbs: vec![],
            resources: vec![],
            users: vec![],
            every: None,
            times: None,
            effect,
        }
    }

    fn fits(&self, who: &Identity, action: &Action) -> bool {
        let Action::Resource(action) = action else {
            return false;
        };
        let one_of = |list: &[String], name: &str| list.is_empty() || list.iter().any(|l| l == name);
        let whole = match action.subresource.as_str() {
            "" => action.resource.clone(),
            sub => format!("{}/{sub}", action.resource),
        };
        let streams = action.verb == "watch" || !matches!(self.effect, Effect::CutStream { .. });
        streams
            && one_of(&self.verbs, &action.verb)
            && one_of(&self.resources, &whole)
            && one_of(&self.users, &who.name)
    }
}

impl Blow {
    fn add(&mut self, effect: &Effect) {
        let error = match effect {
            Effect::Slow { milliseconds } => {
                self.delay += Duration::from_millis(*milliseconds);
                return;
            }
            Effect::CutStream { after_events } => {
                self.cut_after = Some(*after_events);
                return;
            }
            Effect::TooManyRequests { retry_after_seconds } => ApiError::too_many_requests(*retry_after_seconds),
            Effect::InternalError => ApiError::internal("a fault on purpose"),
            Effect::Gone => ApiError::expired("too old resource version: a fault on purpose"),
        };
        self.error.get_or_insert(error);
    }
}

/// From the body of a request to the lab's own path.
pub(crate) fn parse(body: &serde_json::Value) -> Result<Fault> {
    serde_json::from_value(body.clone()).map_err(|e| ApiError::bad_request(format!("this is no fault: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rbac::ResourceAction;

    fn request(verb: &str, resource: &str) -> Action {
        Action::Resource(ResourceAction {
            verb: verb.into(),
            resource: resource.into(),
            ..ResourceAction::default()
        })
    }

    #[test]
    fn a_fault_hits_what_it_fits_as_often_as_it_says() {
        let faults = Faults::default();
        let (agent, other) = (Identity::service_account("s", "agent"), Identity::administrator());
        faults.add(Fault {
            verbs: vec!["list".into()],
            resources: vec!["pods".into()],
            users: vec![agent.name.clone()],
            every: Some(2),
            times: Some(2),
            ..Fault::new(Effect::InternalError)
        });
        let hit = |who, verb, resource| faults.strike(who, &request(verb, resource)).error.is_some();
        assert!(!hit(&other, "list", "pods") && !hit(&agent, "get", "pods") && !hit(&agent, "list", "nodes"));
        let hits: Vec<bool> = (0..6).map(|_| hit(&agent, "list", "pods")).collect();
        assert_eq!(hits, [false, true, false, true, false, false]);
        let tally = &faults.clear()[0];
        assert_eq!((tally.fitted, tally.hit), (4, 2));
        assert!(faults.list().is_empty());
    }

    #[test]
    fn effects_add_up_and_only_watches_are_cut() {
        let faults = Faults::default();
        faults.add(Fault::new(Effect::Slow { milliseconds: 5 }));
        faults.add(Fault::new(Effect::Slow { milliseconds: 7 }));
        faults.add(Fault::new(Effect::CutStream { after_events: 3 }));
        let (who, wait) = (Identity::anonymous(), Duration::from_millis(12));
        let watch = faults.strike(&who, &request("watch", "pods"));
        assert_eq!((watch.delay, watch.cut_after, watch.error), (wait, Some(3), None));
        let list = faults.strike(&who, &request("list", "pods"));
        assert_eq!((list.delay, list.cut_after), (wait, None));
        let path = Action::Path {
            verb: "get".into(),
            path: "/healthz".into(),
        };
        assert_eq!(faults.strike(&who, &path), Blow::default());
    }

    #[test]
    fn faults_are_written_in_json() {
        let text = r#"{"verbs": ["list"], "times": 3, "effect": {"tooManyRequests": {"retryAfterSeconds": 2}}}"#;
        let fault = parse(&serde_json::from_str(text).expect("JSON")).expect("a fault");
        assert_eq!(fault.effect, Effect::TooManyRequests { retry_after_seconds: 2 });
        let wrong = parse(&serde_json::json!({"effect": "gone", "verb": "list"})).expect_err("no such field");
        assert!(wrong.message.contains("unknown field `verb`"), "{}", wrong.message);
    }
}
