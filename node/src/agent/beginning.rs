//! When an agent begins its work, and from what, while the API server has not told of everything. Pure.
//!
//! Half a picture would tear down what the other half needs. So the agent waits for a list of every resource type, unless
//! it is known that one does not come soon: then what the last run knew stands in for it, and for a type that is optional
//! nothing does.

use std::time::{Duration, Instant};

use super::kinds::{Kind, Need};
use crate::kube::watch::{Trouble, TroubleKind};

/// How long a watch must have failed before the agent goes without it.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// What stands in for a list that has not come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StandIn {
    /// Nothing yet: it is waited for.
    Wait,
    /// What the last run knew; without that it is waited for.
    Snapshot,
    /// What the last run knew; without that, that there are no such objects.
    SnapshotOrNone,
    /// That there are no such objects.
    None,
}

/// What stands in for the list of `kind`, whose watch has this `trouble` if any. A list that takes its time is no trouble: an
/// API server that is only slow must not make the agent enforce what an old snapshot says.
pub fn stand_in(kind: &Kind, trouble: Option<&Trouble>, now: Instant) -> StandIn {
    let Some(trouble) = trouble.filter(|trouble| lasts(trouble, PATIENCE, now)) else {
        return StandIn::Wait;
    };
    match (trouble.kind, kind.need) {
        (TroubleKind::Busy, _) => StandIn::Wait,
        (TroubleKind::Away, _) => StandIn::Snapshot,
        (TroubleKind::NotPermitted | TroubleKind::NotServed, Need::Required) => StandIn::Snapshot,
        (TroubleKind::NotPermitted, Need::Optional(_)) => StandIn::SnapshotOrNone,
        // With their definition all of them were deleted.
        (TroubleKind::NotServed, Need::Optional(_)) => StandIn::None,
    }
}

/// Whether a trouble has gone on for so long.
pub fn lasts(trouble: &Trouble, patience: Duration, now: Instant) -> bool {
    now.saturating_duration_since(trouble.since) >= patience
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::super::kinds::KINDS;
    use super::*;

    fn kind(plural: &str) -> &'static Kind {
        KINDS.iter().find(|kind| kind.resource.plural == plural).unwrap()
    }

    #[rstest]
    #[case::the_api_server_is_away("pods", TroubleKind::Away, StandIn::Snapshot)]
    #[case::it_is_busy("pods", TroubleKind::Busy, StandIn::Wait)]
    #[case::no_right("pods", TroubleKind::NotPermitted, StandIn::Snapshot)]
    #[case::no_definition("ippools", TroubleKind::NotServed, StandIn::Snapshot)]
    #[case::optional_and_away("bgppeers", TroubleKind::Away, StandIn::Snapshot)]
    #[case::optional_and_no_right("felixconfigurations", TroubleKind::NotPermitted, StandIn::SnapshotOrNone)]
    #[case::optional_and_no_definition("ipamconfigurations", TroubleKind::NotServed, StandIn::None)]
    fn what_does_not_come_is_replaced(#[case] plural: &str, #[case] trouble: TroubleKind, #[case] expected: StandIn) {
        let since = Instant::now();
        let trouble = Trouble {
            kind: trouble,
            text: String::new(),
            since,
        };
        let at = |seconds| stand_in(kind(plural), Some(&trouble), since + Duration::from_secs(seconds));
        assert_eq!(at(4), StandIn::Wait, "trouble that may be over soon");
        assert_eq!(at(5), expected);
    }

    #[test]
    fn a_list_that_takes_its_time_is_waited_for() {
        let later = Instant::now() + Duration::from_secs(3600);
        assert_eq!(stand_in(kind("pods"), None, later), StandIn::Wait);
    }
}
