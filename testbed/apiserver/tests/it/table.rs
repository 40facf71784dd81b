//! One table of requests (`tests/table/*.yaml`), and the answers of a real kube-apiserver to them (`tests/table/answers`).
//!
//! The answers are what the embedded server is held against; where it differs on purpose, `tests/table/deviations.yaml`
//! says where and why. With the pieces of Kubernetes (`make kube`, or `MARGAY_KUBE_ASSETS`) the real server is asked again;
//! `MARGAY_TABLE_WRITE=1` then writes its answers instead of comparing them.

mod compare;
mod normal;
mod real;
mod run;
mod subject;

use std::path::{Path, PathBuf};

use compare::{Deviations, Difference};
use serde_json::Value;
use subject::Subject;

use super::support;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/table")
}

fn answers_of(subject: &Subject) -> PathBuf {
    folder().join("answers").join(format!("{}.yaml", subject.name))
}

fn committed(subject: &Subject) -> Vec<Value> {
    let path = answers_of(subject);
    let text = std::fs::read_to_string(&path);
    let text = text.unwrap_or_else(|e| panic!("{}: {e}; write it with MARGAY_TABLE_WRITE=1", path.display()));
    serde_saphyr::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Fails with every difference, in words.
fn conclude(who: &str, requests: usize, differences: &[Difference]) {
    for difference in differences {
        println!("{difference}");
    }
    println!("{who}: {requests} requests, {} differences", differences.len());
    assert!(
        differences.is_empty(),
        "{} differences from the committed answers",
        differences.len()
    );
}

#[test]
fn the_embedded_server_answers_as_the_real_one() {
    let mut deviations = Deviations::read(&folder().join("deviations.yaml"));
    let mut differences = Vec::new();
    let mut requests = 0;
    // Watches end by the clock: all subjects beside each other.
    let runs: Vec<_> = Subject::all(&folder())
        .into_iter()
        .map(|subject| {
            std::thread::spawn(move || {
                let (_server, client) = support::start();
                let answers = run::all(&subject, &client);
                (subject, answers)
            })
        })
        .collect();
    for run in runs {
        let (subject, answers) = run.join().expect("a run without a panic");
        requests += answers.len();
        let found = compare::answers(&subject, &committed(&subject), &answers);
        differences.extend(found.into_iter().filter(|d| !deviations.cover(d)));
    }
    deviations.all_used();
    conclude("embedded", requests, &differences);
}

#[test]
fn the_real_server_still_answers_so() {
    let Some(server) = real::Server::start("the_real_server_still_answers_so") else {
        return;
    };
    let write = std::env::var_os("MARGAY_TABLE_WRITE").is_some();
    let mut differences = Vec::new();
    let mut requests = 0;
    for subject in Subject::all(&folder()) {
        let answers = run::all(&subject, &server.client);
        requests += answers.len();
        if write {
            let text = serde_saphyr::to_string(&answers).expect("YAML");
            std::fs::write(answers_of(&subject), text).expect("written");
        } else {
            differences.extend(compare::answers(&subject, &committed(&subject), &answers));
        }
    }
    conclude("real", requests, &differences);
}
