//! Reading, writing, refusing.

use serde_json::{Value, json};

use super::support::start;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";
const POLICIES: &str = "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies";

fn map(name: &str, value: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": {"n": name}}, "data": {"k": value}})
}

pub(super) fn pod(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i"}]}})
}

#[test]
fn only_the_token_opens_it() {
    let (_server, client) = start();
    assert_eq!(client.with_token(None).get("/healthz").body, json!("ok"));
    assert_eq!(client.with_token(None).get("/api/v1/pods").code, 403);
    for token in [Some("wrong"), Some("test-tokenx")] {
        let reply = client.with_token(token).get("/api/v1/pods");
        assert_eq!(
            (reply.code, reply.body["reason"].as_str()),
            (401, Some("Unauthorized")),
            "{token:?}"
        );
    }
    assert_eq!(client.get("/api/v1/pods").code, 200);
}

#[test]
fn writes_conflict_as_they_should() {
    let (_server, client) = start();
    let first = client.post(MAPS, &map("a", "1")).ok();
    let again = client.post(MAPS, &map("a", "1"));
    assert_eq!((again.code, again.message()), (409, "configmaps \"a\" already exists"));

    let path = format!("{MAPS}/a");
    let mut edit = first.clone();
    edit["data"]["k"] = json!("2");
    let second = client.put(&path, &edit).ok();
    assert_ne!(
        first["metadata"]["resourceVersion"],
        second["metadata"]["resourceVersion"]
    );
    let stale = client.put(&path, &edit);
    assert_eq!((stale.code, stale.body["reason"].as_str()), (409, Some("Conflict")));
    assert!(
        stale
            .message()
            .starts_with("Operation cannot be fulfilled on configmaps \"a\": the object has been modified")
    );

    edit["metadata"]["resourceVersion"] = Value::Null;
    edit["metadata"]["uid"] = json!("other");
    assert_eq!(client.put(&path, &edit).code, 409, "another uid is another object");
    let unconditional = map("a", "3");
    assert_eq!(client.put(&path, &unconditional).ok()["data"]["k"], "3");
    let same = client.put(&path, &unconditional).ok();
    assert_eq!(
        same["metadata"]["resourceVersion"],
        client.get(&path).ok()["metadata"]["resourceVersion"],
        "no change, no version"
    );

    let stale = client.delete(&path, &json!({"preconditions": {"resourceVersion": "1"}}));
    assert_eq!(stale.code, 409);
    assert_eq!(client.delete(&path, &Value::Null).ok()["status"], "Success");
    let gone = client.get(&path);
    assert_eq!((gone.code, gone.message()), (404, "configmaps \"a\" not found"));
}

#[test]
fn generate_name_dry_run_and_namespaces() {
    let (_server, client) = start();
    let unnamed = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"generateName": "m-"}});
    let name = client.post(MAPS, &unnamed).ok()["metadata"]["name"]
        .as_str()
        .map(str::to_owned)
        .expect("name");
    assert!(name.starts_with("m-") && name.len() == 7, "{name}");

    let dry = client.post(&format!("{MAPS}?dryRun=All"), &map("dry", "1"));
    assert_eq!(dry.code, 201);
    assert_eq!(client.get(&format!("{MAPS}/dry")).code, 404);
    assert_eq!(client.post(&format!("{MAPS}?dryRun=Some"), &map("dry", "1")).code, 422);

    let elsewhere = client.post("/api/v1/namespaces/none/configmaps", &map("a", "1"));
    assert_eq!(
        (elsewhere.code, elsewhere.message()),
        (404, "namespaces \"none\" not found")
    );
    let mut other = map("a", "1");
    other["metadata"]["namespace"] = json!("kube-system");
    assert_eq!(client.post(MAPS, &other).code, 400);
    let space = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "new"}});
    let space = client.post("/api/v1/namespaces", &space).ok();
    assert_eq!(space["metadata"]["labels"]["kubernetes.io/metadata.name"], "new");
    assert_eq!(client.get("/api/v1/namespaces/new/serviceaccounts/default").code, 200);
}

