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

/// The one object of this kind.
fn workload(file: &str, kind: &str) -> Value {
    let found = documents(file);
    found
        .into_iter()
        .find(|object| object["kind"] == kind)
        .expect("is there")
}

/// `group/resource:verb` of a ClusterRole.
fn allowed(role: &str) -> BTreeSet<String> {
    let roles = documents("margay.yaml");
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
    for document in documents("margay.yaml") {
        for field in ["apiVersion", "kind"] {
            assert!(document[field].is_string(), "a document without {field}");
        }
        assert!(document["metadata"]["name"].is_string(), "a document without a name");
        kinds.insert(document["kind"].as_str().unwrap().to_owned());
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

/// What agents of all nodes may write, an admission policy narrows to a node's own; Events are anybody's.
#[test]
fn every_write_of_an_agent_is_under_a_policy() {
    let objects = documents("margay.yaml");
    let of_kind = |kind: &'static str| objects.iter().filter(move |object| object["kind"] == kind);
    let mut guarded = BTreeSet::new();
    for policy in of_kind("ValidatingAdmissionPolicy") {
        let (name, spec) = (&policy["metadata"]["name"], &policy["spec"]);
        assert_eq!(spec["failurePolicy"], "Fail", "{name}");
        let is_its = |binding: &&Value| binding["spec"]["policyName"] == *name;
        let binding = of_kind("ValidatingAdmissionPolicyBinding").find(is_its);
        assert_eq!(binding.expect("a binding")["spec"]["validationActions"][0], "Deny");
        let asked = spec["matchConditions"][0]["expression"].as_str().unwrap();
        assert!(
            asked.contains("'system:serviceaccount:margay-system:margay-node'"),
            "{asked}"
        );
        let rule = &spec["matchConstraints"]["resourceRules"][0];
        let (group, resource) = (&rule["apiGroups"][0], &rule["resources"][0]);
        let (group, resource) = (group.as_str().unwrap(), resource.as_str().unwrap());
        for operation in rule["operations"].as_array().unwrap() {
            let verb = match (operation.as_str().unwrap(), resource) {
                ("UPDATE", "nodes/status") => "patch".to_owned(),
                (operation, _) => operation.to_lowercase(),
            };
            guarded.insert(format!("{group}/{resource}:{verb}"));
        }
    }
    let reads = ["get", "list", "watch"];
    let mut writes = allowed("margay-node");
    writes.retain(|right| !reads.iter().any(|verb| right.ends_with(&format!(":{verb}"))));
    assert!(writes.remove("/events:create"));
    assert_eq!(guarded, writes);
}

#[test]
fn the_daemon_set_runs_where_and_as_it_must() {
    for file in ["margay.yaml", "uninstall.yaml"] {
        let pod = &workload(file, "DaemonSet")["spec"]["template"]["spec"];
        assert_eq!(pod["hostNetwork"], true);
        assert_eq!(pod["priorityClassName"], "system-node-critical");
        assert_eq!(pod["tolerations"][0]["operator"], "Exists");
    }
    let pod = &workload("margay.yaml", "DaemonSet")["spec"]["template"]["spec"];
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

/// A folder can be removed only where it is not itself what is mounted; and what is found there must be what the agent left.
#[test]
fn what_takes_it_off_reaches_all_that_the_agent_leaves() {
    let mounts = |file, containers: &str| -> BTreeSet<PathBuf> {
        let pod = &workload(file, "DaemonSet")["spec"]["template"]["spec"];
        let mounts = pod[containers][0]["volumeMounts"].as_array().unwrap().iter();
        mounts
            .map(|mount| mount["mountPath"].as_str().unwrap().into())
            .collect()
    };
    let agent = mounts("margay.yaml", "containers");
    let uninstall = mounts("uninstall.yaml", "initContainers");
    for path in agent.iter().filter(|path| path.ends_with("margay")) {
        assert!(uninstall.contains(path.parent().unwrap()), "{}", path.display());
        assert!(!uninstall.contains(path), "{}", path.display());
    }
}

/// The commands in the manifests are ones that the programs understand.
#[test]
fn the_commands_parse() {
    for (file, kind, program) in [
        ("margay.yaml", "DaemonSet", env!("CARGO_BIN_EXE_margay-node")),
        ("margay.yaml", "Deployment", env!("CARGO_BIN_EXE_margay-controller")),
        ("uninstall.yaml", "DaemonSet", env!("CARGO_BIN_EXE_margay-node")),
    ] {
        let document = workload(file, kind);
        let pod = &document["spec"]["template"]["spec"];
        let containers = ["initContainers", "containers"]
            .iter()
            .filter_map(|field| pod[*field].as_array())
            .flatten();
        for container in containers.filter(|container| container["name"] != "done") {
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
            assert!(output.status.success(), "{kind}: {command:?}: {told}");
        }
    }
}

/// Runs one of the repository's scripts; `None`, with a named skip, where Helm cannot be had.
fn with_helm(test: &str, script: &str, args: &[&str]) -> Option<std::process::Output> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let helm = std::process::Command::new(root.join("scripts/helm"))
        .arg("version")
        .output()
        .unwrap();
    if !helm.status.success() {
        let told = String::from_utf8_lossy(&helm.stderr);
        assert!(std::env::var_os("CI").is_none(), "{told}");
        println!(
            "SKIPPED {test}: needs Helm: {}",
            told.lines().next().unwrap_or_default()
        );
        return None;
    }
    Some(
        std::process::Command::new(root.join(script))
            .args(args)
            .current_dir(&root)
            .output()
            .unwrap(),
    )
}

#[test]
fn the_plain_manifests_are_what_the_chart_makes() {
    for (file, args) in [("margay.yaml", &[][..]), ("uninstall.yaml", &["uninstall"])] {
        let test = "the_plain_manifests_are_what_the_chart_makes";
        let Some(made) = with_helm(test, "scripts/manifests", args) else {
            return;
        };
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(file);
        let there = std::fs::read_to_string(path).unwrap();
        assert!(
            there == String::from_utf8_lossy(&made.stdout),
            "deploy/{file} is stale: run `make manifests`"
        );
    }
}

#[test]
fn no_agent_is_left_beside_what_takes_it_off() {
    let test = "no_agent_is_left_beside_what_takes_it_off";
    let args = [
        "template",
        "margay",
        "deploy/charts/margay",
        "--set=uninstall.enabled=true",
    ];
    let Some(made) = with_helm(test, "scripts/helm", &args) else {
        return;
    };
    let objects: Vec<Value> = serde_saphyr::from_multiple(&String::from_utf8_lossy(&made.stdout)).unwrap();
    let workloads = objects
        .iter()
        .filter(|object| object["kind"] == "DaemonSet" || object["kind"] == "Deployment");
    let names: Vec<_> = workloads
        .map(|object| object["metadata"]["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["margay-uninstall"]);
}

#[test]
fn helm_finds_no_fault_with_the_chart() {
    let test = "helm_finds_no_fault_with_the_chart";
    let Some(lint) = with_helm(test, "scripts/helm", &["lint", "--strict", "deploy/charts/margay"]) else {
        return;
    };
    assert!(lint.status.success(), "{}", String::from_utf8_lossy(&lint.stdout));
}

#[test]
fn values_that_are_none_are_refused_by_name() {
    let test = "values_that_are_none_are_refused_by_name";
    for (set, named) in [
        ("apiServer=10.0.0.10", "apiServer"),
        ("image.tagg=1", "tagg"),
        (
            "felix.defaultEndpointToHostAction=Perhaps",
            "defaultEndpointToHostAction",
        ),
        ("pools[0].name=pods", "cidr"),
        ("bgp.peers[0].peerIP=10.1.1.1", "name"),
        ("metrics.port=70000", "port"),
        ("bgp.asNumber=0", "asNumber"),
    ] {
        let args = ["template", "margay", "deploy/charts/margay", "--set", set];
        let Some(refused) = with_helm(test, "scripts/helm", &args) else {
            return;
        };
        let told = String::from_utf8_lossy(&refused.stderr);
        assert!(!refused.status.success() && told.contains(named), "{set}: {told}");
    }
}

#[test]
fn values_become_pools_and_peers() {
    let test = "values_become_pools_and_peers";
    let args = [
        "template",
        "margay",
        "deploy/charts/margay",
        "--set=pools[0].name=pods,pools[0].cidr=10.244.0.0/16,pools[0].blockSize=26",
        "--set=bgp.mesh=false,bgp.asNumber=65301",
        "--set=bgp.peers[0].name=tor1,bgp.peers[0].peerIP=10.1.1.1,bgp.peers[0].asNumber=65201",
        "--show-only=templates/network.yaml",
    ];
    let Some(made) = with_helm(test, "scripts/helm", &args) else {
        return;
    };
    let objects: Vec<Value> = serde_saphyr::from_multiple(&String::from_utf8_lossy(&made.stdout)).unwrap();
    let spec = |kind: &str| {
        let found = objects.iter().find(|object| object["kind"] == kind);
        found.unwrap_or_else(|| panic!("no {kind}"))["spec"].clone()
    };
    assert_eq!(
        spec("IPPool"),
        serde_json::json!({"cidr": "10.244.0.0/16", "blockSize": 26})
    );
    assert_eq!(
        spec("BGPConfiguration"),
        serde_json::json!({"nodeToNodeMeshEnabled": false, "asNumber": 65301})
    );
    assert_eq!(
        spec("BGPPeer"),
        serde_json::json!({"peerIP": "10.1.1.1", "asNumber": 65201})
    );
    assert_eq!(
        spec("FelixConfiguration"),
        serde_json::json!({"defaultEndpointToHostAction": "Accept"})
    );
}
