//! The CRDs' rules, evaluated.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use kube_cel::{CompiledSchema, Validator, compile_schema};
use margay_api::crd;
use serde_json::{Value, json};

static SCHEMAS: LazyLock<BTreeMap<&str, CompiledSchema>> = LazyLock::new(|| {
    let schema = |crd: &crd::Crd| compile_schema(&crd.value["spec"]["versions"][0]["schema"]["openAPIV3Schema"]);
    crd::all().iter().map(|crd| (crd.kind, schema(crd))).collect()
});

fn refusals(kind: &str, object: &Value, old: Option<&Value>) -> Vec<String> {
    match Validator::new().validate_compiled(&SCHEMAS[kind], object, old) {
        Ok(()) => Vec::new(),
        Err(errors) => errors
            .into_vec()
            .into_iter()
            .map(|e| format!("{}: {}", e.field_path, e.message))
            .collect(),
    }
}

#[test]
fn every_rule_compiles() {
    for (kind, schema) in SCHEMAS.iter() {
        assert!(!schema.has_errors(), "{kind}: {:?}", schema.compilation_errors());
    }
}

fn object(name: &str, spec: Value) -> Value {
    json!({"metadata": {"name": name}, "spec": spec})
}

fn fields(kind: &str, spec: Value) -> Vec<String> {
    let lines = refusals(kind, &object("default", spec), None);
    lines
        .iter()
        .map(|line| line.split(':').next().unwrap().to_owned())
        .collect()
}

#[test]
fn good_objects_pass() {
    for (kind, spec) in [
        (
            "IPPool",
            json!({"cidr": "10.244.0.0/16", "blockSize": 26, "natOutgoing": false, "vxlanMode": "Never"}),
        ),
        (
            "IPPool",
            json!({"cidr": "fd00:10:244::/64", "allowedUses": ["Workload", "Tunnel"], "namespaceSelector": "all()"}),
        ),
        ("IPPool", json!({"cidr": "10.0.0.0/26", "blockSize": 0})),
        (
            "BGPPeer",
            json!({"peerIP": "10.1.1.1", "asNumber": 65201, "node": "node1"}),
        ),
        (
            "BGPPeer",
            json!({"peerIP": "10.1.1.1:1790", "asNumber": 65201, "node": "", "nodeSelector": "has(rack)"}),
        ),
        (
            "BGPPeer",
            json!({"peerIP": "fd00::1", "asNumber": 4_200_000_000u32, "nextHopMode": "Auto"}),
        ),
        (
            "BGPPeer",
            json!({"peerIP": "[fd00::1]:179", "asNumber": 1, "maxRestartTime": "90s"}),
        ),
        ("BGPPeer", json!({"peerSelector": "all()", "filters": []})),
        (
            "BGPConfiguration",
            json!({"nodeToNodeMeshEnabled": false, "asNumber": 64512, "nodeMeshMaxRestartTime": "2m0s"}),
        ),
        (
            "FelixConfiguration",
            json!({"bpfLogLevel": "", "iptablesBackend": "nft", "iptablesMarkMask": 0xffff_0000u32, "interfacePrefix": "mgy",
                "defaultEndpointToHostAction": "Accept", "reportingInterval": "0s", "floatingIPs": "Disabled",
                "vxlanPort": 4789, "bpfEnabled": false, "bpfForceTrackPacketsFromIfaces": ["docker+"], "externalNodesList": []}),
        ),
        (
            "IPAMConfiguration",
            json!({"strictAffinity": true, "autoAllocateBlocks": true, "maxBlocksPerHost": 4}),
        ),
        ("ClusterInformation", json!({"datastoreReady": true})),
        (
            "IPAMHandle",
            json!({"handleID": "a.b", "block": {"10.0.0.0/26": 1}, "deleted": false}),
        ),
    ] {
        assert_eq!(
            refusals(kind, &object("default", spec.clone()), None),
            Vec::<String>::new(),
            "{kind} {spec}"
        );
    }
}

