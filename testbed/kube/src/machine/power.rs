//! Switching machines on and off, and entering them.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use anyhow::{Context, Result, anyhow, bail};
use margay_clab::Plan;
use margay_lab::enter::{Kind, Target, spawn_in};
use margay_lab::process::{ProcessId, find_program, kill_and_wait};
use margay_lab::state::replace_file;
use margay_lab::{Lab, NodeState};
use nix::sched::{CloneFlags, unshare};

use super::client::{Request, UnitStatus, ask};
use super::{MachineSpec, PATH, cgroups, init, network};
use crate::place::NodePlace;

/// Arguments of the hidden subcommand: `machine-power <machine file> <cgroups file> <name>`.
pub const SUBCOMMAND: &str = "machine-power";

/// All of a machine; its root comes last, since paths mean something else after it.
const MACHINE: [Kind; 6] = [Kind::Cgroup, Kind::Ipc, Kind::Uts, Kind::Net, Kind::Pid, Kind::Mount];

/// The machine of one node.
#[derive(Debug, Clone)]
pub struct Machine {
    lab: Lab,
    node: NodeState,
    place: NodePlace,
}

impl Machine {
    /// The machine of the lab's node called `name`, on or off.
    ///
    /// # Errors
    /// When the lab has no such node.
    pub fn new(lab: &Lab, name: &str, place: NodePlace) -> Result<Machine> {
        Ok(Machine {
            lab: lab.clone(),
            node: lab.node(name)?.clone(),
            place,
        })
    }

    /// The node's name.
    pub fn name(&self) -> &str {
        &self.node.name
    }

    /// Its first process, while it is on.
    pub fn process(&self) -> Option<ProcessId> {
        process(&self.place)
    }

    /// Switches it on: its network as the topology says, then its services.
    ///
    /// # Errors
    /// When it is on already, or what did not work.
    pub fn start(&self, spec: &MachineSpec) -> Result<()> {
        let name = &self.node.name;
        if self.process().is_some() {
            bail!("{name} is on already");
        }
        let cable = self.node.process.filter(|p| p.alive());
        let cable =
            cable.with_context(|| format!("node {name} of the lab is dead; `margay-lab kube down`, then up"))?;
        let first = !self.place.network_file().exists();
        if first {
            let settings = network::settings(&self.lab, &self.node)?;
            replace_file(&self.place.network_file(), &serde_json::to_vec_pretty(&settings)?)?;
        } else {
            self.plug_in()?;
        }
        fs::create_dir_all(self.place.scratch())?;
        replace_file(&self.place.machine_file(), &serde_json::to_vec_pretty(spec)?)?;
        cgroups::remove(&self.place.cgroups_file())?;
        let console = File::create(self.place.console())?;
        let mut command = Command::new(find_program("margay-lab").map_err(anyhow::Error::msg)?);
        command
            .arg(SUBCOMMAND)
            .args([self.place.machine_file(), self.place.cgroups_file()])
            .arg(self.place.unique_name())
            .current_dir("/")
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(console);
        // Below the node's processes: when the lab ends the node, the machine ends.
        let target = Target::of(cable.pid, &[Kind::Net, Kind::Pid])?;
        let mut child =
            spawn_in(&target, CloneFlags::empty(), &mut command).with_context(|| format!("switching on {name}"))?;
        let mut answer = String::new();
        BufReader::new(child.stdout.take().context("no answer")?).read_line(&mut answer)?;
        child.wait()?;
        let process = find(init::SUBCOMMAND, &self.place.machine_file().to_string_lossy());
        match (answer.trim_end(), process.first()) {
            ("ready", Some(process)) => {
                replace_file(&self.place.process_file(), &serde_json::to_vec(process)?)?;
                Ok(())
            }
            (why, _) => {
                let told = fs::read_to_string(self.place.console()).unwrap_or_default();
                bail!(
                    "switching on {name}: {} {}",
                    why.trim_start_matches("ready"),
                    told.trim()
                )
            }
        }
    }

    /// Switches it off as a power cut does: every process of it dies, its network is emptied, its disk stays.
    ///
    /// # Errors
    /// When something of it stays.
    pub fn stop(&self) -> Result<()> {
        kill(&self.place)?;
        if self.node.process.is_some_and(ProcessId::alive) {
            let text = fs::read(self.place.network_file()).context("how its network was before")?;
            let settings = serde_json::from_slice(&text)?;
            network::reset(&self.lab, &self.node, &self.ports()?, &settings)?;
        }
        Ok(())
    }

