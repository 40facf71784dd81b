//! The table of values that work today.
//!
//! Every field of every resource that users write has one line. A value that asks for behaviour Margay does not have is
//! refused when it is applied, by CRD rules made from this table ([`Entry::rule`]), and by [`check`] wherever an object comes
//! from elsewhere: it is never accepted and silently ignored. Off and default values always pass.

mod table;

pub use table::TABLE;

use serde_json::Value;

use crate::v3::Duration;
use crate::validate::Violation;

/// One field of one kind.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// The resource's kind.
    pub kind: &'static str,
    /// The field of its spec.
    pub field: &'static str,
    /// Which values pass.
    pub passes: Passes,
}

/// Which values of a field pass.
#[derive(Clone, Copy, Debug)]
pub enum Passes {
    /// Every value the schema allows: it works.
    Everything,
    /// Every value: each is off or the default, and it governs a part that Margay does not have.
    Inert,
    /// One of these words, in any case.
    Words(&'static [&'static str]),
    /// A list of these words only.
    WordsOf(&'static [&'static str]),
    /// This switch position.
    Switch(bool),
    /// One of these numbers.
    Numbers(&'static [i64]),
    /// One of these durations, or none at all.
    Durations(&'static [&'static str]),
    /// The empty text.
    EmptyText,
    /// The empty list or map.
    EmptyList,
    /// The field must be left out.
    Nothing,
}

/// The lines of one kind.
pub fn entries(kind: &str) -> impl Iterator<Item = &'static Entry> + '_ {
    TABLE.iter().filter(move |entry| entry.kind == kind)
}

/// Fields of a spec that ask for behaviour Margay does not have.
pub fn check(kind: &str, spec: &Value) -> Vec<Violation> {
    let given = |entry: &'static Entry| Some((entry, spec.get(entry.field).filter(|value| !value.is_null())?));
    entries(kind)
        .filter_map(given)
        .filter(|(entry, value)| !entry.passes.accepts(value))
        .map(|(entry, _)| Violation::new(format!("spec.{}", entry.field), entry.message()))
        .collect()
}

impl Entry {
    /// What a user reads when a value does not pass.
    pub fn message(&self) -> String {
        format!("this value is not supported yet: {}", self.passes.way_out())
    }

    /// The CEL rule for the field (`self` is its value) and its message; None where everything passes.
    pub fn rule(&self) -> Option<(String, String)> {
        Some((self.passes.cel()?, self.message()))
    }
}

impl Passes {
    fn accepts(self, value: &Value) -> bool {
        let word_in = |words: &[&str], value: &Value| {
            value
                .as_str()
                .is_some_and(|text| words.iter().any(|word| word.eq_ignore_ascii_case(text)))
        };
        match self {
            Self::Everything | Self::Inert => true,
            Self::Words(words) => word_in(words, value),
            Self::WordsOf(words) => value
                .as_array()
                .is_some_and(|list| list.iter().all(|item| word_in(words, item))),
            Self::Switch(position) => value.as_bool() == Some(position),
            Self::Numbers(numbers) => value.as_i64().is_some_and(|number| numbers.contains(&number)),
            Self::Durations(durations) => {
                let read = |text: &str| text.parse::<Duration>().ok();
                value.as_str().is_some_and(|text| {
                    text.is_empty() || read(text).is_some_and(|given| durations.iter().any(|d| read(d) == Some(given)))
                })
            }
            Self::EmptyText => value.as_str() == Some(""),
            Self::EmptyList => match value {
                Value::Array(list) => list.is_empty(),
                Value::Object(map) => map.is_empty(),
                _ => false,
            },
            Self::Nothing => false,
        }
    }

    fn cel(self) -> Option<String> {
        let quoted = |words: &[&str]| {
            let words: Vec<String> = words
                .iter()
                .map(|word| format!("'{}'", word.to_ascii_lowercase()))
                .collect();
            words.join(", ")
        };
        Some(match self {
            Self::Everything | Self::Inert => return None,
            Self::Words(words) => format!("self.lowerAscii() in [{}]", quoted(words)),
            Self::WordsOf(words) => format!("self.all(item, item.lowerAscii() in [{}])", quoted(words)),
            Self::Switch(true) => "self".to_owned(),
            Self::Switch(false) => "!self".to_owned(),
            Self::Numbers(numbers) => {
                let numbers: Vec<String> = numbers.iter().map(i64::to_string).collect();
                format!("self in [{}]", numbers.join(", "))
            }
            Self::Durations(durations) => {
                let same = durations.iter().map(|d| format!("duration(self) == duration('{d}')"));
                std::iter::once("self == ''".to_owned())
                    .chain(same)
                    .collect::<Vec<_>>()
                    .join(" || ")
            }
            Self::EmptyText => "self == ''".to_owned(),
            Self::EmptyList => "size(self) == 0".to_owned(),
            Self::Nothing => "false".to_owned(),
        })
    }

    fn way_out(self) -> String {
        let listed = |words: &[&str]| {
            let words: Vec<&str> = words.iter().copied().filter(|word| !word.is_empty()).collect();
            words.join(" or ")
        };
        match self {
            Self::Everything | Self::Inert => "leave it as it is".to_owned(),
            Self::Words(words) | Self::Durations(words) => format!("leave it out or set {}", listed(words)),
            Self::WordsOf(words) => format!("leave it out or list only {}", listed(words)),
            Self::Switch(position) => format!("leave it out or set {position}"),
            Self::Numbers(numbers) => {
                let numbers: Vec<String> = numbers.iter().map(i64::to_string).collect();
                format!("leave it out or set {}", numbers.join(" or "))
            }
            Self::EmptyText | Self::EmptyList | Self::Nothing => "leave it out".to_owned(),
        }
    }
}
