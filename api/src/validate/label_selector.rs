//! Label selectors, as the API server checks them.

use super::Violation;
use crate::slim::{LabelSelector, Operator, Requirement};

/// Everything that is wrong with a label selector at `path`.
///
/// A value of an expression that no label can have is none of it: the API server keeps selectors that it took before it
/// looked at them, and [`label_selector_warnings`] tells of it.
pub fn label_selector(selector: &LabelSelector, path: &str) -> Vec<Violation> {
    let mut found = Vec::new();
    for (key, value) in &selector.match_labels {
        label(key, value, &format!("{path}.matchLabels"), &mut found);
    }
    for (index, expression) in selector.match_expressions.iter().enumerate() {
        requirement(expression, &format!("{path}.matchExpressions[{index}]"), &mut found);
    }
    found
}

/// What a label selector at `path` says that its author can hardly mean.
pub fn label_selector_warnings(selector: &LabelSelector, path: &str) -> Vec<Violation> {
    let mut found = Vec::new();
    for (index, expression) in selector.match_expressions.iter().enumerate() {
        for (value_index, value) in expression.values.iter().enumerate() {
            let at = format!("{path}.matchExpressions[{index}].values[{value_index}]");
            label_value(value, &at, &mut found);
        }
    }
    found
}

/// What a selector selects by although parts of it are wrong: those that are not. A policy that allows nothing selects
/// rather too much than too little.
#[must_use]
pub fn sound_selector(selector: &LabelSelector) -> LabelSelector {
    let is_sound = |check: &dyn Fn(&mut Vec<Violation>)| {
        let mut found = Vec::new();
        check(&mut found);
        found.is_empty()
    };
    let mut sound = selector.clone();
    sound
        .match_labels
        .retain(|key, value| is_sound(&|found| label(key, value, "", found)));
    sound
        .match_expressions
        .retain(|expression| is_sound(&|found| requirement(expression, "", found)));
    sound
}

fn label(key: &str, value: &str, path: &str, found: &mut Vec<Violation>) {
    label_key(key, path, found);
    label_value(value, path, found);
}

fn requirement(requirement: &Requirement, path: &str, found: &mut Vec<Violation>) {
    label_key(&requirement.key, &format!("{path}.key"), found);
    let wrong = match (requirement.operator, requirement.values.is_empty()) {
        (Operator::In | Operator::NotIn, true) => "must be specified when `operator` is 'In' or 'NotIn'",
        (Operator::Exists | Operator::DoesNotExist, false) => {
            "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
        }
        (Operator::In | Operator::NotIn, false) | (Operator::Exists | Operator::DoesNotExist, true) => return,
    };
    found.push(Violation::new(format!("{path}.values"), wrong));
}

fn label_key(key: &str, path: &str, found: &mut Vec<Violation>) {
    let (prefix, name) = key
        .split_once('/')
        .map_or((None, key), |(prefix, name)| (Some(prefix), name));
    let prefix_fits = prefix.is_none_or(|p| !p.is_empty() && p.len() <= 253 && p.split('.').all(is_dns_label));
    if !is_label_text(name) || name.is_empty() || !prefix_fits {
        let message = format!(
            "\"{key}\" is not a label key: up to 63 letters, digits, '-', '_', '.', with an optional DNS prefix and '/'"
        );
        found.push(Violation::new(path, message));
    }
}

fn label_value(value: &str, path: &str, found: &mut Vec<Violation>) {
    if !is_label_text(value) {
        let message = format!(
            "\"{value}\" is not a label value: up to 63 letters, digits, '-', '_', '.', beginning and ending with a letter or digit"
        );
        found.push(Violation::new(path, message));
    }
}

fn is_label_text(text: &str) -> bool {
    let ends = |c: Option<char>| c.is_none_or(|c| c.is_ascii_alphanumeric());
    text.len() <= 63
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
        && ends(text.chars().next())
        && ends(text.chars().next_back())
}

pub(super) fn is_dns_label(text: &str) -> bool {
    !text.is_empty()
        && text
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn selector(value: serde_json::Value) -> LabelSelector {
        serde_json::from_value(value).unwrap()
    }

    fn fields(violations: Vec<Violation>) -> Vec<String> {
        violations.into_iter().map(|violation| violation.field).collect()
    }

    #[test]
    fn values_that_no_label_can_have_are_kept_and_told() {
        let odd = selector(json!({"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["x", "-y"]}]}));
        assert_eq!(label_selector(&odd, "s"), []);
        assert_eq!(
            fields(label_selector_warnings(&odd, "s")),
            ["s.matchExpressions[0].values[1]"]
        );
        assert_eq!(sound_selector(&odd), odd);
    }

    #[test]
    fn the_sound_part_is_what_has_no_fault() {
        let faulty = selector(
            json!({"matchLabels": {"app": "web", "a b": "x", "c": "-"}, "matchExpressions": [
            {"key": "a", "operator": "In", "values": []}, {"key": "b", "operator": "Exists"},
            {"key": "c", "operator": "DoesNotExist", "values": ["x"]}, {"key": "/d", "operator": "Exists"}]}),
        );
        assert_eq!(
            fields(label_selector(&faulty, "s")),
            [
                "s.matchLabels",
                "s.matchLabels",
                "s.matchExpressions[0].values",
                "s.matchExpressions[2].values",
                "s.matchExpressions[3].key"
            ]
        );
        assert_eq!(
            sound_selector(&faulty),
            selector(json!({"matchLabels": {"app": "web"}, "matchExpressions": [{"key": "b", "operator": "Exists"}]}))
        );
    }
}
