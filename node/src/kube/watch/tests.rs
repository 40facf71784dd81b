use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::super::client::ApiAddress;
use super::*;

#[derive(Debug, Clone, PartialEq, Deserialize)]
struct Thing {
    spec: Spec,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
struct Spec {
    number: u8,
}

#[test]
fn one_odd_object_does_not_hide_the_others() {
    let page: Page<Thing> = serde_json::from_str(
        r#"{"metadata":{"resourceVersion":"7","continue":""},"items":[
            {"metadata":{"name":"a","resourceVersion":"3"},"spec":{"number":1}},
            {"metadata":{"name":"b","namespace":"n","resourceVersion":"4"},"spec":{"number":"many"}}]}"#,
    )
    .unwrap();
    assert_eq!(page.metadata.resource_version, "7");
    assert_eq!(page.metadata.more(), None);
    assert_eq!(
        page.items[0].object,
        Ok(Thing {
            spec: Spec { number: 1 }
        })
    );
    assert_eq!(page.items[1].meta.key().to_string(), "n/b");
    assert!(
        page.items[1].object.as_ref().unwrap_err().why.contains("u8"),
        "{:?}",
        page.items[1].object
    );
}

#[test]
fn a_missing_crd_is_explained() {
    let text = explain(&super::super::resource::IP_POOL, &ApiError::NotFound("404".into()));
    assert_eq!(
        text,
        "the API server does not serve ippools.projectcalico.org: apply deploy/crds"
    );
}

#[test]
fn an_expired_version_is_not_resumed_from() {
    assert_eq!(resume(ApiError::Expired(String::new()), "5").1, None);
    assert_eq!(
        resume(ApiError::Unreachable(String::new()), "5").1.as_deref(),
        Some("5")
    );
}

/// An API server that answers lists and takes watches in without a word.
async fn mute_watches(listener: TcpListener, watches: latest::Sender<usize>) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let watches = watches.clone();
        tokio::spawn(async move {
            let mut request = [0; 4096];
            let read = stream.read(&mut request).await.unwrap_or(0);
            if String::from_utf8_lossy(&request[..read]).contains("watch=true") {
                watches.send_modify(|watches| *watches += 1);
                return std::future::pending().await;
            }
            let list = r#"{"metadata":{"resourceVersion":"7"},"items":[]}"#;
            let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close";
            let answer = format!("{head}\r\ncontent-length: {}\r\n\r\n{list}", list.len());
            stream.write_all(answer.as_bytes()).await.unwrap();
        });
    }
}

#[tokio::test]
async fn a_watch_that_is_not_answered_is_told_and_begun_again() {
    // Another test may have been first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = format!("http://{}", listener.local_addr().unwrap());
    let (watches, mut seen) = latest::channel(0);
    tokio::spawn(mute_watches(listener, watches));
    let dir = tempfile::tempdir().unwrap();
    let kubeconfig = dir.path().join("kubeconfig");
    let text = format!(
        "{{apiVersion: v1, kind: Config, current-context: c, users: [],
        clusters: [{{name: c, cluster: {{server: \"{server}\"}}}}], contexts: [{{name: c, context: {{cluster: c}}}}]}}"
    );
    std::fs::write(&kubeconfig, text).unwrap();
    let address = ApiAddress {
        kubeconfig: Some(&kubeconfig),
        ..ApiAddress::default()
    };
    let api = Api::connect(&address).await.unwrap();
    let (sink, mut changes) = tokio::sync::mpsc::channel(4);
    let (state, mut told) = latest::channel(WatchState::default());
    let wrap = (|change: Change<Thing>| change, (|_| None) as Salvage<Thing>);
    tokio::spawn(watch(
        api,
        super::super::resource::NODE,
        Scope::default(),
        sink,
        wrap,
        state,
    ));
    let patience = Duration::from_secs(30);
    let first = tokio::time::timeout(patience, changes.recv()).await.unwrap();
    assert_eq!(first, Some(Change::Reset(Vec::new())));
    let failed = tokio::time::timeout(patience, told.wait_for(|state| state.error.is_some())).await;
    let error = failed.expect("trouble is told").unwrap().error.clone().unwrap();
    assert!(error.contains("no answer within"), "{error}");
    let again = tokio::time::timeout(patience, seen.wait_for(|watches| *watches >= 2)).await;
    again.expect("another attempt comes").unwrap();
}
