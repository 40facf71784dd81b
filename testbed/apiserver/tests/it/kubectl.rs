//! Real kubectls against the server: a committed transcript, and `get -w`.

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::mpsc,
    time::Duration,
};

use serde_json::json;

use super::{crud::pod, support};

const HERE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it");

#[test]
fn the_transcript_with_a_current_kubectl() {
    let Some(kubectl) = current() else { return };
    transcript(&kubectl, "[new]");
}

#[test]
fn the_transcript_with_debians_kubectl() {
    let Some(kubectl) = debians() else { return };
    transcript(&kubectl, "[old]");
}

#[test]
fn get_watch_shows_changes_as_they_come() {
    for kubectl in [current(), debians()].into_iter().flatten() {
        let lab = Lab::start();
        let pods = "/api/v1/namespaces/default/pods";
        lab.client.post(pods, &pod("first")).ok();
        let mut child = lab
            .command(&kubectl, "get pods -w")
            .stdout(Stdio::piped())
            .spawn()
            .expect("kubectl");
        let lines = BufReader::new(child.stdout.take().expect("stdout")).lines();
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|l| sender.send(l)));
        let next = || {
            let line = receiver
                .recv_timeout(Duration::from_secs(20))
                .expect("a line within 20 s");
            line.split_whitespace().take(3).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(next(), "NAME READY STATUS");
        assert_eq!(next(), "first 0/1 Pending");
        lab.client.post(pods, &pod("second")).ok();
        assert_eq!(next(), "second 0/1 Pending");
        lab.client
            .patch(
                "merge",
                &format!("{pods}/first/status"),
                &json!({"status": {"phase": "Running"}}),
            )
            .ok();
        assert_eq!(next(), "first 0/1 Running");
        child.kill().expect("kill");
        child.wait().expect("wait");
    }
}

fn transcript(kubectl: &Path, only: &str) {
    let text = std::fs::read_to_string(format!("{HERE}/transcript.txt")).expect("transcript");
    let lab = Lab::start();
    let mut count = 0;
    for block in blocks(&text) {
        let (mark, command) = block.0.split_once("$ kubectl ").expect("a command");
        if !mark.is_empty() && mark.trim() != only {
            continue;
        }
        let output = lab.command(kubectl, command).output().expect("kubectl");
        let mut said = String::from_utf8_lossy(&output.stdout).into_owned();
        match output.status.code() {
            Some(0) => {}
            code => said.push_str(&format!("\n[{}]", code.unwrap_or(-1))),
        }
        let said = normal(&said);
        let expected = normal(&block.1);
        assert!(
            matches(&expected, &said),
            "{}\nexpected:\n{}\nsaid:\n{}",
            block.0,
            expected.join("\n"),
            said.join("\n")
        );
        count += 1;
    }
    println!("{count} commands with {}", kubectl.display());
    assert!(count > 40);
}

/// Commands and what they should say.
fn blocks(text: &str) -> Vec<(String, String)> {
    let mut blocks: Vec<(String, String)> = Vec::new();
    for line in text.lines().filter(|l| !l.starts_with('#')) {
        match blocks.last_mut() {
            _ if line.contains("$ kubectl ") => blocks.push((line.to_owned(), String::new())),
            Some((_, output)) => output.push_str(&format!("{line}\n")),
            None => {}
        }
    }
    blocks
}

/// Lines without empty ones and with single blanks; newer kubectls add the namespace to what they delete.
fn normal(text: &str) -> Vec<String> {
    let line = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let line = words.join(" ");
        match line.split_once(" deleted from ") {
            Some((what, _)) => format!("{what} deleted"),
            None => line,
        }
    };
    text.lines().map(line).filter(|l| !l.is_empty()).collect()
}

fn matches(expected: &[String], said: &[String]) -> bool {
    match (expected, said) {
        ([], []) => true,
        ([dots, rest @ ..], _) if dots == "..." => (0..=said.len()).any(|skip| matches(rest, &said[skip..])),
        ([first, rest @ ..], [line, more @ ..]) => {
            let (a, b): (Vec<&str>, Vec<&str>) = (first.split(' ').collect(), line.split(' ').collect());
            let same = a.len() == b.len() && a.iter().zip(&b).all(|(a, b)| *a == "*" || a == b);
            same && matches(rest, more)
        }
        _ => false,
    }
}

#[test]
fn the_matcher_can_fail() {
    let lines = |text: &str| normal(text);
    assert!(matches(&lines("a *\n...\nz"), &lines("a   1\nb\nz")));
    for (expected, said) in [("a *", "a"), ("a", "b"), ("a", "a\nb"), ("...\nz", "a\ny")] {
        assert!(!matches(&lines(expected), &lines(said)), "{expected} {said}");
    }
}

/// A server, its kubeconfig, and a home of its own for kubectl's caches.
struct Lab {
    _server: margay_apiserver::Server,
    client: support::Client,
    home: tempfile::TempDir,
}

impl Lab {
    fn start() -> Self {
        let (server, client) = support::start();
        let home = tempfile::tempdir().expect("directory");
        let url = format!("https://{}", server.addresses()[0]);
        std::fs::write(home.path().join("kubeconfig"), server.kubeconfig(&url)).expect("kubeconfig");
        Self {
            _server: server,
            client,
            home,
        }
    }

    /// `kubectl arguments` through a shell, errors among the output.
    fn command(&self, kubectl: &Path, arguments: &str) -> Command {
        let mut command = Command::new("sh");
        command
            .arg("-c")
            .arg(format!("exec \"$0\" {arguments} 2>&1"))
            .arg(kubectl);
        command
            .env("HOME", self.home.path())
            .env("KUBECONFIG", self.home.path().join("kubeconfig"));
        command.current_dir(format!("{HERE}/manifests")).stdin(Stdio::null());
        command
    }
}

/// The transcript's newer answers are those of this version and later ones.
const CURRENT: (u32, u32) = (1, 32);

/// The kubectl that users have today: a given one, or the first on the path.
fn current() -> Option<PathBuf> {
    let path = std::env::var_os("MARGAY_KUBECTL").map(PathBuf::from).or_else(|| {
        let path = std::env::var_os("PATH")?;
        std::env::split_paths(&path)
            .map(|dir| dir.join("kubectl"))
            .find(|p| p.is_file())
    });
    let path = path.filter(|path| version(path).is_some_and(|found| found >= CURRENT));
    present(
        path.unwrap_or_default(),
        "kubectl 1.32 or later on the path, or in MARGAY_KUBECTL",
    )
}

fn version(kubectl: &Path) -> Option<(u32, u32)> {
    let out = Command::new(kubectl)
        .args(["version", "--client", "-o", "json"])
        .output()
        .ok()?;
    let told: serde_json::Value = serde_json::from_slice(&out.stdout).ok()?;
    let number = |field: &str| {
        let text = told["clientVersion"][field].as_str()?;
        text.trim_end_matches('+').parse().ok()
    };
    Some((number("major")?, number("minor")?))
}

fn debians() -> Option<PathBuf> {
    let usual = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.cache/kubectl-debian/usr/bin/kubectl");
    let path = std::env::var_os("MARGAY_KUBECTL_OLD").map_or(usual, PathBuf::from);
    present(path, "Debian's kubectl: scripts/needs, or MARGAY_KUBECTL_OLD")
}

fn present(path: PathBuf, needs: &str) -> Option<PathBuf> {
    if path.is_file() {
        return Some(path);
    }
    assert!(
        std::env::var_os("CI").is_none(),
        "this test needs {needs}, and CI must not skip it"
    );
    println!("SKIPPED kubectl transcript: needs {needs}");
    None
}
