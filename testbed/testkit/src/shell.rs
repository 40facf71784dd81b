//! Commands as a user would type them, with errors that repeat the command and its words.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

/// Where the programs are and which lab they act on.
#[derive(Debug, Clone)]
pub struct Shell {
    /// Directory of `margay-lab`, `margayctl` and the others.
    pub bin: PathBuf,
    /// The containerlab file of the lab.
    pub topology: PathBuf,
    /// What commands are given as KUBECONFIG: the API server given by the user, then that of the lab. Without one they
    /// are given none, whatever the variable says here.
    pub kubeconfig: Option<PathBuf>,
    /// Where labs keep their state, when not in the usual place.
    pub labs_dir: Option<PathBuf>,
}

impl Shell {
    /// Runs `margay-lab ARGS… -t TOPOLOGY` with further arguments after it.
    ///
    /// # Errors
    /// If it cannot be started or exits with anything but 0; the error carries its standard error.
    pub fn lab(&self, verb: &[&str], rest: &[&str]) -> Result<String> {
        let mut command = self.command(&self.bin.join("margay-lab"));
        command.args(verb).arg("-t").arg(&self.topology).args(rest);
        stdout_of(command)
    }

    /// Runs a command inside a node of the lab.
    ///
    /// # Errors
    /// As for [`Shell::lab`].
    pub fn in_node(&self, node: &str, command: &[&str]) -> Result<String> {
        let mut rest = vec![node, "--"];
        rest.extend(command);
        self.lab(&["exec"], &rest)
    }

    /// Runs a command inside a container of a pod of the lab, named `namespace/name`.
    ///
    /// # Errors
    /// As for [`Shell::lab`].
    pub fn in_pod(&self, pod: &str, container: Option<&str>, command: &[&str]) -> Result<String> {
        let mut rest = vec!["--pod", pod];
        if let Some(container) = container {
            rest.extend(["-c", container]);
        }
        rest.push("--");
        rest.extend(command);
        self.lab(&["exec"], &rest)
    }

    /// Runs kubectl against the lab's API server.
    ///
    /// # Errors
    /// As for [`Shell::lab`], also if there is no kubeconfig yet.
    pub fn kubectl(&self, args: &[&str]) -> Result<String> {
        let kubeconfig = self
            .kubeconfig
            .as_deref()
            .context("no kubeconfig: the cluster is not up")?;
        let mut command = Command::new("kubectl");
        command.args(args).env("KUBECONFIG", kubeconfig);
        stdout_of(command)
    }

    /// A program of Margay by name, as an absolute path.
    #[must_use]
    pub fn program(&self, name: &str) -> String {
        self.bin.join(name).to_string_lossy().into_owned()
    }

    /// A command that finds this lab and its API server.
    #[must_use]
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env_remove("KUBECONFIG");
        command.envs(self.kubeconfig.as_ref().map(|kubeconfig| ("KUBECONFIG", kubeconfig)));
        command.envs(self.labs_dir.as_ref().map(|dir| ("MARGAY_LAB_DIR", dir)));
        command
    }
}

/// Standard output of a command that must succeed.
///
/// # Errors
/// If it cannot be started or exits with anything but 0.
pub fn stdout_of(mut command: Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {}", Path::new(command.get_program()).display()))?;
    if !output.status.success() {
        bail!(
            "`{}` failed ({}){}",
            line_of(&command),
            output.status,
            words_of(&output)
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn line_of(command: &Command) -> String {
    let program = Path::new(command.get_program())
        .file_name()
        .unwrap_or(command.get_program());
    std::iter::once(program)
        .chain(command.get_args())
        .map(|s| s.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

fn words_of(output: &Output) -> String {
    let words = [&output.stderr, &output.stdout].map(|stream| String::from_utf8_lossy(stream).trim().to_owned());
    words
        .iter()
        .filter(|words| !words.is_empty())
        .map(|words| format!("\n  {}", words.replace('\n', "\n  ")))
        .collect()
}

/// Asks `check` again until it gives a value, or `deadline` has passed: then its last objection is the error.
///
/// # Errors
/// The last error of `check`, with `what` and how long was waited.
pub fn wait_for<T>(what: &str, limit: Duration, mut check: impl FnMut() -> Result<T>) -> Result<T> {
    let started = Instant::now();
    loop {
        match check() {
            Ok(value) => return Ok(value),
            Err(error) if started.elapsed() >= limit => {
                return Err(error.context(format!("{what}: not so after {} s", limit.as_secs())));
            }
            Err(_) => std::thread::park_timeout(Duration::from_millis(50)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_command_is_repeated_with_its_words() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo no such route >&2; exit 3"]);
        let error = stdout_of(command).unwrap_err().to_string();
        assert!(error.contains("sh -c"), "{error}");
        assert!(error.contains("exit status: 3"), "{error}");
        assert!(error.contains("no such route"), "{error}");
    }

    #[test]
    fn a_cluster_of_the_callers_is_not_passed_on() {
        let mut shell = Shell {
            bin: PathBuf::new(),
            topology: PathBuf::new(),
            kubeconfig: None,
            labs_dir: None,
        };
        let passed = |shell: &Shell| {
            let command = shell.command("margay-lab".as_ref());
            let mut set = command
                .get_envs()
                .map(|(name, value)| (name.to_owned(), value.map(ToOwned::to_owned)));
            set.find(|(name, _)| name == "KUBECONFIG").map(|(_, value)| value)
        };
        assert_eq!(passed(&shell), Some(None), "taken away, not inherited");
        shell.kubeconfig = Some("/given".into());
        assert_eq!(passed(&shell), Some(Some("/given".into())));
    }

    #[test]
    fn waiting_ends_with_the_last_objection() {
        let error = wait_for::<()>("a thing", Duration::ZERO, || bail!("not there")).unwrap_err();
        assert_eq!(format!("{error:#}"), "a thing: not so after 0 s: not there");
        let mut tries = 0;
        let value = wait_for("a thing", Duration::from_secs(5), || {
            tries += 1;
            if tries < 3 { bail!("not yet") } else { Ok(tries) }
        });
        assert_eq!(value.unwrap(), 3);
    }
}
