//! Label and field selectors as they stand in query parameters.

use serde_json::Value;

use super::{
    status::{ApiError, Result},
    validation::wrong_value,
};

/// A parsed `labelSelector`; the empty one matches everything.
#[derive(Debug, Clone, Default)]
pub(crate) struct LabelSelector(Vec<Requirement>);

#[derive(Debug, Clone)]
struct Requirement {
    key: String,
    test: Test,
}

#[derive(Debug, Clone)]
enum Test {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    Absent,
}

impl LabelSelector {
    /// `a=b,c!=d,e in (f,g),h notin (i),j,!k`.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        split_outside_parentheses(text)
            .map(|part| requirement(text, part))
            .collect::<Result<_>>()
            .map(Self)
    }

    /// A `LabelSelector` object.
    pub(crate) fn of_object(selector: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let labels = selector["matchLabels"].as_object().into_iter().flatten();
        let labels = labels.map(|(key, value)| Requirement {
            key: key.clone(),
            test: Test::In(vec![text(value)]),
        });
        let expressions = selector["matchExpressions"].as_array().into_iter().flatten();
        let expressions = expressions.map(|e| {
            let values = || e["values"].as_array().into_iter().flatten().map(text).collect();
            let test = match e["operator"].as_str() {
                Some("NotIn") => Test::NotIn(values()),
                Some("Exists") => Test::Exists,
                Some("DoesNotExist") => Test::Absent,
                _ => Test::In(values()),
            };
            Requirement {
                key: text(&e["key"]),
                test,
            }
        });
        Self(labels.chain(expressions).collect())
    }

    pub(crate) fn matches(&self, object: &Value) -> bool {
        let labels = &object["metadata"]["labels"];
        self.0.iter().all(|r| {
            let value = labels.get(&r.key).and_then(Value::as_str);
            match &r.test {
                Test::In(values) => value.is_some_and(|v| values.iter().any(|w| w == v)),
                Test::NotIn(values) => !value.is_some_and(|v| values.iter().any(|w| w == v)),
                Test::Exists => value.is_some(),
                Test::Absent => value.is_none(),
            }
        })
    }
}

/// A parsed `fieldSelector`: pairs of a dotted path and the text it must (or must not) equal.
#[derive(Debug, Clone, Default)]
pub(crate) struct FieldSelector(Vec<(String, String, bool)>);

impl FieldSelector {
    /// `allowed` are the labels beyond `metadata.name` and `metadata.namespace` that the resource supports.
    pub(crate) fn parse(text: &str, allowed: &[String]) -> Result<Self> {
        let parse_one = |part: &str| -> Result<(String, String, bool)> {
            let (path, value, equal) = if let Some((p, v)) = part.split_once("!=") {
                (p, v, false)
            } else if let Some((p, v)) = part.split_once("==").or_else(|| part.split_once('=')) {
                (p, v, true)
            } else {
                return Err(ApiError::bad_request(format!(
                    "invalid selector: '{text}'; can't understand '{part}'"
                )));
            };
            let known = matches!(path, "metadata.name" | "metadata.namespace") || allowed.iter().any(|a| a == path);
            if !known {
                return Err(ApiError::bad_request(format!("field label not supported: {path}")));
            }
            Ok((path.to_owned(), value.to_owned(), equal))
        };
        text.split(',')
            .filter(|p| !p.is_empty())
            .map(parse_one)
            .collect::<Result<_>>()
            .map(Self)
    }

    /// The name that a selector asks for, where it asks for just one.
    pub(crate) fn exact_name(text: &str) -> Option<String> {
        let one = text.split(',').find_map(|part| part.strip_prefix("metadata.name="))?;
        Some(one.trim_start_matches('=').to_owned())
    }

    pub(crate) fn matches(&self, object: &Value) -> bool {
        self.0.iter().all(|(path, wanted, equal)| {
            let mut at = object;
            for step in path.split('.') {
                at = &at[step];
            }
            let same = match at {
                Value::String(s) => s == wanted,
                Value::Null => wanted.is_empty() || wanted == "false",
                Value::Bool(b) => wanted.parse() == Ok(*b),
                Value::Number(n) => wanted.parse().is_ok_and(|w: serde_json::Number| w == *n),
                Value::Array(_) | Value::Object(_) => false,
            };
            same == *equal
        })
    }
}

fn split_outside_parentheses(text: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0;
    text.split(move |c: char| {
        depth += i32::from(c == '(') - i32::from(c == ')');
        c == ',' && depth == 0
    })
    .map(str::trim)
    .filter(|p| !p.is_empty())
}

fn requirement(text: &str, part: &str) -> Result<Requirement> {
    let wrong = || {
        ApiError::bad_request(format!(
            "unable to parse requirement: '{part}' in label selector '{text}'"
        ))
    };
    let one = |key: &str, test: Test| {
        let key = key.trim();
        if key.is_empty() || key.contains(|c: char| c.is_whitespace() || "()=!".contains(c)) {
            return Err(wrong());
        }
        if let Test::In(values) | Test::NotIn(values) = &test
            && values.iter().any(|v| wrong_value(v).is_some())
        {
            return Err(wrong());
        }
        Ok(Requirement {
            key: key.to_owned(),
            test,
        })
    };
    let list = |values: &str| -> Result<Vec<String>> {
        let inner = values
            .trim()
            .strip_prefix('(')
            .and_then(|v| v.strip_suffix(')'))
            .ok_or_else(wrong)?;
        Ok(inner.split(',').map(|v| v.trim().to_owned()).collect())
    };
    if let Some((key, values)) = part
        .split_once(" notin ")
        .or_else(|| part.split_once(" notin(").map(|(k, _)| (k, &part[k.len() + 6..])))
    {
        return one(key, Test::NotIn(list(values)?));
    }
    if let Some((key, values)) = part
        .split_once(" in ")
        .or_else(|| part.split_once(" in(").map(|(k, _)| (k, &part[k.len() + 3..])))
    {
        return one(key, Test::In(list(values)?));
    }
    if let Some((key, value)) = part.split_once("!=") {
        return one(key, Test::NotIn(vec![value.trim().to_owned()]));
    }
    if let Some((key, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
        return one(key, Test::In(vec![value.trim().to_owned()]));
    }
    match part.strip_prefix('!') {
        Some(key) => one(key, Test::Absent),
        None => one(part, Test::Exists),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn label_selectors_of_every_form() {
        let object = json!({"metadata": {"labels": {"app": "web", "tier": "front"}}});
        for (text, expected) in [
            ("", true),
            ("app=web", true),
            ("app==web,tier!=back", true),
            ("app in (web, api),tier", true),
            ("app notin (web)", false),
            ("!absent", true),
            ("!app", false),
            ("absent!=x", true),
            ("absent in (x)", false),
        ] {
            assert_eq!(
                LabelSelector::parse(text).expect(text).matches(&object),
                expected,
                "{text}"
            );
        }
        assert!(LabelSelector::parse("app in web").is_err());
        assert!(LabelSelector::parse("a b").is_err());
    }

    #[test]
    fn field_selectors_know_what_a_resource_supports() {
        let object = json!({"metadata": {"name": "a"}, "spec": {"nodeName": "n1"}, "status": {}});
        let allowed = ["spec.nodeName".to_owned(), "status.phase".to_owned()];
        let hit = |text| FieldSelector::parse(text, &allowed).expect(text).matches(&object);
        assert!(hit("spec.nodeName=n1,status.phase!=Failed"));
        assert!(hit("status.phase="));
        assert!(!hit("metadata.name=b"));
        assert!(FieldSelector::parse("spec.hostname=x", &allowed).is_err());
    }
}
