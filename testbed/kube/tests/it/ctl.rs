//! margayctl on a person's own machine: all agents at once, through the API server.

use serde_json::Value;

use super::harness::{Kube, PATIENCE, wait};

#[test]
fn margayctl_reaches_all_agents_and_tells_of_nodes_that_have_none() {
    let Some(kube) = Kube::installed("ctl::margayctl_reaches_all_agents_and_tells_of_nodes_that_have_none") else {
        return;
    };
    kube.apply(include_str!("manifests/pods.yaml"));
    kube.sh("kubectl -n pods wait --for=condition=Ready pod --all --timeout=90s");
    all_agents(&kube);
    rights(&kube);
    policies(&kube);
    a_dead_node(&kube);
}

/// What is shown of a cluster that is well: three nodes with sessions to two routers each, in two families.
fn all_agents(kube: &Kube) {
    let status = wait("nothing is down", PATIENCE, || ctl(kube, "status --check"));
    for line in ["Nodes      3 of 3 ready", "Sessions   12 of 12 up"] {
        assert!(status.lines().any(|shown| shown == line), "{line} is not in\n{status}");
    }
    let rows = kube.sh("margayctl status --all");
    for word in ["pods/near", "pods/far", "Established", "pods-v4"] {
        assert!(rows.contains(word), "{word} is not in\n{rows}");
    }
    let peers: Value = serde_json::from_str(&kube.sh("margayctl bgp peers --node node2 -o json")).unwrap();
    assert_eq!(peers["nodes"].as_array().map(Vec::len), Some(1), "{peers}");
    assert_eq!(peers["nodes"][0]["node"], "node2");
    assert_eq!(peers["nodes"][0]["peers"].as_array().map(Vec::len), Some(4), "{peers}");
    let far = kube.field("pod -n pods far", "{.status.podIP}");
    let addresses = kube.sh("margayctl ipam show");
    let held = addresses.lines().find(|line| line.starts_with(&format!("{far} ")));
    assert!(held.is_some_and(|line| line.contains("pods/far")), "{addresses}");
    let seen = kube.sh("timeout 6 margayctl status -w 1 || [ $? = 124 ]");
    assert!(
        seen.matches("3 of 3 ready").count() >= 2,
        "it was asked once only:\n{seen}"
    );
    let elsewhere = kube
        .try_sh("margayctl -n default status")
        .expect_err("no agent is there");
    let way_out = "there are some in margay-system: name it with -n";
    assert!(elsewhere.words.contains(way_out), "{elsewhere}");
}

/// Who looks in needs the rights that `deploy/examples/margayctl.yaml` has, and no others.
fn rights(kube: &Kube) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("kubeconfig");
    let file = file.display();
    kube.sh(&format!(
        "kubectl apply -f deploy/examples/margayctl.yaml
         kubectl create serviceaccount viewer
         kubectl config view --raw --minify --flatten >{file}
         token=$(kubectl create token viewer)
         export KUBECONFIG={file}
         kubectl config set-credentials viewer --token $token
         kubectl config set-context --current --user viewer"
    ));
    let viewer = |arguments: &str| kube.try_sh(&format!("KUBECONFIG={file} margayctl {arguments}"));
    let refused = viewer("status").expect_err("the viewer has no right");
    assert!(refused.words.contains("the agents' pods cannot be listed"), "{refused}");
    assert!(refused.words.contains("cannot list resource \"pods\""), "{refused}");
    assert!(refused.words.contains("deploy/README.md says"), "{refused}");
    kube.sh("kubectl create role finder -n margay-system --resource pods --verb list");
    kube.sh("kubectl create rolebinding finder -n margay-system --role finder --serviceaccount default:viewer");
    let refused = wait("the viewer may not run anything", PATIENCE, || {
        let refused = viewer("bgp peers").expect_err("the viewer may not run anything");
        match refused.words.contains("no command can be run in agents' pods") {
            true => Ok(refused),
            false => Err(refused.to_string()),
        }
    });
    assert!(refused.words.contains("pods/exec"), "{refused}");
    kube.sh("kubectl create rolebinding margayctl -n margay-system --role margayctl --serviceaccount default:viewer");
    let status = wait("the viewer asks agents", PATIENCE, || {
        viewer("status --check").map_err(|failed| failed.to_string())
    });
    assert!(status.contains("Nodes      3 of 3 ready\n"), "{status}");
    assert!(
        status.contains("nodes cannot be listed: nodes is forbidden"),
        "{status}"
    );
    kube.sh("kubectl create clusterrolebinding margayctl --clusterrole margayctl --serviceaccount default:viewer");
    wait("the viewer sees all", PATIENCE, || {
        let status = viewer("status --check").map_err(|failed| failed.to_string())?;
        match status.contains("cannot be listed") {
            true => Err(status),
            false => Ok(()),
        }
    });
    let eval = "policy eval --from pods/near --to pods/far --port 8080/tcp";
    assert_eq!(
        viewer(eval).expect("the viewer may read what decides"),
        kube.sh(&format!("margayctl {eval}"))
    );
}

/// What the cluster's own policies mean.
fn policies(kube: &Kube) {
    let eval = "margayctl policy eval --from pods/near --to pods/far --port 8080/tcp";
    let before = kube.sh(eval);
    assert!(before.contains(" allow "), "{before}");
    kube.apply(
        "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: closed, namespace: pods}, \
         spec: {podSelector: {}, policyTypes: [Ingress]}}",
    );
    let closed = kube.sh(eval);
    assert!(closed.contains(" deny "), "{closed}");
    assert!(closed.contains("isolated by pods/closed, no rule matched"), "{closed}");
    kube.sh("kubectl -n pods delete networkpolicy closed");
}

/// A node that dies is a row with its reason, and holds up no other; what it left is told once it is no Node any more.
fn a_dead_node(kube: &Kube) {
    kube.power("stop", "node3");
    let failed = wait("the dead node is told", PATIENCE, || {
        match kube.try_sh("margayctl status --check") {
            Err(failed) if failed.words.contains("Nodes      2 of 3 ready") => Ok(failed),
            Err(failed) => Err(failed.to_string()),
            Ok(words) => Err(words),
        }
    });
    let row = failed.words.lines().find(|line| line.starts_with("node3 "));
    assert!(
        row.is_some_and(|row| row.contains(" agent ") && row.contains(" down ")),
        "{failed}"
    );
    kube.sh("kubectl delete node node3");
    wait("what it left is told", PATIENCE, || {
        let status = kube.try_sh("margayctl status").unwrap_or_else(|failed| failed.words);
        let left = |line: &str| line.starts_with("node3 ") && line.contains("there is no such Node any more");
        match status.lines().any(left) {
            true => Ok(()),
            false => Err(status),
        }
    });
    let blocks = kube.try_sh("margayctl ipam show").unwrap_or_else(|failed| failed.words);
    assert!(blocks.contains("node3 (gone)"), "{blocks}");
}

fn ctl(kube: &Kube, arguments: &str) -> Result<String, String> {
    kube.try_sh(&format!("margayctl {arguments}"))
        .map_err(|failed| failed.to_string())
}
