//! Commands with what they print, compared with committed files.
//!
//! A transcript is a file of commands, each a line `$ margayctl …`, followed by what it wrote to standard output, by
//! `! ` before each line of standard error, and by `exit N` when N is not 0. `UPDATE_TRANSCRIPTS=1` writes them anew.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where commands run.
pub(crate) struct Stage {
    /// The program that `margayctl` stands for.
    pub(crate) program: PathBuf,
    /// Working directory of the commands.
    pub(crate) directory: PathBuf,
    /// Words that are others at each run, and what stands for them.
    pub(crate) hidden: Vec<(String, &'static str)>,
}

impl Stage {
    /// The built program among the fixtures.
    pub(crate) fn fixtures() -> Self {
        Self {
            program: assert_cmd::cargo::cargo_bin!("margayctl").to_owned(),
            directory: it().join("fixtures"),
            hidden: Vec::new(),
        }
    }

    /// Runs the commands of `transcripts/NAME.txt` and compares.
    #[track_caller]
    pub(crate) fn play(&self, name: &str) {
        let file = it().join("transcripts").join(format!("{name}.txt"));
        let expected = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let commands: Vec<&str> = expected.lines().filter(|line| line.starts_with("$ ")).collect();
        assert!(!commands.is_empty(), "{} has no command", file.display());
        let played: String = commands
            .into_iter()
            .map(|line| self.run(line))
            .collect::<Vec<_>>()
            .join("\n");
        if env::var_os("UPDATE_TRANSCRIPTS").is_some() {
            fs::write(&file, played).unwrap();
        } else {
            assert!(
                played == expected,
                "{} differs; this run printed:\n{played}",
                file.display()
            );
        }
    }

    fn run(&self, line: &str) -> String {
        let words = words(line.strip_prefix("$ ").unwrap());
        assert_eq!(words[0], "margayctl", "{line}");
        let output = Command::new(&self.program)
            .args(&words[1..])
            .current_dir(&self.directory)
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", &self.directory)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let mut text = format!("{line}\n{}", String::from_utf8(output.stdout).unwrap());
        for error in String::from_utf8(output.stderr).unwrap().lines() {
            text.push_str(&format!("! {error}\n"));
        }
        match output.status.code() {
            Some(0) => {}
            Some(code) => text.push_str(&format!("exit {code}\n")),
            None => panic!("{line}: {}", output.status),
        }
        for (word, name) in &self.hidden {
            text = text.replace(word, name);
        }
        without_times(&text)
    }
}

/// Writes `TIME` for times that were made for this run: those with fractions of a second.
fn without_times(text: &str) -> String {
    let is_made = |part: &str| part.contains('.') && part.parse::<jiff::Timestamp>().is_ok();
    let parts = text.split('"').map(|part| if is_made(part) { "TIME" } else { part });
    parts.collect::<Vec<_>>().join("\"")
}

/// `tests/it` of this crate.
pub(crate) fn it() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it")
}

/// Splits at spaces; nothing here needs quotes.
fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

#[test]
#[should_panic(expected = "control.txt differs")]
fn a_transcript_that_differs_fails() {
    if env::var_os("UPDATE_TRANSCRIPTS").is_some() {
        panic!("control.txt differs: it must, and is never written anew");
    }
    Stage::fixtures().play("control");
}