#[test]
fn bad_objects_are_refused_at_the_field() {
    for (kind, spec, field) in [
        ("IPPool", json!({"cidr": "10.244.1.0/16"}), "spec.cidr"),
        ("IPPool", json!({"cidr": "fd00::1/64"}), "spec.cidr"),
        ("IPPool", json!({"cidr": "10.244.0.0"}), "spec.cidr"),
        (
            "IPPool",
            json!({"cidr": "10.244.0.0/16", "vxlanMode": "Always"}),
            "spec.vxlanMode",
        ),
        (
            "IPPool",
            json!({"cidr": "10.244.0.0/16", "ipipMode": "CrossSubnet"}),
            "spec.ipipMode",
        ),
        (
            "IPPool",
            json!({"cidr": "10.244.0.0/16", "allowedUses": ["LoadBalancer"]}),
            "spec.allowedUses",
        ),
        ("BGPPeer", json!({"peerIP": "tor1", "asNumber": 1}), "spec.peerIP"),
        (
            "BGPPeer",
            json!({"peerIP": "10.1.1.1:99999", "asNumber": 1}),
            "spec.peerIP",
        ),
        ("BGPPeer", json!({"peerIP": "[fd00::1]", "asNumber": 1}), "spec.peerIP"),
        ("BGPPeer", json!({"asNumber": 1}), "spec"),
        ("BGPPeer", json!({}), "spec"),
        ("BGPPeer", json!({"peerIP": "10.0.0.1"}), "spec"),
        (
            "BGPPeer",
            json!({"peerIP": "10.0.0.1", "asNumber": 1, "node": "n", "nodeSelector": "all()"}),
            "spec",
        ),
        ("BGPPeer", json!({"peerSelector": "all()", "asNumber": 1}), "spec"),
        (
            "BGPPeer",
            json!({"peerIP": "10.0.0.1", "asNumber": 1, "password": {}}),
            "spec.password",
        ),
        (
            "BGPPeer",
            json!({"peerIP": "10.0.0.1", "asNumber": 1, "ttlSecurity": 1}),
            "spec.ttlSecurity",
        ),
        (
            "BGPPeer",
            json!({"peerIP": "10.0.0.1", "asNumber": 1, "filters": ["f"]}),
            "spec.filters",
        ),
        (
            "BGPConfiguration",
            json!({"serviceClusterIPs": [{"cidr": "10.96.0.0/12"}]}),
            "spec.serviceClusterIPs",
        ),
        (
            "BGPConfiguration",
            json!({"nodeMeshMaxRestartTime": "30s"}),
            "spec.nodeMeshMaxRestartTime",
        ),
        ("FelixConfiguration", json!({"bpfEnabled": true}), "spec.bpfEnabled"),
        (
            "FelixConfiguration",
            json!({"iptablesFilterDenyAction": "REJECT"}),
            "spec.iptablesFilterDenyAction",
        ),
        (
            "FelixConfiguration",
            json!({"interfacePrefix": "e"}),
            "spec.interfacePrefix",
        ),
        (
            "FelixConfiguration",
            json!({"interfacePrefix": "eno1"}),
            "spec.interfacePrefix",
        ),
        (
            "FelixConfiguration",
            json!({"interfacePrefix": "Pod"}),
            "spec.interfacePrefix",
        ),
        (
            "FelixConfiguration",
            json!({"natPortRange": "1:2"}),
            "spec.natPortRange",
        ),
        ("FelixConfiguration", json!({"natPortRange": 80}), "spec.natPortRange"),
        (
            "FelixConfiguration",
            json!({"failsafeInboundHostPorts": []}),
            "spec.failsafeInboundHostPorts",
        ),
    ] {
        assert_eq!(fields(kind, spec.clone()), [field], "{kind} {spec}");
    }
}

#[test]
fn block_sizes_fit_their_family_and_pool() {
    let lines = |spec| refusals("IPPool", &object("p", spec), None);
    assert_eq!(lines(json!({"cidr": "10.0.0.0/16", "blockSize": 19})).len(), 1);
    assert_eq!(lines(json!({"cidr": "10.0.0.0/16", "blockSize": 33})).len(), 1);
    assert_eq!(lines(json!({"cidr": "fd00::/64", "blockSize": 115})).len(), 1);
    assert_eq!(lines(json!({"cidr": "10.0.0.0/27"})).len(), 1);
    assert!(lines(json!({"cidr": "10.0.0.0/27", "blockSize": 26}))[0].contains("a block does not fit into the pool"));
}

#[test]
fn pools_do_not_change() {
    let lines = |old: Value, new: Value| refusals("IPPool", &object("p", new), Some(&object("p", old)));
    let pool = json!({"cidr": "10.0.0.0/16"});
    assert_eq!(
        lines(
            pool.clone(),
            json!({"cidr": "10.0.0.0/16", "disabled": true, "blockSize": 26})
        )
        .len(),
        0
    );
    assert_eq!(lines(pool.clone(), json!({"cidr": "10.1.0.0/16"})).len(), 1);
    assert_eq!(lines(pool, json!({"cidr": "10.0.0.0/16", "blockSize": 28})).len(), 1);
    let sized = json!({"cidr": "10.0.0.0/16", "blockSize": 28});
    assert_eq!(lines(sized.clone(), json!({"cidr": "10.0.0.0/16"})).len(), 1);
    assert_eq!(lines(sized.clone(), sized).len(), 0);
}

#[test]
fn only_names_that_mean_something() {
    assert_eq!(
        refusals("FelixConfiguration", &object("node.n1", json!({})), None),
        Vec::<String>::new()
    );
    assert_eq!(
        refusals("FelixConfiguration", &object("mine", json!({})), None).len(),
        1
    );
    assert_eq!(
        refusals(
            "IPAMConfiguration",
            &object("mine", json!({"autoAllocateBlocks": true})),
            None
        )
        .len(),
        1
    );
    let mesh = json!({"nodeToNodeMeshEnabled": true});
    assert_eq!(
        refusals("BGPConfiguration", &object("node.n1", mesh.clone()), None).len(),
        1
    );
    assert_eq!(refusals("BGPConfiguration", &object("default", mesh), None).len(), 0);
}

/// The rule and the table's own check agree on every line, for a value that passes and one that does not.
#[test]
fn rules_agree_with_the_table() {
    use margay_api::support::{Passes, TABLE, check};
    let mut compared = 0;
    for entry in TABLE {
        let samples = match entry.passes {
            Passes::Everything | Passes::Inert => continue,
            Passes::Words(words) => vec![json!(words[0]), json!("other")],
            Passes::WordsOf(words) => vec![json!([]), json!(words), json!([words[0], "other"])],
            Passes::Switch(_) => vec![json!(true), json!(false)],
            Passes::Numbers(numbers) => vec![json!(numbers[0]), json!(77)],
            Passes::Durations(durations) => vec![json!(""), json!(durations[0]), json!("77s")],
            Passes::EmptyText => vec![json!(""), json!("other")],
            Passes::EmptyList => vec![json!([]), json!(["other"])],
            Passes::Nothing => vec![json!({})],
        };
        for sample in samples {
            let spec = json!({entry.field: sample});
            let field = format!("spec.{}", entry.field);
            let by_rule = fields(entry.kind, spec.clone()).contains(&field);
            let by_table = !check(entry.kind, &spec).is_empty();
            assert_eq!(by_rule, by_table, "{} {spec}", entry.kind);
            compared += 1;
        }
    }
    assert!(compared > 300, "compared only {compared}");
}
