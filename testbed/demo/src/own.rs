//! What the demo makes on an API server that was given to it: known by its mark, and taken away without anything of
//! others.
//!
//! Manifests of the examples carry the mark where nothing above them does (pods and policies go with their namespace),
//! and the pod runners put it on their Nodes; blocks, claims and handles are found by those Nodes. The CRDs stay: others'
//! objects may be of these kinds.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Result, ensure};
use serde_json::Value;

use crate::fabric;
use margay_cluster::{CONTROLLER_NAMESPACE, LAB_LABEL, controller_identity};
use margay_testkit::shell::Shell;

/// Cluster-wide kinds that are marked: the examples' and what the controller makes.
const CONFIGURATION: [&str; 5] = [
    "bgppeers",
    "bgpconfigurations",
    "clusterinformations",
    "felixconfigurations",
    "ippools",
];
const LAB: &str = "two-racks";

/// Takes away what an earlier demo left on `shell`'s API server. Agents and pod runners must have ended: they would make
/// it anew, and pods are not waited for.
///
/// # Errors
/// If the API server cannot be reached or keeps an object.
pub fn clear(shell: &Shell) -> Result<()> {
    let mark = format!("{LAB_LABEL}={LAB}");
    for namespace in items(&shell.kubectl(&["get", "namespace", "-l", &mark, "-o", "json"])?)? {
        let name = namespace["metadata"]["name"].as_str().unwrap_or_default();
        shell.kubectl(&["delete", "pod", "--all", "-n", name, "--force", "--grace-period=0"])?;
        shell.kubectl(&["delete", "namespace", name, "--timeout=60s"])?;
    }
    let kinds = served(shell)?;
    let nodes = items(&shell.kubectl(&["get", "node", "-l", &mark, "-o", "json"])?)?;
    let nodes: BTreeSet<&str> = nodes
        .iter()
        .filter_map(|node| node["metadata"]["name"].as_str())
        .collect();
    if kinds.contains("ipamblocks") {
        let get = |kind: &str| items(&shell.kubectl(&["get", kind, "-o", "json"])?);
        let found = of_nodes(
            &nodes,
            &get("ipamblocks")?,
            &get("blockaffinities")?,
            &get("ipamhandles")?,
        );
        if !found.is_empty() {
            let mut words = vec!["delete", "--ignore-not-found"];
            words.extend(found.iter().map(String::as_str));
            shell.kubectl(&words)?;
        }
    }
    // After what is found by them: a clearing that was interrupted is completed by the next.
    let mut marked = vec!["node"];
    marked.extend(CONFIGURATION.iter().filter(|kind| kinds.contains(**kind)));
    shell.kubectl(&["delete", &marked.join(","), "-l", &mark])?;
    let lease = ["lease", "-n", CONTROLLER_NAMESPACE, "margay-controller"];
    let holder = ["--ignore-not-found", "-o", "jsonpath={.spec.holderIdentity}"];
    if shell.kubectl(&[&["get"], &lease[..], &holder[..]].concat())? == controller_identity(LAB) {
        shell.kubectl(&[&["delete"], &lease[..]].concat())?;
    }
    Ok(())
}

/// Whether the API server has a ClusterInformation, which the controller makes where there is none.
///
/// # Errors
/// If the API server cannot be reached.
pub fn has_information(shell: &Shell) -> Result<bool> {
    let get = ["get", "clusterinformation", "default", "--ignore-not-found"];
    Ok(served(shell)?.contains("clusterinformations") && !shell.kubectl(&get)?.is_empty())
}

/// Marks the ClusterInformation that the controller has made.
///
/// # Errors
/// If it is not there.
pub fn mark_information(shell: &Shell) -> Result<()> {
    let mark = format!("{LAB_LABEL}={LAB}");
    shell
        .kubectl(&["label", "clusterinformation", "default", &mark])
        .map(drop)
}

/// Refuses an API server that has an object of others where the demo would put one.
///
/// # Errors
/// If there is one, naming each.
pub fn refuse_strangers(shell: &Shell, examples: &Path) -> Result<()> {
    let manifest = |path: &str| examples.join(path).to_string_lossy().into_owned();
    let get = |what: &[&str]| items(&shell.kubectl(&[&["get", "--ignore-not-found", "-o", "json"], what].concat())?);
    let mut there = get(&["-f", &manifest("payments/01-namespaces.yaml")])?;
    there.extend(get(&[&["node"], &fabric::NODES[..]].concat())?);
    let kinds = served(shell)?;
    if CONFIGURATION.iter().all(|kind| kinds.contains(*kind)) {
        there.extend(get(&["-f", &manifest("two-racks/network.yaml")])?);
    }
    let strangers: Vec<String> = there.iter().filter(|object| !is_marked(object)).map(called).collect();
    ensure!(
        strangers.is_empty(),
        "the API server that KUBECONFIG names has objects of its own which the demo would change: {}; use one without \
         them, or unset KUBECONFIG",
        strangers.join(", ")
    );
    Ok(())
}

