//! Nodes of a topology: definitions combined, checked and resolved.

use std::collections::BTreeMap;
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
    // A kind that is refused is fault enough: what else the node has was meant for that kind.
    let (kind, native_frr) = kind?;
    let (image, recipe) = match (kind, native_frr) {
        (NodeKind::Linux, false) => image(&layers, mark, &path, findings),
        (NodeKind::Linux, true) => frr_image(&layers, mark, &path, findings),
        (NodeKind::Bridge, _) => (String::new(), Recipe::Tools),
    };
    let mut files = frr_files(&layers, native_frr, &path, findings);
    let resolver = Resolver { name, context };
    let mut binds = Vec::new();
    for text in layers.list("binds") {
        if let Some(bind) = resolver.bind(text, &path, findings) {
            binds.retain(|b: &Bind| b.target != bind.target);
            binds.push(bind);
        }
    }
    if let Some(text) = layers.text("startup-config") {
        if native_frr && text.value.contains('\n') {
            files.insert("/etc/frr/frr.conf".into(), resolver.magic(&text.value));
        } else {
            binds.extend(resolver.startup_config(text, recipe, &binds, &path, findings));
        }
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
    let env = layers.map("env");
    if let Some(text) = env.get("__IMPORT_ENVS") {
        findings.warn(
            text.mark,
            &format!("{path}.env.__IMPORT_ENVS"),
            "has no effect here: write the variables under env, as ${NAME}",
        );
    }
    let plain = |map: BTreeMap<String, Text>| map.into_iter().map(|(k, t)| (k, resolver.magic(&t.value))).collect();
    let unassigned = (std::net::Ipv4Addr::UNSPECIFIED, std::net::Ipv6Addr::UNSPECIFIED);
    Some(NodePlan {
        name: name.to_owned(),
        long_name: long_name(context, name),
        hostname: layers
            .text("hostname")
            .map_or_else(|| name.to_owned(), |t| t.value.clone()),
        kind,
        image,
        recipe,
        mgmt: (managed && kind == NodeKind::Linux).then_some(unassigned),
        binds,
        files,
        env: plain(env),
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

/// What the node is, and whether containerlab's own kind for FRR makes it.
fn kind(layers: &Layers<'_>, mark: Mark, path: &str, findings: &mut Findings) -> Option<(NodeKind, bool)> {
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
        "linux" => return Some((NodeKind::Linux, false)),
        "frr" | "frrouting" => return Some((NodeKind::Linux, true)),
        "bridge" => return Some((NodeKind::Bridge, false)),
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
                "unknown kind {other:?}; known here: linux, bridge, frr (another router is kind linux with its image; vendors' \
                 kinds need containerlab itself)"
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
    missing(text, recipe, field, findings);
    (text.value.clone(), recipe)
}

/// The image of containerlab's own kind for FRR, which says only which release is meant.
fn frr_image(layers: &Layers<'_>, mark: Mark, path: &str, findings: &mut Findings) -> (String, Recipe) {
    let field = format!("{path}.image");
    let Some(text) = layers.text("image") else {
        findings.fault(
            mark,
            field,
            "missing; write one such as quay.io/frrouting/frr:containerlab-10.7.1",
        );
        return (String::new(), Recipe::Frr);
    };
    missing(text, Recipe::Frr, field, findings);
    (text.value.clone(), Recipe::Frr)
}

/// Files that containerlab's own kind for FRR makes: which daemons run is said under `extras`; all that are
/// installed do by default.
fn frr_files(layers: &Layers<'_>, native: bool, path: &str, findings: &mut Findings) -> BTreeMap<PathBuf, String> {
    let asked = layers.nearest_list("daemons");
    if !native {
        if let Some(first) = asked.and_then(|daemons| daemons.first()) {
            findings.fault(
                first.mark,
                format!("{path}.extras.frr"),
                "is for kind frr; write kind: frr, or bind an /etc/frr/daemons",
            );
        }
        return BTreeMap::new();
    }
    let installed = |daemon: &str| Path::new(images::FRR_DIR).join(daemon).exists();
    for text in asked.unwrap_or_default() {
        let daemon = text.value.as_str();
        let known = images::FRR_DAEMONS.contains(&daemon) || images::FRR_ALWAYS.contains(&daemon);
        let message = match (known, installed(daemon)) {
            (true, true) => continue,
            // Of an old FRR; without any, the image's own fault says enough.
            (true, false) if installed("zebra") => format!("{daemon:?} is not in the FRR that is installed here"),
            (true, false) => continue,
            (false, _) => format!(
                "{daemon:?} is no daemon of FRR; known here: {}",
                images::FRR_DAEMONS.join(", ")
            ),
        };
        findings.fault(text.mark, format!("{path}.extras.frr.daemons"), message);
    }
    let on = |daemon: &&&str| match asked {
        Some(asked) => asked.iter().any(|text| text.value == **daemon),
        None => installed(daemon),
    };
    let daemons = images::FRR_DAEMONS
        .iter()
        .filter(on)
        .map(|daemon| format!("{daemon}=yes\n"))
        .collect();
    let vtysh = "service integrated-vtysh-config\n".to_owned();
    [
        ("/etc/frr/daemons".into(), daemons),
        ("/etc/frr/vtysh.conf".into(), vtysh),
    ]
    .into()
}

/// Tells what the machine lacks to run `recipe`.
fn missing(image: &Text, recipe: Recipe, field: String, findings: &mut Findings) {
    if let Some((program, package)) = recipe.missing() {
        findings.fault(
            image.mark,
            field,
            format!(
                "image {:?} runs {program}, which is not installed: apt-get install {package}",
                image.value
            ),
        );
    }
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
        let mut read_only = false;
        for option in options.into_iter().flat_map(|o| o.split(',')) {
            match option {
                "ro" => read_only = true,
                "rw" => read_only = false,
                other => findings.warn(
                    text.mark,
                    &field,
                    &format!("option {other:?} of {value:?} has no effect here"),
                ),
            }
        }
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
