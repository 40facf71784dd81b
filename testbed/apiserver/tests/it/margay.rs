//! Margay's own definitions and examples are what a user applies first.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::support::{Client, start};

/// Every YAML document below a folder of `deploy/`, in the order of the file names.
fn documents(folder: &str) -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy").join(folder);
    let files = std::fs::read_dir(&root).unwrap_or_else(|e| panic!("{}: {e}", root.display()));
    let mut files: Vec<PathBuf> = files.map(|f| f.expect("file").path()).collect();
    files.retain(|f| f.extension().is_some_and(|e| e == "yaml"));
    files.sort();
    let read = |f: PathBuf| {
        let text = std::fs::read_to_string(&f).expect("text");
        let parts: Vec<_> = text.split("\n---").map(|d| (f.clone(), d.to_owned())).collect();
        parts
    };
    let has_content = |d: &String| d.lines().any(|l| !l.trim().is_empty() && !l.starts_with('#'));
    files
        .into_iter()
        .flat_map(read)
        .filter(|(_, d)| has_content(d))
        .collect()
}

/// Posts a document to where its kind belongs.
fn create(client: &Client, text: &str) -> (String, u16, Value) {
    let object: Value = serde_saphyr::from_str(text).expect("YAML");
    let (version, kind) = (
        object["apiVersion"].as_str().expect("version"),
        object["kind"].as_str().expect("kind"),
    );
    let root = if version.contains('/') {
        format!("/apis/{version}")
    } else {
        format!("/api/{version}")
    };
    let resources = client.get(&root).ok();
    let resource = resources["resources"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|r| r["kind"] == kind);
    let plural = resource
        .and_then(|r| r["name"].as_str())
        .unwrap_or_else(|| panic!("{kind} is not served"));
    let namespace = object["metadata"]["namespace"].as_str();
    let path = namespace.map_or_else(
        || format!("{root}/{plural}"),
        |n| format!("{root}/namespaces/{n}/{plural}"),
    );
    let reply = client.post(&format!("{path}?fieldValidation=Strict"), &object);
    (format!("{kind} {}", object["metadata"]["name"]), reply.code, reply.body)
}

#[test]
fn the_crds_and_the_examples_are_taken_whole() {
    let (_server, client) = start();
    let mut count = 0;
    for folder in ["crds", "examples/two-racks", "examples/payments"] {
        for (file, text) in documents(folder) {
            let (what, code, body) = create(&client, &text);
            assert_eq!(code, 201, "{what} of {}: {body}", file.display());
            count += 1;
        }
    }
    println!("{count} objects taken");
    assert!(count >= 20);
    // The control: the same server refuses a pool whose block is larger than itself, and says which field.
    let pool = json!({
        "apiVersion": "projectcalico.org/v3", "kind": "IPPool", "metadata": {"name": "bad"},
        "spec": {"cidr": "10.0.0.0/28", "blockSize": 99},
    });
    let refused = client.post("/apis/projectcalico.org/v3/ippools", &pool);
    assert_eq!(refused.code, 422);
    assert!(refused.message().contains("spec.blockSize"), "{}", refused.message());
}
