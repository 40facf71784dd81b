//! CustomResourceDefinitions and what they serve.

use serde_json::{Value, json};

use super::support::{Client, start};

const POOLS: &str = "/apis/example.io/v3/pools";
const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

fn definition() -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "pools.example.io"},
        "spec": {
            "group": "example.io", "scope": "Cluster", "names": {"plural": "pools", "kind": "Pool", "shortNames": ["pl"]},
            "versions": [{
                "name": "v3", "served": true, "storage": true, "subresources": {"status": {}},
                "additionalPrinterColumns": [{"name": "CIDR", "type": "string", "jsonPath": ".spec.cidr"}],
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                    "spec": {
                        "type": "object", "required": ["cidr"],
                        "properties": {
                            "cidr": {"type": "string", "format": "cidr",
                                "x-kubernetes-validations": [{"rule": "self == oldSelf", "message": "cidr is immutable"}]},
                            "blockSize": {"type": "integer", "default": 26, "minimum": 20, "maximum": 32},
                            "mode": {"type": "string", "enum": ["Never", "Always"], "default": "Never"},
                            "port": {"x-kubernetes-int-or-string": true},
                            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                        },
                        "x-kubernetes-validations": [
                            {"rule": "self.mode != 'Always' || self.blockSize == 26", "message": "mode Always needs blockSize 26"},
                        ],
                    },
                    "status": {"type": "object", "properties": {"state": {"type": "string"}}},
                }}},
            }],
        },
    })
}

fn pool(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "example.io/v3", "kind": "Pool", "metadata": {"name": name}, "spec": spec})
}

fn register(client: &Client) {
    let made = client.post(DEFINITIONS, &definition()).ok();
    let conditions: Vec<_> = made["status"]["conditions"].as_array().into_iter().flatten().collect();
    assert!(
        conditions
            .iter()
            .any(|c| c["type"] == "Established" && c["status"] == "True"),
        "{made}"
    );
}

#[test]
fn a_definition_serves_its_kind() {
    let (_server, client) = start();
    assert_eq!(client.get(POOLS).code, 404);
    register(&client);
    let made = client
        .post(
            POOLS,
            &pool(
                "a",
                json!({"cidr": "10.0.0.0/8", "other": 1, "free": {"x": 1}, "port": "http"}),
            ),
        )
        .ok();
    let expected = json!({"cidr": "10.0.0.0/8", "blockSize": 26, "mode": "Never", "free": {"x": 1}, "port": "http"});
    assert_eq!(made["spec"], expected, "defaulted and pruned");
    let group = client.get("/apis/example.io/v3").ok();
    assert_eq!(group["resources"][0]["shortNames"], json!(["pl"]));
    let table = client
        .send(
            "GET",
            POOLS,
            "Accept: application/json;as=Table;v=v1;g=meta.k8s.io\r\n",
            "",
        )
        .ok();
    assert_eq!(table["rows"][0]["cells"], json!(["a", "10.0.0.0/8"]));

    client
        .delete(&format!("{DEFINITIONS}/pools.example.io"), &Value::Null)
        .ok();
    assert_eq!(client.get(&format!("{POOLS}/a")).code, 404);
    register(&client);
    assert_eq!(
        client.get(POOLS).ok()["items"],
        json!([]),
        "the old objects went with the definition"
    );
}