    /// A command in the machine: with its path, and with the cluster's own kubeconfig.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", PATH)
            .env("HOME", "/root")
            .env("KUBECONFIG", "/etc/kubernetes/admin.conf");
        if let Some(term) = std::env::var_os("TERM") {
            command.env("TERM", term);
        }
        command
    }

    /// Starts `command` in the machine.
    ///
    /// # Errors
    /// When it is off, or the command cannot be started.
    pub fn spawn(&self, command: &mut Command) -> Result<Child> {
        let process = self.on()?;
        let what = || format!("running {:?} on {}", command_name(command), self.node.name);
        let what = what();
        let target = Target::of(process.pid, &MACHINE).with_context(|| what.clone())?;
        spawn_in(&target, CloneFlags::empty(), command).context(what)
    }

    /// Runs `argv` in the machine to its end.
    ///
    /// # Errors
    /// When it cannot be started; that it fails is told by the output.
    pub fn exec(&self, argv: &[&str]) -> Result<Output> {
        let (program, args) = argv.split_first().context("no command is given")?;
        let mut command = self.command(program);
        command
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Ok(self.spawn(&mut command)?.wait_with_output()?)
    }

    /// How its services are.
    ///
    /// # Errors
    /// When it is off.
    pub fn status(&self) -> Result<Vec<UnitStatus>> {
        self.ask(&Request::Status)
    }

    /// Lets a service run that was stopped.
    ///
    /// # Errors
    /// When the machine is off, has no such service, or it does not start.
    pub fn start_unit(&self, unit: &str) -> Result<()> {
        self.ask(&Request::Start(unit.to_owned())).map(drop)
    }

    /// Ends a service, and keeps it so until it is started or the machine is.
    ///
    /// # Errors
    /// When the machine is off, has no such service, or it does not die.
    pub fn stop_unit(&self, unit: &str) -> Result<()> {
        self.ask(&Request::Stop(unit.to_owned())).map(drop)
    }

    /// Kills a service with SIGKILL; it comes back a second later.
    ///
    /// # Errors
    /// When the machine is off, or has no such service running.
    pub fn crash_unit(&self, unit: &str) -> Result<()> {
        self.ask(&Request::Crash(unit.to_owned())).map(drop)
    }

    /// Its folder on the host.
    pub fn place(&self) -> &NodePlace {
        &self.place
    }

    fn ask(&self, request: &Request) -> Result<Vec<UnitStatus>> {
        let process = self.on()?;
        ask(process.pid, request).with_context(|| self.node.name.clone())
    }

    fn on(&self) -> Result<ProcessId> {
        let name = &self.node.name;
        self.process()
            .with_context(|| format!("{name} is off; `margay-lab kube start {name}` switches it on"))
    }

    /// What the topology does to the node's network, once more: links up, then its `exec` commands.
    fn plug_in(&self) -> Result<()> {
        let plan = self.plan()?;
        let mut commands: Vec<Vec<String>> = vec![words("ip link set lo up")];
        commands.extend(
            self.ports()?
                .iter()
                .map(|port| words(&format!("ip link set {port} up"))),
        );
        commands.extend(plan.node(&self.node.name).map(|n| n.exec.clone()).unwrap_or_default());
        for command in commands {
            let argv: Vec<&str> = command.iter().map(String::as_str).collect();
            let out = self.lab.exec(&self.node.name, &argv)?;
            if !out.status.success() {
                bail!(
                    "{}: `{}`: {}",
                    self.node.name,
                    command.join(" "),
                    String::from_utf8_lossy(&out.stderr).trim()
                );
            }
        }
        Ok(())
    }

    /// Interfaces that the topology gives the node.
    fn ports(&self) -> Result<Vec<String>> {
        let plan = self.plan()?;
        let ends = plan.links.iter().flat_map(|link| &link.ends);
        let own = ends.filter(|end| end.node == self.node.name);
        let mut ports: Vec<String> = own.map(|end| end.interface.clone()).collect();
        if self.node.mgmt_ipv4.is_some() {
            ports.push("eth0".to_owned());
        }
        Ok(ports)
    }

    fn plan(&self) -> Result<Plan> {
        let labs = self.lab.dir.parent().unwrap_or(Path::new("/"));
        Ok(Plan::load(&self.lab.state.topology, labs)?)
    }
}

/// The first process of the machine in `place`, while it is on.
fn process(place: &NodePlace) -> Option<ProcessId> {
    let process: ProcessId = serde_json::from_slice(&fs::read(place.process_file()).ok()?).ok()?;
    process.alive().then_some(process)
}

/// Ends every process of the machine in `place`, also of one that was being switched on, and its control groups.
///
/// # Errors
/// When something stays.
pub(crate) fn kill(place: &NodePlace) -> Result<()> {
    let file = place.machine_file();
    let file = file.to_string_lossy();
    let mut processes: Vec<ProcessId> = process(place).into_iter().collect();
    for subcommand in [SUBCOMMAND, init::SUBCOMMAND] {
        processes.extend(find(subcommand, &file));
    }
    kill_and_wait(&processes).map_err(|e| anyhow!("{e}"))?;
    cgroups::remove(&place.cgroups_file())?;
    let _ = fs::remove_file(place.process_file());
    Ok(())
}

/// Processes started as `margay-lab <subcommand> … <file> …`.
fn find(subcommand: &str, file: &str) -> Vec<ProcessId> {
    let of = margay_lab::process::find_by_args;
    let by_file = of(&[file]);
    of(&[subcommand]).into_iter().filter(|p| by_file.contains(p)).collect()
}

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

fn command_name(command: &Command) -> String {
    command.get_program().to_string_lossy().into_owned()
}

/// The body of the hidden subcommand, run in the node's network and below its processes: goes into groups of the
/// machine's own and starts the machine's first process in namespaces of its own.
///
/// # Errors
/// When one of these fails.
pub fn run(machine: &Path, groups: &Path, name: &str) -> Result<()> {
    cgroups::join(name, groups)?;
    let fresh = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWCGROUP;
    unshare(fresh).context("making the machine's namespaces")?;
    Command::new(std::env::current_exe()?)
        .arg(init::SUBCOMMAND)
        .arg(machine)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .spawn()
        .context("starting the machine's first process")?;
    Ok(())
}
