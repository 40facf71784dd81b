//! The table against the committed list of the schema's fields, against what the reader does, and against the README.

use std::collections::BTreeSet;
use std::path::Path;

use super::{FIELDS, Refused, Treatment, Warned, Works, table, treatment};
use crate::Plan;

/// Fields of containerlab's schema; the file says of which version.
fn listed() -> impl Iterator<Item = &'static str> {
    include_str!("fields.txt").lines().filter(|line| !line.starts_with('#'))
}

#[test]
fn every_field_of_the_schema_has_its_place_in_the_table() {
    let missing: Vec<&str> = listed().filter(|path| treatment(path).is_none()).collect();
    assert!(missing.is_empty(), "{missing:#?}");
    let listed: BTreeSet<&str> = listed().collect();
    let invented: Vec<&str> = FIELDS
        .iter()
        .map(|(path, _)| *path)
        .filter(|path| !listed.contains(path))
        .collect();
    assert!(invented.is_empty(), "{invented:#?}");
    assert_eq!(treatment("node.nonsense"), None);
    assert_eq!(treatment("settings.certificate-authority.cert"), treatment("settings"));
}

/// A value that the field at `path` takes.
fn value(path: &str) -> &'static str {
    match path {
        "name" => "x",
        "prefix" => "mine",
        "mgmt" | "topology.defaults" | "topology.kinds" | "topology.groups" | "node.extras" | "node.extras.frr" => "{}",
        "topology.links" => "[]",
        "mgmt.ipv4-subnet" => "172.20.20.0/25",
        "mgmt.ipv6-subnet" => "fd77::/64",
        "mgmt.ipv4-gw" | "node.mgmt-ipv4" => "172.20.20.9",
        "mgmt.ipv6-gw" | "node.mgmt-ipv6" => "'3fff:172:20:20::9'",
        "mgmt.mtu" | "link.mtu" => "1400",
        "node.kind" => "frr",
        "node.image" => "alpine",
        "node.network-mode" => "none",
        "node.startup-config" => "\"hostname x\\n\"",
        "node.exec" | "node.binds" | "node.extras.frr.daemons" => "[]",
        "node.env" | "node.labels" => "{A: b}",
        "node.sysctls" => "{net.ipv4.ip_forward: 1}",
        "link.type" => "veth",
        "link.endpoints" => "['a:eth1', 'b:eth1']",
        "link.ipv4" => "[10.0.0.1/24, 10.0.0.2/24]",
        "link.ipv6" => "['fd00::1/64', '']",
        "link.endpoints.node" => "a",
        "link.endpoints.mac" => "'02:00:00:00:00:01'",
        "link.endpoints.ipv4" => "10.0.0.1/24",
        "link.endpoints.ipv6" => "'fd00::1/64'",
        _ => "eth9",
    }
}

/// A file with the field at `path` and as little else as it takes.
fn file(path: &str) -> String {
    let (section, name) = path.rsplit_once('.').unwrap_or(("", path));
    let field = format!("{name}: {}", value(path));
    let with = |has: &str, rest: &str| {
        if name == has {
            String::new()
        } else {
            format!("{rest}\n")
        }
    };
    let (mut top, mut topology, mut node, mut link) = (String::new(), String::new(), String::new(), String::new());
    match section {
        "" if path == "topology" => {}
        "" => top = format!("{field}\n"),
        "mgmt" => top = format!("mgmt: {{{field}}}\n"),
        "topology" if name == "nodes" => {}
        "topology" => topology = format!("  {field}\n"),
        "node" => node = field.clone(),
        "node.extras" => node = format!("extras: {{{field}}}"),
        "node.extras.frr" => node = format!("kind: frr, extras: {{frr: {{{field}}}}}"),
        "link" => {
            link = format!(
                "{}{field}",
                if name == "endpoints" {
                    ""
                } else {
                    "endpoints: ['a:eth1', 'b:eth1'], "
                }
            )
        }
        "link.endpoints" => {
            let others = [("node", "node: a"), ("interface", "interface: eth1")];
            let others: Vec<&str> = others
                .iter()
                .filter(|(has, _)| *has != name)
                .map(|(_, text)| *text)
                .collect();
            link = format!("endpoints: [{{{}, {field}}}, 'b:eth1']", others.join(", "));
        }
        other => panic!("no file is known for section {other}"),
    }
    // A text to start from is for FRR, and its image is the only one that is looked for on this machine.
    let kind = match path {
        "node.startup-config" => "kind: frr, ",
        _ if node.contains("kind") => "",
        _ => "kind: linux, ",
    };
    let image = if name == "image" { "" } else { "image: alpine, " };
    let links = if link.is_empty() {
        String::new()
    } else {
        format!("  links: [{{{link}}}]\n")
    };
    format!(
        "{}{top}topology:\n{topology}  nodes:\n    a: {{{kind}{image}{node}}}\n    b: {{kind: linux, image: alpine}}\n{links}",
        with("name", "name: x")
    )
}

