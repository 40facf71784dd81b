//! The evaluator that the tests trust shares no code with what it judges.

use std::fs;
use std::path::{Path, PathBuf};

/// Everything the evaluator may name, as path prefixes.
const ALLOWED: [&str; 5] = ["std", "margay_api::slim", "crate::verdict", "super", "thiserror::Error"];

#[test]
fn verdict_names_only_the_slim_types() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = vec![source.join("verdict.rs")];
    for entry in fs::read_dir(source.join("verdict")).expect("verdict's folder") {
        files.push(entry.expect("a file").path());
    }
    assert!(files.len() > 4, "only {files:?}");
    let foreign: Vec<(PathBuf, String)> = files
        .into_iter()
        .flat_map(|file| {
            let text = fs::read_to_string(&file).expect("a source file");
            foreign_paths(&text).into_iter().map(move |path| (file.clone(), path))
        })
        .collect();
    assert!(foreign.is_empty(), "felix::verdict must not use: {foreign:?}");
}

#[test]
fn a_foreign_name_is_found_wherever_it_stands() {
    let source = "
        use margay_api::{selector::Selector, slim};
        use crate::calc::Engine;
        // crate::comment::is_nothing
        use super::cidr::Cidr;
        use {crate::convert::policy, std::fmt};
        pub use self::decision::Verdict;
        use std::{fmt, net::{IpAddr, Ipv4Addr}};
        use margay_api as api;
        fn f() { crate::model::rule(margay_api::validate::policy()); std::mem::drop(crate::verdict::evaluate); }
    ";
    assert_eq!(
        foreign_paths(source),
        [
            "margay_api::selector::Selector",
            "crate::calc::Engine",
            "crate::convert::policy",
            "margay_api",
            "crate::model::rule",
            "margay_api::validate::policy",
        ]
    );
}

/// Paths into other crates or modules: every `use`, spread out, and every path in the code that starts at a crate.
fn foreign_paths(source: &str) -> Vec<String> {
    let code: String = source
        .lines()
        .map(|line| line.split("//").next().unwrap_or_default())
        .collect::<Vec<_>>()
        .join(" ");
    let mut found = Vec::new();
    for statement in code.split(';') {
        let words: Vec<&str> = statement.split_whitespace().collect();
        match words.iter().rposition(|word| *word == "use") {
            Some(position) => spread("", &words[position + 1..].join(" "), &mut found),
            None => found.extend(inline_paths(statement)),
        }
    }
    found.retain(|path| {
        !ALLOWED
            .iter()
            .any(|allowed| path == allowed || path.starts_with(&format!("{allowed}::")))
    });
    found
}

/// `a::{b, c::d}` as `a::b` and `a::c::d`. Paths that start at the module itself are left out.
fn spread(prefix: &str, tree: &str, found: &mut Vec<String>) {
    let mut depth = 0;
    let mut branches = vec![String::new()];
    for character in tree.chars() {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                branches.push(String::new());
                continue;
            }
            _ => {}
        }
        branches.last_mut().expect("at least one").push(character);
    }
    for branch in branches
        .iter()
        .map(|branch| branch.trim())
        .filter(|branch| !branch.is_empty())
    {
        match branch.split_once('{') {
            Some((head, tail)) => {
                let inner = tail.strip_suffix('}').expect("balanced braces");
                spread(&format!("{prefix}{}", head.trim()), inner, found);
            }
            None => {
                let path = branch.split(" as ").next().unwrap_or(branch).trim();
                let path = format!("{prefix}{path}");
                let own = ["self", "decision", "endpoint", "fault"];
                if !own.contains(&path.split("::").next().unwrap_or_default()) {
                    found.push(path);
                }
            }
        }
    }
}

/// Paths in code that start at a crate.
fn inline_paths(statement: &str) -> Vec<String> {
    let is_path = |character: char| character.is_alphanumeric() || "_:".contains(character);
    statement
        .split(|character| !is_path(character))
        .filter(|word| word.starts_with("crate::") || word.starts_with("margay_"))
        .map(str::to_owned)
        .collect()
}
