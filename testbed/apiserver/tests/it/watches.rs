//! Watches: where they start, what they see, how they end.

use std::time::Duration;

use margay_apiserver::Limits;
use serde_json::{Value, json};

use super::support::{Client, start, start_with};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn make(client: &Client, name: &str, labels: Value) -> String {
    let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": labels}});
    client.post(MAPS, &body).ok()["metadata"]["resourceVersion"]
        .as_str()
        .map(str::to_owned)
        .expect("version")
}

#[test]
fn a_watch_goes_on_where_a_list_ended() {
    let (_server, client) = start();
    make(&client, "before", json!({}));
    let version = client.get(MAPS).ok()["metadata"]["resourceVersion"]
        .as_str()
        .map(str::to_owned)
        .expect("version");
    make(&client, "between", json!({}));
    let mut events = client.watch(&format!("{MAPS}?watch=true&resourceVersion={version}"));
    assert_eq!(events.brief(), "ADDED between");
    client
        .patch("merge", &format!("{MAPS}/before"), &json!({"data": {"k": "v"}}))
        .ok();
    assert_eq!(events.brief(), "MODIFIED before");
    client.delete(&format!("{MAPS}/before"), &Value::Null).ok();
    let event = events.next().expect("event");
    assert_eq!(event["type"], "DELETED");
    let last = event["object"]["metadata"]["resourceVersion"]
        .as_str()
        .and_then(|v| v.parse::<u64>().ok());
    assert!(last > version.parse().ok(), "a deletion has a version of its own");

    let mut all = client.watch(&format!("{MAPS}?watch=true&timeoutSeconds=1"));
    assert_eq!(all.brief(), "ADDED between");
    assert!(all.next().is_none(), "timeoutSeconds ends it");
}

#[test]
fn objects_enter_and_leave_a_selector() {
    let (_server, client) = start();
    make(&client, "a", json!({"on": "no"}));
    let mut events = client.watch(&format!("{MAPS}?watch=true&labelSelector=on%3Dyes"));
    for (value, seen) in [("yes", "ADDED a"), ("yes-but", "DELETED a"), ("yes", "ADDED a")] {
        client
            .patch(
                "merge",
                &format!("{MAPS}/a"),
                &json!({"metadata": {"labels": {"on": value}}}),
            )
            .ok();
        assert_eq!(events.brief(), seen);
    }
}

#[test]
fn bookmarks_and_initial_events() {
    let limits = Limits {
        bookmark_interval: Duration::from_millis(50),
        ..Limits::default()
    };
    let (_server, client) = start_with(limits);
    make(&client, "a", json!({}));
    let query = "watch=true&sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan";
    let mut events = client.watch(&format!("{MAPS}?{query}"));
    assert_eq!(events.brief(), "ADDED a");
    let mark = events.next().expect("bookmark");
    assert_eq!(mark["type"], "BOOKMARK");
    assert_eq!(
        mark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"],
        "true"
    );
    let later = events.next().expect("bookmark");
    assert_eq!(
        (later["type"].as_str(), later["object"]["kind"].as_str()),
        (Some("BOOKMARK"), Some("ConfigMap"))
    );
    assert!(later["object"]["metadata"]["annotations"].is_null());
    assert_eq!(
        client.get(&format!("{MAPS}?watch=true&sendInitialEvents=true")).code,
        422
    );
}

#[test]
fn a_forgotten_version_is_gone() {
    let (_server, client) = start_with(Limits {
        history: 3,
        ..Limits::default()
    });
    let version = make(&client, "a", json!({}));
    let first = client.get(&format!("{MAPS}?limit=1")).ok();
    for i in 0..5 {
        make(&client, &format!("b{i}"), json!({}));
    }
    let mut events = client.watch(&format!("{MAPS}?watch=true&resourceVersion={version}"));
    let event = events.next().expect("event");
    assert_eq!(
        (event["type"].as_str(), event["object"]["code"].as_i64()),
        (Some("ERROR"), Some(410))
    );
    assert!(events.next().is_none());
    assert!(first["metadata"]["continue"].is_null(), "one object, one page");
    let page = client.get(&format!("{MAPS}?limit=1")).ok();
    let token = page["metadata"]["continue"].as_str().expect("token");
    for i in 0..5 {
        make(&client, &format!("c{i}"), json!({}));
    }
    assert_eq!(client.get(&format!("{MAPS}?limit=1&continue={token}")).code, 410);
}
