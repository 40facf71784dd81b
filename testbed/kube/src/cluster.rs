//! A whole cluster: brought up, opened, taken down.

mod disks;
mod steps;

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, anyhow, bail};
use margay_clab::Plan;
use margay_lab::process::kill_and_wait;
use margay_lab::state::Lock;
use margay_lab::{Lab, labs_dir};

use crate::assets::Assets;
use crate::machine::{self, Machine, MachineSpec};
use crate::place::Place;
use crate::spec::{ProxyMode, Spec};
use crate::{config, relay};

/// How a cluster is brought up.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Mode of kube-proxy, whatever the topology says.
    pub proxy: Option<ProxyMode>,
}

/// A cluster on a lab.
#[derive(Debug, Clone)]
pub struct Cluster {
    lab: Lab,
    spec: Spec,
    place: Place,
    assets: Assets,
}

/// Deploys the lab that `file` describes and brings up a cluster on it. Returns when the API server is ready and every
/// node has registered; nodes become ready once a CNI plugin is installed. `tell` hears of each step.
///
/// # Errors
/// When there is one already, pieces are missing, or a step fails; then what was made is taken away.
pub fn up(file: &Path, options: Options, tell: &dyn Fn(&str)) -> Result<Cluster> {
    let assets = Assets::find()?;
    let name = Plan::lab_name(file)?;
    let lock = lock(&name)?;
    if Place::of(&labs_dir().join(&name)).dir().exists() {
        if Cluster::open(&name).is_ok_and(|cluster| cluster.has_power()) {
            bail!("the cluster of lab {name} is up already; `margay-lab kube down` takes it down");
        }
        tell("clearing what is left of an earlier cluster");
        clear(&name)?;
    }
    steps::up(file, &name, options, assets, tell).map_err(|error| {
        let left = clear(&name);
        lock.remove(&labs_dir(), &lock_name(&name));
        match left {
            Ok(_) => error,
            Err(left) => error.context(format!("and clearing what was made failed: {left:#}")),
        }
    })
}

/// Takes the cluster of the lab called `name` down, and the lab with it, in whatever state they are. `false` when there
/// was neither.
///
/// # Errors
/// When something stays.
pub fn down(name: &str) -> Result<bool> {
    let lock = lock(name)?;
    let cleared = clear(name);
    lock.remove(&labs_dir(), &lock_name(name));
    cleared
}

fn clear(name: &str) -> Result<bool> {
    let dir = labs_dir().join(name);
    let place = Place::of(&dir);
    let there = place.dir().exists();
    kill_and_wait(&relay::running(&dir)).map_err(|e| anyhow!("{e}"))?;
    for node in place.nodes() {
        machine::kill(&node)?;
    }
    let lab = margay_lab::destroy(name)?;
    match fs::remove_dir_all(place.dir()) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", place.dir().display()))
        }
        _ => Ok(there || lab),
    }
}

/// One of `up` and `down` at a time.
fn lock(name: &str) -> Result<Lock> {
    Ok(Lock::take(&labs_dir(), &lock_name(name))?)
}

fn lock_name(name: &str) -> String {
    format!("kube-{name}")
}

impl Cluster {
    /// The cluster of the lab called `name`.
    ///
    /// # Errors
    /// When there is none.
    pub fn open(name: &str) -> Result<Cluster> {
        let lab = Lab::open(name)?;
        let place = Place::of(&lab.dir);
        let text = fs::read(place.spec_file()).map_err(|error| match error.kind() {
            ErrorKind::NotFound => anyhow!("lab {name} has no Kubernetes cluster; `margay-lab kube up` makes one"),
            _ => anyhow!("reading {}: {error}", place.spec_file().display()),
        })?;
        Ok(Cluster {
            spec: serde_json::from_slice(&text).context("the cluster's description")?,
            place,
            lab,
            assets: Assets::find()?,
        })
    }

    /// The lab it stands on.
    pub fn lab(&self) -> &Lab {
        &self.lab
    }

    /// What it consists of.
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// The kubeconfig for programs of the host.
    pub fn kubeconfig(&self) -> PathBuf {
        self.place.kubeconfig()
    }