#[test]
fn lists_by_selector_and_page() {
    let (_server, client) = start();
    for name in ["a", "b", "c", "d"] {
        client.post(MAPS, &map(name, "1")).ok();
    }
    let names = |path: &str| -> Vec<String> {
        let list = client.get(path).ok();
        list["items"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|o| o["metadata"]["name"].as_str().map(str::to_owned))
            .collect()
    };
    assert_eq!(names(&format!("{MAPS}?labelSelector=n%20in%20(a,c)")), ["a", "c"]);
    assert_eq!(
        names(&format!("{MAPS}?labelSelector=n!=a&fieldSelector=metadata.name%3Db")),
        ["b"]
    );
    assert_eq!(client.get(&format!("{MAPS}?fieldSelector=spec.x%3Dy")).code, 400);

    let first = client.get(&format!("{MAPS}?limit=3")).ok();
    assert_eq!(first["metadata"]["remainingItemCount"], 1);
    // What happens between two pages is not seen by the second.
    client.post(MAPS, &map("e", "1")).ok();
    client.delete(&format!("{MAPS}/d"), &Value::Null).ok();
    let token = first["metadata"]["continue"].as_str().expect("token");
    assert_eq!(names(&format!("{MAPS}?limit=3&continue={token}")), ["d"]);
    assert_eq!(client.get(&format!("{MAPS}?continue=nonsense")).code, 400);
}

#[test]
fn field_validation_in_its_three_strengths() {
    let (_server, client) = start();
    let mut odd = pod("p");
    odd["spec"]["containers"][0]["imagee"] = json!("x");
    let strict = client.post(&format!("{PODS}?fieldValidation=Strict"), &odd);
    assert_eq!(strict.code, 400);
    assert!(
        strict
            .message()
            .ends_with("strict decoding error: unknown field \"spec.containers[0].imagee\""),
        "{}",
        strict.message()
    );
    let warned = client.post(&format!("{PODS}?fieldValidation=Warn"), &odd);
    assert!(
        warned
            .headers
            .to_lowercase()
            .contains("warning: 299 - \"unknown field \\\"spec.containers[0].imagee\\\"\""),
        "{}",
        warned.headers
    );
    assert_eq!(warned.ok()["spec"]["containers"][0]["imagee"], Value::Null);
    odd["metadata"]["name"] = json!("q");
    assert!(
        !client
            .post(&format!("{PODS}?fieldValidation=Ignore"), &odd)
            .headers
            .to_lowercase()
            .contains("warning")
    );
    let mut wrong = pod("r");
    wrong["spec"]["terminationGracePeriodSeconds"] = json!("soon");
    assert_eq!(client.post(PODS, &wrong).code, 400);
}

#[test]
fn built_in_defaults_and_refusals() {
    let (_server, client) = start();
    let policy = |spec: Value| json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "p"}, "spec": spec});
    let made = client
        .post(
            POLICIES,
            &policy(json!({"podSelector": {}, "egress": [{"ports": [{"port": 53}]}]})),
        )
        .ok();
    assert_eq!(made["spec"]["policyTypes"], json!(["Ingress", "Egress"]));
    assert_eq!(made["spec"]["egress"][0]["ports"][0]["protocol"], "TCP");
    let bad = json!({"podSelector": {"matchExpressions": [{"key": "a", "operator": "In"}]}, "ingress": [{"ports": [{"port": 0}]}]});
    let refused = client.put(&format!("{POLICIES}/p"), &policy(bad));
    assert_eq!(refused.code, 422);
    let causes = refused.body["details"]["causes"].as_array().expect("causes");
    let fields: Vec<_> = causes
        .iter()
        .map(|c| (c["reason"].as_str(), c["field"].as_str()))
        .collect();
    assert_eq!(
        fields,
        [
            (
                Some("FieldValueRequired"),
                Some("spec.podSelector.matchExpressions[0].values")
            ),
            (Some("FieldValueInvalid"), Some("spec.ingress[0].ports[0].port")),
        ]
    );
    assert_eq!(
        client.get(&format!("{POLICIES}/p")).ok()["spec"],
        made["spec"],
        "nothing changed"
    );

    let made = client.post(PODS, &pod("p")).ok();
    assert_eq!(made["spec"]["serviceAccountName"], "default");
    assert_eq!(made["spec"]["dnsPolicy"], "ClusterFirst");
    assert_eq!(made["status"]["phase"], "Pending");
    let mut moved = made.clone();
    moved["spec"]["hostNetwork"] = json!(true);
    let refused = client.put(&format!("{PODS}/p"), &moved);
    assert!(
        refused
            .message()
            .starts_with("Pod \"p\" is invalid: spec: Forbidden: pod updates may not change fields"),
        "{}",
        refused.message()
    );
    let named = client.post(PODS, &pod("Upper"));
    assert!(
        named
            .message()
            .contains("metadata.name: Invalid value: \"Upper\": a lowercase RFC 1123 subdomain"),
        "{}",
        named.message()
    );
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"k": "hi"}});
    assert_eq!(
        client.post("/api/v1/namespaces/default/secrets", &secret).ok()["data"],
        json!({"k": "aGk="})
    );
}

