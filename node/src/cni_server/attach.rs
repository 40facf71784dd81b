//! ADD, CHECK and STATUS; DEL is in [`super::detach`].
//!
//! An attachment's life on disk: nothing → record → nothing. ADD allocates, writes the record, has its policy programmed
//! and answers; whatever fails on the way is undone. DEL removes the record, then the link, then gives the addresses back:
//! an address is never free while something may still use it. A crash in between leaves either nothing, or a record that
//! the runtime's DEL (which always comes) removes, or addresses that the same DEL releases by their handle.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use margay_cni::host::{GATEWAY_V4, GATEWAY_V6, HOST_MAC};
use margay_cni::protocol::{Add, Answer, Attached, Attachment, Check, Failure, Request, code};
use margay_cni::queue::Queue;
use margay_cni::{naming, protocol};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::parts::{Addresses, AssignError, Assignment, Links, Policy};
use crate::endpoints::{AttachmentKey, EndpointRecord, EndpointStore};
use crate::health::Health;
use crate::host::ROUTE_PROTOCOL;
use crate::kube::time::rfc3339_now;
use crate::kube::watch::ObjectKey;
use crate::metrics::CniMetrics;
use crate::persist;
use crate::pods::PodBoard;

/// What an [`Attacher`] is told once.
#[derive(Debug, Clone)]
pub struct AttacherConfig {
    /// This node.
    pub node: String,
    /// How long an ADD may take in all before it answers "try again".
    pub add_timeout: Duration,
    /// How long pods must not have been attachable before STATUS says so: a runtime that hears it has the whole node NotReady,
    /// and an agent that starts, or an API server that does, is over sooner.
    pub status_patience: Duration,
    /// DELs that could not be finished.
    pub queue: Queue,
}

/// Serves attachments.
#[derive(Debug)]
pub struct Attacher<A, P, L> {
    pub(super) config: AttacherConfig,
    pub(super) addresses: A,
    pub(super) policy: P,
    pub(super) links: L,
    pub(super) pods: Arc<PodBoard>,
    pub(super) health: Health,
    pub(super) endpoints: Arc<Mutex<EndpointStore>>,
    /// One holder at a time for each container and for each host interface.
    locks: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
    metrics: CniMetrics,
}

impl<A: Addresses, P: Policy, L: Links> Attacher<A, P, L> {
    /// Puts the parts together.
    pub fn new(
        config: AttacherConfig,
        parts: (A, P, L),
        pods: Arc<PodBoard>,
        health: Health,
        endpoints: Arc<Mutex<EndpointStore>>,
    ) -> Self {
        let (addresses, policy, links) = parts;
        Self {
            config,
            addresses,
            policy,
            links,
            pods,
            health,
            endpoints,
            locks: Mutex::default(),
            metrics: CniMetrics::default(),
        }
    }

    /// What was served so far.
    pub fn metrics(&self) -> &CniMetrics {
        &self.metrics
    }

    /// Carries a request out. A caller that goes away does not stop it half way: the work is the agent's own.
    pub async fn answer(&self, request: Request) -> Answer {
        let command = match &request {
            Request::Add(_) => "ADD",
            Request::Del(_) => "DEL",
            Request::Check(_) => "CHECK",
            Request::Status => "STATUS",
        };
        let begun = std::time::Instant::now();
        let answer = self.carry_out(request).await;
        let code = match &answer {
            Answer::Error(failure) => {
                tracing::warn!(%command, code = failure.code, error = %failure.msg, "CNI request failed");
                failure.code
            }
            Answer::Attached(_) | Answer::Done => 0,
        };
        self.metrics.count(command, code, begun.elapsed());
        answer
    }

    async fn carry_out(&self, request: Request) -> Answer {
        match request {
            Request::Add(add) => self.add(add).await.unwrap_or_else(Answer::Error),
            Request::Del(del) => self.del_or_queue(del).await,
            Request::Check(check) => self.check(&check).await.unwrap_or_else(Answer::Error),
            Request::Status => match self.health.lasting_blocker(self.config.status_patience) {
                None => Answer::Done,
                Some(reason) => Failure::new(
                    code::NOT_AVAILABLE,
                    format!("node {}: {reason}", self.config.node),
                    WAY_OUT,
                )
                .into(),
            },
        }
    }

