//! An ingress controller as people run one: Contour with Envoy, by host and path, from beyond the fabric and under policy.

use std::collections::BTreeSet;

use super::harness::{CLIENT, Failed, Kube, PATIENCE, wait};

const CONTOUR: &str = include_str!("manifests/contour.yaml");
const SHOP: &str = include_str!("manifests/ingress.yaml");
const SHOP_POLICY: &str = include_str!("manifests/ingress-shop-policy.yaml");
const CONTROLLER_POLICY: &str = include_str!("manifests/ingress-controller-policy.yaml");

/// Where Envoy is reached on each node: by the NodePort and by the pod's host port.
const DOORS: [&str; 6] = [
    "10.10.0.1:30080",
    "10.10.0.2:30080",
    "10.10.0.3:30080",
    "10.10.0.1:80",
    "10.10.0.2:80",
    "10.10.0.3:80",
];

/// Host and path of a request, and the Deployment that answers it; `None` where nobody may.
const ROUTES: [(&str, &str, Option<&str>); 9] = [
    ("shop.example", "/", Some("front")),
    ("shop.example", "/any/thing", Some("front")),
    ("shop.example", "/cart", Some("cart")),
    ("shop.example", "/cart/7", Some("cart")),
    ("shop.example", "/cartoon", Some("front")),
    ("cart.example", "/api/items", Some("cart")),
    ("cart.example", "/", None),
    ("other.example", "/", None),
    ("other.example", "/cart", None),
];

#[test]
fn an_ingress_leads_by_host_and_path_and_policy_holds_around_it() {
    let Some(kube) = Kube::installed("ingress::an_ingress_leads_by_host_and_path_and_policy_holds_around_it") else {
        return;
    };
    let definitions = kube.assets().manifest("contour-crds.yaml");
    kube.sh(&format!("kubectl apply --server-side -f {}", definitions.display()));
    kube.apply(CONTOUR);
    kube.apply(SHOP);
    kube.sh("kubectl rollout status -n projectcontour deployment/contour --timeout=120s");
    kube.sh("kubectl rollout status -n projectcontour daemonset/envoy --timeout=120s");
    for name in ["front", "cart", "mirror"] {
        kube.sh(&format!(
            "kubectl rollout status -n shop deployment/{name} --timeout=90s"
        ));
    }
    kube.sh("kubectl wait -n shop --for=condition=Ready pod/stranger --timeout=90s");

    routes_hold(&kube, "without policy", &[]);
    the_client_stays_known(&kube);
    back_ends_follow_the_deployment(&kube);
    the_shop_takes_envoy_alone(&kube);
    the_controller_does_its_work_and_no_more(&kube);
}

/// A request to one of the doors, as the client beyond the fabric sends it.
fn ask(kube: &Kube, door: &str, host: &str, path: &str) -> Result<String, Failed> {
    kube.client(&format!(
        "curl -sS --max-time 5 -H 'Host: {host}' -w ' %{{http_code}}' http://{door}{path}"
    ))
}

/// Waits until each request at each door ends where the Ingress says; those to Deployments in `cut` with Envoy's word that it
/// cannot reach them.
fn routes_hold(kube: &Kube, when: &str, cut: &[&str]) {
    wait(&format!("the Ingress leads as it says, {when}"), PATIENCE, || {
        let mut wrong = Vec::new();
        for door in DOORS {
            for (host, path, to) in ROUTES {
                let answer = ask(kube, door, host, path);
                let right = answer.as_ref().is_ok_and(|said| match to {
                    Some(to) if cut.contains(&to) => said.ends_with(" 503"),
                    Some(to) => said.starts_with(&format!("{to}-")) && said.ends_with(" 200"),
                    None => said.ends_with(" 404"),
                });
                if !right {
                    wrong.push(format!("{host}{path} at {door} for {to:?}: {answer:?}"));
                }
            }
        }
        match wrong.is_empty() {
            true => Ok(()),
            false => Err(wrong.join("; ")),
        }
    });
}

