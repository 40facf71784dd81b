//! A topology file, checked and resolved: everything that deploy needs, and nothing that can still be wrong.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};
use serde::{Deserialize, Serialize};

use crate::fault::{Faults, Findings};
use crate::fields::Layer;
use crate::images::Recipe;
use crate::yaml::{Mark, Yaml};
use crate::{expand, mgmt, nodes, schema, wires, yaml};

/// A lab as its topology file describes it.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Name of the lab.
    pub name: String,
    /// The topology file, absolute.
    pub file: PathBuf,
    /// The management network.
    pub mgmt: Mgmt,
    /// Nodes in the order of the file.
    pub nodes: Vec<NodePlan>,
    /// Links in the order of the file.
    pub links: Vec<LinkPlan>,
    /// What the file asks for that has no effect here.
    pub warnings: Vec<String>,
}

/// The management network, to which every node's `eth0` belongs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Mgmt {
    /// IPv4 subnet.
    pub ipv4: Ipv4Network,
    /// Its gateway: the address of the lab's own end.
    pub ipv4_gw: Ipv4Addr,
    /// IPv6 subnet.
    pub ipv6: Ipv6Network,
    /// Its gateway.
    pub ipv6_gw: Ipv6Addr,
    /// MTU in bytes.
    pub mtu: u32,
}

/// What a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeKind {
    /// A machine with namespaces of its own.
    Linux,
    /// An Ethernet segment: a Linux bridge whose ports are the link ends.
    Bridge,
}

/// One node, resolved.
#[derive(Debug, Clone)]
pub struct NodePlan {
    /// Name in the file.
    pub name: String,
    /// Name that containerlab would give the container.
    pub long_name: String,
    /// Name that the node has for itself.
    pub hostname: String,
    /// Machine or bridge.
    pub kind: NodeKind,
    /// Image as written; empty for a bridge.
    pub image: String,
    /// What the image runs.
    pub recipe: Recipe,
    /// Management addresses; `None` for bridges and `network-mode: none`.
    pub mgmt: Option<(Ipv4Addr, Ipv6Addr)>,
    /// Files and directories of the host that the node sees.
    pub binds: Vec<Bind>,
    /// Files that the node starts with and may change, by their paths in it.
    pub files: BTreeMap<PathBuf, String>,
    /// Environment of its commands.
    pub env: BTreeMap<String, String>,
    /// Commands run once the whole lab is wired.
    pub exec: Vec<Vec<String>>,
    /// Kernel settings, set before the links are made.
    pub sysctls: BTreeMap<String, String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Replaces what the image would run.
    pub command: Option<Vec<String>>,
}

/// A file or directory of the host, seen in a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bind {
    /// Absolute path on the host.
    pub source: PathBuf,
    /// Absolute path in the node.
    pub target: PathBuf,
    /// Whether the node may not write it.
    pub read_only: bool,
}

/// A point-to-point link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkPlan {
    /// Both ends.
    pub ends: [End; 2],
    /// How each of them is set up.
    pub setup: [EndSetup; 2],
    /// MTU in bytes.
    pub mtu: u32,
}

/// What an end of a link is given beyond its name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EndSetup {
    /// Hardware address; the kernel's choice when absent.
    pub mac: Option<String>,
    /// Addresses with the length of their prefix.
    pub addresses: Vec<IpNetwork>,
}

/// One end of a link.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct End {
    /// Node of the lab.
    pub node: String,
    /// Interface in it.
    pub interface: String,
}

/// Why a topology file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The file could not be read.
    #[error("{}: cannot read the topology file: {error}; give its path with -t", file.display())]
    Unreadable {
        /// As the user named it.
        file: PathBuf,
        /// What the system says.
        error: std::io::Error,
    },
    /// The file has faults.
    #[error(transparent)]
    Faults(#[from] Faults),
}

impl Plan {
    /// Reads, expands and checks `file`. All faults are reported together; nothing is created.
    /// `labs` is the directory under which labs keep their state (for `__clabDir__` and `__clabNodeDir__`).
    pub fn load(file: &Path, labs: &Path) -> Result<Plan, PlanError> {
        Ok(Self::of_text(&read(file)?, file, labs)?)
    }

    /// As [`Plan::load`], of a file that has this text.
    pub fn of_text(text: &str, file: &Path, labs: &Path) -> Result<Plan, Faults> {
        let absolute = file.canonicalize().unwrap_or_else(|_| file.to_owned());
        let mut findings = Findings::default();
        let plan = Self::check(text, &absolute, labs, &mut findings);
        match plan {
            Some(plan) if findings.faults.is_empty() => Ok(plan),
            _ => {
                findings.faults.sort_by_key(|f| (f.line, f.column));
                Err(Faults {
                    file: file.to_owned(),
                    faults: findings.faults,
                })
            }
        }
    }

