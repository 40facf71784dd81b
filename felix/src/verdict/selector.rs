//! `metav1.LabelSelector`.

use std::collections::BTreeMap;

use margay_api::slim::{LabelSelector, Operator, Requirement};

/// Whether all requirements hold, those left out that [`is_faulty`] finds fault with. An empty selector matches everything.
///
/// Only a policy's `podSelector` is asked with faults in it: the policy allows nothing then, and what its sound parts
/// match is isolated.
pub(super) fn matches(selector: &LabelSelector, labels: &BTreeMap<String, String>) -> bool {
    let mut pairs = selector.match_labels.iter();
    let mut expressions = selector.match_expressions.iter();
    pairs.all(|(key, value)| labels.get(key) == Some(value) || faulty_label(key, value))
        && expressions.all(|requirement| holds(requirement, labels) || faulty_requirement(requirement))
}

/// Whether the API server would refuse the selector.
///
/// A value of an expression that no label can have is no fault: selectors with such values are stored.
pub(super) fn is_faulty(selector: &LabelSelector) -> bool {
    let mut pairs = selector.match_labels.iter();
    pairs.any(|(key, value)| faulty_label(key, value)) || selector.match_expressions.iter().any(faulty_requirement)
}

fn faulty_label(key: &str, value: &str) -> bool {
    !is_key(key) || !(value.is_empty() || is_name(value))
}

fn faulty_requirement(requirement: &Requirement) -> bool {
    let wants_values = match requirement.operator {
        Operator::In | Operator::NotIn => true,
        Operator::Exists | Operator::DoesNotExist => false,
    };
    !is_key(&requirement.key) || wants_values == requirement.values.is_empty()
}

/// `name` or `prefix/name`, the prefix a DNS subdomain.
fn is_key(key: &str) -> bool {
    match key.split_once('/') {
        None => is_name(key),
        Some((prefix, name)) => is_name(name) && prefix.len() <= 253 && prefix.split('.').all(is_dns_part),
    }
}

/// What labels are made of: up to 63 characters, the first and last a letter or digit.
fn is_name(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    text.len() <= 63
        && text.bytes().all(inner)
        && [text.bytes().next(), text.bytes().last()]
            .iter()
            .all(|end| end.is_some_and(|byte| byte.is_ascii_alphanumeric()))
}

fn is_dns_part(part: &str) -> bool {
    let lower = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    !part.is_empty()
        && part.bytes().all(|byte| lower(byte) || byte == b'-')
        && [part.bytes().next(), part.bytes().last()]
            .iter()
            .all(|end| end.is_some_and(lower))
}

fn holds(requirement: &Requirement, labels: &BTreeMap<String, String>) -> bool {
    let value = labels.get(&requirement.key);
    let listed = || value.is_some_and(|value| requirement.values.contains(value));
    match requirement.operator {
        Operator::In => listed(),
        Operator::NotIn => !listed(),
        Operator::Exists => value.is_some(),
        Operator::DoesNotExist => value.is_none(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use margay_api::slim::{LabelSelector, Operator, Requirement};

    use super::{is_faulty, matches};

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    fn selector(operator: Operator, values: &[&str]) -> LabelSelector {
        LabelSelector {
            match_labels: BTreeMap::new(),
            match_expressions: vec![Requirement {
                key: "app".to_owned(),
                operator,
                values: values.iter().map(|value| (*value).to_owned()).collect(),
            }],
        }
    }

    #[test]
    fn operators_on_present_other_and_absent_labels() {
        let cases = [
            // (operator, values, app=a, app=b, no app)
            (Operator::In, &["a", "x"][..], true, false, false),
            (Operator::NotIn, &["a", "x"][..], false, true, true),
            (Operator::Exists, &[][..], true, true, false),
            (Operator::DoesNotExist, &[][..], false, false, true),
            // Faulty: they do not restrict.
            (Operator::In, &[][..], true, true, true),
            (Operator::NotIn, &[][..], true, true, true),
            (Operator::Exists, &["a"][..], true, true, true),
            (Operator::DoesNotExist, &["a"][..], true, true, true),
            // Odd but stored.
            (Operator::In, &["-"][..], false, false, false),
        ];
        for (operator, values, on_a, on_b, on_none) in cases {
            let selector = selector(operator, values);
            let got = [
                matches(&selector, &labels(&[("app", "a")])),
                matches(&selector, &labels(&[("app", "b")])),
                matches(&selector, &labels(&[("tier", "a")])),
            ];
            assert_eq!(got, [on_a, on_b, on_none], "{operator:?} {values:?}");
        }
    }

    #[test]
    fn all_requirements_must_hold() {
        let mut both = selector(Operator::Exists, &[]);
        both.match_labels = labels(&[("tier", "db")]);
        assert!(matches(&both, &labels(&[("tier", "db"), ("app", "")])));
        assert!(!matches(&both, &labels(&[("tier", "db")])));
        assert!(!matches(&both, &labels(&[("app", "a"), ("tier", "web")])));
        assert!(matches(&LabelSelector::default(), &labels(&[])));
    }

    #[test]
    fn faults_are_what_the_api_server_refuses() {
        let long = "a".repeat(63);
        let key = |key: &str| LabelSelector {
            match_labels: labels(&[(key, "x")]),
            match_expressions: Vec::new(),
        };
        for sound in [
            "app",
            "A.b_c-1",
            "example.com/app",
            "1/2",
            &long,
            &format!("{long}.{long}/{long}"),
        ] {
            assert!(!is_faulty(&key(sound)), "{sound}");
        }
        for faulty in [
            "",
            "a b",
            "-a",
            "a-",
            "/a",
            "a/",
            "a/b/c",
            "Example.com/a",
            "-a/b",
            "a..b/c",
            &format!("{long}a"),
        ] {
            assert!(is_faulty(&key(faulty)), "{faulty}");
        }
        let value = |value: &str| LabelSelector {
            match_labels: labels(&[("app", value)]),
            match_expressions: Vec::new(),
        };
        assert!(!is_faulty(&value("")) && !is_faulty(&value("v1.0")));
        assert!(is_faulty(&value("-")) && is_faulty(&value("a b")));
        assert!(!is_faulty(&selector(Operator::In, &["-"])) && is_faulty(&selector(Operator::NotIn, &[])));
        assert!(!is_faulty(&selector(Operator::Exists, &[])) && is_faulty(&selector(Operator::Exists, &["a"])));
        assert!(matches(&key("a b"), &labels(&[])));
    }
}
