//! `deploy/crds` against the types.

use std::collections::BTreeSet;
use std::path::Path;

use margay_api::crd;

#[test]
fn committed_crds_are_not_stale() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/crds");
    let committed = std::fs::read_dir(&directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let made: BTreeSet<String> = crd::all().into_iter().map(|crd| crd.file).collect();
    assert_eq!(committed.collect::<BTreeSet<_>>(), made);
    for crd in crd::all() {
        let text = std::fs::read_to_string(directory.join(&crd.file)).unwrap();
        let fresh = text == crd.yaml().unwrap();
        assert!(
            fresh,
            "deploy/crds/{} is stale: cargo run -p margay-api --features kube --bin margay-crds",
            crd.file
        );
        let read: serde_json::Value = serde_saphyr::from_str(&text).unwrap();
        assert_eq!(read, crd.value, "{} does not read back", crd.file);
    }
}

#[test]
fn schemas_are_structural() {
    fn check(schema: &serde_json::Value, path: &str) {
        let int_or_string = schema.get("x-kubernetes-int-or-string").is_some();
        assert!(
            schema.get("type").is_some_and(serde_json::Value::is_string) || int_or_string,
            "{path} has no type"
        );
        for bad in ["$ref", "oneOf", "definitions", "$defs", "const"] {
            assert!(schema.get(bad).is_none(), "{path} has {bad}");
        }
        for (name, property) in schema
            .get("properties")
            .and_then(|p| p.as_object())
            .into_iter()
            .flatten()
        {
            check(property, &format!("{path}.{name}"));
        }
        for key in ["items", "additionalProperties"] {
            if let Some(item) = schema.get(key) {
                check(item, &format!("{path}.{key}"));
            }
        }
    }
    for crd in crd::all() {
        check(&crd.value["spec"]["versions"][0]["schema"]["openAPIV3Schema"], crd.kind);
    }
}
