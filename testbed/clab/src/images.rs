//! Images are look-up keys: what a container of that image would run, this machine's own programs run in the node.

use std::path::Path;

use serde::{Deserialize, Serialize};

/// What a node with a known image runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Recipe {
    /// FRR's daemons as its `daemons` file says, configured from /etc/frr/frr.conf.
    Frr,
    /// BIRD 2 with /etc/bird.conf, or /etc/bird/bird.conf.
    Bird,
    /// GoBGP with /etc/gobgp/gobgp.yml.
    Gobgp,
    /// Nothing but the tools of the machine.
    Tools,
}

/// Last part of an image's repository, its recipe, and the parent it must have (none: any).
const IMAGES: &[(&str, Option<&str>, Recipe)] = &[
    ("frr", None, Recipe::Frr),
    ("bird", None, Recipe::Bird),
    ("gobgp", None, Recipe::Gobgp),
    ("netshoot", None, Recipe::Tools),
    ("network-multitool", None, Recipe::Tools),
    ("alpine", None, Recipe::Tools),
    ("busybox", None, Recipe::Tools),
    ("debian", None, Recipe::Tools),
    ("ubuntu", None, Recipe::Tools),
    ("node", Some("margay"), Recipe::Tools),
];

/// The recipe for `image` (`[registry/][path/]name[:tag][@digest]`).
pub(crate) fn recipe(image: &str) -> Option<Recipe> {
    let (parent, name) = repository(image);
    IMAGES
        .iter()
        .find(|(base, wants, _)| *base == name && wants.is_none_or(|w| parent == Some(w)))
        .map(|(_, _, recipe)| *recipe)
}

/// The images this runner knows, for messages.
pub(crate) fn known() -> String {
    let names: Vec<String> = IMAGES
        .iter()
        .map(|(base, parent, _)| parent.map_or_else(|| (*base).to_owned(), |p| format!("{p}/{base}")))
        .collect();
    names.join(", ")
}

/// The last two parts of an image's repository, without tag and digest.
#[must_use]
pub fn repository(image: &str) -> (Option<&str>, &str) {
    let image = image.split('@').next().unwrap_or(image);
    let mut parts = image.rsplit('/');
    let last = parts.next().unwrap_or(image);
    (parts.next(), last.split(':').next().unwrap_or(last))
}

/// Where the distribution puts FRR's daemons.
pub(crate) const FRR_DIR: &str = "/usr/lib/frr";
/// Daemons of FRR that its `daemons` file says to run.
pub(crate) const FRR_DAEMONS: &[&str] = &[
    "bgpd", "ospfd", "ospf6d", "ripd", "ripngd", "isisd", "pimd", "pim6d", "ldpd", "nhrpd", "eigrpd", "babeld", "pbrd",
    "bfdd", "fabricd", "vrrpd", "pathd",
];
/// Daemons of FRR that run whatever the file says.
pub(crate) const FRR_ALWAYS: &[&str] = &["zebra", "staticd", "mgmtd", "watchfrr"];

impl Recipe {
    /// What is not installed for this recipe, and the package that brings it.
    pub(crate) fn missing(self) -> Option<(&'static str, &'static str)> {
        let (program, package) = match self {
            Recipe::Frr => ("/usr/lib/frr/zebra", "frr"),
            Recipe::Bird => ("/usr/sbin/bird", "bird2"),
            Recipe::Gobgp => ("/usr/bin/gobgpd", "gobgpd"),
            Recipe::Tools => return None,
        };
        (!Path::new(program).exists()).then_some((program, package))
    }

    /// Where the recipe's program reads its configuration, in order of preference.
    pub(crate) fn config_paths(self) -> &'static [&'static str] {
        match self {
            Recipe::Frr => &["/etc/frr/frr.conf"],
            Recipe::Bird => &["/etc/bird.conf", "/etc/bird/bird.conf"],
            Recipe::Gobgp => &["/etc/gobgp/gobgp.yml"],
            Recipe::Tools => &[],
        }
    }

    /// A shell script, run as root in the node before anything else, that gives it what the image has beyond the
    /// machine's package.
    #[must_use]
    pub fn prepare_script(self) -> Option<&'static str> {
        match self {
            Recipe::Frr => Some(FRR_PREPARE),
            Recipe::Bird | Recipe::Gobgp | Recipe::Tools => None,
        }
    }

    /// A shell script, run as root in the node once its links are up, that starts the programs and returns.
    #[must_use]
    pub fn start_script(self) -> Option<&'static str> {
        match self {
            Recipe::Frr => Some(FRR),
            Recipe::Bird => Some(BIRD),
            Recipe::Gobgp => Some(GOBGP),
            Recipe::Tools => None,
        }
    }
}

// Daemons run as frr and write their pids, sockets, logs and saved configuration; what a user bound stays the user's.
const FRR_PREPARE: &str = r#"
set -eu
mkdir -p /run/frr /var/log/frr
chown frr:frr /run/frr /var/log/frr /etc/frr
chmod 755 /run/frr
[ -e /etc/frr/daemons ] || : >/etc/frr/daemons
"#;

// Not frrinit.sh: its watchfrr takes seconds to bring the daemons up. `frrinit.sh restart` still works in the node.
const FRR: &str = r#"
set -eu
[ -e /etc/frr/vtysh.conf ] || echo 'service integrated-vtysh-config' >/etc/frr/vtysh.conf
. /etc/frr/daemons
bin=/usr/lib/frr
$bin/zebra -d ${zebra_options:--A 127.0.0.1}
$bin/staticd -d ${staticd_options:--A 127.0.0.1}
for d in bgpd ospfd ospf6d ripd ripngd isisd pimd pim6d ldpd nhrpd eigrpd babeld pbrd bfdd fabricd vrrpd pathd; do
    eval "on=\${$d:-no}; options=\${${d}_options:--A 127.0.0.1}"
    [ "$on" = yes ] || continue
    $bin/$d -d $options
done
[ ! -s /etc/frr/frr.conf ] || vtysh -b
"#;

const BIRD: &str = r#"
set -eu
mkdir -p /run/bird
conf=/etc/bird/bird.conf
[ ! -e /etc/bird.conf ] || conf=/etc/bird.conf
/usr/sbin/bird -c "$conf" -s /run/bird/bird.ctl -P /run/bird/bird.pid
"#;

const GOBGP: &str = r#"
set -eu
nohup gobgpd -f /etc/gobgp/gobgp.yml >/var/log/gobgpd.log 2>&1 &
"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[rstest::rstest]
    #[case("frrouting/frr", Some(Recipe::Frr))]
    #[case("quay.io/frrouting/frr:8.4.1", Some(Recipe::Frr))]
    #[case("localhost:5000/frr@sha256:abc", Some(Recipe::Frr))]
    #[case("ghcr.io/srl-labs/bird:2.13", Some(Recipe::Bird))]
    #[case("nicolaka/netshoot:latest", Some(Recipe::Tools))]
    #[case("margay/node:dev", Some(Recipe::Tools))]
    #[case("library/node:20", None)]
    #[case("ghcr.io/nokia/srlinux", None)]
    fn looks_up(#[case] image: &str, #[case] want: Option<Recipe>) {
        assert_eq!(recipe(image), want);
    }
}