    async fn add(&self, add: Add) -> Result<Answer, Failure> {
        let deadline = Instant::now() + self.config.add_timeout;
        let _container = self.lock(format!("container {}", add.attachment.container_id)).await;
        let key = self.key(&add.attachment);
        if let Some(fault) = unusable_name(&key) {
            return Err(fault);
        }
        let pod_key = ObjectKey {
            namespace: add.pod.namespace.clone(),
            name: add.pod.name.clone(),
        };
        // A DEL of this very attachment that was never carried out would later tear down what is made now.
        let attachment = add.attachment.clone();
        if let Ok(Some(entry)) = self.queue(move |queue| queue.find(&attachment)).await {
            self.del_locked(&entry.del).await.map_err(|reason| {
                Failure::try_again(format!("pod {pod_key}: an earlier DEL is not finished: {reason}"), "")
            })?;
            let _ = self.queue(move |queue| queue.done(&entry)).await;
        }
        let existing = self.endpoints.lock().of_container(&key).cloned();
        let (record, is_new) = match existing {
            Some(record) => (record, false),
            None => (self.create(&add, &key, &pod_key, deadline).await?, true),
        };
        if let Err(reason) = self.policy.wait_programmed(&record, remaining(deadline)).await {
            // An attachment of an earlier ADD may carry traffic already.
            if is_new {
                self.undo(&record).await;
            }
            return Err(Failure::try_again(
                format!("pod {pod_key}: its network policy is not in force: {reason}"),
                "The pod stays denied until it is; see `margayctl status` and the agent's /readyz.",
            ));
        }
        Ok(Answer::Attached(self.attached(&record)))
    }

    /// Why no ADD can work now. An agent without the API server is ready, for its pods are served; new ones are not.
    pub(super) fn blocker(&self) -> Option<String> {
        self.health.blocker().or_else(|| self.health.trouble_with("datastore"))
    }

    /// Allocates and registers a new attachment.
    async fn create(
        &self,
        add: &Add,
        key: &AttachmentKey,
        pod_key: &ObjectKey,
        deadline: Instant,
    ) -> Result<EndpointRecord, Failure> {
        let runtime_uid = add.pod.uid.clone().unwrap_or_default();
        let pod = self
            .pods
            .wait(pod_key, &runtime_uid, remaining(deadline))
            .await
            .map_err(|reason| {
                let why = self.blocker().map_or(String::new(), |blocker| format!(" ({blocker})"));
                Failure::try_again(format!("pod {pod_key}: {reason}{why}"), WAY_OUT)
            })?;
        let interface = self.interface(pod_key, key, remaining(deadline)).await;
        let interface = interface.map_err(|reason| Failure::try_again(format!("pod {pod_key}: {reason}"), WAY_OUT))?;
        let wish = Assignment {
            handle: handle(key),
            attributes: BTreeMap::from([
                ("namespace".to_owned(), pod_key.namespace.clone()),
                ("node".to_owned(), self.config.node.clone()),
                ("pod".to_owned(), pod_key.name.clone()),
                ("timestamp".to_owned(), rfc3339_now()),
            ]),
            addresses: add.ips.clone(),
        };
        let assigning = tokio::time::timeout_at(deadline, self.addresses.assign(&wish));
        let addresses = match assigning.await {
            Ok(Ok(addresses)) => addresses,
            Ok(Err(AssignError::TryLater(reason))) => {
                return Err(Failure::try_again(format!("pod {pod_key}: {reason}"), WAY_OUT));
            }
            Ok(Err(AssignError::Refused(reason))) => {
                return Err(Failure::refused(format!("pod {pod_key}: {reason}"), ""));
            }
            Err(_) => {
                self.release(&wish.handle).await;
                let why = "no address within the time allowed: the API server is slow or away";
                return Err(Failure::try_again(format!("pod {pod_key}: {why}"), WAY_OUT));
            }
        };
        // While the addresses lead nowhere yet, no packet can bring a connection back.
        let forgetting = tokio::time::timeout_at(deadline, self.links.forget_connections(&addresses));
        if let Err(error) = forgetting.await.unwrap_or_else(|_| Err("no time left".to_owned())) {
            tracing::warn!(pod = %pod_key, %error, "connections of the addresses' former holders may live on");
        }
        let _interface = self.lock(format!("interface {interface}")).await;
        if let Some(other) = self.other_holder(&interface, pod_key) {
            self.release(&wish.handle).await;
            return Err(Failure::refused(
                format!("pod {pod_key}: its host interface would be {interface}, which is that of pod {other}"),
                "The names of the two pods have the same hash. Give one of them another name.",
            ));
        }
        let record = EndpointRecord {
            key: key.clone(),
            namespace: pod_key.namespace.clone(),
            pod: pod_key.name.clone(),
            runtime_uid,
            pod_uid: pod.metadata.uid.clone(),
            interface,
            addresses,
            mtu: add.mtu.unwrap_or_else(|| self.links.pod_mtu()),
            handle: wish.handle,
            netns: add.netns.clone(),
            sequence: 0,
        };
        let handle = record.handle.clone();
        let record = match EndpointStore::put(&self.endpoints, record).await {
            Ok(record) => record,
            Err(error) => {
                self.release(&handle).await;
                return Err(Failure::new(
                    code::IO,
                    format!("pod {pod_key}: the attachment cannot be recorded: {error}"),
                    "",
                ));
            }
        };
        tracing::info!(
            pod = %pod_key, container = %key.container, interface = %record.interface, addresses = ?record.addresses,
            "attaching"
        );
        // Who was not told by then has not programmed it either, which is what is waited for next.
        let _ = tokio::time::timeout_at(deadline, self.policy.changed()).await;
        Ok(record)
    }

