//! A lab of a test's own, and what the host looks like.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use margay_demo::host::HostState;
use margay_lab::process::ProcessId;
use margay_testkit::{programs, repository};
use tempfile::TempDir;

/// The committed topology.
pub(super) fn two_racks() -> PathBuf {
    repository().join("testbed/topologies/two-racks.clab.yml")
}

/// Runs `margay-lab` with a labs' directory of its own; destroys its lab when dropped.
pub(super) struct TestLab {
    pub(super) dir: TempDir,
    pub(super) labs: PathBuf,
    pub(super) file: String,
    pub(super) destroyed: bool,
}

impl TestLab {
    pub(super) fn new(name: &str, file: PathBuf) -> TestLab {
        let dir = tempfile::Builder::new()
            .prefix(&format!("margay-lab-{name}-"))
            .tempdir()
            .unwrap();
        let labs = dir.path().canonicalize().unwrap().join("labs");
        TestLab {
            labs,
            file: file.to_str().unwrap().to_owned(),
            dir,
            destroyed: false,
        }
    }

    /// A lab whose topology file has this text.
    pub(super) fn of_text(name: &str, text: &str) -> TestLab {
        let mut lab = Self::new(name, PathBuf::new());
        let file = lab.dir.path().join(format!("{name}.clab.yml"));
        std::fs::write(&file, text).unwrap();
        lab.file = file.to_str().unwrap().to_owned();
        lab
    }

    pub(super) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(programs::path("margay-lab"));
        command
            .args(args)
            .env("MARGAY_LAB_DIR", &self.labs)
            .env_remove("KUBECONFIG")
            .stdin(Stdio::null());
        command
    }

    pub(super) fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// Standard output of what must succeed.
    #[track_caller]
    pub(super) fn ok(&self, args: &[&str]) -> String {
        let out = self.run(args);
        assert!(
            out.status.success(),
            "margay-lab {}: {}",
            args.join(" "),
            String::from_utf8_lossy(&out.stderr)
        );
        String::from_utf8(out.stdout).unwrap()
    }

    /// Standard error of what must fail.
    #[track_caller]
    pub(super) fn fails(&self, args: &[&str]) -> String {
        let out = self.run(args);
        assert!(!out.status.success(), "margay-lab {} must fail", args.join(" "));
        String::from_utf8(out.stderr).unwrap()
    }

    /// Output of a command in a node.
    pub(super) fn run_in(&self, node: &str, words: &[&str]) -> Result<String, String> {
        let out = self.run(&[&["exec", "-t", &self.file, node, "--"], words].concat());
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if out.status.success() {
            Ok(text(&out.stdout))
        } else {
            Err(text(&out.stdout) + &text(&out.stderr))
        }
    }

    /// A command in a node that runs on; killed with the returned guard.
    pub(super) fn spawn_in(&self, node: &str, words: &[&str]) -> Running {
        let mut command = self.command(&[&["exec", "-t", &self.file, node, "--"], words].concat());
        Running(command.stdout(Stdio::null()).spawn().unwrap())
    }

    /// The host as it is now.
    pub(super) fn look_at_host(&self) -> HostState {
        HostState::look(&programs::dir(), &self.labs).unwrap()
    }

    /// Asserts that the host has nothing of this lab that it had not `before`. What others do meanwhile is printed.
    #[track_caller]
    pub(super) fn assert_nothing_left(&self, before: &HostState) {
        let differences = before.differences(&self.look_at_host(), &self.labs);
        if !differences.of_others.is_empty() {
            println!("others changed the host meanwhile: {:#?}", differences.of_others);
        }
        assert_eq!(differences.of_the_lab, Vec::<String>::new());
    }

    pub(super) fn destroy(&mut self) {
        self.ok(&["destroy", "-t", &self.file]);
        self.destroyed = true;
    }

    /// Processes that name the labs' directory: `margay-lab`'s own.
    pub(super) fn processes(&self) -> Vec<String> {
        let labs = self.labs.to_str().unwrap();
        processes()
            .into_iter()
            .map(|(_, line)| line)
            .filter(|line| line.contains(labs))
            .collect()
    }

    /// Waits until none is left: what a killed deploy had just started ends by itself.
    #[track_caller]
    pub(super) fn wait_empty(&self) {
        wait(
            "no process of the lab is left",
            Duration::from_secs(30),
            || match self.processes() {
                left if left.is_empty() => Ok(()),
                left => Err(format!("{left:?}")),
            },
        );
    }

    /// Every process in a namespace of the lab's nodes, and how many such namespaces there are.
    pub(super) fn members(&self) -> (Vec<ProcessId>, usize) {
        let labs = self.labs.to_str().unwrap();
        let own: BTreeSet<String> = namespaces_of("self").collect();
        let namespaces: BTreeSet<String> = processes()
            .into_iter()
            .filter(|(_, line)| line.contains("node-init") && line.contains(labs))
            .flat_map(|(pid, _)| namespaces_of(&pid).collect::<Vec<_>>())
            .filter(|namespace| !own.contains(namespace))
            .collect();
        let members = processes()
            .into_iter()
            .filter(|(pid, _)| namespaces_of(pid).any(|namespace| namespaces.contains(&namespace)))
            .filter_map(|(pid, _)| ProcessId::of(pid.parse().ok()?))
            .collect();
        (members, namespaces.len())
    }
}

impl Drop for TestLab {
    fn drop(&mut self) {
        if !self.destroyed || std::thread::panicking() {
            let _ = self.run(&["destroy", "-t", &self.file]);
        }
    }
}

pub(super) struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn namespaces_of(pid: &str) -> impl Iterator<Item = String> + use<> {
    let pid = pid.to_owned();
    ["net", "mnt", "pid", "uts", "ipc"].into_iter().filter_map(move |kind| {
        Some(
            std::fs::read_link(format!("/proc/{pid}/ns/{kind}"))
                .ok()?
                .to_str()?
                .to_owned(),
        )
    })
}

fn processes() -> Vec<(String, String)> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = entries
        .filter_map(|e| e.file_name().into_string().ok())
        .filter(|n| n.bytes().all(|b| b.is_ascii_digit()));
    pids.filter_map(|pid| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline"))
            .ok()
            .filter(|l| !l.is_empty())?;
        Some((pid, String::from_utf8_lossy(&line).replace('\0', " ")))
    })
    .collect()
}

/// Tries until it works; panics with the last objection after `limit`.
#[track_caller]
pub(super) fn wait<T>(what: &str, limit: Duration, mut attempt: impl FnMut() -> Result<T, String>) -> T {
    let begun = Instant::now();
    loop {
        match attempt() {
            Ok(value) => return value,
            Err(why) => assert!(begun.elapsed() < limit, "{what}: not so within {limit:?}: {why}"),
        }
        std::thread::park_timeout(Duration::from_millis(50));
    }
}