#[test]
fn what_it_does_not_do_answers_501_and_says_what_does() {
    let (_server, client) = start();
    client.post(PODS, &pod("p")).ok();
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": {}});
    let service =
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}});
    for (reply, hint) in [
        (
            client.post("/apis/apps/v1/namespaces/default/deployments", &deployment),
            "Create pods directly",
        ),
        (
            client.post("/api/v1/namespaces/default/services", &service),
            "clusterIP: None",
        ),
        (client.get(&format!("{PODS}/p/log")), "pods/UID/CONTAINER.log"),
        (
            client.post(&format!("{PODS}/p/exec?command=ls"), &Value::Null),
            "margay-lab exec",
        ),
        (
            client.delete(&format!("{PODS}/p"), &json!({"propagationPolicy": "Foreground"})),
            "Background",
        ),
    ] {
        assert_eq!(reply.code, 501, "{}", reply.body);
        assert!(reply.message().contains(hint), "{}", reply.message());
    }
    assert_eq!(client.get("/apis/apps/v1/deployments").ok()["items"], json!([]));
    let huge =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "h"}, "data": {"k": "x".repeat(4 << 20)}});
    assert_eq!(client.post(MAPS, &huge).code, 413);
}

#[test]
fn both_event_apis_show_one_event() {
    let (_server, client) = start();
    let event = json!({
        "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "e"}, "note": "it happened", "type": "Normal",
        "reason": "Because", "regarding": {"kind": "Pod", "name": "p"}, "reportingController": "test", "action": "Do",
        "reportingInstance": "i", "eventTime": "2026-01-01T00:00:00.000000Z",
    });
    let made = client
        .post("/apis/events.k8s.io/v1/namespaces/default/events", &event)
        .ok();
    assert_eq!(made["note"], "it happened");
    let list = client
        .get("/api/v1/namespaces/default/events?fieldSelector=involvedObject.name%3Dp")
        .ok();
    assert_eq!(list["items"][0]["message"], "it happened");
    assert_eq!(list["items"][0]["reportingComponent"], "test");
}

#[test]
fn tables_and_partial_objects() {
    let (_server, client) = start();
    let mut placed = pod("p");
    placed["spec"]["nodeName"] = json!("node1");
    client.post(PODS, &placed).ok();
    let status = json!({"status": {"phase": "Running", "podIPs": [{"ip": "10.244.0.2"}], "containerStatuses": [
        {"name": "c", "ready": true, "restartCount": 0, "image": "i", "imageID": "", "state": {"running": {}}}]}});
    client.patch("merge", &format!("{PODS}/p/status"), &status).ok();
    let table = client
        .send(
            "GET",
            PODS,
            "Accept: application/json;as=Table;v=v1;g=meta.k8s.io\r\n",
            "",
        )
        .ok();
    let names: Vec<_> = table["columnDefinitions"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|c| c["name"].as_str())
        .collect();
    assert_eq!(names[..7], ["Name", "Ready", "Status", "Restarts", "Age", "IP", "Node"]);
    let cells = table["rows"][0]["cells"].as_array().expect("cells");
    assert_eq!(cells[..4], [json!("p"), json!("1/1"), json!("Running"), json!("0")]);
    assert_eq!(cells[5..7], [json!("10.244.0.2"), json!("node1")]);
    assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    let accept = "Accept: application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io\r\n";
    let partial = client.send("GET", PODS, accept, "").ok();
    assert_eq!(partial["items"][0]["spec"], Value::Null);
    assert_eq!(partial["items"][0]["metadata"]["name"], "p");
}
