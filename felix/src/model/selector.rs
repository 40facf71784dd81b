//! Selectors over labels, in one canonical form, so that equal ones share what they cost.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

/// An object's labels.
pub type Labels = BTreeMap<String, String>;

/// A conjunction of requirements; the empty one matches everything. Two selectors that say the same in another order
/// are equal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Selector(BTreeSet<Requirement>);

impl Selector {
    /// Matches everything.
    pub fn all() -> Self {
        Self::default()
    }

    /// Whether the labels satisfy every requirement.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.0.iter().all(|requirement| requirement.matches(labels))
    }
}

impl FromIterator<Requirement> for Selector {
    fn from_iter<T: IntoIterator<Item = Requirement>>(requirements: T) -> Self {
        Self(requirements.into_iter().collect())
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("all()");
        }
        for (i, requirement) in self.0.iter().enumerate() {
            write!(f, "{}{requirement}", if i == 0 { "" } else { " && " })?;
        }
        Ok(())
    }
}

/// One label's test.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Requirement {
    /// The label's key.
    pub key: String,
    /// What must hold for its value.
    pub test: Test,
}

/// What a [`Requirement`] asks of a label.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Test {
    /// It is there, with one of these values.
    In(BTreeSet<String>),
    /// It is missing, or has none of these values.
    NotIn(BTreeSet<String>),
    /// It is there.
    Exists,
    /// It is missing.
    Missing,
}

impl Requirement {
    fn matches(&self, labels: &Labels) -> bool {
        let value = labels.get(&self.key);
        match &self.test {
            Test::In(values) => value.is_some_and(|v| values.contains(v)),
            Test::NotIn(values) => value.is_none_or(|v| !values.contains(v)),
            Test::Exists => value.is_some(),
            Test::Missing => value.is_none(),
        }
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.test {
            Test::In(values) => write!(f, "{} in {values:?}", self.key),
            Test::NotIn(values) => write!(f, "{} not in {values:?}", self.key),
            Test::Exists => write!(f, "has({})", self.key),
            Test::Missing => write!(f, "!has({})", self.key),
        }
    }
}

/// Workload endpoints by their namespaces and their own labels.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EndpointSelector {
    /// The namespaces they are in.
    pub namespaces: Namespaces,
    /// Their own labels.
    pub labels: Selector,
}

impl EndpointSelector {
    /// Every workload endpoint.
    pub fn all() -> Self {
        Self {
            namespaces: Namespaces::Matching(Selector::all()),
            labels: Selector::all(),
        }
    }
}

impl fmt::Display for EndpointSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespaces {
            Namespaces::Named(name) => write!(f, "[{}] in namespace {name:?}", self.labels),
            Namespaces::Matching(selector) => write!(f, "[{}] in namespaces [{selector}]", self.labels),
        }
    }
}

/// A choice of namespaces.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Namespaces {
    /// This one.
    Named(Arc<str>),
    /// Those whose labels match. A namespace that is not known matches nothing.
    Matching(Selector),
}
