//! The payments example, applied as its README says, held against the tables beside it.

use std::collections::BTreeMap;

use margay_testkit::repository;

use super::harness::{CLIENT, Failed, Kube, PATIENCE, wait};

/// Where each name of the tables is: namespace/pod, or outside the cluster.
const PODS: [(&str, &str); 5] = [
    ("frontend", "shop"),
    ("checkout", "shop"),
    ("payments", "payments"),
    ("postgres", "data"),
    ("intruder", "intruder"),
];

#[test]
fn payments_takes_checkout_alone_and_reaches_postgres_alone() {
    let Some(kube) = Kube::installed("payments::payments_takes_checkout_alone_and_reaches_postgres_alone") else {
        return;
    };
    // The example names a version of its own of the same program.
    for node in super::harness::NODES {
        let tag = "ctr -n k8s.io images tag registry.k8s.io/e2e-test-images/agnhost:2.66.1 \
                   registry.k8s.io/e2e-test-images/agnhost:2.53";
        kube.node(node, tag).unwrap();
    }
    let agnhost = kube.assets().program("agnhost");
    let _client = kube.run_beyond(
        "client",
        &format!("exec {} netexec --http-port=8080 --udp-port=-1", agnhost.display()),
    );
    let _node = kube.run_beyond(
        "node1",
        &format!("exec {} netexec --http-port=8090 --udp-port=-1", agnhost.display()),
    );

    let example = "deploy/examples/payments";
    kube.sh(&format!(
        "kubectl apply -f {example}/01-namespaces.yaml -f {example}/02-pods.yaml"
    ));
    for (pod, namespace) in PODS {
        kube.sh(&format!(
            "kubectl wait -n {namespace} --for=condition=Ready pod/{pod} --timeout=90s"
        ));
    }
    holds(&kube, "1-open.txt");
    kube.sh(&format!("kubectl apply -f {example}/03-default-deny.yaml"));
    holds(&kube, "2-default-deny.txt");
    kube.sh(&format!("kubectl apply -f {example}/04-allow.yaml"));
    holds(&kube, "3-allowed.txt");
    // The kubelet's probes were let through all the time.
    for (pod, namespace) in PODS {
        let ready = "{.status.conditions[?(@.type==\"Ready\")].status}";
        assert_eq!(kube.field(&format!("pod -n {namespace} {pod}"), ready), "True", "{pod}");
    }
}

/// Tries every pair of a table at once until the answers are the table's, and once more after that.
fn holds(kube: &Kube, table: &str) {
    let file = repository().join("deploy/examples/payments/expected").join(table);
    let text = std::fs::read_to_string(&file).unwrap();
    let mut rows = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let targets: Vec<&str> = rows.next().unwrap().split_whitespace().skip(1).collect();
    let mut expected = BTreeMap::new();
    for row in rows {
        let mut cells = row.split_whitespace();
        let from = cells.next().unwrap();
        for (to, cell) in targets.iter().zip(cells) {
            if cell != "-" {
                expected.insert((from.to_owned(), (*to).to_owned()), cell.to_owned());
            }
        }
    }
    assert!(expected.len() > 50, "{table} says little: {}", expected.len());
    let places: BTreeMap<&str, String> = PODS
        .iter()
        .map(|(pod, namespace)| {
            (
                *pod,
                kube.field(&format!("pod -n {namespace} {pod}"), "{.status.podIP}"),
            )
        })
        .chain([("client", CLIENT.to_owned()), ("node1", "10.10.0.1".to_owned())])
        .collect();
    let try_all = || {
        let wrong: Vec<String> = answers(kube, &targets, &places)
            .into_iter()
            .filter(|(pair, answer)| expected.get(pair).is_some_and(|wanted| wanted != answer))
            .map(|((from, to), answer)| format!("{from} to {to}: {answer}"))
            .collect();
        match wrong.is_empty() {
            true => Ok(()),
            false => Err(wrong.join("; ")),
        }
    };
    wait(table, PATIENCE, try_all);
    assert_eq!(try_all(), Ok(()), "{table} held only once");
}

fn answers(kube: &Kube, targets: &[&str], places: &BTreeMap<&str, String>) -> BTreeMap<(String, String), String> {
    let script = |agnhost: &str| {
        let tries = targets.iter().map(|target| {
            let (name, port) = target.split_once(':').unwrap();
            format!(
                "({agnhost} connect {}:{port} --timeout=1s >/dev/null 2>&1 && echo {target} allow || echo {target} deny) &\n",
                places[name]
            )
        });
        tries.collect::<String>() + "wait"
    };
    let own = kube.assets().program("agnhost");
    let own = own.to_str().unwrap();
    let ask = |from: &str, namespace: Option<&str>| -> Result<String, Failed> {
        match namespace {
            Some(namespace) => kube.pod(&format!("{namespace}/{from}"), &script("/agnhost")),
            None => kube.beyond(from, &script(own)),
        }
    };
    let sources = PODS.map(|(pod, namespace)| (pod, Some(namespace)));
    let sources = sources.into_iter().chain([("client", None), ("node1", None)]);
    std::thread::scope(|scope| {
        let asked: Vec<_> = sources
            .map(|(from, namespace)| (from, scope.spawn(move || ask(from, namespace))))
            .collect();
        let mut all = BTreeMap::new();
        for (from, answer) in asked {
            let answer = answer.join().unwrap().unwrap_or_else(|e| panic!("{from}: {e}"));
            for line in answer.lines() {
                let (to, what) = line.split_once(' ').unwrap();
                all.insert((from.to_owned(), to.to_owned()), what.to_owned());
            }
        }
        all
    })
}
