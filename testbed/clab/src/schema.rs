//! Every field of containerlab's schema, and what becomes of it here: it works, it is warned of, or it is refused.
//! Readers go by this table, so that nothing that somebody wrote is passed over without a word.

use crate::fault::Findings;
use crate::fields::suggestion;
use crate::yaml::{Key, Yaml};

/// What becomes of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Treatment {
    /// It does what it does in containerlab, as far as the note says.
    Works(&'static str),
    /// It has no effect, and does no harm by that; why.
    Warned(&'static str),
    /// A file with it is not deployed; what to do instead.
    Refused(&'static str),
}

use Treatment::{Refused, Warned, Works};

/// A mapping of a topology file whose fields are known. Its text is the path of its fields in [`FIELDS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Section(&'static str);

pub(crate) const FILE: Section = Section("");
pub(crate) const MGMT: Section = Section("mgmt.");
pub(crate) const TOPOLOGY: Section = Section("topology.");
pub(crate) const NODE: Section = Section("node.");
pub(crate) const EXTRAS: Section = Section("node.extras.");
pub(crate) const FRR: Section = Section("node.extras.frr.");
pub(crate) const LINK: Section = Section("link.");
pub(crate) const ENDPOINT: Section = Section("link.endpoints.");

const VENDORS: &str = "only kinds of network vendors use it";
const LIMITS: &str = "nodes have no resource limits";
const LIVES: &str = "a node lives until the lab is destroyed";
const CONFINED: &str = "nodes are not confined: commands in them are root";
const NO_ENGINE: &str = "there is no `containerlab config` here";
const ORDER: &str = "nodes start all at once here; order commands in exec instead";
const MACVLAN: &str = "a lab here never touches the host's own network";
const OTHER_LINK: &str = "it belongs to types of links that touch the host's own network; use type veth";
const RETIRED: &str = "containerlab itself has retired it";

/// By path: `node.*` stands for a definition under `topology.nodes.*`, `kinds.*`, `groups.*` or `defaults`; `link.*` for an
/// item of `topology.links`, `link.endpoints.*` for an end of one that is written as a mapping.
pub const FIELDS: &[(&str, Treatment)] = &[
    ("name", Works("")),
    ("prefix", Works("")),
    ("mgmt", Works("")),
    ("topology", Works("")),
    ("settings", Warned("no certificates are issued")),
    ("debug", Warned("there is no more to tell")),
    (
        "mgmt.network",
        Warned("the network lives in a namespace of its own, nameless"),
    ),
    (
        "mgmt.bridge",
        Warned("the bridge lives in a namespace of its own, where no other can be"),
    ),
    ("mgmt.ipv4-subnet", Works("but not `auto`")),
    ("mgmt.ipv6-subnet", Works("but not `auto`")),
    ("mgmt.ipv4-gw", Works("")),
    ("mgmt.ipv6-gw", Works("")),
    ("mgmt.ipv4-range", Refused("give nodes mgmt-ipv4 and mgmt-ipv6")),
    ("mgmt.ipv6-range", Refused("give nodes mgmt-ipv4 and mgmt-ipv6")),
    ("mgmt.mtu", Works("")),
    ("mgmt.external-access", Warned("nodes never reach beyond the lab")),
    ("mgmt.skip-when-unused", Warned("the network costs nothing")),
    (
        "mgmt.driver-opts",
        Refused("there is no container runtime here; leave it out"),
    ),
    ("mgmt.driver", Refused(MACVLAN)),
    ("mgmt.macvlan-parent", Refused(MACVLAN)),
    ("mgmt.macvlan-mode", Refused(MACVLAN)),
    ("mgmt.macvlan-aux", Refused(MACVLAN)),
    ("topology.defaults", Works("")),
    ("topology.kinds", Works("")),
    ("topology.groups", Works("")),
    ("topology.nodes", Works("")),
    ("topology.links", Works("")),
    (
        "node.kind",
        Works("`linux`, `bridge`, `frr`; others are refused by name"),
    ),
    (
        "node.image",
        Works("as a key: what the image runs, the machine's own programs run"),
    ),
    ("node.group", Works("")),
    ("node.network-mode", Works("`bridge` and `none`; others are refused")),
    ("node.mgmt-ipv4", Works("")),
    ("node.mgmt-ipv6", Works("")),
    (
        "node.startup-config",
        Works("a file; of routers, also of kind `linux`; with kind `frr` also text"),
    ),
    ("node.hostname", Works("")),
    ("node.cmd", Works("")),
    ("node.entrypoint", Works("")),
    ("node.exec", Works("one that fails is warned of")),
    ("node.binds", Works("option `ro`; others are warned of")),
    ("node.env", Works("but not `__IMPORT_ENVS`, which is warned of")),
    ("node.labels", Works("")),
    ("node.sysctls", Works("")),
    ("node.extras", Works("")),
    ("node.extras.frr", Works("")),
    ("node.extras.frr.daemons", Works("with kind `frr`")),
    ("node.extras.ceos-copy-to-flash", Refused(VENDORS)),
    ("node.extras.srl-agents", Refused(VENDORS)),
    ("node.extras.mysocket-proxy", Refused(RETIRED)),
    (
        "node.extras.k8s_kind",
        Refused("label nodes margay.io/kubernetes-node instead"),
    ),
    (
        "node.ports",
        Warned("no port is published: reach the node with `margay-lab exec`"),
    ),
    ("node.type", Warned("only kinds of network vendors have types")),
    ("node.license", Warned("only kinds of network vendors have licences")),
    ("node.position", Warned("it is for drawings")),
    ("node.user", Warned("commands run as root")),
    ("node.cpu", Warned(LIMITS)),
    ("node.cpu-set", Warned(LIMITS)),
    ("node.memory", Warned(LIMITS)),
    ("node.shm-size", Warned(LIMITS)),
    ("node.cap-add", Warned(CONFINED)),
    ("node.privileged", Warned(CONFINED)),
    ("node.security-opts", Warned(CONFINED)),
    ("node.cgroupns-mode", Warned("nodes have no cgroups of their own")),
    ("node.cgroup-parent", Warned("nodes have no cgroups of their own")),
    ("node.devices", Warned("nodes see the devices of the machine")),
    ("node.runtime", Warned("there is no container runtime here")),
    ("node.restart-policy", Warned(LIVES)),
    ("node.auto-remove", Warned(LIVES)),
    (
        "node.image-pull-policy",
        Warned("images are look-up keys; nothing is pulled"),
    ),
    ("node.healthcheck", Warned("nodes have no health check")),
    ("node.certificate", Warned("no certificates are issued")),
    ("node.startup-delay", Warned("nodes start at once")),
    (
        "node.enforce-startup-config",
        Warned("nodes start from their files every time"),
    ),
    (
        "node.suppress-startup-config",
        Warned("only kinds of network vendors write one"),
    ),
    (
        "node.dns",
        Warned("nodes resolve by /etc/hosts, then as the machine does"),
    ),
    (
        "node.credentials",
        Warned("nobody logs in: reach the node with `margay-lab exec`"),
    ),
    ("node.config", Warned(NO_ENGINE)),
    ("node.link-apply-mode", Warned("there is no `containerlab apply` here")),
    ("node.stages", Refused(ORDER)),
    (
        "node.env-files",
        Refused("files of variables are not read here; write them under env"),
    ),
    ("node.components", Refused(VENDORS)),
    (
        "node.volumes",
        Refused("there are no volumes here; bind __clabNodeDir__/NAME:/PATH instead"),
    ),
    ("node.tmpfs", Refused("mount it in exec: mount -t tmpfs none /PATH")),
    ("node.pid-mode", Refused("a node has processes of its own here")),
    (
        "node.aliases",
        Refused("nodes are known by their own names; add a line to /etc/hosts in exec instead"),
    ),
    ("node.mgmt_ipv4", Refused("write mgmt-ipv4")),
    ("node.mgmt_ipv6", Refused("write mgmt-ipv6")),
    ("node.wait-for", Refused(ORDER)),
    (
        "node.publish",
        Warned("no port is published: reach the node with `margay-lab exec`"),
    ),
    ("node.sandbox", Warned(RETIRED)),
    ("node.kernel", Warned(RETIRED)),
    ("node.SANs", Warned("no certificates are issued")),
    (
        "node.username",
        Warned("nobody logs in: reach the node with `margay-lab exec`"),
    ),
    (
        "node.password",
        Warned("nobody logs in: reach the node with `margay-lab exec`"),
    ),
    ("link.type", Works("`veth`; others are refused")),
    ("link.endpoints", Works("")),
    ("link.mtu", Works("")),
    ("link.ipv4", Works("")),
    ("link.ipv6", Works("")),
    ("link.vars", Warned(NO_ENGINE)),
    ("link.labels", Warned("nobody asks for a link's labels here")),
    ("link.endpoint", Refused(OTHER_LINK)),
    ("link.host-interface", Refused(OTHER_LINK)),
    ("link.mode", Refused(OTHER_LINK)),
    ("link.remote", Refused(OTHER_LINK)),
    ("link.vni", Refused(OTHER_LINK)),
    ("link.dst-port", Refused(OTHER_LINK)),
    ("link.src-port", Refused(OTHER_LINK)),
    ("link.endpoints.node", Works("")),
    ("link.endpoints.interface", Works("")),
    ("link.endpoints.mac", Works("")),
    ("link.endpoints.ipv4", Works("")),
    ("link.endpoints.ipv6", Works("")),
    ("link.endpoints.vars", Warned(NO_ENGINE)),
];

impl Section {
    /// Names of the fields that this section itself has.
    fn known(self) -> impl Iterator<Item = (&'static str, Treatment)> {
        FIELDS
            .iter()
            .filter_map(move |(path, treatment)| Some((path.strip_prefix(self.0)?, *treatment)))
            .filter(|(name, _)| !name.contains('.'))
    }

    /// The fields of `yaml`, a mapping at `path`, that work. Of every other one it is said to `findings` what becomes of it.
    pub(crate) fn read<'a>(
        self,
        yaml: &'a Yaml,
        path: &str,
        findings: &mut Findings,
    ) -> Vec<(&'static str, &'a Key, &'a Yaml)> {
        let Some(entries) = yaml.entries() else {
            findings.fault(
                yaml.mark,
                path,
                format!("is {}; write a mapping of fields", yaml.kind()),
            );
            return Vec::new();
        };
        let mut working = Vec::new();
        for (key, value) in entries {
            let field = match path {
                "" => key.name.clone(),
                path => format!("{path}.{}", key.name),
            };
            match self.known().find(|(name, _)| *name == key.name) {
                Some((name, Works(_))) => working.push((name, key, value)),
                Some((_, Warned(why))) => findings.warn(key.mark, &field, &format!("has no effect here: {why}")),
                Some((_, Refused(why))) => findings.fault(key.mark, field, format!("not supported: {why}")),
                None => {
                    let near = suggestion(&key.name, self.known().map(|(name, _)| name));
                    findings.fault(key.mark, field, format!("unknown field{near}"));
                }
            }
        }
        working
    }
}

/// What becomes of the field at `path`: what the table says of it, or of the nearest part of the file that it belongs to.
#[must_use]
pub fn treatment(path: &str) -> Option<Treatment> {
    let own = FIELDS
        .iter()
        .find(|(known, _)| *known == path)
        .map(|(_, treatment)| *treatment);
    own.or_else(|| match treatment(path.rsplit_once('.')?.0)? {
        // A mapping that works has fields of its own, each of which is in the table.
        Works(_) => None,
        inherited => Some(inherited),
    })
}

/// The table as Markdown, for people.
#[must_use]
pub fn table() -> String {
    let mut text = String::from("| field | here | |\n|---|---|---|\n");
    for (path, treatment) in FIELDS {
        let (word, note) = match treatment {
            Works(note) => ("works", note),
            Warned(note) => ("warned", note),
            Refused(note) => ("refused", note),
        };
        let note = note.replace('|', "\\|");
        text.push_str(&format!("| `{path}` | {word} | {note} |\n"));
    }
    text
}

#[cfg(test)]
mod tests;
