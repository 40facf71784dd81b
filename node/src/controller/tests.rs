use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::http::{Method, StatusCode, Uri};
use axum::response::IntoResponse;
use parking_lot::Mutex;

use super::*;
use crate::agent::blocks::tests::block;
use crate::kube::client::ApiAddress;
use crate::kube::resource::{IP_POOL, IPAM_BLOCK, NODE};

/// An API server of few words: objects by path, and paths that it refuses to write.
#[derive(Debug, Default)]
struct Double {
    objects: Mutex<BTreeMap<String, Value>>,
    refused: Vec<String>,
}

impl Double {
    fn put(&self, path: &str, object: Value) {
        let mut object = object;
        object["metadata"]["resourceVersion"] = "1".into();
        self.objects.lock().insert(path.to_owned(), object);
    }

    fn answer(&self, method: &Method, path: &str, body: Value) -> (StatusCode, Value) {
        let status = |code: StatusCode| {
            let body = json!({"kind": "Status", "status": "Failure", "code": code.as_u16(), "message": path});
            (code, body)
        };
        if *method != Method::GET && self.refused.iter().any(|refused| path.ends_with(refused.as_str())) {
            return status(StatusCode::FORBIDDEN);
        }
        let mut objects = self.objects.lock();
        let is_collection = [
            IP_POOL.plural,
            IPAM_BLOCK.plural,
            NODE.plural,
            "blockaffinities",
            "ipamhandles",
        ]
        .iter()
        .any(|plural| path.ends_with(&format!("/{plural}")));
        if is_collection {
            let inside = format!("{path}/");
            let items: Vec<_> = objects
                .iter()
                .filter(|(at, _)| at.starts_with(&inside))
                .map(|(_, o)| o)
                .collect();
            return (
                StatusCode::OK,
                json!({"metadata": {"resourceVersion": "1"}, "items": items}),
            );
        }
        match (method.as_str(), objects.get(path).cloned()) {
            ("POST", _) => (StatusCode::CREATED, body),
            (_, None) => status(StatusCode::NOT_FOUND),
            ("DELETE", Some(_)) => {
                objects.remove(path);
                (StatusCode::OK, json!({"kind": "Status", "status": "Success"}))
            }
            ("PUT", Some(_)) => {
                objects.insert(path.to_owned(), body.clone());
                (StatusCode::OK, body)
            }
            (_, Some(object)) => (StatusCode::OK, object),
        }
    }

    async fn serve(self) -> (Arc<Self>, Api) {
        let double = Arc::new(self);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = format!("http://{}", listener.local_addr().unwrap());
        let state = double.clone();
        let router = axum::Router::new().fallback(async move |method: Method, uri: Uri, body: String| {
            let body = serde_json::from_str(&body).unwrap_or_default();
            let (code, answer) = state.answer(&method, uri.path(), body);
            (code, Json(answer)).into_response()
        });
        tokio::spawn(async move { axum::serve(listener, router).await });
        let _ = rustls::crypto::ring::default_provider().install_default();
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "c", "cluster": {"server": server}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "c"}}],
            "users": [{"name": "c", "user": {}}],
        });
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), kubeconfig.to_string()).unwrap();
        let address = ApiAddress {
            kubeconfig: Some(file.path()),
            server: None,
            manager: "test",
        };
        (double, Api::connect(&address).await.unwrap())
    }
}

fn path(resource: &crate::kube::ResourceType, name: &str) -> String {
    format!("{}/{name}", resource.path(None))
}

fn jobs(api: Api) -> Jobs {
    let options = Options {
        namespace: "margay-system".into(),
        identity: "me".into(),
        leak_grace: Duration::ZERO,
        interval: Duration::from_secs(10),
        health: None,
    };
    Jobs::new(&options, api)
}

fn reign(until: Instant) -> Reign {
    Reign {
        until: watch::channel(Some(until)).1,
        health: Health::default(),
    }
}

/// A cluster with a bad pool, and with blocks of two nodes that are gone.
fn cluster(refused: &[&str]) -> Double {
    let double = Double {
        refused: refused.iter().map(ToString::to_string).collect(),
        ..Double::default()
    };
    double.put(
        &path(&IP_POOL, "main"),
        json!({"metadata": {"name": "main"}, "spec": {"cidr": "10.244.0.0/16"}}),
    );
    for (cidr, node) in [("10.244.0.0/26", "node1"), ("10.244.0.64/26", "node2")] {
        let block = block(cidr, node, &[(1, "shop", "a", node)]);
        let body = json!({"metadata": {"name": block.metadata.name}, "spec": block.spec});
        double.put(&path(&IPAM_BLOCK, &block.metadata.name), body);
    }
    double
}

impl Double {
    fn blocks(&self) -> Vec<String> {
        let prefix = path(&IPAM_BLOCK, "");
        let objects = self.objects.lock();
        objects
            .keys()
            .filter_map(|at| at.strip_prefix(&prefix).map(str::to_owned))
            .collect()
    }
}

#[tokio::test]
async fn a_pool_whose_status_is_refused_holds_up_no_release() {
    let (double, api) = cluster(&["/ippools/main/status"]).serve().await;
    let failed = jobs(api).round(&reign(Instant::now() + LEASE)).await;
    assert_eq!(failed.len(), 1, "{failed:?}");
    assert!(
        format!("{:#}", failed[0]).contains("status of IPPools: main"),
        "{failed:?}"
    );
    assert!(double.blocks().is_empty(), "{:?}", double.blocks());
}

#[tokio::test]
async fn a_node_that_cannot_be_released_does_not_hold_up_the_next() {
    let (double, api) = cluster(&["/10-244-0-0-26"]).serve().await;
    double.put(
        &path(&IP_POOL, "odd"),
        json!({"metadata": {"name": "odd"}, "spec": {"cidr": 7}}),
    );
    let failed = jobs(api).round(&reign(Instant::now() + LEASE)).await;
    let failed: Vec<_> = failed.iter().map(|error| format!("{error:#}")).collect();
    assert_eq!(failed.len(), 2, "{failed:?}");
    assert!(failed[1].contains("release node node1"), "{failed:?}");
    assert_eq!(double.blocks(), ["10-244-0-0-26"]);
}

#[tokio::test]
async fn who_no_longer_leads_releases_nothing() {
    let (double, api) = cluster(&[]).serve().await;
    let failed = jobs(api.clone()).round(&reign(Instant::now())).await;
    assert!(failed.is_empty(), "{failed:?}");
    assert_eq!(double.blocks().len(), 2);
    double.put(&path(&NODE, "node2"), json!({"metadata": {"name": "node2"}}));
    jobs(api).round(&reign(Instant::now() + LEASE)).await;
    assert_eq!(double.blocks(), ["10-244-0-64-26"]);
}

#[tokio::test]
async fn what_a_job_lacks_is_told_in_readiness() {
    let (_, api) = cluster(&["/ippools/main/status"]).serve().await;
    let reign = reign(Instant::now() + LEASE);
    let failed = jobs(api).round(&reign).await;
    let failed: Vec<_> = failed.iter().map(|error| format!("{error:#}")).collect();
    reign.tell(&failed);
    let report = reign.health.readiness();
    assert!(
        report.ok && report.text.contains("[!] jobs: status of IPPools: main"),
        "{}",
        report.text
    );
    reign.tell(&[]);
    assert!(
        reign.health.readiness().text.contains("[+] jobs"),
        "{}",
        reign.health.readiness().text
    );
}
