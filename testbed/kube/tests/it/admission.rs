//! An agent writes only what belongs to its own node, and everything that it needs to write.

use serde_json::{Value, json};
use tempfile::TempDir;

use super::harness::{Failed, Kube, PATIENCE, wait};

/// Two nodes with pods of `SHOP`, and the one that is foreign to the other.
const OWN: &str = "node2";
const FOREIGN: &str = "node3";

/// A pod on each of the two nodes.
const SHOP: &str = include_str!("manifests/shop.yaml");

/// Whoever holds a token of the agents' ServiceAccount.
struct Agent<'a> {
    kube: &'a Kube,
    /// A kubeconfig with the token, and what curl needs.
    keys: TempDir,
}

impl<'a> Agent<'a> {
    /// With the token of the agent's pod on a node.
    fn of(kube: &'a Kube, node: &str) -> Self {
        let name = format!("{{.items[?(@.spec.nodeName==\"{node}\")].metadata.name}}");
        let pod = kube.field("pods -n margay-system -l app.kubernetes.io/name=margay-node", &name);
        Self::with(kube, &format!("--bound-object-kind=Pod --bound-object-name={pod}"))
    }

    /// With a token that `kubectl create token` makes with these options.
    fn with(kube: &'a Kube, options: &str) -> Self {
        let keys = tempfile::tempdir().unwrap();
        let dir = keys.path().display();
        kube.sh(&format!(
            "cp $KUBECONFIG {dir}/config
             kubectl create token -n margay-system margay-node {options} >{dir}/token
             kubectl config view --raw -o 'jsonpath={{.clusters[0].cluster.certificate-authority-data}}' | base64 -d >{dir}/ca
             export KUBECONFIG={dir}/config
             kubectl config set-credentials agent --token=$(cat {dir}/token)
             kubectl config set-context --current --user=agent"
        ));
        Self { kube, keys }
    }

    fn kubectl(&self, arguments: &str) -> Result<String, Failed> {
        let dir = self.keys.path().display();
        self.kube
            .try_sh(&format!("KUBECONFIG={dir}/config kubectl {arguments}"))
    }

    /// `verb` is `create` or `replace`.
    fn write(&self, verb: &str, object: &Value) -> Result<String, Failed> {
        self.kubectl(&format!("{verb} -f - <<'EOF'\n{object}\nEOF"))
    }

    /// By curl: kubectl would read the status first, which an agent may not.
    fn patch_node_status(&self, node: &str, patch: &Value) -> Result<String, Failed> {
        let dir = self.keys.path().display();
        self.kube.try_sh(&format!(
            "server=$(kubectl config view -o 'jsonpath={{.clusters[0].cluster.server}}')
             curl -sS --fail-with-body --cacert {dir}/ca -H \"Authorization: Bearer $(cat {dir}/token)\" \
             -X PATCH -H 'Content-Type: application/strategic-merge-patch+json' -d '{patch}' $server/api/v1/nodes/{node}/status"
        ))
    }
}

#[track_caller]
fn refused(what: &str, answer: Result<String, Failed>, words: &[&str]) {
    let told = match answer {
        Ok(told) => panic!("{what} was let through: {told}"),
        Err(failed) => failed.words,
    };
    for word in words.iter().chain(&["ValidatingAdmissionPolicy", "forbidden"]) {
        let has = told.to_lowercase().contains(&word.to_lowercase());
        assert!(has, "{what}: nothing of {word:?} in {told}");
    }
    println!("refused: {what}");
}

#[track_caller]
fn allowed(what: &str, answer: Result<String, Failed>) {
    answer.unwrap_or_else(|failed| panic!("{what} was refused: {failed}"));
    println!("allowed: {what}");
}

fn object(kube: &Kube, name: &str) -> Value {
    serde_json::from_str(&kube.sh(&format!("kubectl get {name} -o json"))).unwrap()
}

