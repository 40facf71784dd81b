//! The Rust client that Margay's agents use: watcher, apply, lease-like conflicts.

use std::{pin::pin, time::Duration};

use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
    runtime::watcher::{self, Event, watcher},
};
use serde_json::json;

use super::support::start;

const DEADLINE: Duration = Duration::from_secs(20);

async fn client(server: &margay_apiserver::Server) -> Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let text = server.kubeconfig(&format!("https://{}", server.addresses()[0]));
    let file = Kubeconfig::from_yaml(&text).expect("kubeconfig");
    let config = kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
        .await
        .expect("config");
    Client::try_from(config).expect("client")
}

fn map(name: &str) -> ConfigMap {
    serde_json::from_value(json!({"metadata": {"name": name}})).expect("configmap")
}

/// The next event as a word and a name.
async fn brief(events: &mut (impl Stream<Item = watcher::Result<Event<ConfigMap>>> + Unpin)) -> String {
    let event = tokio::time::timeout(DEADLINE, events.next())
        .await
        .expect("an event in time")
        .expect("a stream");
    match event.expect("no error") {
        Event::Init => "init".into(),
        Event::InitApply(o) => format!("init {}", o.name_any()),
        Event::InitDone => "done".into(),
        Event::Apply(o) => format!("apply {}", o.name_any()),
        Event::Delete(o) => format!("delete {}", o.name_any()),
    }
}

#[tokio::test]
async fn watchers_of_both_kinds_follow() {
    let (server, _) = start();
    let maps: Api<ConfigMap> = Api::default_namespaced(client(&server).await);
    maps.create(&PostParams::default(), &map("a")).await.expect("create");
    let kinds = [watcher::Config::default(), watcher::Config::default().streaming_lists()];
    for (i, config) in kinds.into_iter().enumerate() {
        let mut events = pin!(watcher(maps.clone(), config));
        assert_eq!(brief(&mut events).await, "init");
        assert_eq!(brief(&mut events).await, "init a");
        assert_eq!(brief(&mut events).await, "done");
        let name = format!("b{i}");
        maps.create(&PostParams::default(), &map(&name)).await.expect("create");
        assert_eq!(brief(&mut events).await, format!("apply {name}"));
        maps.delete(&name, &DeleteParams::default()).await.expect("delete");
        assert_eq!(brief(&mut events).await, format!("delete {name}"));
    }
}

#[tokio::test]
async fn apply_status_and_conflicts() {
    let (server, _) = start();
    let client = client(&server).await;
    assert_eq!(client.apiserver_version().await.expect("version").minor, "32");
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    let body = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let apply = PatchParams::apply("agent");
    pods.patch("p", &apply, &Patch::Apply(&body)).await.expect("apply");
    let status = json!({"apiVersion": "v1", "kind": "Pod", "status": {"podIPs": [{"ip": "10.0.0.1"}]}});
    pods.patch_status("p", &apply, &Patch::Apply(&status))
        .await
        .expect("status");
    let list = pods
        .list(&ListParams::default().fields("status.phase=Pending"))
        .await
        .expect("list");
    let ips: Vec<_> = list
        .items
        .iter()
        .filter_map(|p| p.status.as_ref()?.pod_ips.clone())
        .flatten()
        .map(|i| i.ip)
        .collect();
    assert_eq!(ips, ["10.0.0.1"]);

    let maps: Api<ConfigMap> = Api::default_namespaced(client);
    let stale = maps.create(&PostParams::default(), &map("m")).await.expect("create");
    let mut fresh = stale.clone();
    fresh.data = Some([("k".to_owned(), "v".to_owned())].into());
    maps.replace("m", &PostParams::default(), &fresh)
        .await
        .expect("replace");
    let refused = maps
        .replace("m", &PostParams::default(), &stale)
        .await
        .expect_err("stale");
    assert!(
        matches!(&refused, kube::Error::Api(status) if status.code == 409 && status.reason == "Conflict"),
        "{refused}"
    );
}