/// Envoy sees the client's own address at every door and tells it; what the back end sees is Envoy's.
fn the_client_stays_known(kube: &Kube) {
    let envoys = kube.field("pods -n projectcontour -l app=envoy", "{.items[*].status.podIP}");
    for door in DOORS {
        let told = ask(kube, door, "shop.example", "/header?key=X-Forwarded-For");
        assert!(
            told.as_ref().is_ok_and(|told| told.starts_with(CLIENT)),
            "X-Forwarded-For at {door}: {told:?}"
        );
        let seen = ask(kube, door, "shop.example", "/clientip").unwrap_or_else(|e| panic!("{door}: {e}"));
        assert!(
            envoys.split(' ').any(|envoy| seen.starts_with(&format!("{envoy}:"))),
            "the back end saw {seen}, not one of {envoys}, at {door}"
        );
    }
}

fn back_ends_follow_the_deployment(kube: &Kube) {
    let script = |door: &str| {
        format!(
            "for i in $(seq 30); do curl -sS --max-time 5 -H 'Host: shop.example' http://{door}/; echo; done | sort -u"
        )
    };
    for replicas in [4, 1, 3] {
        kube.sh(&format!("kubectl scale -n shop deployment/front --replicas={replicas}"));
        kube.sh("kubectl rollout status -n shop deployment/front --timeout=90s");
        for door in &DOORS[..3] {
            wait(&format!("{replicas} replicas answer at {door}"), PATIENCE, || {
                let wanted = kube.sh("kubectl get pods -n shop -l app=front -o name");
                let wanted: BTreeSet<&str> = wanted.lines().filter_map(|line| line.strip_prefix("pod/")).collect();
                let answer = kube.client(&script(door)).map_err(|e| e.to_string())?;
                let answer: BTreeSet<&str> = answer.lines().filter(|line| !line.is_empty()).collect();
                match answer == wanted && answer.len() == replicas {
                    true => Ok(()),
                    false => Err(format!("{answer:?} answer, {wanted:?} are there")),
                }
            });
        }
    }
    kube.sh("kubectl scale -n shop deployment/cart --replicas=0");
    routes_hold(kube, "with no pod of cart", &["cart"]);
    kube.sh("kubectl scale -n shop deployment/cart --replicas=2");
    kube.sh("kubectl rollout status -n shop deployment/cart --timeout=90s");
    routes_hold(kube, "with cart back", &[]);
}

/// The back ends are denied to all but Envoy, and those that no policy opens to Envoy too.
fn the_shop_takes_envoy_alone(kube: &Kube) {
    kube.apply(SHOP_POLICY);
    // Policy is asked about new connections, and Envoy keeps those that it has: pods that come anew have none.
    kube.sh("kubectl rollout restart -n shop deployment/front deployment/cart");
    for name in ["front", "cart"] {
        kube.sh(&format!(
            "kubectl rollout status -n shop deployment/{name} --timeout=90s"
        ));
    }
    routes_hold(kube, "with front alone open to it", &["cart"]);
    let front = newest(kube, "shop", "front", ".status.podIP");
    for (from, answer) in [
        ("the client", kube.client(&to_pod(&front, 8080))),
        ("a neighbour", kube.pod("shop/stranger", &to_pod(&front, 8080))),
        ("its Service", kube.pod("shop/stranger", &to_pod("front.shop", 80))),
    ] {
        assert_eq!(code(&answer), Some(28), "from {from} past the Ingress: {answer:?}");
    }
    let opened = "kubectl patch networkpolicy -n shop from-ingress --type=json -p \
                  '[{\"op\":\"add\",\"path\":\"/spec/podSelector/matchExpressions/0/values/-\",\"value\":\"cart\"}]'";
    kube.sh(opened);
    routes_hold(kube, "with cart opened to it", &[]);
}

