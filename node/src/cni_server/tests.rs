mod trouble;
mod world;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use margay_api::slim::Pod as KubePod;
use margay_cni::protocol::{Add, Attachment, Check, Del, Pod, Request, code};
use margay_cni::queue::Queue;
use margay_ipam::block::Allocation;
use parking_lot::Mutex;

use super::*;
use crate::endpoints::{EndpointRecord, EndpointStore};
use crate::health::{Condition, Health};
use crate::kube::watch::ObjectKey;
use crate::pods::PodBoard;
use world::{Fake, Part, World};

struct Bench {
    world: Arc<World>,
    attacher: Arc<Attacher<Fake, Fake, Fake>>,
    endpoints: Arc<Mutex<EndpointStore>>,
    pods: Arc<PodBoard>,
    health: Health,
    queue: Queue,
    dir: tempfile::TempDir,
}

fn bench() -> Bench {
    let dir = tempfile::tempdir().unwrap();
    let world = Arc::new(World::default());
    let (endpoints, _) = EndpointStore::open(&dir.path().join("endpoints")).unwrap();
    let endpoints = Arc::new(Mutex::new(endpoints));
    let (pods, health) = (Arc::new(PodBoard::default()), Health::default());
    health.set("dataplane", Condition::Ready(String::new()));
    let queue = Queue::new(dir.path().join("dels"));
    let config = AttacherConfig {
        node: "node1".into(),
        add_timeout: Duration::from_secs(5),
        status_patience: Duration::ZERO,
        queue: queue.clone(),
    };
    let fake = || Fake(world.clone());
    let attacher = Attacher::new(
        config,
        (fake(), fake(), fake()),
        pods.clone(),
        health.clone(),
        endpoints.clone(),
    );
    let bench = Bench {
        attacher: Arc::new(attacher),
        world,
        endpoints,
        pods,
        health,
        queue,
        dir,
    };
    bench.pod("q1", "u1");
    bench
}

impl Bench {
    fn pod(&self, name: &str, uid: &str) {
        let mut pod = KubePod::default();
        pod.metadata.namespace = "ns0".into();
        pod.metadata.name = name.into();
        pod.metadata.uid = uid.into();
        self.pods.set(
            &ObjectKey {
                namespace: "ns0".into(),
                name: name.into(),
            },
            Some(pod),
        );
    }

    async fn ask(&self, request: Request) -> Answer {
        self.attacher.answer(request).await
    }

    fn held(&self) -> Vec<String> {
        self.world.held.lock().keys().cloned().collect()
    }

    fn records(&self) -> BTreeSet<String> {
        self.endpoints
            .lock()
            .iter()
            .map(|record| record.key.container.clone())
            .collect()
    }
}

fn attachment(container: &str) -> Attachment {
    Attachment {
        container_id: container.into(),
        network: "margay".into(),
        ifname: "eth0".into(),
    }
}

fn add(container: &str, pod: &str, uid: &str) -> Add {
    Add {
        attachment: attachment(container),
        netns: "/run/netns/x".into(),
        pod: pod_named(pod, uid),
        hw_addr: None,
        mtu: None,
        ips: Vec::new(),
    }
}

fn pod_named(pod: &str, uid: &str) -> Pod {
    Pod {
        namespace: "ns0".into(),
        name: pod.into(),
        uid: Some(uid.into()),
        infra_container_id: None,
    }
}

fn del(container: &str) -> Del {
    Del {
        attachment: attachment(container),
        netns: None,
        pod: None,
    }
}

fn attached(answer: Answer) -> margay_cni::protocol::Attached {
    match answer {
        Answer::Attached(attached) => attached,
        other => panic!("{other:?}"),
    }
}

