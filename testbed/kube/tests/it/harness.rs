//! A cluster of a test's own on `testbed/topologies/kube.clab.yml`, and the commands a user types at it.
//!
//! A test begins with `let Some(kube) = Kube::installed("its::name") else { return };` and asks what it wants with
//! [`Kube::sh`] (kubectl and the like), [`Kube::pod`], [`Kube::node`] and [`Kube::client`]; what takes time it [`wait`]s
//! for. The cluster goes when `kube` is dropped; after a failure what it was like is printed first.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use margay_kubelab::Assets;
use margay_testkit::{needs, programs, repository};
use tempfile::TempDir;

/// The API server's address, which every node reaches without kube-proxy.
pub(crate) const API_SERVER: &str = "https://10.10.0.1:6443";

/// How long what a cluster does by itself may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// Nodes of the topology that have a kubelet.
pub(crate) const NODES: [&str; 3] = ["node1", "node2", "node3"];

/// The client beyond the fabric.
pub(crate) const CLIENT: &str = "10.9.0.10";

/// A cluster, and where its programs are.
pub(crate) struct Kube {
    labs: TempDir,
    topology: String,
    kubeconfig: String,
    assets: Assets,
}

/// What a command said, when it failed.
#[derive(Debug)]
pub(crate) struct Failed {
    /// As a shell tells it.
    pub(crate) code: i32,
    /// Standard output, then standard error.
    pub(crate) words: String,
}

impl Kube {
    /// A cluster with Margay installed, its nodes ready and CoreDNS running. `None` where this cannot be.
    pub(crate) fn installed(test: &str) -> Option<Kube> {
        let kube = Kube::up(test, &[])?;
        kube.install();
        kube.ready();
        Some(kube)
    }

    /// A cluster without a pod network; `options` are those of `margay-lab kube up`.
    pub(crate) fn up(test: &str, options: &[&str]) -> Option<Kube> {
        if !needs::root(test) {
            return None;
        }
        let assets = match Assets::find() {
            Ok(assets) => assets,
            Err(why) => {
                needs::skip(test, &format!("real Kubernetes: {why}"));
                return None;
            }
        };
        let topology = repository().join("testbed/topologies/kube.clab.yml");
        let mut kube = Kube {
            labs: tempfile::Builder::new().prefix("margay-kube-").tempdir().unwrap(),
            topology: topology.to_str().unwrap().to_owned(),
            kubeconfig: String::new(),
            assets,
        };
        let begun = Instant::now();
        let topology = kube.topology.clone();
        let told = said(kube.lab(&["kube", "up", "-t", &topology]).args(options)).unwrap_or_else(|e| panic!("{e:?}"));
        let exported = told.lines().find_map(|line| line.strip_prefix("export KUBECONFIG="));
        kube.kubeconfig = exported.expect("up prints KUBECONFIG").trim_matches('\'').to_owned();
        println!("cluster up in {:.1} s", begun.elapsed().as_secs_f64());
        Some(kube)
    }

    /// Gives the nodes the image, and types what `deploy/README.md` says under "With plain manifests".
    pub(crate) fn install(&self) {
        self.load_image();
        for command in commands(&section("deploy/README.md", "## With plain manifests")) {
            let command = command.replace("https://<control plane>:6443", API_SERVER).replace(
                "<your IPPools, BGPConfiguration and BGPPeers>",
                "deploy/examples/kube/network.yaml",
            );
            self.sh(&command);
        }
        let environment = "for p in $(pidof margay-node); do tr '\\0' '\\n' </proc/$p/environ; done";
        for node in NODES {
            let told = self.node(node, environment).unwrap_or_else(|e| panic!("{e}"));
            let by_itself = told
                .lines()
                .any(|line| line == format!("MARGAY_API_SERVER={API_SERVER}"));
            assert!(
                by_itself,
                "the agent of {node} needs kube-proxy to reach the API server: {told}"
            );
        }
    }

    /// A folder that goes with the cluster.
    pub(crate) fn scratch(&self) -> &Path {
        self.labs.path()
    }

    /// Gives the nodes the image of this checkout.
    pub(crate) fn load_image(&self) {
        let image = image();
        self.must(&mut self.lab(&["kube", "load", "-t", &self.topology, image.to_str().unwrap()]));
    }

    /// Waits until all nodes are ready and CoreDNS answers.
    pub(crate) fn ready(&self) {
        self.sh("kubectl wait --for=condition=Ready node --all --timeout=90s");
        self.sh("kubectl -n kube-system rollout status deployment/coredns --timeout=90s");
    }

