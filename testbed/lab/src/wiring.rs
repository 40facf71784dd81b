//! Links and management addresses, made by one `ip -batch` for the lab and one per node.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sched::CloneFlags;

use crate::enter::{Kind, Target, spawn_in};
use crate::error::LabError;
use crate::process::ProcessId;
use margay_clab::{NodeKind, NodePlan, Plan};

const MGMT_BRIDGE: &str = "mgmt";

/// Makes every link between the namespaces of `processes` (one per node of the plan, in its order). Both ends are
/// created where they belong: no interface passes through the host's namespace.
pub(crate) fn links(plan: &Plan, mgmt: ProcessId, processes: &[ProcessId]) -> Result<(), LabError> {
    let mut batch = Batch::default();
    let network = &plan.mgmt;
    batch.add(format!(
        "link add {MGMT_BRIDGE} mtu {} type bridge forward_delay 0",
        network.mtu
    ));
    batch.add(format!(
        "address add {}/{} dev {MGMT_BRIDGE}",
        network.ipv4_gw,
        network.ipv4.prefix()
    ));
    if ipv6() {
        batch.add(format!(
            "address add {}/{} dev {MGMT_BRIDGE} nodad",
            network.ipv6_gw,
            network.ipv6.prefix()
        ));
    }
    batch.add(format!("link set {MGMT_BRIDGE} up"));
    batch.add("link set lo up".into());
    for (i, (node, process)) in plan.nodes.iter().zip(processes).enumerate() {
        if node.mgmt.is_some() {
            batch.add(format!(
                "link add clabmgmt{i} mtu {mtu} type veth peer name eth0 mtu {mtu} netns {}",
                process.pid,
                mtu = network.mtu
            ));
            batch.add(format!("link set clabmgmt{i} master {MGMT_BRIDGE} up"));
        }
    }
    let pid = |name: &str| plan.nodes.iter().position(|n| n.name == name).map(|i| processes[i].pid);
    for link in &plan.links {
        let [a, b] = &link.ends;
        let (Some(pid_a), Some(pid_b)) = (pid(&a.node), pid(&b.node)) else {
            continue;
        };
        batch.add(format!(
            "link add name {} netns {pid_a} mtu {mtu} type veth peer name {} netns {pid_b} mtu {mtu}",
            a.interface,
            b.interface,
            mtu = link.mtu
        ));
    }
    batch.run(mgmt, "making the links")
}

/// Brings up the interfaces of one node and gives it its management addresses.
pub(crate) fn node(plan: &Plan, node: &NodePlan, process: ProcessId) -> Result<(), LabError> {
    let mut batch = Batch::default();
    batch.add("link set lo up".into());
    if node.kind == NodeKind::Bridge {
        batch.add(format!(
            "link add {} type bridge forward_delay 0",
            segment_name(&node.name)
        ));
        batch.add(format!("link set {} up", segment_name(&node.name)));
    }
    let ends = plan.links.iter().flat_map(|link| link.ends.iter().zip(&link.setup));
    for (end, setup) in ends.filter(|(end, _)| end.node == node.name) {
        if node.kind == NodeKind::Bridge {
            batch.add(format!(
                "link set {} master {}",
                end.interface,
                segment_name(&node.name)
            ));
        }
        if let Some(mac) = &setup.mac {
            batch.add(format!("link set {} address {mac}", end.interface));
        }
        for address in setup.addresses.iter().filter(|a| a.is_ipv4() || ipv6()) {
            let nodad = if address.is_ipv6() { " nodad" } else { "" };
            batch.add(format!("address add {address} dev {}{nodad}", end.interface));
        }
        batch.add(format!("link set {} up", end.interface));
    }
    if let Some((v4, v6)) = node.mgmt {
        let network = &plan.mgmt;
        batch.add(format!("address add {v4}/{} dev eth0", network.ipv4.prefix()));
        if ipv6() {
            batch.add(format!("address add {v6}/{} dev eth0 nodad", network.ipv6.prefix()));
        }
        batch.add("link set eth0 up".into());
        batch.add(format!("route add default via {} dev eth0", network.ipv4_gw));
        if ipv6() {
            batch.add(format!("route add default via {} dev eth0", network.ipv6_gw));
        }
    }
    batch.run(process, &format!("wiring node {}", node.name))
}

/// A bridge is named as its node, as far as the kernel takes names.
fn segment_name(node: &str) -> &str {
    node.get(..15).unwrap_or(node)
}

fn ipv6() -> bool {
    Path::new("/proc/sys/net/ipv6").exists()
}

#[derive(Default)]
struct Batch(Vec<String>);

impl Batch {
    fn add(&mut self, line: String) {
        self.0.push(line);
    }

    /// Runs the lines in the network namespace of `process`; the error names the one that failed.
    fn run(&self, process: ProcessId, what: &str) -> Result<(), LabError> {
        let failed = |e| LabError::io(what.to_owned(), e);
        let target = Target::of(process.pid, &[Kind::Net]).map_err(failed)?;
        let mut command = Command::new("ip");
        command
            .args(["-batch", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = spawn_in(&target, CloneFlags::empty(), &mut command).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => LabError::step(what, "`ip` is not installed: apt-get install iproute2"),
            _ => failed(e),
        })?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all((self.0.join("\n") + "\n").as_bytes()).map_err(failed)?;
        }
        let out = child.wait_with_output().map_err(failed)?;
        if out.status.success() {
            return Ok(());
        }
        let told = String::from_utf8_lossy(&out.stderr);
        let line = told
            .rsplit_once("-:")
            .and_then(|(_, n)| n.trim().parse::<usize>().ok())
            .and_then(|n| self.0.get(n - 1))
            .map_or("", String::as_str);
        Err(LabError::step(
            what,
            format!("`ip {line}` says: {}", told.lines().next().unwrap_or_default()),
        ))
    }
}
