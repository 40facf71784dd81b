//! What a watch makes of an API server that is slow, busy, away or not the one it was.

use rstest::rstest;

use super::rig::*;
use super::*;

fn is_watch(query: &str) -> bool {
    query.contains("watch=true")
}

fn reset(names: &[&str]) -> Change<Thing> {
    let things = names.iter().map(|_| Thing {
        spec: Spec { number: 1 },
    });
    Change::Reset(things.collect())
}

#[tokio::test]
async fn a_watch_that_is_not_answered_is_told_and_begun_again() {
    let mut rig = Rig::start(|_, query| {
        if is_watch(query) {
            Reply::Mute
        } else {
            Reply::Json(page(7, &[], ""))
        }
    })
    .await;
    assert_eq!(rig.change().await, reset(&[]));
    let failed = rig.state.wait_for(|state| state.error.is_some());
    let failed = tokio::time::timeout(Duration::from_secs(30), failed).await;
    let error = format!("{:?}", failed.expect("trouble is told").unwrap().error);
    assert!(error.contains("no answer within"), "{error}");
    rig.requests(3).await;
}

/// Agents in containers all have pid 1, and each watches the same things.
#[test]
fn two_agents_do_not_come_back_in_step() {
    let six = || -> Vec<Duration> { pauses().take(6).collect() };
    assert_ne!(six(), six());
}

#[rstest]
#[case::too_many_requests(429)]
#[case::overloaded(503)]
#[tokio::test]
async fn who_is_told_to_come_back_later_does_not_come_before(#[case] code: u16) {
    let mut rig = Rig::start(move |number, query| match number {
        0 => Reply::Error(code, Some(2)),
        2 => Reply::Error(code, Some(1)),
        _ if is_watch(query) => Reply::Open(vec![]),
        _ => Reply::Json(page(7, &[], "")),
    })
    .await;
    let asked = rig.requests(4).await;
    let pauses = [asked[1].0 - asked[0].0, asked[3].0 - asked[2].0];
    assert!(pauses[0] >= Duration::from_secs(2), "list: {pauses:?}");
    assert!(pauses[1] >= Duration::from_secs(1), "watch: {pauses:?}");
}

#[tokio::test]
async fn a_page_that_fails_costs_that_page() {
    let mut rig = Rig::start(|number, query| match (number, query) {
        (1, _) => Reply::Error(500, None),
        (_, query) if is_watch(query) => Reply::Open(vec![]),
        (_, query) if query.contains("continue=second") => Reply::Json(page(7, &["b"], "")),
        _ => Reply::Json(page(7, &["a"], "second")),
    })
    .await;
    assert_eq!(rig.change().await, reset(&["a", "b"]));
    let queries = rig.queries();
    let first = queries
        .iter()
        .filter(|query| query.contains("limit=500") && !query.contains("continue"));
    assert_eq!(first.count(), 1, "{queries:#?}");
}

#[tokio::test]
async fn pages_that_expired_are_asked_for_again_in_one() {
    let mut rig = Rig::start(|_, query| match query {
        query if is_watch(query) => Reply::Open(vec![]),
        query if query.contains("continue=") => Reply::Error(410, None),
        query if query.contains("limit=") => Reply::Json(page(7, &["a"], "second")),
        _ => Reply::Json(page(8, &["a", "b", "c"], "")),
    })
    .await;
    assert_eq!(rig.change().await, reset(&["a", "b", "c"]));
}

#[rstest]
#[case::the_stream_breaks(Reply::Cut(vec![]))]
#[case::it_ends_without_a_word(Reply::Events(vec![]))]
#[case::a_bookmark_says_so(Reply::Open(vec![bookmark(50)]))]
#[case::an_event_says_so(Reply::Open(vec![event("ADDED", thing("c", 51))]))]
#[case::it_was_away(Reply::Error(500, None))]
#[tokio::test]
async fn a_restored_datastore_is_listed_anew(#[case] sign: Reply) {
    let mut sign = Some(sign);
    // At version 100 there were two; the backup is of version 50, and does not know the second.
    let mut rig = Rig::start(move |number, query| match number {
        0 => Reply::Json(page(100, &["a", "b"], "")),
        1 => sign.take().unwrap(),
        // A version that is not reached yet is waited for, without a word.
        _ if is_watch(query) => Reply::Open(vec![]),
        _ => Reply::Json(page(50, &["a"], "")),
    })
    .await;
    assert_eq!(rig.change().await, reset(&["a", "b"]));
    assert_eq!(rig.change().await, reset(&["a"]));
    let from_the_backup = |query: &String| is_watch(query) && query.contains("resourceVersion=50");
    while !rig.queries().iter().any(from_the_backup) {
        rig.requests(rig.queries().len() + 1).await;
    }
}

#[tokio::test]
async fn a_stream_that_breaks_is_taken_up_where_it_was() {
    let mut rig = Rig::start(|number, query| match number {
        0 => Reply::Json(page(100, &["a"], "")),
        1 => Reply::Cut(vec![bookmark(103)]),
        _ if is_watch(query) => Reply::Open(vec![event("MODIFIED", thing("a", 105))]),
        _ => Reply::Json(page(104, &["a"], "")),
    })
    .await;
    assert_eq!(rig.change().await, reset(&["a"]));
    assert!(matches!(rig.change().await, Change::Put(_)));
    let queries = rig.queries();
    assert!(queries.last().unwrap().contains("resourceVersion=103"), "{queries:#?}");
}
