//! The host before and after a lab: rules, links, mounts, namespaces and processes, compared.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// Protocol numbers of the routes that an agent makes: for its pods, and learnt by BGP.
const ROUTE_PROTOCOLS: [&str; 2] = ["177", "178"];

/// What a lab could leave behind, as sets of lines by subject.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostState(BTreeMap<String, BTreeSet<String>>);

/// How two states of the host differ, one line each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Differences {
    /// What only a lab makes, and should have taken away.
    pub of_the_lab: Vec<String>,
    /// What others make and remove at any time, such as `ip netns add`.
    pub of_others: Vec<String>,
}

impl HostState {
    /// Looks at the host. Processes that count are those under the labs in `labs_dir`, and orphans of the executables in
    /// `programs`: labs that keep their state elsewhere are another's.
    ///
    /// # Errors
    /// If the kernel's own tables cannot be read.
    pub fn look(programs: &Path, labs_dir: &Path) -> Result<Self> {
        let mut state = BTreeMap::new();
        state.insert("rules".to_owned(), rules());
        let links = Command::new("ip")
            .args(["-o", "link"])
            .output()
            .context("cannot run ip")?;
        state.insert("links".to_owned(), lines(&links.stdout, link_identity));
        let addresses = Command::new("ip")
            .args(["-o", "addr"])
            .output()
            .context("cannot run ip")?;
        state.insert("addresses".to_owned(), lines(&addresses.stdout, link_identity));
        let routes = Command::new("ip")
            .args(["route", "show", "table", "all"])
            .output()
            .context("cannot run ip")?;
        state.insert("routes".to_owned(), lines(&routes.stdout, route_identity));
        let mounts = fs::read("/proc/self/mountinfo").context("cannot read the mount table")?;
        state.insert("mounts".to_owned(), lines(&mounts, mount_identity));
        let (processes, namespaces) = processes(programs, labs_dir);
        state.insert("processes".to_owned(), processes);
        state.insert("namespaces".to_owned(), namespaces);
        Ok(Self(state))
    }

    /// How the host is now, compared with this: what a lab under `labs_dir` alone can have left, and what anybody may
    /// have changed meanwhile.
    #[must_use]
    pub fn differences(&self, after: &Self, labs_dir: &Path) -> Differences {
        let none = BTreeSet::new();
        let subjects: BTreeSet<_> = self.0.keys().chain(after.0.keys()).collect();
        let mut differences = Differences::default();
        for subject in subjects {
            let (was, is) = (
                self.0.get(subject).unwrap_or(&none),
                after.0.get(subject).unwrap_or(&none),
            );
            for line in is.difference(was) {
                let told = format!("{subject}: left behind: {line}");
                match is_of_a_lab(subject, line, labs_dir) {
                    true => differences.of_the_lab.push(told),
                    false => differences.of_others.push(format!("{subject}: new: {line}")),
                }
            }
            for line in was.difference(is) {
                differences.of_others.push(format!("{subject}: gone: {line}"));
            }
        }
        differences
    }

    /// How many lines of each subject were compared, for people.
    #[must_use]
    pub fn summary(&self) -> String {
        self.0
            .iter()
            .map(|(subject, lines)| format!("{} {subject}", lines.len()))
            .collect::<Vec<_>>()
            .join(", ")
    }

    /// Keeps this state in a file until the lab goes.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn keep(&self, path: &Path) -> Result<()> {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
        }
        let text = serde_json::to_vec_pretty(self)?;
        // Written aside and renamed: a run that is killed here must not leave half a file for the next one.
        let aside = path.with_extension("new");
        fs::write(&aside, text).with_context(|| format!("cannot write {}", aside.display()))?;
        fs::rename(&aside, path).with_context(|| format!("cannot write {}", path.display()))
    }

    /// The state that [`HostState::keep`] wrote, if there is one.
    ///
    /// # Errors
    /// If the file is there and cannot be read or understood.
    pub fn kept(path: &Path) -> Result<Option<Self>> {
        match fs::read(path) {
            Ok(text) => Ok(Some(
                serde_json::from_slice(&text).with_context(|| format!("in {}: delete it", path.display()))?,
            )),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }
}

/// Whether a line of [`HostState`] tells of what nobody but a lab makes: its names, its route protocols, its directory.
fn is_of_a_lab(subject: &str, line: &str, labs_dir: &Path) -> bool {
    let link = |name: &str| name.starts_with("mgy") || name.starts_with("clabmgmt");
    let name = |word: &str| link(word.split('@').next().unwrap_or(word));
    let words: Vec<&str> = line.split_whitespace().collect();
    let after = |key: &str| words.windows(2).find(|pair| pair[0] == key).map(|pair| pair[1]);
    match subject {
        "rules" => ["mgy-", "mgy:", "mgy4-", "mgy6-"]
            .iter()
            .any(|mark| line.contains(mark)),
        "links" | "addresses" => words.first().is_some_and(|word| name(word)),
        "routes" => {
            after("dev").is_some_and(name) || after("proto").is_some_and(|word| ROUTE_PROTOCOLS.contains(&word))
        }
        "mounts" => after("on").is_some_and(|path| Path::new(path).starts_with(labs_dir)),
        // They are looked for by what a lab alone gives them.
        "processes" | "namespaces" => true,
        _ => false,
    }
}

