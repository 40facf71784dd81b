//! Calico's selector language.
//!
//! ```text
//! has(role) && role in {"web", "api"} && !(pcns.env == 'test') || all()
//! ```
//!
//! `k == 'v'`, `k != 'v'`, `k in {…}`, `k not in {…}`, `k contains 's'`, `k starts with 's'`, `k ends with 's'`, `has(k)`,
//! `all()`, `global()`, joined by `!`, `&&`, `||` (binding in this order) and parentheses. Strings take either quote and
//! know no escapes. The negative forms hold where the label is missing. The empty text is `all()`.

mod parse;

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::labels::Labels;
use crate::slim::{LabelSelector, Operator};

/// Label that every namespaced object has for its namespace; `global()` holds where it is missing.
pub const NAMESPACE_LABEL: &str = "projectcalico.org/namespace";

/// A parsed selector.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Selector(Expr);

/// An expression of the language.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Expr {
    /// `all()`
    All,
    /// `global()`: the object has no namespace.
    Global,
    /// `has(key)`
    Has(String),
    /// `key == 'value'`
    Equal(String, String),
    /// `key != 'value'`, also where the label is missing.
    NotEqual(String, String),
    /// `key in {'a', 'b'}`
    In(String, BTreeSet<String>),
    /// `key not in {'a', 'b'}`, also where the label is missing.
    NotIn(String, BTreeSet<String>),
    /// `key contains 's'`
    Contains(String, String),
    /// `key starts with 's'`
    StartsWith(String, String),
    /// `key ends with 's'`
    EndsWith(String, String),
    /// `!x`
    Not(Box<Expr>),
    /// `x && y && …`
    And(Vec<Expr>),
    /// `x || y || …`
    Or(Vec<Expr>),
}

/// Why a text is no selector.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("selector `{text}`, column {column}: expected {expected}, found {found}")]
pub struct SelectorError {
    /// The whole text.
    pub text: String,
    /// Where, counted in characters from 1.
    pub column: usize,
    /// What could stand there.
    pub expected: &'static str,
    /// What stands there.
    pub found: String,
}

impl Selector {
    /// Reads a selector.
    ///
    /// # Errors
    /// Points at the column that makes no sense.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        parse::selector(text).map(Self)
    }

    /// Matches everything.
    pub fn all() -> Self {
        Self(Expr::All)
    }

    /// Whether the labels satisfy it.
    pub fn matches(&self, labels: &(impl Labels + ?Sized)) -> bool {
        self.0.matches(labels)
    }

    /// The expression.
    pub fn expr(&self) -> &Expr {
        &self.0
    }
}

impl Expr {
    fn matches(&self, labels: &(impl Labels + ?Sized)) -> bool {
        let test = |key: &str, holds: &dyn Fn(&str) -> bool| labels.label(key).is_some_and(holds);
        match self {
            Self::All => true,
            Self::Global => labels.label(NAMESPACE_LABEL).is_none(),
            Self::Has(key) => labels.label(key).is_some(),
            Self::Equal(key, value) => test(key, &|v| v == value),
            Self::NotEqual(key, value) => !test(key, &|v| v == value),
            Self::In(key, values) => test(key, &|v| values.contains(v)),
            Self::NotIn(key, values) => !test(key, &|v| values.contains(v)),
            Self::Contains(key, part) => test(key, &|v| v.contains(part.as_str())),
            Self::StartsWith(key, part) => test(key, &|v| v.starts_with(part.as_str())),
            Self::EndsWith(key, part) => test(key, &|v| v.ends_with(part.as_str())),
            Self::Not(inner) => !inner.matches(labels),
            Self::And(parts) => parts.iter().all(|part| part.matches(labels)),
            Self::Or(parts) => parts.iter().any(|part| part.matches(labels)),
        }
    }

    /// As an operand: a conjunction or disjunction in parentheses.
    fn operand(&self) -> impl fmt::Display + '_ {
        fmt::from_fn(move |f| match self {
            Self::And(_) | Self::Or(_) => write!(f, "({self})"),
            simple => write!(f, "{simple}"),
        })
    }
}

impl From<Expr> for Selector {
    fn from(expr: Expr) -> Self {
        Self(expr)
    }
}

/// The same in this language; keys and values of a valid label selector need no quoting beyond `'`.
impl From<&LabelSelector> for Selector {
    fn from(selector: &LabelSelector) -> Self {
        let labels = selector
            .match_labels
            .iter()
            .map(|(key, value)| Expr::Equal(key.clone(), value.clone()));
        let requirements = selector.match_expressions.iter().map(|requirement| {
            let (key, values) = (requirement.key.clone(), requirement.values.iter().cloned().collect());
            match requirement.operator {
                Operator::In => Expr::In(key, values),
                Operator::NotIn => Expr::NotIn(key, values),
                Operator::Exists => Expr::Has(key),
                Operator::DoesNotExist => Expr::Not(Box::new(Expr::Has(key))),
            }
        });
        let mut parts: Vec<Expr> = labels.chain(requirements).collect();
        match parts.len() {
            0 => Self::all(),
            1 => Self(parts.remove(0)),
            _ => Self(Expr::And(parts)),
        }
    }
}

impl FromStr for Selector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

/// Canonical text that reads back as the same selector.
impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all()"),
            Self::Global => f.write_str("global()"),
            Self::Has(key) => write!(f, "has({key})"),
            Self::Equal(key, value) => write!(f, "{key} == {}", quoted(value)),
            Self::NotEqual(key, value) => write!(f, "{key} != {}", quoted(value)),
            Self::In(key, values) => write!(f, "{key} in {}", set(values)),
            Self::NotIn(key, values) => write!(f, "{key} not in {}", set(values)),
            Self::Contains(key, part) => write!(f, "{key} contains {}", quoted(part)),
            Self::StartsWith(key, part) => write!(f, "{key} starts with {}", quoted(part)),
            Self::EndsWith(key, part) => write!(f, "{key} ends with {}", quoted(part)),
            Self::Not(inner) => write!(f, "!{}", inner.operand()),
            Self::And(parts) => joined(f, parts, " && "),
            Self::Or(parts) => joined(f, parts, " || "),
        }
    }
}

fn joined(f: &mut fmt::Formatter<'_>, parts: &[Expr], operator: &str) -> fmt::Result {
    for (index, part) in parts.iter().enumerate() {
        write!(f, "{}{}", if index == 0 { "" } else { operator }, part.operand())?;
    }
    Ok(())
}

fn quoted(text: &str) -> String {
    if text.contains('\'') {
        format!("\"{text}\"")
    } else {
        format!("'{text}'")
    }
}

fn set(values: &BTreeSet<String>) -> String {
    let values: Vec<String> = values.iter().map(|value| quoted(value)).collect();
    format!("{{{}}}", values.join(", "))
}

impl Serialize for Selector {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Selector {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        std::borrow::Cow::<str>::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests;
