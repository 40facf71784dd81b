//! Nodes of a topology: definitions combined, checked and resolved.

use std::path::{Component, Path, PathBuf};

use crate::fault::Findings;
use crate::fields::{Layers, Text};
use crate::images::{self, Recipe};
use crate::plan::{Bind, Definitions, NodeKind, NodePlan};
use crate::words;
use crate::yaml::Mark;

/// What resolving a node needs to know of its lab.
pub(crate) struct Context<'a> {
    pub(crate) lab: &'a str,
    pub(crate) prefix: &'a str,
    /// Directory of the topology file.
    pub(crate) dir: &'a Path,
    /// State directory of the lab.
    pub(crate) lab_dir: PathBuf,
}

/// Resolves every node; nodes that are faulty beyond use are left out.
pub(crate) fn read(definitions: &Definitions, context: &Context<'_>, findings: &mut Findings) -> Vec<NodePlan> {
    definitions
        .nodes
        .iter()
        .filter_map(|(name, mark, _)| node(name, *mark, definitions, context, findings))
        .collect()
}

fn node(
    name: &str,
    mark: Mark,
    definitions: &Definitions,
    context: &Context<'_>,
    findings: &mut Findings,
) -> Option<NodePlan> {
    let path = format!("topology.nodes.{name}");
    let fits = name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c));
    if !fits {
        findings.fault(mark, &path, "cannot be a node's name; use letters, digits, - and _");
    }
    let layers = layers(name, definitions);
    let kind = kind(&layers, mark, &path, findings);
    let (image, recipe) = match kind {
        Some(NodeKind::Linux) => image(&layers, mark, &path, findings),
        Some(NodeKind::Bridge) | None => (String::new(), Recipe::Tools),
    };
    let resolver = Resolver { name, context };
    let mut binds = Vec::new();
    for text in layers.list("binds") {
        if let Some(bind) = resolver.bind(text, &path, findings) {
            binds.retain(|b: &Bind| b.target != bind.target);
            binds.push(bind);
        }
    }
    if let Some(text) = layers.text("startup-config") {
        binds.extend(resolver.startup_config(text, recipe, &binds, &path, findings));
    }
    let exec = layers
        .list("exec")
        .iter()
        .filter_map(|t| resolver.words(t, &path, "exec", findings))
        .collect();
    let command = resolver.command(&layers, &path, findings);
    let sysctls = layers.map("sysctls");
    for (key, text) in &sysctls {
        if !Path::new("/proc/sys").join(key.replace('.', "/")).exists() {
            findings.fault(
                text.mark,
                format!("{path}.sysctls.{key}"),
                "this kernel has no such setting; check its spelling with `sysctl -a`",
            );
        }
    }
    let managed = network_mode(&layers, &path, findings);
    let plain = |map: std::collections::BTreeMap<String, Text>| {
        map.into_iter().map(|(k, t)| (k, resolver.magic(&t.value))).collect()
    };
    let unassigned = (std::net::Ipv4Addr::UNSPECIFIED, std::net::Ipv6Addr::UNSPECIFIED);
    Some(NodePlan {
        name: name.to_owned(),
        long_name: long_name(context, name),
        kind: kind?,
        image,
        recipe,
        mgmt: (managed && kind? == NodeKind::Linux).then_some(unassigned),
        binds,
        env: plain(layers.map("env")),
        exec,
        sysctls: plain(sysctls),
        labels: plain(layers.map("labels")),
        command,
    })
}

fn layers<'a>(name: &str, definitions: &'a Definitions) -> Layers<'a> {
    let Some((_, _, own)) = definitions.nodes.iter().find(|(n, ..)| n == name) else {
        return Layers(Vec::new());
    };
    let defaults = &definitions.defaults;
    let of = |key: &str, layers: &[&'a crate::fields::Layer]| {
        layers
            .iter()
            .find_map(|l| l.text(key))
            .map(|t| t.value.clone())
            .unwrap_or_default()
    };
    let group = definitions.groups.get(&of("group", &[own, defaults]));
    let kind = match group {
        Some(group) => of("kind", &[own, group, defaults]),
        None => of("kind", &[own, defaults]),
    };
    Layers(
        [Some(own), group, definitions.kinds.get(&kind), Some(defaults)]
            .into_iter()
            .flatten()
            .collect(),
    )
}

fn kind(layers: &Layers<'_>, mark: Mark, path: &str, findings: &mut Findings) -> Option<NodeKind> {
    let field = format!("{path}.kind");
    let Some(text) = layers.text("kind") else {
        findings.fault(
            mark,
            field,
            "missing; write `kind: linux`, here or under topology.defaults",
        );
        return None;
    };
    match text.value.as_str() {
        "linux" => return Some(NodeKind::Linux),
        "bridge" => return Some(NodeKind::Bridge),
        "host" => findings.fault(
            text.mark,
            field,
            "kind host is refused: a lab here never touches the host's own network; use kind linux",
        ),
        "ext-container" => findings.fault(
            text.mark,
            field,
            "kind ext-container is refused: there is no container runtime here; use kind linux",
        ),
        "k8s-kind" => findings.fault(
            text.mark,
            field,
            "kind k8s-kind is refused: it needs Docker; label linux nodes margay.io/kubernetes-node instead",
        ),
        other => findings.fault(
            text.mark,
            field,
            format!(
                "unknown kind {other:?}; known here: linux, bridge (a router is kind linux with an image such as \
                 quay.io/frrouting/frr; vendors' kinds need containerlab itself)"
            ),
        ),
    }
    None
}