/// Name of the IPv4 block that a node owns.
fn block_of(kube: &Kube, node: &str) -> String {
    let blocks = object(kube, "ipamblocks");
    let is_its = |block: &&Value| {
        block["spec"]["affinity"] == format!("host:{node}") && !block["spec"]["cidr"].as_str().unwrap().contains(':')
    };
    let found = blocks["items"].as_array().unwrap().iter().find(is_its);
    let found = found.unwrap_or_else(|| panic!("{node} has no block: {blocks}"));
    format!("ipamblock {}", found["metadata"]["name"].as_str().unwrap())
}

/// The first free ordinal becomes a node's.
fn take(block: &mut Value, node: &str) {
    let spec = &mut block["spec"];
    let holders = spec["attributes"].as_array_mut().unwrap();
    let index = holders.len();
    holders.push(json!({"handle_id": "borrowed", "secondary": {"node": node}}));
    let ordinal = spec["unallocated"].as_array_mut().unwrap().remove(0);
    spec["allocations"][ordinal.as_u64().unwrap() as usize] = index.into();
}

/// Every address of a node becomes free.
fn free(block: &mut Value, node: &str) {
    let spec = &mut block["spec"];
    let is_its = |index: &Value| {
        let index = index.as_u64()? as usize;
        (spec["attributes"][index]["secondary"]["node"] == node).then_some(())
    };
    let kept: Vec<Value> = (spec["allocations"].as_array().unwrap().iter())
        .map(|index| {
            if is_its(index).is_some() {
                Value::Null
            } else {
                index.clone()
            }
        })
        .collect();
    spec["allocations"] = kept.into();
}

#[test]
fn foreign_writes_are_refused_and_own_ones_are_not() {
    let Some(kube) = Kube::installed("admission::foreign_writes_are_refused_and_own_ones_are_not") else {
        return;
    };
    kube.apply(SHOP);
    kube.sh("kubectl wait -n shop --for=condition=Ready pod --all --timeout=90s");
    let agent = Agent::of(&kube, OWN);
    blocks(&kube, &agent);
    claims(&kube, &agent);
    handles(&kube, &agent);
    node_status(&kube, &agent);
    tokens(&kube);
    expressions(&kube);
}