/// Contour and Envoy work under a policy of their own, start anew under it, and nobody else gets at them or by them.
fn the_controller_does_its_work_and_no_more(kube: &Kube) {
    for (what, answer) in ways_around(kube) {
        assert_ne!(
            code(&answer),
            Some(28),
            "{what}, while no policy forbids it: {answer:?}"
        );
    }
    kube.apply(CONTROLLER_POLICY);
    // Only those that come anew show that policy lets all through that a start needs.
    kube.sh("kubectl rollout restart -n projectcontour deployment/contour daemonset/envoy");
    kube.sh("kubectl rollout status -n projectcontour deployment/contour --timeout=120s");
    kube.sh("kubectl rollout status -n projectcontour daemonset/envoy --timeout=120s");
    routes_hold(kube, "under its own policy", &[]);
    // What changes still comes through, from the API server by Contour to Envoy.
    kube.sh("kubectl scale -n shop deployment/front --replicas=5");
    kube.sh("kubectl rollout status -n shop deployment/front --timeout=90s");
    back_end_appears(kube);

    for (what, answer) in ways_around(kube) {
        assert_eq!(code(&answer), Some(28), "{what}: {answer:?}");
    }
    let answer = from_envoy(kube, &newest(kube, "shop", "mirror", ".status.podIP"), 8080);
    assert_eq!(
        code(&answer),
        Some(28),
        "Envoy to a pod that does not take it: {answer:?}"
    );
    let answer = from_envoy(kube, &newest(kube, "shop", "front", ".status.podIP"), 8080);
    assert!(answer.is_ok(), "Envoy to a pod that takes it: {answer:?}");
    let answer = kube.client(&to_pod(&newest(kube, "projectcontour", "envoy", ".status.podIP"), 8080));
    assert!(answer.is_ok(), "the client to Envoy itself: {answer:?}");
}

/// What the controller's policy forbids, tried.
fn ways_around(kube: &Kube) -> [(&'static str, Result<String, Failed>); 10] {
    let envoy = newest(kube, "projectcontour", "envoy", ".status.podIP");
    let contour = newest(kube, "projectcontour", "contour", ".status.podIP");
    let from_stranger = |to: &str, port| kube.pod("shop/stranger", &to_pod(to, port));
    [
        ("a pod to Envoy", from_stranger(&envoy, 8080)),
        ("a pod to Envoy's Service", from_stranger("envoy.projectcontour", 80)),
        ("a pod to Envoy's NodePort", from_stranger("10.10.0.2", 30080)),
        ("a pod to Envoy's host port", from_stranger("10.10.0.3", 80)),
        ("a pod to Contour", from_stranger(&contour, 8001)),
        ("the client to Envoy's metrics", kube.client(&to_pod(&envoy, 8002))),
        ("the client to Contour", kube.client(&to_pod(&contour, 8001))),
        ("Envoy to Contour's metrics", from_envoy(kube, &contour, 8000)),
        ("Envoy to the API server", from_envoy(kube, "10.96.0.1", 443)),
        ("Envoy to the client's side", from_envoy(kube, CLIENT, 8080)),
    ]
}

fn from_envoy(kube: &Kube, to: &str, port: u16) -> Result<String, Failed> {
    let name = newest(kube, "projectcontour", "envoy", ".metadata.name");
    kube.pod(&format!("projectcontour/{name}/envoy"), &to_pod(to, port))
}

/// A field of the application's newest pod, which is not one that is about to go.
fn newest(kube: &Kube, namespace: &str, app: &str, field: &str) -> String {
    let list = format!(
        "kubectl get pods -n {namespace} -l app={app} --sort-by=.metadata.creationTimestamp --no-headers -o custom-columns=X:{field}"
    );
    kube.sh(&list).lines().last().unwrap_or_default().trim().to_owned()
}

fn back_end_appears(kube: &Kube) {
    let wanted = newest(kube, "shop", "front", ".metadata.name");
    wait("a new back end answers", PATIENCE, || {
        let answer = kube
            .client("for i in $(seq 30); do curl -sS --max-time 5 -H 'Host: shop.example' http://10.10.0.2:30080/; echo; done")
            .map_err(|e| e.to_string())?;
        match answer.lines().any(|line| line == wanted) {
            true => Ok(()),
            false => Err(format!("{wanted} is not among {answer:?}")),
        }
    });
}

/// 28 is curl's word for an answer that does not come.
fn to_pod(to: &str, port: u16) -> String {
    format!("curl -sS --max-time 2 http://{to}:{port}/")
}

fn code(answer: &Result<String, Failed>) -> Option<i32> {
    answer.as_ref().err().map(|failed| failed.code)
}