    /// `margay-lab` with the test's own labs.
    pub(crate) fn lab(&self, args: &[&str]) -> Command {
        let mut command = Command::new(programs::path("margay-lab"));
        command
            .args(args)
            .env("MARGAY_LAB_DIR", self.labs.path().canonicalize().unwrap().join("labs"))
            .env_remove("KUBECONFIG");
        command
    }

    /// A script of the user's, in the repository, with the cluster's kubectl before others and KUBECONFIG set.
    pub(crate) fn script(&self, script: &str) -> Command {
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new("bash");
        command
            .args(["-o", "pipefail", "-ec", script])
            .current_dir(repository())
            .env(
                "PATH",
                format!(
                    "{}:{}:{path}:/usr/sbin:/sbin",
                    self.assets.bin().display(),
                    programs::dir().display()
                ),
            )
            .env("MARGAY_LAB_DIR", self.labs.path().canonicalize().unwrap().join("labs"))
            .env("KUBECONFIG", &self.kubeconfig);
        command
    }

    /// What a script that must succeed prints.
    #[track_caller]
    pub(crate) fn sh(&self, script: &str) -> String {
        self.must(&mut self.script(script))
    }

    /// What a script prints, or its failure.
    pub(crate) fn try_sh(&self, script: &str) -> Result<String, Failed> {
        said(&mut self.script(script))
    }

    /// Applies a manifest.
    #[track_caller]
    pub(crate) fn apply(&self, manifest: &str) {
        let file = self.labs.path().join("manifest.yaml");
        std::fs::write(&file, manifest).unwrap();
        self.sh(&format!("kubectl apply -f {}", file.display()));
    }

    /// What a shell command in a pod (`namespace/name`, or `namespace/name/container`) prints, or its failure.
    pub(crate) fn pod(&self, pod: &str, script: &str) -> Result<String, Failed> {
        let mut parts = pod.split('/');
        let (namespace, name) = (parts.next().unwrap(), parts.next().unwrap());
        let container = parts.next().map_or_else(String::new, |c| format!("-c {c}"));
        said(
            self.script(&format!(
                "kubectl exec -n {namespace} {name} {container} -- sh -c \"$SCRIPT\""
            ))
            .env("SCRIPT", script),
        )
    }

    /// What a shell command on a node prints, or its failure.
    pub(crate) fn node(&self, node: &str, script: &str) -> Result<String, Failed> {
        said(&mut self.lab(&["kube", "exec", "-t", &self.topology, node, "--", "sh", "-c", script]))
    }

    /// What a shell command on any node of the lab (a router, the client) prints, or its failure.
    pub(crate) fn beyond(&self, node: &str, script: &str) -> Result<String, Failed> {
        said(&mut self.beyond_command(node, script))
    }

    /// What a shell command on the client beyond the fabric prints, or its failure.
    pub(crate) fn client(&self, script: &str) -> Result<String, Failed> {
        self.beyond("client", script)
    }

    /// Starts a shell command on a node of the lab, and kills it when the guard is dropped.
    pub(crate) fn run_beyond(&self, node: &str, script: &str) -> Running {
        let mut command = self.beyond_command(node, script);
        Running(command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap())
    }

    /// Starts a shell command on a node of the cluster, and kills it when the guard is dropped.
    pub(crate) fn run_on(&self, node: &str, script: &str) -> Running {
        let mut command = self.lab(&["kube", "exec", "-t", &self.topology, node, "--", "sh", "-c", script]);
        Running(command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap())
    }

    fn beyond_command(&self, node: &str, script: &str) -> Command {
        self.lab(&["exec", "-t", &self.topology, node, "--", "sh", "-c", script])
    }

    /// A power cut, a boot, or one of the other verbs of `margay-lab kube`.
    #[track_caller]
    pub(crate) fn power(&self, verb: &str, what: &str) {
        self.must(&mut self.lab(&["kube", verb, "-t", &self.topology, what]));
    }

    /// A field of an object, as `kubectl get … -o jsonpath` prints it.
    #[track_caller]
    pub(crate) fn field(&self, object: &str, path: &str) -> String {
        self.sh(&format!("kubectl get {object} -o 'jsonpath={path}'"))
    }

    /// The pieces the cluster is made of.
    pub(crate) fn assets(&self) -> &Assets {
        &self.assets
    }