fn failure(answer: Answer) -> Failure {
    match answer {
        Answer::Error(failure) => failure,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn add_twice_gives_one_address_and_del_twice_is_fine() {
    let bench = bench();
    let first = attached(bench.ask(Request::Add(add("c1", "q1", "u1"))).await);
    assert_eq!(first.interface, "mgy16ff9610a79");
    assert_eq!(first.addresses[0].to_string(), "10.244.0.1/32");
    assert_eq!(first.mtu, 1450);
    let second = attached(bench.ask(Request::Add(add("c1", "q1", "u1"))).await);
    assert_eq!(second, first);
    assert_eq!(bench.held(), ["margay.c1"]);
    assert_eq!(bench.ask(Request::Del(del("c1"))).await, Answer::Done);
    assert_eq!(bench.ask(Request::Del(del("c1"))).await, Answer::Done);
    assert!(bench.held().is_empty() && bench.records().is_empty());
    assert_eq!(*bench.world.deleted.lock(), ["mgy16ff9610a79"]);
}

#[tokio::test]
async fn del_without_add_is_fine_and_clears_what_the_pods_name_leads_to() {
    let bench = bench();
    let unknown = Del {
        pod: Some(pod_named("q1", "u1")),
        ..del("c9")
    };
    assert_eq!(bench.ask(Request::Del(unknown)).await, Answer::Done);
    assert_eq!(*bench.world.deleted.lock(), ["mgy16ff9610a79"]);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_pod_is_try_again_with_the_reason() {
    let bench = bench();
    let failure = failure(bench.ask(Request::Add(add("c1", "q1", "u2"))).await);
    assert_eq!(failure.code, code::TRY_AGAIN);
    assert!(
        failure.msg.contains("with UID u1, the runtime means u2"),
        "{}",
        failure.msg
    );
    assert!(bench.held().is_empty() && bench.records().is_empty());
}

#[tokio::test]
async fn a_policy_not_in_force_in_time_undoes_the_add() {
    let bench = bench();
    *bench.world.policy_fails.lock() = Some("iptables-restore failed".into());
    let failure = failure(bench.ask(Request::Add(add("c1", "q1", "u1"))).await);
    assert_eq!((failure.code, failure.retryable), (code::TRY_AGAIN, true));
    assert!(failure.msg.contains("iptables-restore failed"), "{}", failure.msg);
    assert!(bench.held().is_empty() && bench.records().is_empty());
    assert_eq!(
        *bench.world.told.lock(),
        2,
        "the engine heard of the record and of its removal"
    );
}

#[tokio::test]
async fn a_repeated_add_that_fails_leaves_the_living_attachment_alone() {
    let bench = bench();
    attached(bench.ask(Request::Add(add("c1", "q1", "u1"))).await);
    *bench.world.policy_fails.lock() = Some("busy".into());
    failure(bench.ask(Request::Add(add("c1", "q1", "u1"))).await);
    assert_eq!(bench.held(), ["margay.c1"]);
    assert_eq!(bench.records().len(), 1);
}

#[tokio::test]
async fn an_address_that_is_taken_is_refused_for_good() {
    let bench = bench();
    bench.pod("q2", "u2");
    attached(bench.ask(Request::Add(add("c1", "q1", "u1"))).await);
    let wish = Add {
        ips: vec!["10.244.0.1".parse().unwrap()],
        ..add("c2", "q2", "u2")
    };
    let failure = failure(bench.ask(Request::Add(wish)).await);
    assert_eq!((failure.code, failure.retryable), (code::REFUSED, false));
    assert!(
        failure.msg.contains("10.244.0.1 belongs to somebody else"),
        "{}",
        failure.msg
    );
}

#[tokio::test]
async fn the_old_sandboxs_del_leaves_the_new_ones_link() {
    let bench = bench();
    attached(bench.ask(Request::Add(add("old", "q1", "u1"))).await);
    attached(bench.ask(Request::Add(add("new", "q1", "u1"))).await);
    assert_eq!(bench.ask(Request::Del(del("old"))).await, Answer::Done);
    assert!(bench.world.deleted.lock().is_empty());
    assert_eq!(bench.held(), ["margay.new"]);
    assert_eq!(bench.ask(Request::Del(del("new"))).await, Answer::Done);
    assert_eq!(bench.world.deleted.lock().len(), 1);
}

#[tokio::test]
async fn a_del_without_the_api_is_done_later_from_disk() {
    let bench = bench();
    attached(bench.ask(Request::Add(add("c1", "q1", "u1"))).await);
    *bench.world.api_fails.lock() = Some("no connection".into());
    assert_eq!(bench.ask(Request::Del(del("c1"))).await, Answer::Done);
    assert_eq!(bench.held(), ["margay.c1"]);
    assert!(bench.records().is_empty(), "its policy and link are gone at once");
    assert_eq!(bench.attacher.replay().await, 1);
    *bench.world.api_fails.lock() = None;
    assert_eq!(bench.attacher.replay().await, 0);
    assert!(bench.held().is_empty());
    assert!(bench.queue.pending().unwrap().0.is_empty());
}

#[tokio::test]
async fn a_queued_del_goes_before_a_new_add_of_the_same_container() {
    let bench = bench();
    attached(bench.ask(Request::Add(add("c1", "q1", "u1"))).await);
    bench.queue.push(&del("c1")).unwrap();
    let again = attached(bench.ask(Request::Add(add("c1", "q1", "u1"))).await);
    assert_eq!(again.addresses[0].to_string(), "10.244.0.2/32");
    assert_eq!(bench.attacher.replay().await, 0);
    assert_eq!(bench.held(), ["margay.c1"]);
}

#[tokio::test]
async fn check_and_status_say_what_is_wrong() {
    let bench = bench();
    let check = || {
        Request::Check(Check {
            attachment: attachment("c1"),
            netns: "/run/netns/x".into(),
        })
    };
    assert_eq!(failure(bench.ask(check()).await).code, code::UNKNOWN_CONTAINER);
    attached(bench.ask(Request::Add(add("c1", "q1", "u1"))).await);
    attached(bench.ask(check()).await);
    *bench.world.policy_fails.lock() = Some("rules are being written".into());
    assert_eq!(failure(bench.ask(check()).await).code, code::CHECK_FAILED);

    assert_eq!(bench.ask(Request::Status).await, Answer::Done);
    bench
        .health
        .set("watch pods", Condition::NotReady("connection refused".into()));
    let failure = failure(bench.ask(Request::Status).await);
    assert_eq!(failure.code, code::NOT_AVAILABLE);
    assert!(
        failure.msg.contains("watch pods: connection refused"),
        "{}",
        failure.msg
    );
}

#[tokio::test]
async fn a_watch_that_attachments_do_not_need_leaves_the_runtime_alone() {
    let bench = bench();
    let set = |part: &str, why: &str| bench.health.set(part, Condition::Degraded(why.into()));
    set("datastore", "bgppeers.projectcalico.org: HTTP 500");
    assert_eq!(bench.ask(Request::Status).await, Answer::Done);
    set("cni", "pods are not known as they are: HTTP 500");
    let failure = failure(bench.ask(Request::Status).await);
    assert_eq!(failure.code, code::NOT_AVAILABLE);
    assert!(failure.msg.contains("pods are not known"), "{}", failure.msg);
}

#[tokio::test]
async fn records_outlive_the_agent() {
    let bench = bench();
    attached(bench.ask(Request::Add(add("c1", "q1", "u1"))).await);
    let (reopened, unusable) = EndpointStore::open(&bench.dir.path().join("endpoints")).unwrap();
    assert!(unusable.is_empty());
    let record = reopened.iter().next().unwrap();
    assert_eq!(
        (record.pod.as_str(), record.interface.as_str()),
        ("q1", "mgy16ff9610a79")
    );
}

/// Sends bytes to a served socket and returns all that comes back.
async fn exchange(path: &std::path::Path, bytes: &[u8]) -> Vec<u8> {
    let mut stream = UnixStream::connect(path).await.unwrap();
    // The server may answer and close before it has read all of an oversized message.
    let _ = stream.write_all(bytes).await;
    let _ = stream.shutdown().await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    answer
}

#[tokio::test]
async fn the_socket_is_private_and_survives_nonsense() {
    let bench = bench();
    let path = bench.dir.path().join("cni.sock");
    std::fs::write(&path, "a leftover").unwrap();
    let listener = bind(&path).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let server = tokio::spawn(serve(listener, bench.attacher.clone()));
    for nonsense in [
        &b""[..],
        b"\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"{\"version\":1",
        &[0xff; 300],
        &vec![b'x'; 100_000],
    ] {
        let answer = exchange(&path, nonsense).await;
        if let Ok(answer) = frame::decode_answer(&answer) {
            assert!(matches!(answer, Answer::Error(_)), "{answer:?}");
        }
    }
    let answer = exchange(&path, &frame::encode_request(&Request::Status)).await;
    assert_eq!(frame::decode_answer(&answer), Ok(Answer::Done));
    let other = exchange(&path, b"{\"version\":99,\"request\":{\"type\":\"Status\"}}\n").await;
    assert!(matches!(frame::decode_answer(&other), Ok(Answer::Error(f)) if f.msg.contains("version 99")));
    server.abort();
}

#[tokio::test]
async fn an_address_comes_without_its_former_holders_connections() {
    let bench = bench();
    bench.ask(Request::Add(add("c1", "q1", "u1"))).await;
    let first = (vec![IpAddr::from([10, 244, 0, 1])], 0);
    assert_eq!(
        bench.world.forgotten.lock().as_slice(),
        std::slice::from_ref(&first),
        "before any rule lets it send"
    );
    // The same ADD again: its own connections stay.
    bench.ask(Request::Add(add("c1", "q1", "u1"))).await;
    assert_eq!(*bench.world.forgotten.lock(), [first]);
}
