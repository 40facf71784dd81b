//! Commands that ask a cluster, and what they say when there is none.

use std::fs;

use tempfile::TempDir;

use crate::api_server;
use crate::transcript::Stage;

/// A folder with a kubeconfig for an API server that knows the cluster of `fixtures/cluster/NAME.json`.
fn stage(name: &str) -> (TempDir, Stage) {
    let folder = tempfile::tempdir().unwrap();
    let url = api_server::serve(name);
    let kubeconfig = format!(
        "{{current-context: {name}, clusters: [{{name: c, cluster: {{server: \"{url}\"}}}}], \
         contexts: [{{name: {name}, context: {{cluster: c}}}}]}}"
    );
    fs::create_dir(folder.path().join(".kube")).unwrap();
    fs::write(folder.path().join(".kube/config"), kubeconfig).unwrap();
    let stage = Stage {
        directory: folder.path().to_owned(),
        hidden: vec![(url, "URL")],
        ..Stage::fixtures()
    };
    (folder, stage)
}

#[test]
fn agents_answer_in_their_pods_and_the_api_server_tells_of_the_others() {
    stage("five").1.play("cluster");
}

#[test]
fn policies_are_read_from_the_api_server() {
    stage("five").1.play("cluster-eval");
}

#[test]
fn what_may_not_be_read_is_told_and_the_rest_is_shown() {
    stage("little").1.play("cluster-little");
}

#[test]
fn what_keeps_all_agents_from_being_asked_is_one_message() {
    stage("no-exec").1.play("cluster-no-exec");
}

#[test]
fn an_agent_that_hangs_holds_up_no_other() {
    stage("silent").1.play("cluster-silent");
}

#[test]
fn a_cluster_that_cannot_be_asked_is_one_message() {
    Stage::fixtures().play("no-cluster");
}
