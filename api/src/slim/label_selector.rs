//! `metav1.LabelSelector`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::labels::Labels;
use crate::nullable::or_default;

/// All requirements must hold; the empty selector matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LabelSelector {
    /// Labels that must have exactly these values.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub match_labels: BTreeMap<String, String>,
    /// Further requirements.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub match_expressions: Vec<Requirement>,
}

impl LabelSelector {
    /// Whether the labels satisfy every requirement.
    pub fn matches(&self, labels: &(impl Labels + ?Sized)) -> bool {
        self.match_labels
            .iter()
            .all(|(key, value)| labels.label(key) == Some(value))
            && self
                .match_expressions
                .iter()
                .all(|requirement| requirement.matches(labels))
    }

    /// Whether it has no requirement and so matches everything.
    pub fn is_empty(&self) -> bool {
        self.match_labels.is_empty() && self.match_expressions.is_empty()
    }
}

/// One of `matchExpressions`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Requirement {
    /// The label's key.
    pub key: String,
    /// How the label relates to the values.
    pub operator: Operator,
    /// Values for `In` and `NotIn`; empty for the others.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
}

impl Requirement {
    /// Whether the labels satisfy it. `NotIn` holds where the label is missing, as Kubernetes has it.
    pub fn matches(&self, labels: &(impl Labels + ?Sized)) -> bool {
        let listed = |value: &str| self.values.iter().any(|v| v == value);
        match (self.operator, labels.label(&self.key)) {
            (Operator::In, Some(value)) => listed(value),
            (Operator::In, None) => false,
            (Operator::NotIn, Some(value)) => !listed(value),
            (Operator::NotIn, None) => true,
            (Operator::Exists, value) => value.is_some(),
            (Operator::DoesNotExist, value) => value.is_none(),
        }
    }
}

/// The operators of a label selector requirement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Operator {
    /// The label is there and its value is one of the values.
    In,
    /// The label is missing, or its value is none of the values.
    NotIn,
    /// The label is there.
    Exists,
    /// The label is missing.
    DoesNotExist,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selector(json: &str) -> LabelSelector {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn empty_matches_everything_and_not_in_matches_a_missing_label() {
        assert!(selector("{}").matches(&[]));
        let not_in = selector(r#"{"matchExpressions":[{"key":"a","operator":"NotIn","values":["x"]}]}"#);
        assert!(not_in.matches(&[]));
        assert!(not_in.matches(&[("a", "y")]));
        assert!(!not_in.matches(&[("a", "x")]));
    }

    #[test]
    fn requirements_are_a_conjunction() {
        let both = selector(
            r#"{"matchLabels":{"app":"web"},"matchExpressions":[{"key":"tier","operator":"Exists","values":null},
                {"key":"old","operator":"DoesNotExist"},{"key":"env","operator":"In","values":["p","q"]}]}"#,
        );
        assert!(both.matches(&[("app", "web"), ("tier", ""), ("env", "q")]));
        assert!(!both.matches(&[("app", "web"), ("tier", ""), ("env", "r")]));
        assert!(!both.matches(&[("app", "web"), ("tier", "")]));
        assert!(!both.matches(&[("app", "web"), ("env", "q")]));
        assert!(!both.matches(&[("app", "web"), ("tier", ""), ("env", "q"), ("old", "")]));
    }
}
