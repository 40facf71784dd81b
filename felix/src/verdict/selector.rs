//! `metav1.LabelSelector`.

use std::collections::BTreeMap;

use margay_api::slim::{LabelSelector, Operator, Requirement};

/// Whether all requirements hold. An empty selector matches everything.
///
/// `In` and `NotIn` without values are invalid; they match nothing.
pub(super) fn matches(selector: &LabelSelector, labels: &BTreeMap<String, String>) -> bool {
    let equal = selector
        .match_labels
        .iter()
        .all(|(key, value)| labels.get(key) == Some(value));
    equal
        && selector
            .match_expressions
            .iter()
            .all(|requirement| holds(requirement, labels))
}

fn holds(requirement: &Requirement, labels: &BTreeMap<String, String>) -> bool {
    let value = labels.get(&requirement.key);
    let listed = || value.is_some_and(|value| requirement.values.contains(value));
    match requirement.operator {
        Operator::In => listed(),
        Operator::NotIn => !requirement.values.is_empty() && !listed(),
        Operator::Exists => value.is_some(),
        Operator::DoesNotExist => value.is_none(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use margay_api::slim::{LabelSelector, Operator, Requirement};

    use super::matches;

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
            (Operator::In, &[][..], false, false, false),
            (Operator::NotIn, &[][..], false, false, false),
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
}
