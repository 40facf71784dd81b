//! Names through CoreDNS, alone and under policy that allows only the way from frontend to backend.

use super::harness::{Kube, PATIENCE, wait};

const WEB: &str = include_str!("manifests/web.yaml");
const DENY: &str = include_str!("manifests/frontend-only.yaml");

#[test]
fn names_lead_where_policy_lets_them() {
    let Some(kube) = Kube::installed("dns::names_lead_where_policy_lets_them") else {
        return;
    };
    kube.apply(WEB);
    kube.sh("kubectl rollout status -n web deployment/web --timeout=90s");
    kube.sh("kubectl wait -n web --for=condition=Ready pod/user --timeout=90s");
    let fetch = |name: &str, port: u16| {
        kube.pod(
            "web/user",
            &format!("curl -sS --max-time 3 http://{name}:{port}/hostname"),
        )
    };

    for name in [
        "web",
        "web.web",
        "web.web.svc",
        "web.web.svc.cluster.local",
        "web.web.svc.cluster.local.",
    ] {
        let answer = fetch(name, 80);
        assert!(
            answer.as_ref().is_ok_and(|a| a.starts_with("web-")),
            "{name}: {answer:?}"
        );
    }
    let addresses = kube.field("pods -n web -l app=web", "{.items[*].status.podIP}");
    let mut wanted: Vec<&str> = addresses.split(' ').collect();
    wanted.sort_unstable();
    let found = kube.pod("web/user", "dig +short +search headless A | sort").unwrap();
    let mut found: Vec<&str> = found.lines().collect();
    found.sort_unstable();
    assert_eq!(found, wanted, "a headless Service has its pods' addresses");
    let unknown = kube
        .pod(
            "web/user",
            "dig nothing.web.svc.cluster.local A | grep -o NXDOMAIN | head -1",
        )
        .unwrap();
    assert_eq!(unknown.trim(), "NXDOMAIN");

    // user is the frontend: DNS and the backend's port, nothing else; the backend takes nobody else.
    kube.apply(DENY);
    kube.sh("kubectl wait -n web --for=condition=Ready pod/stranger --timeout=90s");
    let from_stranger = |name: &str| {
        kube.pod(
            "web/stranger",
            &format!("curl -sS --max-time 2 http://{name}:80/hostname"),
        )
    };
    wait("only the allowed way is open", PATIENCE, || {
        let allowed = fetch("web", 80);
        let stranger = from_stranger("web");
        match (&allowed, &stranger) {
            (Ok(_), Err(denied)) if denied.code == 28 => Ok(()),
            _ => Err(format!("frontend: {allowed:?}; stranger: {stranger:?}")),
        }
    });
    // The pods themselves, behind the Service, and the API server, which is a Service too.
    let direct = kube.pod(
        "web/user",
        "curl -sS --max-time 2 -k https://kubernetes.default.svc:443/healthz",
    );
    assert_eq!(
        direct.as_ref().err().map(|e| e.code),
        Some(28),
        "egress is for DNS and web alone: {direct:?}"
    );
    let back = kube.pod(
        "web/stranger",
        &format!("curl -sS --max-time 2 http://{}:8080/hostname", wanted[0]),
    );
    assert_eq!(
        back.as_ref().err().map(|e| e.code),
        Some(28),
        "a pod's own address is denied too: {back:?}"
    );
}