    /// The pieces it is made of.
    pub fn assets(&self) -> &Assets {
        &self.assets
    }

    /// The machine of the node called `name`.
    ///
    /// # Errors
    /// When the cluster has no such node.
    pub fn machine(&self, name: &str) -> Result<Machine> {
        self.spec.node(name)?;
        Machine::new(&self.lab, name, self.place.node(name))
    }

    /// The machines of all nodes, in the order of the topology.
    ///
    /// # Errors
    /// When the lab lacks one.
    pub fn machines(&self) -> Result<Vec<Machine>> {
        self.spec.nodes.iter().map(|node| self.machine(&node.name)).collect()
    }

    /// Switches the node called `name` on again: its services start by themselves.
    ///
    /// # Errors
    /// When it is on already, or what did not work.
    pub fn start(&self, name: &str) -> Result<()> {
        self.machine(name)?.start(&self.machine_spec(name)?)
    }

    /// Switches the node called `name` off, as a power cut does.
    ///
    /// # Errors
    /// When something of it stays.
    pub fn stop(&self, name: &str) -> Result<()> {
        self.machine(name)?.stop()
    }

    /// A kubectl of the cluster's version, on the host.
    pub fn kubectl_command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(self.assets.program("kubectl"));
        command.args(args).env("KUBECONFIG", self.kubeconfig());
        command
    }

    /// Runs kubectl on the host and returns what it printed.
    ///
    /// # Errors
    /// With kubectl's words when it fails.
    pub fn kubectl(&self, args: &[&str]) -> Result<String> {
        let out = self.kubectl_command(args).stdin(Stdio::null()).output()?;
        if !out.status.success() {
            bail!(
                "`kubectl {}`: {}",
                args.join(" "),
                String::from_utf8_lossy(&out.stderr).trim()
            );
        }
        Ok(String::from_utf8_lossy(&out.stdout).into_owned())
    }

    /// Gives every node that is on the images in `archive`, an OCI or Docker archive.
    ///
    /// # Errors
    /// With containerd's words when a node does not take it.
    pub fn load(&self, archive: &Path) -> Result<()> {
        let nodes: Vec<&str> = self.spec.nodes.iter().map(|node| node.name.as_str()).collect();
        in_parallel(&nodes, |name| {
            let machine = self.machine(name)?;
            let file = fs::File::open(archive).with_context(|| format!("opening {}", archive.display()))?;
            let mut command = machine.command("ctr");
            command
                .args(["--namespace=k8s.io", "images", "import", "-"])
                .stdin(file)
                .stdout(Stdio::null())
                .stderr(Stdio::piped());
            let out = machine.spawn(&mut command)?.wait_with_output()?;
            if !out.status.success() {
                let told = String::from_utf8_lossy(&out.stderr);
                bail!("{name} does not take {}: {}", archive.display(), told.trim());
            }
            Ok(())
        })
    }

    fn has_power(&self) -> bool {
        let on = |name: &str| self.machine(name).is_ok_and(|machine| machine.process().is_some());
        self.spec.nodes.iter().any(|node| on(&node.name))
    }

    fn machine_spec(&self, name: &str) -> Result<MachineSpec> {
        let node = self.spec.node(name)?;
        let place = self.place.node(name);
        let mut hosts = String::from("127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n");
        for node in &self.spec.nodes {
            for address in &node.addresses {
                hosts.push_str(&format!("{address} {}\n", node.name));
            }
        }
        Ok(MachineSpec {
            hostname: name.to_owned(),
            hosts,
            programs: self.assets.bin(),
            disk: place.disk(),
            scratch: place.scratch(),
            units: config::units(&self.spec, node),
        })
    }
}

/// Does `work` for all at once; the first error in their order is the answer.
fn in_parallel<'a>(items: &[&'a str], work: impl Fn(&'a str) -> Result<()> + Sync) -> Result<()> {
    std::thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = items.iter().map(|item| scope.spawn(move || work(item))).collect();
        let results = threads.into_iter().map(|thread| {
            thread
                .join()
                .unwrap_or_else(|_| Err(anyhow!("the work on a node panicked")))
        });
        results.collect()
    })
}
