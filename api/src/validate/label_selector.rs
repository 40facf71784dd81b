//! Label selectors, as the API server checks them.

use super::Violation;
use crate::slim::{LabelSelector, Operator};

/// Everything that is wrong with a label selector at `path`.
pub fn label_selector(selector: &LabelSelector, path: &str) -> Vec<Violation> {
    let mut found = Vec::new();
    for (key, value) in &selector.match_labels {
        label_key(key, &format!("{path}.matchLabels"), &mut found);
        label_value(value, &format!("{path}.matchLabels"), &mut found);
    }
    for (index, requirement) in selector.match_expressions.iter().enumerate() {
        let at = format!("{path}.matchExpressions[{index}]");
        label_key(&requirement.key, &format!("{at}.key"), &mut found);
        let values = format!("{at}.values");
        match requirement.operator {
            Operator::In | Operator::NotIn if requirement.values.is_empty() => {
                found.push(Violation::new(
                    values,
                    "must be specified when `operator` is 'In' or 'NotIn'",
                ));
            }
            Operator::In | Operator::NotIn => {
                for (index, value) in requirement.values.iter().enumerate() {
                    label_value(value, &format!("{values}[{index}]"), &mut found);
                }
            }
            Operator::Exists | Operator::DoesNotExist if !requirement.values.is_empty() => {
                found.push(Violation::new(
                    values,
                    "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
                ));
            }
            Operator::Exists | Operator::DoesNotExist => {}
        }
    }
    found
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