fn lines(text: &[u8], identity: impl Fn(&str) -> Option<String>) -> BTreeSet<String> {
    String::from_utf8_lossy(text).lines().filter_map(identity).collect()
}

/// Rules of every back end without counters and dates.
fn rules() -> BTreeSet<String> {
    let mut rules = BTreeSet::new();
    for program in ["iptables-nft-save", "ip6tables-nft-save"] {
        let Ok(output) = Command::new(program).output() else {
            continue;
        };
        rules.extend(lines(&output.stdout, |line| rule_identity(program, line)));
    }
    // Asking the legacy tools loads their kernel modules, so ask only where they are in use already.
    for (program, names) in [
        ("iptables-legacy-save", "/proc/net/ip_tables_names"),
        ("ip6tables-legacy-save", "/proc/net/ip6_tables_names"),
    ] {
        if fs::read(names).is_ok_and(|names| !names.is_empty())
            && let Ok(output) = Command::new(program).output()
        {
            rules.extend(lines(&output.stdout, |line| rule_identity(program, line)));
        }
    }
    rules
}

fn rule_identity(program: &str, line: &str) -> Option<String> {
    // Empty tables and built-in chains appear by being looked at.
    let is_rule = line.starts_with("-A") || (line.starts_with(':') && line.split_whitespace().nth(1) == Some("-"));
    is_rule.then(|| format!("{program}: {}", line.split('[').next().unwrap_or(line).trim()))
}

fn link_identity(line: &str) -> Option<String> {
    let (_, rest) = line.split_once(':')?;
    // Flags, queue lengths and lifetimes change by themselves.
    let words: Vec<_> = rest.split_whitespace().collect();
    let name = words.first()?.trim_end_matches(':');
    let address = words
        .iter()
        .position(|word| word.starts_with("inet") || word.starts_with("link/"));
    let address = address.map(|at| words[at..].iter().take(2).copied().collect::<Vec<_>>().join(" "));
    Some(format!("{name} {}", address.unwrap_or_default()).trim().to_owned())
}

/// A route without the seconds that one learnt from router advertisements has left.
fn route_identity(line: &str) -> Option<String> {
    let mut words = Vec::new();
    let mut rest = line.split_whitespace();
    while let Some(word) = rest.next() {
        match word {
            "expires" => drop(rest.next()),
            word => words.push(word),
        }
    }
    Some(words.join(" "))
}

fn mount_identity(line: &str) -> Option<String> {
    let words: Vec<_> = line.split_whitespace().collect();
    let kind = words
        .iter()
        .position(|word| *word == "-")
        .and_then(|at| words.get(at + 1))?;
    Some(format!("{kind} {} on {}", words.get(3)?, words.get(4)?))
}

/// Processes that a lab starts, and the network namespaces that they are in.
fn processes(programs: &Path, labs_dir: &Path) -> (BTreeSet<String>, BTreeSet<String>) {
    let mut found = BTreeSet::new();
    let mut namespaces = BTreeSet::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let Ok(program) = fs::read_link(entry.path().join("exe")) else {
            continue;
        };
        let program = PathBuf::from(program.to_string_lossy().trim_end_matches(" (deleted)"));
        let of_a_lab = match lab_of(pid) {
            Some(lab) => lab.starts_with(labs_dir),
            None => program.starts_with(programs) && parent_of(pid) == Some(1),
        };
        if of_a_lab {
            found.insert(format!("{} (pid {pid})", program.display()));
            namespaces
                .extend(fs::read_link(entry.path().join("ns/net")).map(|namespace| namespace.display().to_string()));
        }
    }
    (found, namespaces)
}

/// A path in the state directory of the lab that a process or one of its ancestors serves, by its arguments.
fn lab_of(pid: u32) -> Option<PathBuf> {
    let mut next = Some(pid);
    while let Some(pid) = next {
        let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
        if let Some(path) = lab_in(&line.split('\0').collect::<Vec<_>>()) {
            return Some(path.into());
        }
        next = parent_of(pid);
    }
    None
}

fn lab_in<'a>(words: &[&'a str]) -> Option<&'a str> {
    const SERVANTS: [&str; 5] = ["node-init", "container-init", "control-plane", "api-relay", "kubelet"];
    let program = words.first()?.rsplit('/').next()?;
    match program {
        "margay-lab" if words.get(1).is_some_and(|word| SERVANTS.contains(word)) => words.get(2).copied(),
        "margay-node" | "margay-controller" => words
            .iter()
            .position(|word| *word == "--kubeconfig")
            .and_then(|at| words.get(at + 1))
            .copied(),
        _ => None,
    }
}

