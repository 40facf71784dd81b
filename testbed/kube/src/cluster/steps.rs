//! The steps that bring a cluster up.

use std::fs;
use std::io::Write;
use std::net::IpAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use margay_lab::Lab;
use margay_lab::process::wait_until;
use margay_lab::state::replace_file;
use serde_json::Value;

use super::disks::Disks;
use super::{Cluster, Options, in_parallel};
use crate::assets::Assets;
use crate::dns;
use crate::place::Place;
use crate::relay;
use crate::spec::{Labelled, Spec};

/// How long the API server, and then the nodes, may take; many times what they need.
const PATIENCE: Duration = Duration::from_secs(180);

pub(super) fn up(file: &Path, name: &str, options: Options, assets: Assets, tell: &dyn Fn(&str)) -> Result<Cluster> {
    let begun = Instant::now();
    let step = |what: &str| tell(&format!("{:5.1} s  {what}", begun.elapsed().as_secs_f64()));
    let place = Place::of(&margay_lab::labs_dir().join(name));
    fs::create_dir_all(place.dir()).with_context(|| format!("making {}", place.dir().display()))?;
    let deployed = margay_lab::deploy(file, false)?;
    if let [warning, ..] = deployed.warnings.as_slice() {
        bail!("{warning}");
    }
    let lab = deployed.lab;
    step("lab deployed");

    let labelled: Vec<Labelled<'_>> = lab.state.nodes.iter().map(|n| (n.name.as_str(), &n.labels)).collect();
    let mut spec = Spec::new(&labelled, |node| addresses(&lab, node))?;
    spec.proxy = options.proxy.unwrap_or(spec.proxy);
    replace_file(&place.spec_file(), &serde_json::to_vec_pretty(&spec)?)?;
    let cluster = Cluster {
        lab,
        spec,
        place,
        assets,
    };
    let (spec, place) = (&cluster.spec, &cluster.place);
    let disks = Disks::new(spec, &cluster.assets, name)?;
    let names: Vec<&str> = spec.nodes.iter().map(|n| n.name.as_str()).collect();
    in_parallel(&names, |name| disks.make(spec.node(name)?, &place.node(name)))?;
    step("disks made");

    let master = spec.control_plane().name.as_str();
    cluster.start(master)?;
    let port = relay::start(
        &cluster.lab,
        cluster.lab.node(master)?,
        None,
        &place.dir().join("relay.log"),
    )?;
    let kubeconfig = disks.admin(&format!("https://127.0.0.1:{port}"));
    replace_file(&place.kubeconfig(), kubeconfig.as_bytes())?;
    cluster.await_api()?;
    step("API server ready");

    let others: Vec<&str> = names.iter().copied().filter(|name| *name != master).collect();
    in_parallel(&others, |name| cluster.start(name))?;
    cluster.await_nodes(&names)?;
    step("nodes registered");
    cluster.dress_nodes()?;
    cluster.apply(&dns::manifest(&cluster.spec))?;
    Ok(cluster)
}

impl Cluster {
    /// Waits until the API server says that it is ready.
    ///
    /// # Errors
    /// With its last words when it is not in time.
    pub fn await_api(&self) -> Result<()> {
        let mut last = Ok(String::new());
        let ready = wait_until(PATIENCE, || {
            last = self.kubectl(&["get", "--raw=/readyz", "--request-timeout=5s"]);
            last.is_ok()
        });
        if ready {
            return Ok(());
        }
        let log = self.place.node(&self.spec.control_plane().name).log("kube-apiserver");
        last.map(drop)
            .with_context(|| format!("the API server is not ready; its log: {}", log.display()))
    }

    /// Waits until the nodes called `names` have registered.
    fn await_nodes(&self, names: &[&str]) -> Result<()> {
        let mut last = Ok(String::new());
        let there = wait_until(PATIENCE, || {
            last = self.kubectl(&[&["get", "node"], names].concat());
            last.is_ok()
        });
        match there {
            true => Ok(()),
            false => last
                .map(drop)
                .with_context(|| format!("nodes have not registered; logs: {}", self.place.dir().display())),
        }
    }

    /// Applies a manifest.
    fn apply(&self, manifest: &str) -> Result<()> {
        let mut kubectl = self.kubectl_command(&["apply", "-f", "-"]);
        kubectl
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut kubectl = kubectl.spawn()?;
        let mut stdin = kubectl.stdin.take().context("kubectl's standard input")?;
        stdin.write_all(manifest.as_bytes())?;
        drop(stdin);
        let out = kubectl.wait_with_output()?;
        if !out.status.success() {
            bail!("`kubectl apply`: {}", String::from_utf8_lossy(&out.stderr).trim());
        }
        Ok(())
    }

    /// What an operator adds to Node objects: the role, and the topology's annotations.
    fn dress_nodes(&self) -> Result<()> {
        let master = self.spec.control_plane().name.as_str();
        self.kubectl(&["label", "node", master, "node-role.kubernetes.io/control-plane="])?;
        for node in &self.spec.nodes {
            let pairs: Vec<String> = node.annotations.iter().map(|(k, v)| format!("{k}={v}")).collect();
            if !pairs.is_empty() {
                let pairs: Vec<&str> = pairs.iter().map(String::as_str).collect();
                self.kubectl(&[&["annotate", "--overwrite", "node", &node.name], pairs.as_slice()].concat())?;
            }
        }
        Ok(())
    }
}

/// By which addresses others reach a node: those it would itself send from, which its default routes say.
fn addresses(lab: &Lab, node: &str) -> Result<Vec<IpAddr>> {
    let state = lab.node(node)?;
    let mut found = Vec::new();
    // Addresses for documentation: no topology routes them but by its default.
    for (family, far) in [("-4", "192.0.2.1"), ("-6", "2001:db8::1")] {
        let mut command = lab.command(state, "ip");
        command
            .args(["-j", family, "route", "get", far])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let out = lab.spawn(state, &mut command)?.wait_with_output()?;
        if out.status.success() {
            let answer: Value = serde_json::from_slice(&out.stdout).context("the answer of ip")?;
            found.extend(answer[0]["prefsrc"].as_str().and_then(|a| a.parse::<IpAddr>().ok()));
        }
    }
    Ok(found)
}
