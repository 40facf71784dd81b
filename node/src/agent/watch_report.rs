//! What the states of the watches mean for the agent. Pure.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::beginning::{self, lasts};
use super::findings::Finding;
use super::kinds::{KINDS, Kind, Need};
use crate::kube::watch::{Trouble, TroubleKind};

/// How one watch does.
#[derive(Debug, Clone)]
pub struct Seen {
    /// What it watches.
    pub kind: Kind,
    /// Whether it ever had a whole list.
    pub synced: bool,
    /// Why it does not get on, if so.
    pub trouble: Option<Trouble>,
}

/// How all watches do.
#[derive(Debug, Clone)]
pub struct WatchReport(pub Vec<Seen>);

impl WatchReport {
    /// Why what is known may be stale, by reason: an API server that is away is one line and not eleven.
    pub fn failing(&self, now: Instant) -> Vec<String> {
        let mut by_reason: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for seen in self.0.iter().filter(|seen| !seen.is_done_without(now)) {
            let reason = seen.trouble.as_ref().map(|trouble| trouble.text.clone());
            let reason = reason.or_else(|| (!seen.synced).then(|| "not listed yet".to_owned()));
            if let Some(reason) = reason {
                by_reason
                    .entry(reason)
                    .or_default()
                    .push(seen.kind.resource.full_name());
            }
        }
        let line = |(reason, names): (String, Vec<String>)| {
            if names.len() == self.0.len() {
                reason
            } else {
                format!("{}: {reason}", names.join(", "))
            }
        };
        by_reason.into_iter().map(line).collect()
    }

    /// What somebody has to define or allow, and what the agent goes by until then.
    pub fn missing(&self, now: Instant) -> Vec<Finding> {
        self.0.iter().filter_map(|seen| seen.missing(now)).collect()
    }

    /// Why no pod can be attached, if so.
    pub fn attach_blocker(&self) -> Option<String> {
        let blocking = |seen: &Seen| {
            let trouble = seen.trouble.as_ref().filter(|_| seen.kind.attaches)?;
            let name = seen.kind.resource.full_name();
            Some(format!("what is known of {name} is stale: {}", trouble.text))
        };
        self.0.iter().find_map(blocking)
    }

    /// The trouble of the resource type at this position of [`KINDS`].
    pub fn trouble(&self, kind: usize) -> Option<&Trouble> {
        let kind = KINDS.get(kind)?;
        let seen = self.0.iter().find(|seen| seen.kind == *kind)?;
        seen.trouble.as_ref()
    }
}

impl Seen {
    fn lasting(&self, patience: Duration, now: Instant) -> Option<&Trouble> {
        self.trouble.as_ref().filter(|trouble| lasts(trouble, patience, now))
    }

    fn missing(&self, now: Instant) -> Option<Finding> {
        let trouble = self.lasting(beginning::PATIENCE, now)?;
        let reason = match trouble.kind {
            TroubleKind::NotServed => "ResourceNotServed",
            TroubleKind::NotPermitted => "ResourceNotPermitted",
            TroubleKind::Busy | TroubleKind::Away => return None,
        };
        let meanwhile = match (self.kind.need, self.synced) {
            (_, true) => "what was last known of them stays in force",
            (Need::Optional(without), false) => without,
            (Need::Required, false) => "the agent goes by what its last run knew of them, or waits",
        };
        let message = format!("{}; until then {meanwhile}", trouble.text);
        Some(Finding { reason, message })
    }

    /// Whether the agent goes without it and is none the worse for it.
    fn is_done_without(&self, now: Instant) -> bool {
        matches!(self.kind.need, Need::Optional(_)) && self.missing(now).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(since: Instant, troubles: &[(&str, TroubleKind, &str)]) -> WatchReport {
        let seen = |kind: Kind| {
            let trouble = troubles.iter().find(|(plural, _, _)| *plural == kind.resource.plural);
            Seen {
                kind,
                synced: trouble.is_none(),
                trouble: trouble.map(|(_, kind, text)| Trouble {
                    kind: *kind,
                    text: (*text).to_owned(),
                    since,
                }),
            }
        };
        WatchReport(KINDS.into_iter().map(seen).collect())
    }

    #[test]
    fn an_optional_type_that_is_missing_is_told_and_makes_nothing_stale() {
        let begun = Instant::now();
        let report = report(
            begun,
            &[("bgppeers", TroubleKind::NotServed, "not served: apply deploy/crds")],
        );
        let later = begun + Duration::from_secs(10);
        assert_eq!(report.failing(later), Vec::<String>::new());
        let missing = report.missing(later);
        assert_eq!((missing.len(), missing[0].reason), (1, "ResourceNotServed"));
        assert_eq!(
            missing[0].message,
            "not served: apply deploy/crds; until then the node has no BGP sessions but those between nodes"
        );
        // For a moment it may be that the API server starts.
        assert_eq!(report.missing(begun).len(), 0);
        assert_eq!(report.failing(begun).len(), 1);
    }

    #[test]
    fn only_what_attachments_need_blocks_them() {
        let begun = Instant::now();
        let others = [
            ("networkpolicies", TroubleKind::Away, "no answer"),
            ("bgppeers", TroubleKind::NotPermitted, "forbidden"),
        ];
        assert_eq!(report(begun, &others).attach_blocker(), None);
        let pods = report(begun, &[("pods", TroubleKind::Away, "no answer")]);
        let told = pods.attach_blocker().unwrap();
        assert_eq!(told, "what is known of pods is stale: no answer");
    }

    #[test]
    fn an_api_server_that_is_away_is_one_line() {
        let begun = Instant::now();
        let away = |kind: &Kind| (kind.resource.plural, TroubleKind::Away, "refused");
        let all: Vec<_> = KINDS.iter().map(away).collect();
        assert_eq!(report(begun, &all).failing(begun), ["refused"]);
    }
}