fn parent_of(pid: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let parent = status
        .lines()
        .find_map(|line| line.strip_prefix("PPid:"))?
        .trim()
        .parse()
        .ok()?;
    (parent != 0).then_some(parent)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(subject: &str, lines: &[&str]) -> HostState {
        HostState([(subject.to_owned(), lines.iter().map(|l| (*l).to_owned()).collect())].into())
    }

    #[test]
    fn a_process_tells_its_lab_by_its_arguments() {
        assert_eq!(
            lab_in(&["/b/margay-lab", "node-init", "/run/margay-lab/x", "n1"]),
            Some("/run/margay-lab/x")
        );
        assert_eq!(
            lab_in(&["margay-node", "--node", "n", "--kubeconfig", "/l/x/k"]),
            Some("/l/x/k")
        );
        assert_eq!(lab_in(&["/b/margay-lab", "exec", "/run/other"]), None);
        assert_eq!(lab_in(&["vim", "node-init", "/run/margay-lab/x"]), None);
    }

    #[test]
    fn the_lab_is_blamed_for_what_is_its_alone() {
        let labs = Path::new("/run/margay-lab");
        let none = HostState::default();
        for (subject, line) in [
            ("links", "mgy0123456789a@if2 link/ether 02:00:00:00:00:01"),
            ("links", "clabmgmt3@if2"),
            ("addresses", "clabmgmt0 inet6 fe80::1/64"),
            ("rules", "iptables-nft-save: :mgy-forward -"),
            (
                "rules",
                "iptables-nft-save: -A FORWARD -m comment --comment mgy:AbC -j ACCEPT",
            ),
            ("routes", "10.244.0.0/26 dev mgy0123456789a scope link"),
            ("routes", "10.244.0.64/26 via 10.0.0.2 dev eth0 proto 178"),
            ("mounts", "tmpfs / on /run/margay-lab/two-racks/nodes/node1/.root"),
            ("processes", "/x/margay-node (pid 7)"),
            ("namespaces", "net:[4026531840]"),
        ] {
            let found = none.differences(&state(subject, &[line]), labs);
            assert_eq!(found.of_the_lab, [format!("{subject}: left behind: {line}")]);
            assert!(found.of_others.is_empty());
        }
    }

    /// `ip netns add`, a container that starts, an address of the machine that goes: nothing of these is the lab's.
    #[test]
    fn the_lab_is_not_blamed_for_what_others_do() {
        let labs = Path::new("/run/margay-lab");
        for (subject, line) in [
            ("mounts", "tmpfs /netns on /run/netns"),
            ("mounts", "nsfs net:[4026532300] on /run/netns/mine"),
            ("mounts", "tmpfs / on /run/margay-labs-of-mine"),
            ("links", "veth7@if2 link/ether 02:00:00:00:00:01"),
            ("addresses", "eth0 inet 192.0.2.7/24"),
            (
                "routes",
                "default via fe80::1 dev eth0 proto ra metric 1024 pref medium",
            ),
            ("rules", "iptables-nft-save: -A FORWARD -j DOCKER-USER"),
        ] {
            let (with, without) = (state(subject, &[line]), state(subject, &[]));
            assert_eq!(
                without.differences(&with, labs),
                Differences {
                    of_the_lab: Vec::new(),
                    of_others: vec![format!("{subject}: new: {line}")],
                }
            );
            let gone = with.differences(&without, labs);
            assert_eq!(gone.of_others, [format!("{subject}: gone: {line}")]);
            assert_eq!(gone.of_the_lab, Vec::<String>::new());
            assert_eq!(with.differences(&with, labs), Differences::default());
        }
    }

    #[test]
    fn counters_and_dates_are_not_differences() {
        assert_eq!(rule_identity("t", "# Generated on Monday"), None);
        assert_eq!(rule_identity("t", ":INPUT ACCEPT [12:900]"), None);
        assert_eq!(rule_identity("t", ":mgy-x - [12:900]").as_deref(), Some("t: :mgy-x -"));
        assert_eq!(
            rule_identity("t", "-A INPUT -j DROP").as_deref(),
            Some("t: -A INPUT -j DROP")
        );
    }

    #[test]
    fn the_time_a_route_has_left_is_no_difference() {
        let learnt = |left: &str| format!("default via fe80::1 dev eth0 proto ra metric 1024 {left} pref medium");
        assert_eq!(
            route_identity(&learnt("expires 1790sec")),
            route_identity(&learnt("expires 17sec"))
        );
        assert_eq!(
            route_identity("fd00::/64 dev eth0 expires 9sec").as_deref(),
            Some("fd00::/64 dev eth0")
        );
        assert_ne!(
            route_identity(&learnt("")),
            route_identity("default via fe80::2 dev eth0")
        );
    }

    #[test]
    fn a_kept_state_comes_back() {
        let path = std::env::temp_dir().join(format!("margay-host-{}.json", std::process::id()));
        assert_eq!(HostState::kept(&path).unwrap(), None);
        let before = state("mounts", &["nsfs net:[1] on /x"]);
        before.keep(&path).unwrap();
        assert_eq!(HostState::kept(&path).unwrap(), Some(before));
        fs::remove_file(&path).unwrap();
    }
}
