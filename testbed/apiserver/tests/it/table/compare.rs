//! Differences between answers, and those that are meant.

use std::{fmt, path::Path};

use serde::Deserialize;
use serde_json::Value;

use super::subject::Subject;

/// One place where two answers differ.
#[derive(Debug)]
pub(super) struct Difference {
    subject: String,
    step: String,
    /// JSON pointer into the answer.
    at: String,
    committed: Value,
    got: Value,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |v: &Value| {
            if v.is_null() {
                "nothing".to_owned()
            } else {
                v.to_string()
            }
        };
        writeln!(f, "{}: {}: {}", self.subject, self.step, self.at)?;
        writeln!(f, "  real: {}", shown(&self.committed))?;
        write!(f, "  here: {}", shown(&self.got))
    }
}

/// Every difference between what is committed for a subject and what came.
pub(super) fn answers(subject: &Subject, committed: &[Value], got: &[Value]) -> Vec<Difference> {
    let mut found = Vec::new();
    for (i, step) in subject.steps.iter().enumerate() {
        let (committed, got) = (committed.get(i).unwrap_or(&Value::Null), &got[i]);
        let mut differ = |at: &str, a: &Value, b: &Value| {
            if !is_words(at, committed) || step.words && !is_list_of_faults(at, committed) {
                found.push(Difference {
                    subject: subject.name.clone(),
                    step: step.does.clone(),
                    at: at.to_owned(),
                    committed: a.clone(),
                    got: b.clone(),
                });
            }
        };
        each(String::new(), committed, got, &mut differ);
    }
    if committed.len() > subject.steps.len() {
        let extra = &committed[subject.steps.len()]["step"];
        panic!(
            "{}: an answer is committed to {extra}, which is not asked",
            subject.name
        );
    }
    found
}

/// Whether the place holds a `Status`' words for people.
fn is_words(at: &str, answer: &Value) -> bool {
    let status = at
        .strip_suffix("/message")
        .map(|p| match p.split_once("/details/causes/") {
            Some((status, _)) => status,
            None => p,
        });
    status.is_some_and(|p| answer.pointer(p).is_some_and(|s| s["kind"] == "Status"))
}

/// A status that repeats several faults does so in any order.
fn is_list_of_faults(at: &str, answer: &Value) -> bool {
    let status = at.strip_suffix("/message").and_then(|p| answer.pointer(p));
    let causes = status.and_then(|s| s["details"]["causes"].as_array());
    causes.is_some_and(|c| c.len() > 1)
}

fn each(at: String, a: &Value, b: &Value, differ: &mut impl FnMut(&str, &Value, &Value)) {
    match (a, b) {
        (Value::Object(x), Value::Object(y)) => {
            let mut keys: Vec<&String> = x.keys().chain(y.keys().filter(|k| !x.contains_key(*k))).collect();
            keys.sort();
            for key in keys {
                let next = format!("{at}/{}", key.replace('~', "~0").replace('/', "~1"));
                each(next, &a[key.as_str()], &b[key.as_str()], differ);
            }
        }
        (Value::Array(x), Value::Array(y)) if x.len() == y.len() => {
            for (i, (a, b)) in x.iter().zip(y).enumerate() {
                each(format!("{at}/{i}"), a, b, differ);
            }
        }
        _ if a == b => {}
        _ => differ(&at, a, b),
    }
}

/// Where the embedded server answers otherwise on purpose.
#[derive(Debug)]
pub(super) struct Deviations(Vec<(Deviation, bool)>);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Deviation {
    subject: String,
    /// One step; all of the subject's when absent.
    #[serde(default)]
    step: Option<String>,
    /// What the place's pointer begins with; the whole answer when absent.
    #[serde(default)]
    at: String,
    why: String,
}

impl Deviations {
    pub(super) fn read(path: &Path) -> Self {
        let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let list: Vec<Deviation> = serde_saphyr::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let faulty = list.iter().find(|d| d.why.trim().is_empty());
        assert!(faulty.is_none(), "a deviation without a reason: {faulty:?}");
        Self(list.into_iter().map(|d| (d, false)).collect())
    }

    /// Whether the difference is meant.
    pub(super) fn cover(&mut self, difference: &Difference) -> bool {
        let mut covered = false;
        for (deviation, used) in &mut self.0 {
            let here = deviation.subject == difference.subject
                && deviation.step.as_ref().is_none_or(|s| *s == difference.step)
                && difference.at.starts_with(&deviation.at);
            *used |= here;
            covered |= here;
        }
        covered
    }

    /// A deviation that is none any more must go.
    pub(super) fn all_used(&self) {
        let stale: Vec<&Deviation> = self.0.iter().filter(|(_, used)| !used).map(|(d, _)| d).collect();
        assert!(stale.is_empty(), "no longer deviations, remove them: {stale:#?}");
    }
}