/// What is said of the field called `name` in a file: that it is unknown, refused or without effect.
fn said(text: &str, name: &str) -> (Vec<String>, Vec<String>) {
    let about = |line: &String| {
        let field = line.split(": ").find(|part| part.ends_with(name)).is_some();
        field
            && ["unknown field", "not supported", "no effect"]
                .iter()
                .any(|words| line.contains(words))
    };
    match Plan::of_text(text, Path::new("/x.clab.yml"), Path::new("/run/labs")) {
        Ok(plan) => (Vec::new(), plan.warnings.into_iter().filter(about).collect()),
        Err(faults) => {
            let told: Vec<String> = faults
                .faults
                .iter()
                .map(|f| format!("{}: {}", f.field, f.message))
                .collect();
            // What is not installed here is no matter of the file.
            let own = told.into_iter().filter(|line| !line.contains("is not installed"));
            (own.collect(), Vec::new())
        }
    }
}

#[test]
fn the_reader_does_what_the_table_says() {
    let mut wrong = Vec::new();
    for (path, treatment) in FIELDS {
        let name = path.rsplit('.').next().unwrap_or(path);
        let text = file(path);
        let (faults, warnings) = said(&text, name);
        let fits = match treatment {
            Works(_) => faults.is_empty() && warnings.is_empty(),
            Warned(why) => faults.is_empty() && warnings.iter().any(|line| line.contains(why)),
            Refused(why) => faults.iter().any(|line| line.contains(name) && line.contains(why)),
        };
        if !fits {
            wrong.push(format!(
                "{path} {treatment:?}: faults {faults:?}, warnings {warnings:?}\n{text}"
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The control: a field that nobody knows is told in every section.
#[test]
fn what_nobody_knows_is_told_everywhere() {
    for path in [
        "xyzzy",
        "mgmt.xyzzy",
        "topology.xyzzy",
        "node.xyzzy",
        "node.extras.xyzzy",
        "link.xyzzy",
        "link.endpoints.xyzzy",
    ] {
        let (faults, _) = said(&file(path), "xyzzy");
        assert!(
            faults.iter().any(|line| line.contains("xyzzy: unknown field")),
            "{path}: {faults:?}"
        );
    }
}

/// `MARGAY_WRITE=1` writes the README's table anew.
#[test]
fn the_readme_has_the_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let (start, end) = ("<!-- fields -->\n", "<!-- end of fields -->");
    let (head, rest) = text.split_once(start).expect("a mark where the table begins");
    let (old, tail) = rest.split_once(end).expect("a mark where it ends");
    if std::env::var_os("MARGAY_WRITE").is_some() {
        std::fs::write(&path, format!("{head}{start}{}{end}{tail}", table())).unwrap();
        return;
    }
    assert!(
        old == table(),
        "the table in {} is stale: MARGAY_WRITE=1 cargo test -p margay-clab",
        path.display()
    );
}

/// Every kind of treatment occurs, or the tests above hold nothing.
#[test]
fn the_table_has_every_treatment() {
    for wanted in [Works as fn(&'static str) -> Treatment, Warned, Refused] {
        let same = |t: &Treatment| std::mem::discriminant(t) == std::mem::discriminant(&wanted(""));
        assert!(FIELDS.iter().filter(|(_, t)| same(t)).count() > 20);
    }
}
