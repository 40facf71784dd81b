//! Import and export policy: ordered rules over prefixes and attributes, first match decides.

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use crate::prefix::{Family, covers};
use crate::wire::{AsPath, Community, PathAttributes, Segment};

/// What happens to a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// It passes.
    Accept,
    /// It does not.
    Reject,
}

/// Where a route comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// One of the speaker's own networks.
    Local,
    /// Learnt from a peer in another AS.
    Ebgp,
    /// Learnt from a peer in the same AS.
    Ibgp,
}

/// An ordered list of rules; a route that no rule matches gets `default`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Filter {
    /// Tried from the first.
    #[serde(default)]
    pub rules: Vec<Rule>,
    /// For routes that no rule matches.
    #[serde(default = "reject")]
    pub default: Action,
}

/// One rule: all of its conditions must hold; an empty condition always does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// The prefix is in one of these ranges.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prefixes: Vec<PrefixRange>,
    /// The route comes from here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// The route carries one of these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub communities: Vec<Community>,
    /// The AS_PATH starts with these numbers, the nearest AS first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub as_path_prefix: Vec<u32>,
    /// What to do.
    pub action: Action,
    /// Changes to a route that is accepted.
    #[serde(default, skip_serializing_if = "Changes::is_empty")]
    pub set: Changes,
}

/// Prefixes within `prefix` whose length is between `ge` and `le`.
///
/// Without either, the prefix itself; with `ge` only, everything at least that long; with `le` only, from the
/// prefix's own length up to that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrefixRange {
    /// The covering prefix.
    pub prefix: IpNetwork,
    /// Shortest length.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ge: Option<u8>,
    /// Longest length.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub le: Option<u8>,
}

/// Changes to the attributes of an accepted route.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Changes {
    /// Sets LOCAL_PREF.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_pref: Option<u32>,
    /// Sets MULTI_EXIT_DISC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub med: Option<u32>,
    /// Adds communities.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub add_communities: Vec<Community>,
    /// Prepends the own AS this many times more.
    #[serde(default)]
    pub prepend: u8,
}

fn reject() -> Action {
    Action::Reject
}

impl Filter {
    /// A filter that accepts everything unchanged.
    pub fn accept_all() -> Self {
        Filter {
            rules: Vec::new(),
            default: Action::Accept,
        }
    }

    /// The changes to make when the route passes, `None` when it is rejected.
    pub fn evaluate(&self, prefix: &IpNetwork, attrs: &PathAttributes, source: Source) -> Option<&Changes> {
        static NO_CHANGES: Changes = Changes {
            local_pref: None,
            med: None,
            add_communities: Vec::new(),
            prepend: 0,
        };
        let (action, changes) = match self.rules.iter().find(|r| r.matches(prefix, attrs, source)) {
            Some(rule) => (rule.action, &rule.set),
            None => (self.default, &NO_CHANGES),
        };
        (action == Action::Accept).then_some(changes)
    }
}

impl Rule {
    fn matches(&self, prefix: &IpNetwork, attrs: &PathAttributes, source: Source) -> bool {
        (self.prefixes.is_empty() || self.prefixes.iter().any(|r| r.contains(prefix)))
            && self.source.is_none_or(|s| s == source)
            && (self.communities.is_empty() || self.communities.iter().any(|c| attrs.communities.contains(c)))
            && starts_with(&attrs.as_path, &self.as_path_prefix)
    }
}

impl PrefixRange {
    /// Whether the range holds this prefix.
    pub fn contains(&self, prefix: &IpNetwork) -> bool {
        let own = self.prefix.prefix();
        let (ge, le) = match (self.ge, self.le) {
            (None, None) => (own, own),
            (Some(ge), None) => (ge, Family::of(&self.prefix).bits()),
            (None, Some(le)) => (own, le),
            (Some(ge), Some(le)) => (ge, le),
        };
        covers(&self.prefix, prefix) && (ge..=le).contains(&prefix.prefix())
    }
}

impl Changes {
    /// Whether nothing is changed.
    pub fn is_empty(&self) -> bool {
        *self == Changes::default()
    }

    /// Applies them; `local_as` is what gets prepended.
    pub fn apply(&self, attrs: &mut PathAttributes, local_as: u32) {
        if self.local_pref.is_some() {
            attrs.local_pref = self.local_pref;
        }
        if self.med.is_some() {
            attrs.med = self.med;
        }
        for community in &self.add_communities {
            if !attrs.communities.contains(community) {
                attrs.communities.push(*community);
            }
        }
        for _ in 0..self.prepend {
            attrs.as_path = attrs.as_path.prepended(local_as);
        }
    }
}

fn starts_with(path: &AsPath, wanted: &[u32]) -> bool {
    wanted.is_empty() || matches!(path.0.first(), Some(Segment::Sequence(asns)) if asns.starts_with(wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(s: &str) -> IpNetwork {
        s.parse().unwrap()
    }

    fn range(prefix: &str, ge: Option<u8>, le: Option<u8>) -> PrefixRange {
        PrefixRange {
            prefix: net(prefix),
            ge,
            le,
        }
    }

    #[test]
    fn ranges_hold_lengths_between_ge_and_le() {
        let exact = range("10.0.0.0/8", None, None);
        assert!(exact.contains(&net("10.0.0.0/8")) && !exact.contains(&net("10.1.0.0/16")));
        let longer = range("10.0.0.0/8", Some(24), None);
        assert!(longer.contains(&net("10.1.2.0/24")) && longer.contains(&net("10.1.2.3/32")));
        assert!(!longer.contains(&net("10.1.0.0/16")) && !longer.contains(&net("11.1.2.0/24")));
        let upto = range("fd00::/48", None, Some(64));
        assert!(upto.contains(&net("fd00::/48")) && upto.contains(&net("fd00:0:0:1::/64")));
        assert!(!upto.contains(&net("fd00::1/128")));
    }

    #[test]
    fn the_first_matching_rule_decides() {
        let filter = Filter {
            rules: vec![
                Rule {
                    prefixes: vec![range("10.9.0.0/16", None, Some(32))],
                    source: None,
                    communities: vec![],
                    as_path_prefix: vec![],
                    action: Action::Reject,
                    set: Changes::default(),
                },
                Rule {
                    prefixes: vec![range("10.0.0.0/8", None, Some(32))],
                    source: Some(Source::Ebgp),
                    communities: vec!["65000:1".parse().unwrap()],
                    as_path_prefix: vec![65001],
                    action: Action::Accept,
                    set: Changes {
                        local_pref: Some(200),
                        prepend: 2,
                        ..Changes::default()
                    },
                },
            ],
            default: Action::Reject,
        };
        let mut attrs = PathAttributes {
            as_path: AsPath::sequence(&[65001, 65002]),
            communities: vec!["65000:1".parse().unwrap()],
            ..PathAttributes::default()
        };
        assert!(filter.evaluate(&net("10.9.1.0/24"), &attrs, Source::Ebgp).is_none());
        assert!(filter.evaluate(&net("10.1.0.0/16"), &attrs, Source::Ibgp).is_none());
        let changes = filter.evaluate(&net("10.1.0.0/16"), &attrs, Source::Ebgp).unwrap();
        changes.apply(&mut attrs, 64512);
        assert_eq!(attrs.local_pref, Some(200));
        assert_eq!(attrs.as_path.to_string(), "64512 64512 65001 65002");
        attrs.as_path = AsPath::sequence(&[65002]);
        assert!(filter.evaluate(&net("10.1.0.0/16"), &attrs, Source::Ebgp).is_none());
    }
}
