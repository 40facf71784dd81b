//! `deploy/` is what the programs expect.

use std::collections::BTreeSet;
use std::path::PathBuf;

use margay_node::kube::ResourceType;
use margay_node::kube::resource;
use serde_json::Value;

fn documents(file: &str) -> Vec<Value> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(file);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_saphyr::from_multiple(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// `group/resource:verb` of a ClusterRole.
fn allowed(role: &str) -> BTreeSet<String> {
    let roles = documents("rbac.yaml");
    let role = roles
        .iter()
        .find(|d| d["kind"] == "ClusterRole" && d["metadata"]["name"] == role)
        .expect("the role");
    let mut allowed = BTreeSet::new();
    let texts = |value: &Value| -> Vec<String> {
        value
            .as_array()
            .unwrap()
            .iter()
            .map(|item| item.as_str().unwrap().to_owned())
            .collect()
    };
    for rule in role["rules"].as_array().unwrap() {
        for group in texts(&rule["apiGroups"]) {
            for resource in texts(&rule["resources"]) {
                allowed.extend(
                    texts(&rule["verbs"])
                        .iter()
                        .map(|verb| format!("{group}/{resource}:{verb}")),
                );
            }
        }
    }
    allowed
}

fn needs(resource: ResourceType, verbs: &[&str]) -> Vec<String> {
    verbs
        .iter()
        .map(|verb| format!("{}/{}:{verb}", resource.group, resource.plural))
        .collect()
}

#[test]
fn every_manifest_is_a_kubernetes_object() {
    let mut kinds = BTreeSet::new();
    for file in ["namespace.yaml", "rbac.yaml", "node.yaml", "controller.yaml"] {
        for document in documents(file) {
            for field in ["apiVersion", "kind"] {
                assert!(document[field].is_string(), "{file}: a document without {field}");
            }
            assert!(
                document["metadata"]["name"].is_string(),
                "{file}: a document without a name"
            );
            kinds.insert(document["kind"].as_str().unwrap().to_owned());
        }
    }
    assert!(
        kinds.contains("DaemonSet") && kinds.contains("Deployment") && kinds.contains("Namespace"),
        "{kinds:?}"
    );
}

#[test]
fn the_agent_may_do_what_it_does_and_no_more() {
    let watched = [
        resource::POD,
        resource::NAMESPACE,
        resource::NODE,
        resource::NETWORK_POLICY,
        resource::IP_POOL,
        resource::IPAM_CONFIGURATION,
        resource::CLUSTER_INFORMATION,
        resource::BGP_CONFIGURATION,
        resource::BGP_PEER,
        resource::FELIX_CONFIGURATION,
    ];
    let written = [resource::IPAM_BLOCK, resource::BLOCK_AFFINITY, resource::IPAM_HANDLE];
    let mut expected: BTreeSet<String> = BTreeSet::new();
    expected.extend(watched.iter().flat_map(|r| needs(*r, &["get", "list", "watch"])));
    expected.extend(
        written
            .iter()
            .flat_map(|r| needs(*r, &["get", "list", "watch", "create", "update", "delete"])),
    );
    expected.extend(needs(resource::API_SERVICE, &["get"]));
    expected.extend(needs(resource::EVENT, &["create"]));
    expected.insert("/nodes/status:patch".to_owned());
    assert_eq!(allowed("margay-node"), expected);
}

#[test]
fn the_daemon_set_runs_where_and_as_it_must() {
    let documents = documents("node.yaml");
    let pod = &documents[0]["spec"]["template"]["spec"];
    assert_eq!(pod["hostNetwork"], true);
    assert_eq!(pod["priorityClassName"], "system-node-critical");
    assert_eq!(pod["tolerations"][0]["operator"], "Exists");
    let mounts: BTreeSet<_> = pod["containers"][0]["volumeMounts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|mount| mount["mountPath"].as_str().unwrap())
        .collect();
    for path in ["/var/lib/margay", "/run/margay", "/run/xtables.lock", "/etc/cni/net.d"] {
        assert!(mounts.contains(path), "{path} is not mounted");
    }
    let agent = &pod["containers"][0];
    for (probe, which) in [("livenessProbe", "live"), ("readinessProbe", "ready")] {
        let command: Vec<_> = agent[probe]["exec"]["command"].as_array().unwrap().iter().collect();
        assert_eq!(command, ["margay-node", "health", which], "ports may be moved");
    }
}

/// The commands in the manifests are ones that the programs understand.
#[test]
fn the_commands_parse() {
    for (file, program) in [
        ("node.yaml", env!("CARGO_BIN_EXE_margay-node")),
        ("controller.yaml", env!("CARGO_BIN_EXE_margay-controller")),
    ] {
        for document in documents(file) {
            let pod = &document["spec"]["template"]["spec"];
            let containers = ["initContainers", "containers"]
                .iter()
                .filter_map(|field| pod[*field].as_array())
                .flatten();
            for container in containers {
                let command: Vec<_> = container["command"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|a| a.as_str().unwrap())
                    .collect();
                // With --help behind them, arguments are parsed up to it; an unknown one is an error all the same.
                let output = std::process::Command::new(program)
                    .args(&command[1..])
                    .arg("--help")
                    .output()
                    .unwrap();
                let told = String::from_utf8_lossy(&output.stderr);
                assert!(output.status.success(), "{file}: {command:?}: {told}");
            }
        }
    }
}