    /// The other pod that has a host interface, if another has it: hashes of names may be the same.
    fn other_holder(&self, interface: &str, pod: &ObjectKey) -> Option<String> {
        let endpoints = self.endpoints.lock();
        let is_other = |record: &&EndpointRecord| {
            record.interface == interface && (&record.namespace, &record.pod) != (&pod.namespace, &pod.name)
        };
        let other = endpoints.iter().find(is_other)?;
        Some(format!("{}/{}", other.namespace, other.pod))
    }

    async fn check(&self, check: &Check) -> Result<Answer, Failure> {
        let key = self.key(&check.attachment);
        let record = self.endpoints.lock().of_container(&key).cloned().ok_or_else(|| {
            Failure::new(
                code::UNKNOWN_CONTAINER,
                format!(
                    "container {}: this node has no attachment of its {}",
                    key.container, key.ifname
                ),
                "Delete the pod: its next sandbox is attached anew.",
            )
        })?;
        self.policy
            .wait_programmed(&record, CHECK_TIMEOUT)
            .await
            .map_err(|reason| {
                let pod = format!("{}/{}", record.namespace, record.pod);
                Failure::new(
                    code::CHECK_FAILED,
                    format!("pod {pod}: its network policy is not in force: {reason}"),
                    "",
                )
            })?;
        Ok(Answer::Attached(self.attached(&record)))
    }

    fn attached(&self, record: &EndpointRecord) -> Attached {
        Attached {
            interface: record.interface.clone(),
            host_mac: HOST_MAC.to_string(),
            addresses: record.host_networks().collect(),
            gateway_v4: GATEWAY_V4,
            gateway_v6: GATEWAY_V6,
            mtu: record.mtu,
            route_protocol: ROUTE_PROTOCOL,
        }
    }

    /// Name of the host side of an attachment.
    pub(super) async fn interface(
        &self,
        pod: &ObjectKey,
        key: &AttachmentKey,
        patience: Duration,
    ) -> Result<String, String> {
        let prefix = tokio::time::timeout(patience, self.links.interface_prefix()).await;
        let prefix = &prefix.map_err(|_| "the cluster's settings are not known yet".to_owned())?;
        Ok(if key.ifname == "eth0" {
            naming::host_interface(prefix, &pod.namespace, &pod.name)
        } else {
            naming::further_host_interface(prefix, &pod.namespace, &pod.name, &key.network, &key.ifname)
        })
    }

    /// Works on the queue of DELs, which is on disk.
    pub(super) async fn queue<T: Send + 'static>(&self, work: impl FnOnce(&Queue) -> T + Send + 'static) -> T {
        let queue = self.config.queue.clone();
        persist::aside(move || work(&queue)).await
    }

    /// What the attachment is recorded as, or would be.
    pub(super) fn key(&self, attachment: &Attachment) -> AttachmentKey {
        let protocol::Attachment {
            container_id,
            network,
            ifname,
        } = attachment.clone();
        let key = AttachmentKey {
            network,
            container: container_id,
            ifname,
        };
        let known = self
            .endpoints
            .lock()
            .of_container(&key)
            .map(|record| record.key.clone());
        known.unwrap_or(key)
    }

    pub(super) async fn lock(&self, name: String) -> tokio::sync::OwnedMutexGuard<()> {
        let lock = {
            let mut locks = self.locks.lock();
            locks.retain(|_, lock| Arc::strong_count(lock) > 1);
            locks.entry(name).or_default().clone()
        };
        lock.lock_owned().await
    }
}

const CHECK_TIMEOUT: Duration = Duration::from_secs(5);
const WAY_OUT: &str = "See `margayctl status` and the agent's /readyz on this node.";

/// The IPAM handle of an attachment: Calico's for a pod's own interface, with the name added for further ones.
pub(super) fn handle(key: &AttachmentKey) -> String {
    let AttachmentKey {
        network,
        container,
        ifname,
    } = key;
    if ifname == "eth0" {
        format!("{network}.{container}")
    } else {
        format!("{network}.{container}.{ifname}")
    }
}

/// Why the API would refuse the handle, if it would: its name is made of these.
fn unusable_name(key: &AttachmentKey) -> Option<Failure> {
    let fields = [
        ("name of the network configuration", &key.network, code::INVALID_CONFIG),
        ("CNI_CONTAINERID", &key.container, code::INVALID_ENVIRONMENT),
        ("CNI_IFNAME", &key.ifname, code::INVALID_ENVIRONMENT),
    ];
    fields
        .into_iter()
        .find(|(_, text, _)| !is_label_sequence(text))
        .map(|(field, text, code)| {
            let msg = format!("{field} {text:?} cannot be part of the name of an IPAMHandle");
            Failure::new(code, msg, "Use letters and digits, with '-' and '.' only between them.")
        })
}

/// Whether it may stand in a Kubernetes object's name once it is in lower case (RFC 1123 section 2.1).
pub(crate) fn is_label_sequence(text: &str) -> bool {
    text.split('.').all(|label| {
        let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        !label.is_empty() && !label.starts_with('-') && !label.ends_with('-') && label.bytes().all(inner)
    })
}

fn remaining(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}
