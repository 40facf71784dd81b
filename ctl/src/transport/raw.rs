//! What this program says with `raw` where an agent is, and what another one makes of it here.

use anyhow::{Context, bail};
use serde_json::Value;

use crate::cli::DEFAULT_SOCKET;

/// The program's arguments that ask the agent beside it for `paths`.
pub(super) fn arguments(seconds: u64, paths: &[&str]) -> Vec<String> {
    let seconds = seconds.to_string();
    let options = ["--socket", DEFAULT_SOCKET, "--timeout", &seconds, "raw"];
    options.iter().chain(paths).map(|word| (*word).to_owned()).collect()
}

/// The answers on its standard output, one line each.
pub(super) fn answers(stdout: &[u8], count: usize) -> anyhow::Result<Vec<Value>> {
    let text = String::from_utf8_lossy(stdout);
    let answers: Vec<Value> = text
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()
        .context("margayctl printed something else than JSON there")?;
    if answers.len() != count {
        bail!("margayctl printed {} answers to {count} questions there", answers.len());
    }
    Ok(answers)
}

/// Why it failed: the last line of its standard error that says something, or of whoever failed to run it.
pub(super) fn reason(stderr: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(stderr);
    let last = text.lines().map(str::trim).rev().find(|line| !line.is_empty())?;
    Some(last.strip_prefix("error: ").unwrap_or(last).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_answers_as_questions() {
        assert_eq!(
            answers(b"{\"a\":1}\n[]\n", 2).expect("two answers"),
            [serde_json::json!({"a": 1}), serde_json::json!([])]
        );
        for (stdout, why) in [
            (&b"{}\n"[..], "margayctl printed 1 answers to 2 questions there"),
            (b"sh: what?\n", "margayctl printed something else than JSON there"),
        ] {
            assert_eq!(answers(stdout, 2).expect_err("no answers").to_string(), why);
        }
    }

    #[test]
    fn the_last_word_is_the_reason() {
        assert_eq!(reason(b"warning: x\nerror: no agent\n\n").as_deref(), Some("no agent"));
        assert_eq!(reason(b" \n"), None);
    }
}
