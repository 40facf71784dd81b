use serde::Deserialize;

use super::*;

mod rig;
mod trouble;

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
    assert_eq!(page.metadata.version(), "7");
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
    let next = |error| after_failure::<Thing>(&error, "5".into());
    assert!(matches!(next(ApiError::Expired(String::new())), Next::List(_)));
    assert!(matches!(next(ApiError::Unreachable(String::new())), Next::Check(version) if version == "5"));
}
