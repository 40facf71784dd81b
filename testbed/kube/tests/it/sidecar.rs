//! A proxy before its neighbour: Envoy takes what comes to the pod, the application what comes over localhost.

use super::harness::{CLIENT, Kube, PATIENCE, wait};

const SIDECAR: &str = include_str!("manifests/sidecar.yaml");

/// Held in the cluster of the tests of pods, which has the namespace and `pods/near`.
pub(crate) fn envoy_stands_before_its_neighbour(kube: &Kube) {
    kube.apply(SIDECAR);
    kube.sh("kubectl wait -n pods --for=condition=Ready pod/proxied --timeout=90s");
    let v4 = kube.field("pod -n pods proxied", "{.status.podIPs[0].ip}");
    let v6 = kube.field("pod -n pods proxied", "{.status.podIPs[1].ip}");
    let near = kube.field("pod -n pods near", "{.status.podIP}");
    let get = |address: &str, port: u16, path: &str| {
        format!("curl -sS --max-time 2 -w ' %header{{server}}' 'http://{address}:{port}{path}'")
    };

    // Through the proxy from everywhere, over both families; the application sees its neighbour.
    for address in [v4.clone(), format!("[{v6}]")] {
        let script = get(&address, 10000, "/clientip");
        for (from, answer) in [
            ("a pod", kube.pod("pods/near", &script)),
            ("the client", kube.client(&script)),
        ] {
            let said = answer.unwrap_or_else(|e| panic!("{from} to {address}: {e}"));
            assert!(
                said.starts_with("127.0.0.1:") && said.ends_with(" envoy"),
                "{from} to {address}: {said:?}"
            );
        }
    }
    // The proxy saw who asked.
    for (from, own) in [("a pod", near.as_str()), ("the client", CLIENT)] {
        let script = get(&v4, 10000, "/header?key=X-Forwarded-For");
        let answer = match own {
            CLIENT => kube.client(&script),
            _ => kube.pod("pods/near", &script),
        };
        assert!(
            answer.as_ref().is_ok_and(|said| said.starts_with(own)),
            "X-Forwarded-For from {from}: {answer:?}"
        );
    }
    // Past the proxy there is no way from outside the pod, and there is one inside.
    for address in [v4.clone(), format!("[{v6}]")] {
        let script = get(&address, 8080, "/hostname");
        for (from, answer) in [
            ("a pod", kube.pod("pods/near", &script)),
            ("the client", kube.client(&script)),
        ] {
            let code = answer.as_ref().err().map(|failed| failed.code);
            assert_eq!(code, Some(28), "{from} past the proxy to {address}: {answer:?}");
        }
    }
    for (container, port) in [("app", 10000), ("envoy", 8080), ("app", 8080)] {
        let answer = kube.pod(
            &format!("pods/proxied/{container}"),
            &get("localhost", port, "/hostname"),
        );
        assert!(
            answer.as_ref().is_ok_and(|said| said.starts_with("proxied")),
            "{container} to {port} over localhost: {answer:?}"
        );
    }
    // It is the policy that keeps them out.
    kube.sh("kubectl delete networkpolicy -n pods proxied");
    wait("without the policy the application is open", PATIENCE, || {
        match kube.client(&get(&v4, 8080, "/hostname")) {
            Ok(said) if said.starts_with("proxied") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
}