    #[track_caller]
    fn must(&self, command: &mut Command) -> String {
        let shown = format!("{:?}", command.get_args().collect::<Vec<_>>());
        match said(command) {
            Ok(words) => words,
            Err(failed) => panic!("{shown}: status {}: {}", failed.code, failed.words),
        }
    }

    /// What a person would look at first.
    fn describe(&self) {
        for script in [
            "kubectl get nodes,pods -A -o wide",
            "kubectl get events -A --sort-by=.lastTimestamp | tail -30",
            "kubectl -n margay-system logs -l app.kubernetes.io/name=margay-node --tail=30 --prefix",
        ] {
            let words = self.try_sh(script).unwrap_or_else(|failed| failed.words);
            println!("--- {script}\n{words}");
        }
    }
}

impl Drop for Kube {
    fn drop(&mut self) {
        if std::thread::panicking() {
            if !self.kubeconfig.is_empty() {
                self.describe();
            }
            if std::env::var_os("MARGAY_KEEP").is_some() {
                println!("kept: {}", self.labs.path().display());
                self.labs.disable_cleanup(true);
                return;
            }
        }
        let topology = self.topology.clone();
        if let Err(failed) = said(&mut self.lab(&["kube", "down", "-t", &topology]))
            && !std::thread::panicking()
        {
            panic!("kube down: {}", failed.words);
        }
    }
}

/// A command that runs on; killed when dropped.
pub(crate) struct Running(Child);

impl Running {
    /// What it printed, once it has ended by itself.
    pub(crate) fn output(mut self) -> String {
        let mut words = String::new();
        if let Some(mut stdout) = self.0.stdout.take() {
            std::io::Read::read_to_string(&mut stdout, &mut words).unwrap();
        }
        words
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn said(command: &mut Command) -> Result<String, Failed> {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let mut words = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(words);
    }
    let _ = write!(words, "{}", String::from_utf8_lossy(&output.stderr));
    Err(Failed {
        code: output.status.code().unwrap_or(-1),
        words,
    })
}

/// The container image of this checkout: `$MARGAY_IMAGE` where who runs the tests has just made it.
fn image() -> PathBuf {
    if let Some(image) = std::env::var_os("MARGAY_IMAGE") {
        return image.into();
    }
    let target = programs::dir().parent().unwrap().to_owned();
    let mut command = Command::new(repository().join("scripts/image"));
    command.arg("debug").env("CARGO_TARGET_DIR", &target);
    if let Err(failed) = said(&mut command) {
        panic!("scripts/image: {}", failed.words);
    }
    target.join("image/margay.tar")
}

/// What a Markdown file says from a heading on, to the next of the same level or above.
pub(crate) fn section(file: &str, heading: &str) -> String {
    let text = std::fs::read_to_string(repository().join(file)).unwrap();
    let (_, rest) = text
        .split_once(heading)
        .unwrap_or_else(|| panic!("{file} has no {heading}"));
    let level = heading.split(' ').next().unwrap_or_default().len();
    let ends = (1..=level).filter_map(|n| rest.find(&format!("\n{} ", "#".repeat(n))));
    rest[..ends.min().unwrap_or(rest.len())].to_owned()
}

/// The commands in a section: its indented lines. One with a here-document is one command.
pub(crate) fn commands(section: &str) -> Vec<String> {
    let mut commands: Vec<String> = Vec::new();
    let mut until: Option<String> = None;
    for line in section.lines().filter_map(|line| line.strip_prefix("    ")) {
        match (&until, commands.last_mut()) {
            (Some(end), Some(command)) => {
                let _ = write!(command, "\n{line}");
                if line == end {
                    until = None;
                }
            }
            _ => {
                until = line.split_once("<<").map(|(_, word)| word.trim().to_owned());
                commands.push(line.to_owned());
            }
        }
    }
    assert!(!commands.is_empty(), "nothing to type in {section:?}");
    commands
}

/// Tries until it works; panics with the last objection after `limit`.
#[track_caller]
pub(crate) fn wait<T>(what: &str, limit: Duration, mut attempt: impl FnMut() -> Result<T, String>) -> T {
    let begun = Instant::now();
    loop {
        match attempt() {
            Ok(value) => return value,
            Err(why) => assert!(begun.elapsed() < limit, "{what}: not so within {limit:?}: {why}"),
        }
        std::thread::park_timeout(Duration::from_millis(200));
    }
}

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "status {}: {}", self.code, self.words.trim())
    }
}