fn blocks(kube: &Kube, agent: &Agent<'_>) {
    let (own, foreign) = (block_of(kube, OWN), block_of(kube, FOREIGN));
    let changed = |name: &str, change: &dyn Fn(&mut Value)| {
        let mut block = object(kube, name);
        change(&mut block);
        agent.write("replace", &block)
    };
    let owners = [OWN, FOREIGN, "IPAMBlock", "spec.affinity"];
    let holders = [OWN, "IPAMBlock", "spec.allocations"];
    let fields = [OWN, "IPAMBlock", "spec.cidr", "spec.deleted"];

    type Case<'a> = (&'a str, &'a dyn Fn(&mut Value), &'a [&'a str]);
    let cases: [Case<'_>; 6] = [
        (
            "taking a foreign block",
            &|b| b["spec"]["affinity"] = format!("host:{OWN}").into(),
            &owners,
        ),
        (
            "making a foreign block nobody's",
            &|b| b["spec"]["affinity"] = Value::Null,
            &owners,
        ),
        ("freeing a foreign address", &|b| free(b, FOREIGN), &holders),
        ("taking an address for a foreign node", &|b| take(b, FOREIGN), &holders),
        (
            "making a foreign pod's address its own",
            &|b| b["spec"]["attributes"][0]["secondary"]["node"] = OWN.into(),
            &holders,
        ),
        (
            "marking a foreign block as deleted",
            &|b| b["spec"]["deleted"] = true.into(),
            &fields,
        ),
    ];
    for (what, change, words) in cases {
        refused(what, changed(&foreign, change), words);
    }
    refused(
        "deleting a foreign block",
        agent.kubectl(&format!("delete {foreign}")),
        &owners,
    );
    refused(
        "moving its own block",
        changed(&own, &|b| b["spec"]["cidr"] = "10.244.0.0/26".into()),
        &fields,
    );

    allowed(
        "writing its own block",
        changed(&own, &|b| b["spec"]["sequenceNumber"] = 7.into()),
    );
    allowed("borrowing", changed(&foreign, &|b| take(b, OWN)));
    let owner = Agent::of(kube, FOREIGN);
    let mut block = object(kube, &foreign);
    free(&mut block, OWN);
    refused(
        "freeing what others have borrowed",
        owner.write("replace", &block),
        &["spec.allocations", FOREIGN],
    );
    allowed("giving back", changed(&foreign, &|b| free(b, OWN)));

    let mut new = json!({
        "apiVersion": "projectcalico.org/v3", "kind": "IPAMBlock", "metadata": {"name": "10-244-255-0-30"},
        "spec": {"cidr": "10.244.255.0/30", "affinity": format!("host:{FOREIGN}"), "allocations": [null, null, null, null],
            "unallocated": [0, 1, 2, 3], "attributes": []},
    });
    refused(
        "making a block for a foreign node",
        agent.write("create", &new),
        &owners,
    );
    new["spec"]["affinity"] = format!("host:{OWN}").into();
    let mut misnamed = new.clone();
    misnamed["metadata"]["name"] = "10-244-254-0-30".into();
    refused(
        "making a block under another's name",
        agent.write("create", &misnamed),
        &fields,
    );
    allowed("making a block", agent.write("create", &new));
    refused(
        "deleting a foreign empty block",
        owner.kubectl("delete ipamblock 10-244-255-0-30"),
        &["spec.affinity"],
    );
    allowed(
        "deleting its own empty block",
        agent.kubectl("delete ipamblock 10-244-255-0-30"),
    );

    new["spec"]["affinity"] = Value::Null;
    kube.sh(&format!("kubectl create -f - <<'EOF'\n{new}\nEOF"));
    let nobodys = "ipamblock 10-244-255-0-30";
    let give_to = |node: &str| {
        changed(nobodys, &|b: &mut Value| {
            b["spec"]["affinity"] = format!("host:{node}").into()
        })
    };
    refused("giving a block of nobody to a foreign node", give_to(FOREIGN), &owners);
    allowed("taking over a block of nobody", give_to(OWN));
    allowed(
        "people delete what they like",
        kube.try_sh(&format!("kubectl delete {nobodys}")),
    );
}

fn claims(kube: &Kube, agent: &Agent<'_>) {
    let all = object(kube, "blockaffinities");
    let of = |node: &str| {
        let found = all["items"]
            .as_array()
            .unwrap()
            .iter()
            .find(|claim| claim["spec"]["node"] == node);
        found.unwrap_or_else(|| panic!("{node} has no claim: {all}")).clone()
    };
    let words = [OWN, FOREIGN, "BlockAffinity", "spec.node"];
    let mut foreign = of(FOREIGN);
    let name = foreign["metadata"]["name"].as_str().unwrap().to_owned();
    foreign["spec"]["state"] = "pendingDeletion".into();
    refused("withdrawing a foreign claim", agent.write("replace", &foreign), &words);
    foreign["spec"]["node"] = OWN.into();
    refused(
        "making a foreign claim its own",
        agent.write("replace", &foreign),
        &words,
    );
    refused(
        "deleting a foreign claim",
        agent.kubectl(&format!("delete blockaffinity {name}")),
        &words,
    );
    let mut new = json!({
        "apiVersion": "projectcalico.org/v3", "kind": "BlockAffinity", "metadata": {"name": "claim"},
        "spec": {"cidr": "10.244.255.0/30", "node": FOREIGN, "state": "pending"},
    });
    refused("claiming for a foreign node", agent.write("create", &new), &words);
    new["spec"]["node"] = OWN.into();
    allowed("claiming", agent.write("create", &new));
    allowed("withdrawing", agent.kubectl("delete blockaffinity claim"));
}

fn handles(kube: &Kube, agent: &Agent<'_>) {
    let all = object(kube, "ipamhandles");
    let mark = |handle: &Value| handle["metadata"]["annotations"]["margay.io/node"].clone();
    let mut marks: Vec<Value> = all["items"].as_array().unwrap().iter().map(mark).collect();
    assert!(marks.iter().all(Value::is_string), "every handle names its node: {all}");
    marks.retain(|mark| mark == FOREIGN);
    assert!(!marks.is_empty(), "{FOREIGN} has pods: {all}");

    let foreign = all["items"]
        .as_array()
        .unwrap()
        .iter()
        .find(|handle| mark(handle) == FOREIGN);
    let mut foreign = foreign.unwrap().clone();
    let name = foreign["metadata"]["name"].as_str().unwrap().to_owned();
    let words = [OWN, FOREIGN, "IPAMHandle", "margay.io/node"];
    refused(
        "deleting a foreign handle",
        agent.kubectl(&format!("delete ipamhandle {name}")),
        &words,
    );
    foreign["spec"]["block"] = json!({});
    refused("emptying a foreign handle", agent.write("replace", &foreign), &words);
    foreign["metadata"]["annotations"] = json!({"margay.io/node": OWN});
    refused(
        "making a foreign handle its own",
        agent.write("replace", &foreign),
        &words,
    );
    foreign["metadata"]["annotations"] = json!({});
    refused(
        "making a foreign handle nobody's",
        agent.write("replace", &foreign),
        &words,
    );

    let new = |marks: Value| {
        json!({
            "apiVersion": "projectcalico.org/v3", "kind": "IPAMHandle", "metadata": {"name": "network.1", "annotations": marks},
            "spec": {"handleID": "network.1", "block": {}},
        })
    };
    refused(
        "making a foreign handle",
        agent.write("create", &new(json!({"margay.io/node": FOREIGN}))),
        &words,
    );
    allowed(
        "making a handle",
        agent.write("create", &new(json!({"margay.io/node": OWN}))),
    );
    allowed("deleting its handle", agent.kubectl("delete ipamhandle network.1"));
    // As agents and Calico's plugin wrote them before there were marks.
    kube.sh(&format!("kubectl create -f - <<'EOF'\n{}\nEOF", new(json!({}))));
    allowed(
        "deleting a handle that names no node",
        agent.kubectl("delete ipamhandle network.1"),
    );
}

fn node_status(kube: &Kube, agent: &Agent<'_>) {
    let condition = |kind: &str| {
        let now = "2026-01-01T00:00:00Z";
        json!({"status": {"conditions": [{"type": kind, "status": "False", "reason": "R", "message": "m",
            "lastHeartbeatTime": now, "lastTransitionTime": now}]}})
    };
    let network = condition("NetworkUnavailable");
    allowed("saying that its network is up", agent.patch_node_status(OWN, &network));
    assert_eq!(
        kube.field(
            &format!("node {OWN}"),
            "{.status.conditions[?(@.reason==\"R\")].status}"
        ),
        "False"
    );
    refused(
        "saying that a foreign network is up",
        agent.patch_node_status(FOREIGN, &network),
        &[OWN, FOREIGN, "Node"],
    );
    for (what, patch) in [
        ("saying that its node is not ready", condition("Ready")),
        (
            "giving its node capacity",
            json!({"status": {"capacity": {"margay.io/x": "3"}}}),
        ),
        ("taking its node's addresses", json!({"status": {"addresses": null}})),
        ("a phase", json!({"status": {"phase": "Terminated"}})),
        (
            "a label",
            json!({"metadata": {"labels": {"node-role.kubernetes.io/control-plane": ""}}}),
        ),
        (
            "an annotation",
            json!({"metadata": {"annotations": {"projectcalico.org/ASNumber": "1"}}}),
        ),
    ] {
        refused(
            what,
            agent.patch_node_status(OWN, &patch),
            &[OWN, "Node", "status.conditions[NetworkUnavailable]"],
        );
    }
}

/// A token that was made for no pod names no node.
fn tokens(kube: &Kube) {
    let nobody = Agent::with(kube, "");
    let words = ["names no node", "1.30"];
    for node in [OWN, FOREIGN] {
        let block = object(kube, &block_of(kube, node));
        refused(
            "writing a block without a node",
            nobody.write("replace", &block),
            &words,
        );
    }
    let patch = json!({"status": {"conditions": []}});
    refused(
        "writing a status without a node",
        nobody.patch_node_status(OWN, &patch),
        &words,
    );
    let claim = format!(
        "delete blockaffinity {OWN}-{}",
        block_of(kube, OWN).replace("ipamblock ", "")
    );
    refused("deleting a claim without a node", nobody.kubectl(&claim), &words);
    allowed("reading without a node", nobody.kubectl("get ipamblocks"));
}

/// The API server has nothing to say against the expressions.
fn expressions(kube: &Kube) {
    let policies = object(kube, "validatingadmissionpolicies");
    let ours: Vec<&Value> = policies["items"].as_array().unwrap().iter().collect();
    assert_eq!(ours.len(), 4, "{policies}");
    for policy in ours {
        assert_eq!(
            policy["status"]["typeChecking"],
            json!({}),
            "{}",
            policy["metadata"]["name"]
        );
    }
}

/// Where blocks are fewer than nodes agents borrow, and give back; nothing of it is refused.
#[test]
fn agents_have_what_they_need() {
    let Some(kube) = Kube::up("admission::agents_have_what_they_need", &[]) else {
        return;
    };
    kube.install();
    kube.sh("kubectl delete ippool pods-v4 pods-v6");
    // What was assigned before is of blocks outside the new pool, and goes with the pods.
    kube.sh("kubectl -n kube-system rollout restart deployment/coredns");
    // One block for three nodes.
    kube.apply(
        "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {name: small}\n\
         spec: {cidr: 10.244.0.0/28, blockSize: 28, natOutgoing: false, ipipMode: Never, vxlanMode: Never}\n",
    );
    kube.ready();
    kube.apply(SHOP);
    kube.sh("kubectl wait -n shop --for=condition=Ready pod --all --timeout=90s");
    let blocks = object(&kube, "ipamblocks");
    let [block] = blocks["items"].as_array().unwrap().as_slice() else {
        panic!("not one block: {blocks}");
    };
    let holders: Vec<&Value> = block["spec"]["attributes"].as_array().unwrap().iter().collect();
    for node in [OWN, FOREIGN] {
        let has = holders.iter().any(|holder| holder["secondary"]["node"] == node);
        assert!(has, "{node} has no address: {block}");
    }
    let owner = block["spec"]["affinity"]
        .as_str()
        .unwrap()
        .trim_start_matches("host:")
        .to_owned();
    let borrower = if owner == OWN { FOREIGN } else { OWN };
    println!("{} is {owner}'s; {borrower} has borrowed", block["spec"]["cidr"]);

    no_objections(&kube);
    // Agents that come back look at what they have.
    kube.sh("kubectl -n margay-system rollout restart daemonset/margay-node");
    kube.sh("kubectl -n margay-system rollout status daemonset/margay-node --timeout=120s");
    kube.sh("kubectl delete -n shop pod --all");
    let left = || {
        let blocks = object(&kube, "ipamblocks");
        let names = |holder: &Value| holder["secondary"]["namespace"] == "shop";
        let holders = |block: &Value| block["spec"]["attributes"].as_array().unwrap().iter().any(names);
        let handles = object(&kube, "ipamhandles")["items"].as_array().unwrap().len();
        let pods = object(&kube, "pods -A");
        let pods = pods["items"].as_array().unwrap().iter();
        let pods = pods.filter(|pod| pod["spec"]["hostNetwork"] != true).count();
        match blocks["items"].as_array().unwrap().iter().any(holders) || handles != pods {
            true => Err(format!("{handles} handles for {pods} pods; {blocks}")),
            false => Ok(()),
        }
    };
    wait("what the pods had is free", PATIENCE, left);
    no_objections(&kube);
}

/// No agent and no controller has met a refusal.
fn no_objections(kube: &Kube) {
    let logs = kube.sh("kubectl logs -n margay-system -l app.kubernetes.io/part-of=margay --tail=-1 --prefix");
    let objections: Vec<&str> = logs
        .lines()
        .filter(|line| line.contains("ValidatingAdmissionPolicy"))
        .collect();
    assert!(objections.is_empty(), "{}", objections.join("\n"));
}
