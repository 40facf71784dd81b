//! Bad objects through kubectl: one message each, naming the object and the field, and nothing is created.

use std::{
    io::Write,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::Context;
use margay_testkit::shell::wait_for;

use serde_json::Value;

use super::lab::ClusterLab;
use margay_testkit::needs;

/// What is applied, and what the answer must say.
struct Bad {
    manifest: &'static str,
    object: &'static str,
    words: &'static [&'static str],
}

const BAD: [Bad; 7] = [
    Bad {
        manifest: "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {name: host-bits}\nspec: {cidr: 10.50.0.7/16}",
        object: "ippool/host-bits",
        words: &["host-bits", "spec.cidr"],
    },
    Bad {
        manifest: "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {name: small}\nspec: {cidr: 10.50.0.0/16, blockSize: 33}",
        object: "ippool/small",
        words: &["small", "blockSize"],
    },
    Bad {
        manifest: "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {name: overlay}\nspec: {cidr: 10.51.0.0/16, vxlanMode: Always}",
        object: "ippool/overlay",
        words: &["overlay", "vxlanMode", "not supported"],
    },
    Bad {
        manifest: "apiVersion: projectcalico.org/v3\nkind: BGPPeer\nmetadata: {name: nobody}\nspec: {asNumber: 65000}",
        object: "bgppeer/nobody",
        words: &["nobody", "peerIP", "peerSelector"],
    },
    Bad {
        manifest: "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: range, namespace: default}\n\
                   spec: {podSelector: {}, ingress: [{ports: [{port: 90, endPort: 80}]}]}",
        object: "networkpolicy/range",
        words: &["range", "spec.ingress[0].ports[0].endPort"],
    },
    Bad {
        manifest: "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: port, namespace: default}\n\
                   spec: {podSelector: {}, ingress: [{ports: [{port: 70000}]}]}",
        object: "networkpolicy/port",
        words: &["port", "spec.ingress[0].ports[0].port"],
    },
    Bad {
        manifest: "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: empty-in, namespace: default}\n\
                   spec: {podSelector: {matchExpressions: [{key: app, operator: In, values: []}]}}",
        object: "networkpolicy/empty-in",
        words: &["empty-in", "spec.podSelector.matchExpressions[0].values"],
    },
];

#[test]
fn bad_objects_are_refused_and_overlaps_are_told() {
    if !needs::root("bad_objects_are_refused_and_overlaps_are_told") {
        return;
    }
    let lab = ClusterLab::up("bad");
    for bad in &BAD {
        let (applied, words) = apply(&lab, bad.manifest);
        assert!(!applied, "{} must be refused:\n{words}", bad.object);
        for word in bad.words {
            assert!(
                words.contains(word),
                "{}: the answer lacks {word:?}:\n{words}",
                bad.object
            );
        }
        assert!(
            lab.shell.kubectl(&["get", bad.object]).is_err(),
            "{} must not be there",
            bad.object
        );
    }
    // The control: the same way of applying takes a good object.
    let (applied, words) = apply(
        &lab,
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: good, namespace: default}\n\
         spec: {podSelector: {}, ingress: [{ports: [{port: 80, endPort: 90}]}]}",
    );
    assert!(applied, "{words}");

    // No single object shows an overlap, so the API takes it; the agent says so and works on without it.
    let (applied, words) = apply(
        &lab,
        "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {name: overlapping}\nspec: {cidr: 10.244.128.0/17}",
    );
    assert!(applied, "{words}");
    wait_for("an Event tells of the overlap", Duration::from_secs(30), || {
        let events = lab.shell.kubectl(&[
            "get",
            "events",
            "-A",
            "--field-selector=involvedObject.name=overlapping",
        ])?;
        anyhow::ensure!(events.contains("pods-v4") && events.contains("overlap"), "{events}");
        Ok(())
    })
    .unwrap();
    let allocatable = |pool: &str| -> anyhow::Result<[String; 2]> {
        let text = lab.shell.kubectl(&["get", "ippool", pool, "-o", "json"])?;
        let pool: Value = serde_json::from_str(&text)?;
        let conditions = pool["status"]["conditions"].as_array().into_iter().flatten();
        let condition = conditions
            .into_iter()
            .find(|condition| condition["type"] == "Allocatable");
        let condition = condition.with_context(|| format!("no condition Allocatable: {pool}"))?;
        Ok(["status", "message"].map(|field| condition[field].as_str().unwrap_or_default().to_owned()))
    };
    wait_for(
        "the pools' conditions say which one is used",
        Duration::from_secs(30),
        || {
            let [status, message] = allocatable("overlapping")?;
            anyhow::ensure!(
                status == "False" && message.contains("pods-v4"),
                "overlapping: {status} {message}"
            );
            let [status, message] = allocatable("pods-v4")?;
            anyhow::ensure!(status == "True", "pods-v4: {status} {message}");
            Ok(())
        },
    )
    .unwrap();
}

fn apply(lab: &ClusterLab, manifest: &str) -> (bool, String) {
    let mut command: Command = lab.shell.command("kubectl".as_ref());
    command
        .args(["apply", "-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(manifest.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let words = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&words).into_owned())
}
