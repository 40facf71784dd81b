//! The four patch types.

use serde_json::{Value, json};

use super::{crud::pod, support::start};

const PODS: &str = "/api/v1/namespaces/default/pods";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[test]
fn merge_json_and_strategic_patches() {
    let (_server, client) = start();
    client.post(PODS, &pod("p")).ok();
    let path = format!("{PODS}/p");
    let merged = client
        .patch("merge", &path, &json!({"metadata": {"labels": {"a": "1", "b": "2"}}}))
        .ok();
    assert_eq!(merged["metadata"]["labels"], json!({"a": "1", "b": "2"}));
    let merged = client
        .patch("merge", &path, &json!({"metadata": {"labels": {"a": null}}}))
        .ok();
    assert_eq!(merged["metadata"]["labels"], json!({"b": "2"}));

    let strategic =
        json!({"spec": {"containers": [{"name": "c", "image": "new"}]}, "metadata": {"finalizers": ["x.io/a"]}});
    let patched = client.patch("strategic-merge", &path, &strategic).ok();
    assert_eq!(patched["spec"]["containers"][0]["image"], "new");
    assert_eq!(
        patched["spec"]["containers"][0]["terminationMessagePolicy"], "File",
        "merged, not replaced"
    );
    let patched = client
        .patch(
            "strategic-merge",
            &path,
            &json!({"metadata": {"finalizers": ["x.io/b"]}}),
        )
        .ok();
    assert_eq!(patched["metadata"]["finalizers"], json!(["x.io/b", "x.io/a"]));

    let operations = json!([{"op": "test", "path": "/metadata/labels/b", "value": "2"}, {"op": "remove", "path": "/metadata/labels/b"}]);
    assert_eq!(
        client.patch("json", &path, &operations).ok()["metadata"]["labels"],
        Value::Null
    );
    assert_eq!(client.patch("json", &path, &operations).code, 422, "the test fails now");

    let stale = json!({"metadata": {"resourceVersion": "1", "labels": {"z": "1"}}});
    assert_eq!(client.patch("merge", &path, &stale).code, 409);
    assert_eq!(
        client
            .send("PATCH", &path, "Content-Type: application/json\r\n", "{}")
            .code,
        415
    );
    assert_eq!(client.patch("merge", &format!("{PODS}/none"), &json!({})).code, 404);
}

#[test]
fn server_side_apply_creates_conflicts_and_forces() {
    let (_server, client) = start();
    let path = |manager: &str, more: &str| format!("{MAPS}/m?fieldManager={manager}{more}");
    let config =
        |data: Value| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": data});
    let made = client.patch("apply", &path("alice", ""), &config(json!({"a": "1"})));
    assert_eq!(made.code, 201);
    let again = client.patch("apply", &path("alice", ""), &config(json!({"a": "1"})));
    assert_eq!(
        again.ok()["metadata"]["resourceVersion"],
        made.body["metadata"]["resourceVersion"],
        "nothing changed"
    );

    let clash = client.patch("apply", &path("bob", ""), &config(json!({"a": "2", "b": "2"})));
    assert_eq!(clash.code, 409);
    assert_eq!(
        clash.message(),
        "Apply failed with 1 conflict: conflict with \"alice\": .data.a"
    );
    assert_eq!(clash.body["details"]["causes"][0]["reason"], "FieldManagerConflict");
    let forced = client
        .patch(
            "apply",
            &path("bob", "&force=true"),
            &config(json!({"a": "2", "b": "2"})),
        )
        .ok();
    assert_eq!(forced["data"], json!({"a": "2", "b": "2"}));
    let dropped = client.patch("apply", &path("bob", ""), &config(json!({"a": "2"}))).ok();
    assert_eq!(dropped["data"], json!({"a": "2"}));
    assert_eq!(
        client.patch("apply", &format!("{MAPS}/m"), &config(json!({}))).code,
        422,
        "a manager is needed"
    );
}