#[test]
fn schema_and_rules_refuse_with_field_and_reason() {
    let (_server, client) = start();
    register(&client);
    let cases = [
        (json!({}), "spec.cidr: Required value"),
        (
            json!({"cidr": 1}),
            "spec.cidr: Invalid value: \"integer\": spec.cidr in body must be of type string: \"integer\"",
        ),
        (
            json!({"cidr": "ten"}),
            "spec.cidr: Invalid value: \"ten\": spec.cidr in body must be of type cidr: \"ten\"",
        ),
        (
            json!({"cidr": "10.0.0.0/8", "blockSize": 40}),
            "spec.blockSize: Invalid value: 40: spec.blockSize in body should be less than or equal to 32",
        ),
        (
            json!({"cidr": "10.0.0.0/8", "mode": "Some"}),
            "spec.mode: Unsupported value: \"Some\": supported values: \"Never\", \"Always\"",
        ),
        (
            json!({"cidr": "10.0.0.0/8", "mode": "Always", "blockSize": 27}),
            "spec: Invalid value: mode Always needs blockSize 26",
        ),
    ];
    for (spec, expected) in cases {
        let reply = client.post(POOLS, &pool("a", spec));
        let causes = reply.body["details"]["causes"].as_array().into_iter().flatten();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        // Beside some faults the rules are not evaluated, which is said, too.
        let mut causes = causes.map(|c| format!("{}: {}", text(&c["field"]), text(&c["message"])));
        assert_eq!((reply.code, causes.next().as_deref()), (422, Some(expected)));
    }
    assert_eq!(client.get(POOLS).ok()["items"], json!([]));

    client.post(POOLS, &pool("a", json!({"cidr": "10.0.0.0/8"}))).ok();
    let moved = client.patch("merge", &format!("{POOLS}/a"), &json!({"spec": {"cidr": "11.0.0.0/8"}}));
    assert_eq!(
        moved.message(),
        "Pool.example.io \"a\" is invalid: spec.cidr: Invalid value: \"11.0.0.0/8\": cidr is immutable"
    );
    assert_eq!(
        client
            .put(&format!("{POOLS}/a"), &pool("a", json!({"cidr": "10.0.0.0/8"})))
            .code,
        422,
        "no resourceVersion"
    );
    assert_eq!(
        client.patch("strategic-merge", &format!("{POOLS}/a"), &json!({})).code,
        415
    );
}

#[test]
fn status_and_spec_are_written_apart() {
    let (_server, client) = start();
    register(&client);
    let path = format!("{POOLS}/a");
    let mut body = pool("a", json!({"cidr": "10.0.0.0/8"}));
    body["status"] = json!({"state": "early"});
    let made = client.post(POOLS, &body).ok();
    assert_eq!(
        (&made["status"], &made["metadata"]["generation"]),
        (&Value::Null, &json!(1))
    );
    let both = json!({"spec": {"mode": "Always"}, "status": {"state": "up"}});
    let after = client.patch("merge", &format!("{path}/status"), &both).ok();
    assert_eq!(
        (&after["status"]["state"], &after["spec"]["mode"]),
        (&json!("up"), &json!("Never"))
    );
    assert_eq!(after["metadata"]["generation"], 1);
    let both = json!({"spec": {"mode": "Always"}, "status": {"state": "down"}});
    let after = client.patch("merge", &path, &both).ok();
    assert_eq!(
        (&after["status"]["state"], &after["spec"]["mode"]),
        (&json!("up"), &json!("Always"))
    );
    assert_eq!(after["metadata"]["generation"], 2);
}

#[test]
fn a_bad_definition_is_refused_whole() {
    let (_server, client) = start();
    let schema = "/spec/versions/0/schema/openAPIV3Schema/properties/spec";
    let cases = [
        ("/metadata/name".to_owned(), json!("wrong.example.io"), "metadata.name"),
        (
            format!("{schema}/properties/cidr"),
            json!({"pattern": "x"}),
            "properties[cidr].type: Required value",
        ),
        (
            format!("{schema}/properties/cidr"),
            json!({"type": "string", "pattern": "("}),
            "must be a valid regular expression",
        ),
        (
            format!("{schema}/x-kubernetes-validations/0/rule"),
            json!("self.mode =="),
            "compilation failed",
        ),
        (
            format!("{schema}/properties/blockSize/default"),
            json!("many"),
            "default",
        ),
        (
            "/spec/versions/0/storage".to_owned(),
            json!(false),
            "exactly one version",
        ),
    ];
    for (at, value, expected) in cases {
        let mut bad = definition();
        *bad.pointer_mut(&at).expect("a field of the definition") = value;
        let reply = client.post(DEFINITIONS, &bad);
        assert_eq!(reply.code, 422, "{at}: {}", reply.body);
        assert!(reply.message().contains(expected), "{at}: {}", reply.message());
    }
    let mut webhook = definition();
    webhook["spec"]["conversion"] = json!({"strategy": "Webhook"});
    assert_eq!(client.post(DEFINITIONS, &webhook).code, 501);
    assert_eq!(client.get(POOLS).code, 404);
}
