//! Deploying a lab: all of it, or nothing.

use std::fs::{self, File};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::destroy::clear;
use crate::error::LabError;
use crate::process::ProcessId;
use crate::state::{LabState, Lock, NodeState, Phase, VERSION, labs_dir};
use crate::{Lab, start, wiring};
use margay_clab::{NodePlan, Plan};

/// A lab just deployed.
#[derive(Debug)]
pub struct Deployed {
    /// The lab.
    pub lab: Lab,
    /// What the file asks for that has no effect here, and `exec` commands that failed (as containerlab, deploy goes
    /// on after those).
    pub warnings: Vec<String>,
    /// How long it took.
    pub elapsed: Duration,
}

/// Deploys the lab that `file` describes. With `reconfigure` a deployed lab of that name is destroyed first. When
/// anything fails, what was made is removed again.
pub fn deploy(file: &Path, reconfigure: bool) -> Result<Deployed, LabError> {
    let begun = Instant::now();
    let labs = labs_dir();
    let mut plan = Plan::load(file, &labs)?;
    if !nix::unistd::geteuid().is_root() {
        return Err(LabError::NotRoot);
    }
    let lock = Lock::take(&labs, &plan.name)?;
    let dir = labs.join(&plan.name);
    let complete = LabState::read(&dir).ok().flatten().is_some_and(|s| is_complete(&s));
    if complete && !reconfigure {
        return Err(LabError::AlreadyDeployed(plan.name));
    }
    clear(&dir)?;
    let outcome = build(&plan, &dir);
    match outcome {
        Ok((lab, failed)) => {
            plan.warnings.extend(failed);
            Ok(Deployed {
                lab,
                warnings: plan.warnings,
                elapsed: begun.elapsed(),
            })
        }
        Err(error) => {
            let left = clear(&dir);
            lock.remove(&labs, &plan.name);
            match left {
                Ok(()) => Err(error),
                Err(left) => Err(LabError::step(
                    error.to_string(),
                    format!("and removing it failed: {left}"),
                )),
            }
        }
    }
}

fn is_complete(state: &LabState) -> bool {
    state.phase == Phase::Up && state.nodes.iter().all(|n| n.process.is_some_and(ProcessId::alive))
}

fn build(plan: &Plan, dir: &Path) -> Result<(Lab, Vec<String>), LabError> {
    fs::create_dir_all(dir.join("nodes")).map_err(|e| LabError::io("making the lab's directory", e))?;
    let dir = dir
        .canonicalize()
        .map_err(|e| LabError::io("making the lab's directory", e))?;
    let mut state = initial_state(plan);
    state.write(&dir)?;
    let mgmt = start::mgmt(&dir)?;
    state.mgmt_process = Some(mgmt);
    let processes = for_each_node(plan, |node| start::node(plan, node, &dir))?;
    for (node, process) in state.nodes.iter_mut().zip(&processes) {
        node.process = Some(*process);
    }
    state.write(&dir)?;
    wiring::links(plan, mgmt, &processes)?;
    let lab = Lab {
        dir: dir.clone(),
        state,
    };
    let failed = for_each_node(plan, |node| {
        let process = lab
            .node(&node.name)?
            .process
            .ok_or_else(|| LabError::NodeDead(node.name.clone()))?;
        wiring::node(plan, node, process)?;
        start_programs(&lab, node)?;
        run_exec(&lab, node)
    })?;
    let mut lab = lab;
    lab.state.phase = Phase::Up;
    lab.state.write(&dir)?;
    Ok((lab, failed.concat()))
}

fn initial_state(plan: &Plan) -> LabState {
    let nodes = plan
        .nodes
        .iter()
        .map(|n| NodeState {
            name: n.name.clone(),
            long_name: n.long_name.clone(),
            kind: n.kind,
            image: n.image.clone(),
            process: None,
            mgmt_ipv4: n.mgmt.map(|m| m.0),
            mgmt_ipv6: n.mgmt.map(|m| m.1),
            labels: n.labels.clone(),
            env: n.env.clone(),
        })
        .collect();
    LabState {
        version: VERSION,
        name: plan.name.clone(),
        topology: plan.file.clone(),
        phase: Phase::Deploying,
        mgmt: plan.mgmt.clone(),
        mgmt_process: None,
        nodes,
    }
}

