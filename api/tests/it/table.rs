//! The table of supported values against the types.

use std::collections::BTreeSet;

use margay_api::support::{self, Passes, TABLE};
use margay_api::v3;
use schemars::schema_for;
use serde_json::{Value, json};

fn fields(kind: &str) -> BTreeSet<String> {
    let schema = match kind {
        "IPPool" => schema_for!(v3::IPPoolSpec),
        "IPAMConfiguration" => schema_for!(v3::IPAMConfigurationSpec),
        "ClusterInformation" => schema_for!(v3::ClusterInformationSpec),
        "BGPConfiguration" => schema_for!(v3::BGPConfigurationSpec),
        "BGPPeer" => schema_for!(v3::BGPPeerSpec),
        "FelixConfiguration" => schema_for!(v3::FelixConfigurationSpec),
        other => panic!("the table has a line for {other}"),
    };
    schema
        .get("properties")
        .and_then(Value::as_object)
        .unwrap()
        .keys()
        .cloned()
        .collect()
}

#[test]
fn every_field_has_exactly_one_line() {
    let kinds: BTreeSet<&str> = TABLE.iter().map(|entry| entry.kind).collect();
    assert_eq!(kinds.len(), 6);
    for kind in kinds {
        let lines: Vec<String> = support::entries(kind).map(|entry| entry.field.to_owned()).collect();
        assert_eq!(lines.iter().cloned().collect::<BTreeSet<_>>(), fields(kind), "{kind}");
        assert_eq!(lines.len(), fields(kind).len(), "{kind} has a field twice");
    }
}

#[test]
fn felix_has_the_fields_of_calico() {
    let expected: BTreeSet<String> = include_str!("felix-fields.txt").lines().map(str::to_owned).collect();
    assert_eq!(fields("FelixConfiguration"), expected);
}

#[test]
fn values_that_need_what_is_missing_are_refused_and_named() {
    let found = support::check(
        "IPPool",
        &json!({"cidr": "10.0.0.0/16", "vxlanMode": "Always", "ipipMode": "Never"}),
    );
    let lines: Vec<String> = found.iter().map(ToString::to_string).collect();
    assert_eq!(
        lines,
        ["spec.vxlanMode: this value is not supported yet: leave it out or set Never"]
    );
}

#[test]
fn off_and_default_values_pass() {
    // What Calico's own manifests and operator commonly write.
    let spec = json!({"bpfLogLevel": "", "bpfEnabled": false, "logSeverityScreen": "Info", "reportingInterval": "0s",
        "floatingIPs": "Disabled", "nftablesMode": "Disabled", "wireguardEnabled": false, "ipipEnabled": false,
        "vxlanVNI": 4096, "defaultEndpointToHostAction": "ACCEPT", "bpfConnectTimeLoadBalancing": "TCP",
        "usageReportingInterval": "24h0m0s", "iptablesRefreshInterval": "60s", "natPortRange": null});
    assert_eq!(support::check("FelixConfiguration", &spec), []);
    assert_eq!(
        support::check(
            "BGPConfiguration",
            &json!({"nodeToNodeMeshEnabled": false, "asNumber": 65000})
        ),
        []
    );
}

#[test]
fn every_restricted_field_refuses_something() {
    for entry in TABLE {
        let refused = match entry.passes {
            Passes::Everything | Passes::Inert => continue,
            Passes::Words(_) | Passes::EmptyText => json!("surely not this"),
            Passes::WordsOf(_) | Passes::EmptyList => json!(["surely not this"]),
            Passes::Switch(position) => json!(!position),
            Passes::Numbers(_) => json!(77777),
            Passes::Durations(_) => json!("77777s"),
            Passes::Nothing => json!({}),
        };
        let found = support::check(entry.kind, &json!({entry.field: refused}));
        assert_eq!(found.len(), 1, "{} {}", entry.kind, entry.field);
    }
}

/// Objects as a run of Calico's plugin wrote them.
#[test]
fn calicos_own_objects_round_trip() {
    let block = json!({"affinity": "host:ms-node", "affinityClaimTime": "2026-11-23T08:02:21Z",
        "allocations": [0, 1, null, null], "attributes": [
            {"handle_id": "k8s-pod-network.cc1", "secondary": {"namespace": "ns0", "node": "ms-node", "pod": "q1"}}],
        "cidr": "10.60.162.128/30", "deleted": false, "sequenceNumber": 1795420941390636104u64,
        "sequenceNumberForAllocation": {"0": 1795420941390636102u64, "1": 1795420941390636103u64},
        "strictAffinity": false, "unallocated": [2, 3]});
    let read: v3::IPAMBlockSpec = serde_json::from_value(block.clone()).unwrap();
    assert_eq!(serde_json::to_value(read).unwrap(), block);

    let affinity =
        json!({"cidr": "10.60.162.128/26", "deleted": false, "node": "ms-node", "state": "confirmed", "type": "host"});
    let read: v3::BlockAffinitySpec = serde_json::from_value(affinity.clone()).unwrap();
    assert_eq!(serde_json::to_value(read).unwrap(), affinity);

    let handle = json!({"block": {"10.60.162.128/26": 1}, "deleted": false, "handleID": "k8s-pod-network.cc1"});
    let read: v3::IPAMHandleSpec = serde_json::from_value(handle.clone()).unwrap();
    assert_eq!(serde_json::to_value(read).unwrap(), handle);
}