    /// The lab's name in `file`, which may otherwise be faulty: enough to destroy what it once described.
    pub fn lab_name(file: &Path) -> Result<String, PlanError> {
        let text = read(file)?;
        let mut findings = Findings::default();
        let name = parse(&text, &mut findings).and_then(|doc| name(&doc, &mut findings));
        name.ok_or_else(|| {
            Faults {
                file: file.to_owned(),
                faults: findings.faults,
            }
            .into()
        })
    }

    fn check(text: &str, file: &Path, labs: &Path, findings: &mut Findings) -> Option<Plan> {
        let doc = parse(text, findings)?;
        schema::FILE.read(&doc, "", findings);
        let name = name(&doc, findings);
        let prefix = doc
            .get("prefix")
            .map_or_else(|| "clab".to_owned(), |p| p.text().unwrap_or_default());
        let mgmt = mgmt::read(doc.get("mgmt"), findings);
        let Some(topology) = doc.get("topology") else {
            findings.fault(doc.mark, "topology", "missing; a lab needs a topology with nodes");
            return None;
        };
        schema::TOPOLOGY.read(topology, "topology", findings);
        let definitions = Definitions::read(topology, findings);
        let name = name?;
        let context = nodes::Context {
            lab: &name,
            prefix: &prefix,
            dir: file.parent().unwrap_or(Path::new("/")),
            lab_dir: labs.join(&name),
        };
        let mut nodes = nodes::read(&definitions, &context, findings);
        mgmt::assign(&mgmt, &definitions, &mut nodes, findings);
        let names: Vec<&str> = definitions.nodes.iter().map(|(name, ..)| name.as_str()).collect();
        let links = wires::read(topology.get("links"), &nodes, &names, findings);
        Some(Plan {
            name: name.clone(),
            file: file.to_owned(),
            mgmt,
            nodes,
            links,
            warnings: std::mem::take(&mut findings.warnings),
        })
    }

    /// The node called `name`.
    pub fn node(&self, name: &str) -> Option<&NodePlan> {
        self.nodes.iter().find(|n| n.name == name)
    }
}

/// The node definitions of a topology, as written.
pub(crate) struct Definitions {
    pub(crate) defaults: Layer,
    pub(crate) kinds: BTreeMap<String, Layer>,
    pub(crate) groups: BTreeMap<String, Layer>,
    pub(crate) nodes: Vec<(String, Mark, Layer)>,
}

impl Definitions {
    fn read(topology: &Yaml, findings: &mut Findings) -> Self {
        let mut section = |key: &str| -> Vec<(String, Mark, Layer)> {
            let path = format!("topology.{key}");
            let Some(yaml) = topology.get(key) else {
                return Vec::new();
            };
            let Some(entries) = yaml.entries() else {
                findings.fault(
                    yaml.mark,
                    &path,
                    format!("is {}; write a mapping of names", yaml.kind()),
                );
                return Vec::new();
            };
            entries
                .iter()
                .map(|(k, v)| {
                    (
                        k.name.clone(),
                        k.mark,
                        Layer::read(v, &format!("{path}.{}", k.name), findings),
                    )
                })
                .collect()
        };
        let kinds = section("kinds").into_iter().map(|(n, _, l)| (n, l)).collect();
        let groups = section("groups").into_iter().map(|(n, _, l)| (n, l)).collect();
        let nodes = section("nodes");
        if nodes.is_empty() {
            findings.fault(
                topology.mark,
                "topology.nodes",
                "is empty; a lab needs at least one node",
            );
        }
        let defaults = topology
            .get("defaults")
            .map(|d| Layer::read(d, "topology.defaults", findings))
            .unwrap_or_default();
        Definitions {
            defaults,
            kinds,
            groups,
            nodes,
        }
    }
}

fn read(file: &Path) -> Result<String, PlanError> {
    std::fs::read_to_string(file).map_err(|error| PlanError::Unreadable {
        file: file.to_owned(),
        error,
    })
}

/// Expands and reads the text of a file.
fn parse(text: &str, findings: &mut Findings) -> Option<Yaml> {
    let expanded = expand::expand(text, environment)
        .map_err(|unclosed| {
            let mark = Mark {
                line: unclosed.line,
                column: 1,
            };
            findings.fault(mark, "", "has a ${ without its } on this line; close it, or write $${");
        })
        .ok()?;
    let template = match text.contains("{{") {
        true => " (Go templates are not executed here: render the file first)",
        false => "",
    };
    yaml::parse(&expanded)
        .map_err(|message| findings.fault(Mark::default(), "", format!("not YAML: {message}{template}")))
        .ok()
}

fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn name(doc: &Yaml, findings: &mut Findings) -> Option<String> {
    let Some(yaml) = doc.get("name") else {
        findings.fault(doc.mark, "name", "missing; every lab needs a name of its own");
        return None;
    };
    let name = yaml.text().unwrap_or_default();
    let fits = name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.len() <= 60
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c));
    if !fits {
        findings.fault(
            yaml.mark,
            "name",
            format!("{name:?} cannot be a lab's name; use letters, digits, - and _"),
        );
        return None;
    }
    Some(name)
}