/// Does `work` for all nodes at once; the first error in the order of the file is the answer.
fn for_each_node<T: Send>(
    plan: &Plan,
    work: impl Fn(&NodePlan) -> Result<T, LabError> + Sync,
) -> Result<Vec<T>, LabError> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = plan.nodes.iter().map(|node| scope.spawn(|| work(node))).collect();
        let results: Vec<_> = threads
            .into_iter()
            .map(|t| {
                t.join()
                    .unwrap_or_else(|_| Err(LabError::step("deploying a node", "its thread panicked")))
            })
            .collect();
        results.into_iter().collect()
    })
}

/// Starts what the node's image runs, or the command that replaces it.
fn start_programs(lab: &Lab, node: &NodePlan) -> Result<(), LabError> {
    let state = lab.node(&node.name)?;
    let what = format!("starting {} in node {}", node.image, node.name);
    let path = lab.dir.join("log").join(format!("{}.log", node.name));
    File::create(&path).map_err(|e| LabError::io(what.clone(), e))?;
    if let Some(script) = node.recipe.prepare_script() {
        run_script(lab, state, script, &path, &format!("preparing node {}", node.name))?;
    }
    if let Some(words) = &node.command {
        let (program, args) = words
            .split_first()
            .ok_or_else(|| LabError::step(what.clone(), "empty command"))?;
        let (log, errors) = append(&path).map_err(|e| LabError::io(what, e))?;
        let mut command = lab.command(state, program);
        let mut child = lab.spawn(
            state,
            command.args(args).stdin(Stdio::null()).stdout(log).stderr(errors),
        )?;
        std::thread::spawn(move || child.wait());
        return Ok(());
    }
    let Some(script) = node.recipe.start_script() else {
        return Ok(());
    };
    run_script(lab, state, script, &path, &what)
}

/// Runs `script` in the node to its end; what it prints goes to the file at `log`, whose last lines tell of a failure.
fn run_script(lab: &Lab, node: &NodeState, script: &str, log: &Path, what: &str) -> Result<(), LabError> {
    let failed = |e| LabError::io(what, e);
    let (out, errors) = append(log).map_err(failed)?;
    let mut command = lab.command(node, "/bin/sh");
    command
        .args(["-c", script])
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(errors);
    let status = lab.spawn(node, &mut command)?.wait().map_err(failed)?;
    if status.success() {
        return Ok(());
    }
    let told = fs::read_to_string(log).unwrap_or_default();
    let last: Vec<&str> = told.lines().rev().take(5).collect();
    Err(LabError::step(
        what,
        last.into_iter().rev().collect::<Vec<_>>().join("; "),
    ))
}

/// The file at `log`, to be written to its end, for standard output and for errors.
fn append(log: &Path) -> std::io::Result<(File, File)> {
    let out = File::options().create(true).append(true).open(log)?;
    let errors = out.try_clone()?;
    Ok((out, errors))
}

/// Runs the node's `exec` commands in order; a failing one is told and the next one runs.
fn run_exec(lab: &Lab, node: &NodePlan) -> Result<Vec<String>, LabError> {
    let mut failed = Vec::new();
    for words in &node.exec {
        let argv: Vec<&str> = words.iter().map(String::as_str).collect();
        let told = match lab.exec(&node.name, &argv) {
            Ok(out) if out.status.success() => continue,
            Ok(out) => format!("{} {}", out.status, String::from_utf8_lossy(&out.stderr).trim()),
            Err(e) => e.to_string(),
        };
        failed.push(format!(
            "node {}: exec `{}` failed: {}",
            node.name,
            words.join(" "),
            told.trim()
        ));
    }
    Ok(failed)
}