fn image(layers: &Layers<'_>, mark: Mark, path: &str, findings: &mut Findings) -> (String, Recipe) {
    let field = format!("{path}.image");
    let Some(text) = layers.text("image") else {
        findings.fault(
            mark,
            field,
            "missing; a linux node needs an image such as nicolaka/netshoot",
        );
        return (String::new(), Recipe::Tools);
    };
    let Some(recipe) = images::recipe(&text.value) else {
        findings.fault(
            text.mark,
            field,
            format!(
                "no program is known for image {:?}; known here: {}",
                text.value,
                images::known()
            ),
        );
        return (text.value.clone(), Recipe::Tools);
    };
    if let Some((program, package)) = recipe.missing() {
        findings.fault(
            text.mark,
            field,
            format!(
                "image {:?} runs {program}, which is not installed: apt-get install {package}",
                text.value
            ),
        );
    }
    (text.value.clone(), recipe)
}

/// Whether the node has a management interface.
fn network_mode(layers: &Layers<'_>, path: &str, findings: &mut Findings) -> bool {
    match layers.text("network-mode").map(|t| (t.mark, t.value.as_str())) {
        None | Some((_, "" | "bridge")) => true,
        Some((_, "none")) => false,
        Some((mark, other)) => {
            findings.fault(
                mark,
                format!("{path}.network-mode"),
                format!("{other:?} is refused: a node has its own network here; use bridge (the default) or none"),
            );
            false
        }
    }
}

fn long_name(context: &Context<'_>, node: &str) -> String {
    match context.prefix {
        "" => node.to_owned(),
        "__lab-name" => format!("{}-{node}", context.lab),
        prefix => format!("{prefix}-{}-{node}", context.lab),
    }
}

struct Resolver<'a> {
    name: &'a str,
    context: &'a Context<'a>,
}

impl Resolver<'_> {
    /// Replaces containerlab's magic variables.
    fn magic(&self, text: &str) -> String {
        let lab_dir = &self.context.lab_dir;
        text.replace("__clabNodeName__", self.name)
            .replace(
                "__clabNodeDir__",
                &lab_dir.join("nodes").join(self.name).to_string_lossy(),
            )
            .replace("__clabDir__", &lab_dir.to_string_lossy())
    }

    fn words(&self, text: &Text, path: &str, field: &str, findings: &mut Findings) -> Option<Vec<String>> {
        match words::split(&self.magic(&text.value)) {
            Ok(words) if !words.is_empty() => Some(words),
            Ok(_) => None,
            Err(why) => {
                findings.fault(
                    text.mark,
                    format!("{path}.{field}"),
                    format!("{:?} {why}; close it", text.value),
                );
                None
            }
        }
    }

    /// `entrypoint` followed by `cmd`, when either is given.
    fn command(&self, layers: &Layers<'_>, path: &str, findings: &mut Findings) -> Option<Vec<String>> {
        let mut command = Vec::new();
        for field in ["entrypoint", "cmd"] {
            if let Some(text) = layers.text(field) {
                command.extend(self.words(text, path, field, findings).unwrap_or_default());
            }
        }
        (!command.is_empty()).then_some(command)
    }

    fn bind(&self, text: &Text, path: &str, findings: &mut Findings) -> Option<Bind> {
        let field = format!("{path}.binds");
        let value = self.magic(&text.value);
        let mut parts = value.split(':');
        let (Some(source), Some(target), options, None) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            findings.fault(
                text.mark,
                field,
                format!("{value:?} is not a bind; write host-path:node-path[:ro]"),
            );
            return None;
        };
        if !target.starts_with('/') || Path::new(target).components().any(|c| c == Component::ParentDir) {
            findings.fault(
                text.mark,
                field,
                format!("{target:?} must be an absolute path in the node"),
            );
            return None;
        }
        let source = self.source(source);
        if !source.starts_with(&self.context.lab_dir) && !source.exists() {
            findings.fault(
                text.mark,
                field,
                format!("{} does not exist; create it or drop the bind", source.display()),
            );
            return None;
        }
        let read_only = options.is_some_and(|o| o.split(',').any(|o| o == "ro"));
        Some(Bind {
            source,
            target: PathBuf::from(target),
            read_only,
        })
    }

    /// A path of the file's author: `~` is the home directory, relative paths start at the topology file.
    fn source(&self, path: &str) -> PathBuf {
        match path.strip_prefix("~/") {
            Some(rest) => PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/root".into())).join(rest),
            None => self.context.dir.join(path),
        }
    }

    /// A router's `startup-config` is its configuration file, unless a bind already supplies that.
    fn startup_config(
        &self,
        text: &Text,
        recipe: Recipe,
        binds: &[Bind],
        path: &str,
        findings: &mut Findings,
    ) -> Option<Bind> {
        let field = format!("{path}.startup-config");
        let paths = recipe.config_paths();
        let Some(target) = paths.first() else {
            findings.fault(text.mark, field, "this image reads no configuration; use binds or exec");
            return None;
        };
        let source = self.source(&self.magic(&text.value));
        if !source.is_file() {
            findings.fault(
                text.mark,
                field,
                format!("{} is not a file; create it", source.display()),
            );
            return None;
        }
        if binds.iter().any(|b| paths.iter().any(|p| b.target == Path::new(p))) {
            findings.fault(
                text.mark,
                field,
                format!("a bind supplies {target} too; keep one of them"),
            );
            return None;
        }
        Some(Bind {
            source,
            target: PathBuf::from(target),
            read_only: true,
        })
    }
}
