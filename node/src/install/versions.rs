//! Which version of the CNI specification the configuration names.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use serde_json::Value;

/// Versions of the CNI specification that the plugin serves, the lowest first.
pub(super) const SERVED: [&str; 4] = ["0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// What every runtime in use takes; those that do not know it refuse a result of a later one, and no pod starts.
const SAFE: &str = "1.0.0";

/// What to write into the configuration.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Versions {
    /// `cniVersion`: all that a runtime with libcni before 1.2 looks at (containerd 1.x).
    pub(super) version: String,
    /// `cniVersions`: a runtime that knows this field takes the highest of these that it serves itself. Empty where there
    /// is nothing to choose.
    pub(super) choice: Vec<String>,
}

/// Decides from what is known: what the user wants, and what each chained plugin serves.
pub(super) fn decide(wanted: Option<&str>, chained: &[(String, Vec<String>)]) -> anyhow::Result<Versions> {
    let names = || {
        chained
            .iter()
            .map(|(name, _)| name.as_str())
            .collect::<Vec<_>>()
            .join(", ")
    };
    let mut common = SERVED.to_vec();
    common.retain(|version| {
        chained
            .iter()
            .all(|(_, served)| served.iter().any(|other| other == version))
    });
    if let Some(wanted) = wanted {
        if !SERVED.contains(&wanted) {
            bail!("--cni-version {wanted} is not served; there are {}", SERVED.join(", "));
        }
        if !common.contains(&wanted) {
            bail!("--cni-version {wanted} is not served by all of {}", names());
        }
        return Ok(Versions {
            version: wanted.to_owned(),
            choice: Vec::new(),
        });
    }
    let safe = common
        .iter()
        .rposition(|version| place(version) <= place(SAFE))
        .unwrap_or(0);
    match common.get(safe..) {
        Some([version, later @ ..]) => Ok(Versions {
            version: (*version).to_owned(),
            choice: match later {
                [] => Vec::new(),
                later => [*version].iter().chain(later).map(|text| (*text).to_owned()).collect(),
            },
        }),
        _ => bail!("no CNI version is served by margay and all of {}", names()),
    }
}

/// Asks a plugin by the specification's VERSION.
pub(super) fn served_by(plugin: &Path) -> anyhow::Result<Vec<String>> {
    let mut child = Command::new(plugin)
        .env("CNI_COMMAND", "VERSION")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("cannot run {}", plugin.display()))?;
    if let Some(mut input) = child.stdin.take() {
        // A plugin that does not read its input is fine.
        let _ = input.write_all(br#"{"cniVersion":"1.0.0"}"#);
    }
    let output = child.wait_with_output()?;
    let answer: Value = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("{} does not answer VERSION with JSON", plugin.display()))?;
    let versions = answer["supportedVersions"]
        .as_array()
        .context("no supportedVersions in its answer")?;
    Ok(versions
        .iter()
        .filter_map(|version| version.as_str().map(str::to_owned))
        .collect())
}

fn place(version: &str) -> Option<usize> {
    SERVED.iter().position(|other| *other == version)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chained(versions: &[&[&str]]) -> Vec<(String, Vec<String>)> {
        versions
            .iter()
            .enumerate()
            .map(|(i, served)| (format!("p{i}"), served.iter().map(|v| (*v).to_owned()).collect()))
            .collect()
    }

    #[test]
    fn the_safe_one_is_plain_and_later_ones_are_offered() {
        for (wanted, others, version, choice) in [
            (None, vec![], "1.0.0", vec!["1.0.0", "1.1.0"]),
            (None, vec![&["0.4.0", "1.0.0"][..]], "1.0.0", vec![]),
            (
                None,
                vec![&["0.4.0"][..], &["0.3.1", "0.4.0", "1.0.0"]],
                "0.4.0",
                vec![],
            ),
            (None, vec![&["0.4.0", "1.1.0"][..]], "0.4.0", vec!["0.4.0", "1.1.0"]),
            (None, vec![&["1.1.0"][..]], "1.1.0", vec![]),
            (Some("1.1.0"), vec![], "1.1.0", vec![]),
            (Some("0.3.1"), vec![&["0.3.1"][..]], "0.3.1", vec![]),
        ] {
            let decided = decide(wanted, &chained(&others)).unwrap();
            assert_eq!(decided.version, version, "{wanted:?} {others:?}");
            assert_eq!(decided.choice, choice, "{wanted:?} {others:?}");
        }
    }

    #[test]
    fn what_nobody_serves_is_refused_by_name() {
        let old = chained(&[&["0.2.0"]]);
        assert_eq!(
            decide(None, &old).unwrap_err().to_string(),
            "no CNI version is served by margay and all of p0"
        );
        assert!(decide(Some("1.0.0"), &old).unwrap_err().to_string().contains("p0"));
        assert!(decide(Some("9.9.9"), &[]).unwrap_err().to_string().contains("9.9.9"));
    }
}