/// Kinds of Margay that the API server knows, by their plural.
fn served(shell: &Shell) -> Result<BTreeSet<String>> {
    let words = shell.kubectl(&["api-resources", "--api-group=projectcalico.org", "-o", "name"])?;
    let plural = |line: &str| line.split('.').next().unwrap_or(line).to_owned();
    Ok(words.lines().map(plural).collect())
}

/// Blocks of `nodes` in which only they have addresses, with their claims and the handles that are all of such blocks.
fn of_nodes(nodes: &BTreeSet<&str>, blocks: &[Value], affinities: &[Value], handles: &[Value]) -> Vec<String> {
    let ours = |node: &Value| node.as_str().is_some_and(|node| nodes.contains(node));
    let own_block = |block: &&Value| {
        let spec = &block["spec"];
        let owner = spec["affinity"]
            .as_str()
            .and_then(|affinity| affinity.strip_prefix("host:"));
        let mut holders = spec["attributes"].as_array().into_iter().flatten();
        owner.is_some_and(|owner| nodes.contains(owner)) && holders.all(|holder| ours(&holder["secondary"]["node"]))
    };
    let blocks: Vec<&Value> = blocks.iter().filter(own_block).collect();
    let cidrs: BTreeSet<&str> = blocks
        .iter()
        .filter_map(|block| block["spec"]["cidr"].as_str())
        .collect();
    let own_claim = |claim: &&Value| {
        ours(&claim["spec"]["node"]) && claim["spec"]["cidr"].as_str().is_some_and(|cidr| cidrs.contains(cidr))
    };
    let own_handle = |handle: &&Value| {
        let held = handle["spec"]["block"].as_object();
        held.is_some_and(|held| held.keys().all(|cidr| cidrs.contains(cidr.as_str())))
    };
    let handles = handles.iter().filter(own_handle);
    let claims = affinities.iter().filter(own_claim);
    handles.chain(claims).chain(blocks).map(called).collect()
}

/// `kind/name` as kubectl takes it.
fn called(object: &Value) -> String {
    let kind = object["kind"].as_str().unwrap_or_default().to_lowercase();
    format!("{kind}/{}", object["metadata"]["name"].as_str().unwrap_or_default())
}

fn is_marked(object: &Value) -> bool {
    object["metadata"]["labels"][LAB_LABEL] == LAB
}

/// The objects of kubectl's JSON: of a list, of a single object, or of nothing.
fn items(text: &str) -> Result<Vec<Value>> {
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let mut value: Value = serde_json::from_str(text)?;
    Ok(match value.get_mut("items").map(Value::take) {
        Some(Value::Array(items)) => items,
        _ => vec![value],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn block(name: &str, cidr: &str, owner: &str, holders: &[&str]) -> Value {
        let attributes: Vec<Value> = holders
            .iter()
            .map(|node| json!({"secondary": {"node": node}}))
            .collect();
        json!({"kind": "IPAMBlock", "metadata": {"name": name},
               "spec": {"cidr": cidr, "affinity": format!("host:{owner}"), "attributes": attributes}})
    }

    fn claim(name: &str, cidr: &str, node: &str) -> Value {
        json!({"kind": "BlockAffinity", "metadata": {"name": name}, "spec": {"cidr": cidr, "node": node}})
    }

    fn handle(name: &str, cidrs: &[&str]) -> Value {
        let held: serde_json::Map<_, _> = cidrs.iter().map(|cidr| ((*cidr).to_owned(), json!(1))).collect();
        json!({"kind": "IPAMHandle", "metadata": {"name": name}, "spec": {"block": held}})
    }

    #[test]
    fn only_what_the_nodes_alone_use_is_theirs() {
        let blocks = [
            block("own", "10.0.0.0/26", "node1", &["node1", "node2"]),
            block("lent", "10.0.1.0/26", "node1", &["node1", "stranger"]),
            block("theirs", "10.0.2.0/26", "stranger", &[]),
        ];
        let claims = [
            claim("own", "10.0.0.0/26", "node1"),
            claim("lent", "10.0.1.0/26", "node1"),
            claim("theirs", "10.0.2.0/26", "stranger"),
        ];
        let handles = [
            handle("own", &["10.0.0.0/26"]),
            handle("both", &["10.0.0.0/26", "10.0.2.0/26"]),
            handle("theirs", &["10.0.2.0/26"]),
        ];
        let found = of_nodes(&["node1", "node2"].into(), &blocks, &claims, &handles);
        assert_eq!(found, ["ipamhandle/own", "blockaffinity/own", "ipamblock/own"]);
    }

    #[test]
    fn kubectl_prints_none_one_or_many() {
        assert_eq!(items("").unwrap(), [] as [Value; 0]);
        assert_eq!(items(r#"{"kind":"Node"}"#).unwrap(), [json!({"kind": "Node"})]);
        let many = items(r#"{"kind":"List","items":[{"kind":"Node"},{"kind":"Namespace"}]}"#).unwrap();
        assert_eq!(many.len(), 2);
        assert_eq!(items(r#"{"kind":"List","items":[]}"#).unwrap(), [] as [Value; 0]);
    }
}
