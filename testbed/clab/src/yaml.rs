//! A YAML tree that remembers where each value stands, so that every fault of a file can name its line and column.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

/// Line and column (both from 1) of a value in its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, PartialOrd, Ord)]
pub(crate) struct Mark {
    pub(crate) line: u64,
    pub(crate) column: u64,
}

/// A value and where it stands.
#[derive(Debug, Clone)]
pub(crate) struct Yaml {
    pub(crate) mark: Mark,
    pub(crate) value: Value,
}

/// What a value is. Scalars keep the text that containerlab would see for them.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    Null,
    Scalar(String),
    Bool(bool),
    Seq(Vec<Yaml>),
    Map(Vec<(Key, Yaml)>),
}

/// A mapping key and where it stands.
#[derive(Debug, Clone)]
pub(crate) struct Key {
    pub(crate) mark: Mark,
    pub(crate) name: String,
}

/// Reads one document. The error is the parser's own words, which carry line and column.
pub(crate) fn parse(text: &str) -> Result<Yaml, String> {
    serde_saphyr::from_str_with_options::<Spanned<Value>>(text, options())
        .map(Yaml::from)
        .map_err(|e| e.to_string())
}

/// Only `true` and `false` are booleans, and what is written as no plain number stays as it is written.
pub fn options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        strict_booleans: true,
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
    }
}

impl Yaml {
    /// The entries of a mapping; an absent (null) section counts as an empty one.
    pub(crate) fn entries(&self) -> Option<&[(Key, Yaml)]> {
        match &self.value {
            Value::Map(entries) => Some(entries),
            Value::Null => Some(&[]),
            Value::Scalar(_) | Value::Bool(_) | Value::Seq(_) => None,
        }
    }

    /// The value under `key` of a mapping.
    pub(crate) fn get(&self, key: &str) -> Option<&Yaml> {
        self.entries()?.iter().find(|(k, _)| k.name == key).map(|(_, v)| v)
    }

    /// The items of a sequence; an absent (null) section counts as an empty one.
    pub(crate) fn items(&self) -> Option<&[Yaml]> {
        match &self.value {
            Value::Seq(items) => Some(items),
            Value::Null => Some(&[]),
            Value::Scalar(_) | Value::Bool(_) | Value::Map(_) => None,
        }
    }

    /// The text of a scalar.
    pub(crate) fn text(&self) -> Option<String> {
        match &self.value {
            Value::Scalar(text) => Some(text.clone()),
            Value::Bool(b) => Some(b.to_string()),
            Value::Null | Value::Seq(_) | Value::Map(_) => None,
        }
    }

    /// What a person would call this value.
    pub(crate) fn kind(&self) -> &'static str {
        match &self.value {
            Value::Null => "nothing",
            Value::Scalar(_) | Value::Bool(_) => "a single value",
            Value::Seq(_) => "a list",
            Value::Map(_) => "a mapping",
        }
    }
}

impl From<Spanned<Value>> for Yaml {
    fn from(spanned: Spanned<Value>) -> Self {
        Yaml {
            mark: Mark {
                line: spanned.referenced.line(),
                column: spanned.referenced.column(),
            },
            value: spanned.value,
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any YAML value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        Value::deserialize(deserializer)
    }

    fn visit_bool<E>(self, v: bool) -> Result<Value, E> {
        Ok(Value::Bool(v))
    }

    fn visit_i64<E>(self, v: i64) -> Result<Value, E> {
        Ok(Value::Scalar(v.to_string()))
    }

    fn visit_u64<E>(self, v: u64) -> Result<Value, E> {
        Ok(Value::Scalar(v.to_string()))
    }

    fn visit_f64<E>(self, v: f64) -> Result<Value, E> {
        Ok(Value::Scalar(v.to_string()))
    }

    fn visit_str<E>(self, v: &str) -> Result<Value, E> {
        Ok(Value::Scalar(v.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element::<Spanned<Value>>()? {
            items.push(item.into());
        }
        Ok(Value::Seq(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut entries = Vec::new();
        while let Some((key, value)) = access.next_entry::<Spanned<String>, Spanned<Value>>()? {
            let mark = Mark {
                line: key.referenced.line(),
                column: key.referenced.column(),
            };
            entries.push((Key { mark, name: key.value }, value.into()));
        }
        Ok(Value::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_know_their_place() {
        let doc = parse("name: x\ntopology:\n  nodes:\n    a: {kind: linux}\n    b:\n").unwrap();
        let kind = doc
            .get("topology")
            .and_then(|t| t.get("nodes"))
            .and_then(|n| n.get("a"))
            .unwrap();
        assert_eq!(kind.get("kind").unwrap().mark, Mark { line: 4, column: 15 });
        assert_eq!(kind.get("kind").unwrap().text().unwrap(), "linux");
        let nodes = doc.get("topology").unwrap().get("nodes").unwrap().entries().unwrap();
        assert_eq!(nodes[1].0.mark, Mark { line: 5, column: 5 });
        assert!(parse("a: [").is_err());
        let words = parse("[y, no, 007, 1_0, true]").unwrap();
        let words: Vec<String> = words.items().unwrap().iter().filter_map(Yaml::text).collect();
        assert_eq!(words, ["y", "no", "007", "1_0", "true"]);
    }
}
