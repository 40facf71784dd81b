//! Grace, finalizers, namespaces.

use serde_json::{Value, json};

use super::{crud::pod, support::start};

const PODS: &str = "/api/v1/namespaces/default/pods";

#[test]
fn a_placed_pod_waits_for_its_kubelet() {
    let (_server, client) = start();
    client.post(PODS, &pod("p")).ok();
    let bind = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "p"}, "target": {"kind": "Node", "name": "node1"}});
    assert_eq!(client.post(&format!("{PODS}/p/binding"), &bind).code, 201);
    let twice = client.post(&format!("{PODS}/p/binding"), &bind);
    assert_eq!(twice.code, 409);
    assert!(
        twice.message().contains("already assigned to node \"node1\""),
        "{}",
        twice.message()
    );

    let path = format!("{PODS}/p");
    let going = client.delete(&path, &Value::Null).ok();
    assert_eq!(going["metadata"]["deletionGracePeriodSeconds"], 30);
    assert!(going["metadata"]["deletionTimestamp"].is_string());
    assert_eq!(client.get(&path).code, 200);
    let sooner = client.delete(&path, &json!({"gracePeriodSeconds": 5})).ok();
    assert_eq!(sooner["metadata"]["deletionGracePeriodSeconds"], 5);
    client.delete(&path, &json!({"gracePeriodSeconds": 0})).ok();
    assert_eq!(client.get(&path).code, 404);

    client.post(PODS, &pod("unplaced")).ok();
    client.delete(&format!("{PODS}/unplaced"), &Value::Null).ok();
    assert_eq!(client.get(&format!("{PODS}/unplaced")).code, 404);
}

#[test]
fn finalizers_hold_an_object_back() {
    let (_server, client) = start();
    let maps = "/api/v1/namespaces/default/configmaps";
    let held = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m", "finalizers": ["x.io/hold"]}});
    client.post(maps, &held).ok();
    let path = format!("{maps}/m");
    assert!(client.delete(&path, &Value::Null).ok()["metadata"]["deletionTimestamp"].is_string());
    assert_eq!(client.get(&path).code, 200);
    client
        .patch("merge", &path, &json!({"metadata": {"finalizers": null}}))
        .ok();
    assert_eq!(client.get(&path).code, 404);
}

#[test]
fn a_namespace_goes_when_its_last_pod_is_gone() {
    let (_server, client) = start();
    let space = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n"}});
    client.post("/api/v1/namespaces", &space).ok();
    let mut placed = pod("p");
    placed["spec"]["nodeName"] = json!("node1");
    client.post("/api/v1/namespaces/n/pods", &placed).ok();
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}});
    client.post("/api/v1/namespaces/n/configmaps", &map).ok();

    assert_eq!(
        client.delete("/api/v1/namespaces/n", &Value::Null).ok()["status"]["phase"],
        "Terminating"
    );
    assert_eq!(client.get("/api/v1/namespaces/n/configmaps/m").code, 404);
    assert!(client.get("/api/v1/namespaces/n/pods/p").ok()["metadata"]["deletionTimestamp"].is_string());
    let late = client.post("/api/v1/namespaces/n/configmaps", &map);
    assert_eq!(
        (late.code, late.body["details"]["causes"][0]["reason"].as_str()),
        (403, Some("NamespaceTerminating"))
    );
    client
        .delete("/api/v1/namespaces/n/pods/p", &json!({"gracePeriodSeconds": 0}))
        .ok();
    assert_eq!(client.get("/api/v1/namespaces/n").code, 404);
}

#[test]
fn a_collection_is_deleted_by_selector() {
    let (_server, client) = start();
    for (name, app) in [("a", "x"), ("b", "x"), ("c", "y")] {
        let mut pod = pod(name);
        pod["metadata"]["labels"] = json!({"app": app});
        client.post(PODS, &pod).ok();
    }
    client
        .delete(&format!("{PODS}?labelSelector=app%3Dx"), &Value::Null)
        .ok();
    let left = client.get(PODS).ok();
    assert_eq!(left["items"].as_array().map(Vec::len), Some(1));
    assert_eq!(left["items"][0]["metadata"]["name"], "c");
}
