//! Kubernetes' own end-to-end specs of SIG Network, unmodified.

use super::harness::Kube;

/// Connections by SCTP need it in the kernel. Policies that name SCTP do not.
const NO_SCTP: &str = "\\[Feature:SCTPConnectivity\\]";

/// What no lab of namespaces has: clouds, SCTP in the kernel, and the Internet.
const SKIP: &str = "SCTP|LoadBalancer|\\[Disruptive\\]|\\[Slow\\]|\\[Serial\\]|\\[Feature:";

#[test]
fn ten_of_network_policy() {
    let focus = [
        "should support a 'default-deny-ingress' policy",
        "should support a 'default-deny-all' policy",
        "should enforce policy to allow traffic from pods within server namespace based on PodSelector",
        "should enforce policy to allow traffic only from a different namespace, based on NamespaceSelector",
        "should enforce policy based on PodSelector with MatchExpressions",
        "should enforce policy based on Ports",
        "should support allow-all policy",
        "should allow ingress access on one named port",
        "should allow egress access on one named port",
        "should enforce except clause while egress access to server in CIDR block",
    ];
    let focus = focus.map(|spec| format!("Netpol.*{spec}")).join("|");
    run("specs::ten_of_network_policy", &focus, NO_SCTP, 10);
}

#[test]
fn all_of_network_policy() {
    run("specs::all_of_network_policy", "\\[sig-network\\] Netpol", NO_SCTP, 48);
}

#[test]
fn services_and_dns() {
    let focus = "\\[sig-network\\] (Services|DNS|EndpointSlice|Networking Granular Checks: (Pods|Services)).*";
    run("specs::services_and_dns", focus, SKIP, 40);
}

/// Runs the specs that `focus` matches: at least so many, and all must pass.
fn run(test: &str, focus: &str, skip: &str, at_least: usize) {
    let Some(kube) = Kube::installed(test) else {
        return;
    };
    let reports = tempfile::tempdir().unwrap();
    let script = format!(
        "e2e.test --provider=skeleton --kubeconfig=\"$KUBECONFIG\" --kubectl-path=\"$(command -v kubectl)\" \
         --num-nodes=3 --node-os-distro=debian --allowed-not-ready-nodes=0 --report-dir={reports} \
         --ginkgo.focus=\"$FOCUS\" --ginkgo.skip=\"$SKIP\" --ginkgo.timeout=100m --ginkgo.no-color 2>&1 \
         | tee {reports}/log",
        reports = reports.path().display()
    );
    let output = kube
        .script(&script)
        .env("FOCUS", focus)
        .env("SKIP", skip)
        .output()
        .unwrap();
    let log = String::from_utf8_lossy(&output.stdout);
    let summary = log
        .lines()
        .rev()
        .find(|line| line.contains(" Passed |"))
        .unwrap_or("no summary");
    println!("{summary}");
    if !output.status.success() {
        let failures = log
            .lines()
            .filter(|line| line.contains("[FAIL]") || line.contains("FAILED"))
            .collect::<Vec<_>>();
        let kept = std::env::temp_dir().join(format!("{}.log", test.replace("::", "-")));
        let _ = std::fs::copy(reports.path().join("log"), &kept);
        panic!("{summary}; whole log: {}\n{}", kept.display(), failures.join("\n"));
    }
    let passed: usize = summary
        .split(" Passed")
        .next()
        .and_then(|before| before.rsplit([' ', '-']).find(|word| !word.is_empty()))
        .and_then(|count| count.parse().ok())
        .unwrap_or(0);
    assert!(
        passed >= at_least,
        "{passed} specs ran, {at_least} were meant: {summary}"
    );
}
