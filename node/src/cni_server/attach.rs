//! ADD, DEL, CHECK and STATUS.
//!
//! An attachment's life on disk: nothing → record → nothing. ADD allocates, writes the record, has its policy programmed
//! and answers; whatever fails on the way is undone. DEL removes the record, then the link, then gives the addresses back:
//! an address is never free while something may still use it. A crash in between leaves either nothing, or a record that
//! the runtime's DEL (which always comes) removes, or addresses that the same DEL releases by their handle.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use margay_cni::host::{GATEWAY_V4, GATEWAY_V6, HOST_MAC};
use margay_cni::protocol::{Add, Answer, Attached, Attachment, Check, Del, Failure, Request, code};
use margay_cni::queue::Queue;
use margay_cni::{naming, protocol};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::busy;
use super::parts::{Addresses, AssignError, Assignment, Links, Policy};
use crate::endpoints::{AttachmentKey, EndpointRecord, EndpointStore};
use crate::health::Health;
use crate::host::ROUTE_PROTOCOL;
use crate::kube::time::rfc3339_now;
use crate::kube::watch::ObjectKey;
use crate::metrics::CniMetrics;
use crate::pods::PodBoard;

/// What an [`Attacher`] is told once.
#[derive(Debug, Clone)]
pub struct AttacherConfig {
    /// This node.
    pub node: String,
    /// How long an ADD may take in all before it answers "try again".
    pub add_timeout: Duration,
    /// DELs that could not be finished.
    pub queue: Queue,
}

/// Serves attachments.
#[derive(Debug)]
pub struct Attacher<A, P, L> {
    config: AttacherConfig,
    addresses: A,
    policy: P,
    links: L,
    pods: Arc<PodBoard>,
    health: Health,
    endpoints: Arc<Mutex<EndpointStore>>,
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
            Request::Status => match self.blocker().or_else(|| self.addresses.blocker()) {
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

    /// Carries out DELs that were written down while they could not be. Says how many are left.
    pub async fn replay(&self) -> usize {
        let (entries, unusable) = match self.config.queue.pending() {
            Ok(pending) => pending,
            Err(error) => {
                tracing::error!(%error, "queue of CNI DELs unreadable");
                return 0;
            }
        };
        for error in unusable {
            tracing::error!(%error, "queued CNI DEL unusable: its addresses stay allocated until the pod's node is cleaned");
        }
        let mut left = 0;
        for entry in entries {
            let _container = self
                .lock(format!("container {}", entry.del.attachment.container_id))
                .await;
            // An ADD may have carried it out and attached anew while this one waited for the lock.
            match self.config.queue.find(&entry.del.attachment) {
                Ok(Some(still)) if still.del == entry.del => {}
                _ => continue,
            }
            match self.del_locked(&entry.del).await {
                Ok(()) => {
                    tracing::info!(container = %entry.del.attachment.container_id, "queued DEL carried out");
                    if let Err(error) = self.config.queue.done(&entry) {
                        tracing::error!(%error, "queued CNI DEL not removed");
                    }
                }
                Err(reason) => {
                    tracing::warn!(container = %entry.del.attachment.container_id, %reason, "queued DEL waits");
                    left += 1;
                }
            }
        }
        left
    }

    async fn add(&self, add: Add) -> Result<Answer, Failure> {
        let deadline = Instant::now() + self.config.add_timeout;
        let key = key(&add.attachment);
        let _container = self.lock(format!("container {}", key.container)).await;
        let pod_key = ObjectKey {
            namespace: add.pod.namespace.clone(),
            name: add.pod.name.clone(),
        };
        // A DEL of this very attachment that was never carried out would later tear down what is made now.
        if let Ok(Some(entry)) = self.config.queue.find(&add.attachment) {
            self.del_locked(&entry.del).await.map_err(|reason| {
                Failure::try_again(format!("pod {pod_key}: an earlier DEL is not finished: {reason}"), "")
            })?;
            let _ = self.config.queue.done(&entry);
        }
        let existing = self.endpoints.lock().get(&key).cloned();
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
    fn blocker(&self) -> Option<String> {
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
        if let Err(error) = self.links.forget_connections(&addresses).await {
            tracing::warn!(pod = %pod_key, %error, "connections of the addresses' former holders may live on");
        }
        let interface = self.interface(pod_key, key).await;
        let _interface = self.lock(format!("interface {interface}")).await;
        let mut record = EndpointRecord {
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
        let stored = {
            let mut endpoints = self.endpoints.lock();
            record.sequence = endpoints.iter().map(|other| other.sequence).max().unwrap_or(0) + 1;
            endpoints.put(record.clone())
        };
        if let Err(error) = stored {
            self.release(&record.handle).await;
            return Err(Failure::new(
                code::IO,
                format!("pod {pod_key}: the attachment cannot be recorded: {error}"),
                "",
            ));
        }
        tracing::info!(
            pod = %pod_key, container = %key.container, interface = %record.interface, addresses = ?record.addresses,
            "attaching"
        );
        self.policy.changed().await;
        Ok(record)
    }

    /// Takes back what a failed ADD did.
    async fn undo(&self, record: &EndpointRecord) {
        if let Err(error) = self.forget(&record.key).await {
            tracing::error!(%error, container = %record.key.container, "failed ADD not undone; its DEL will do it");
            return;
        }
        self.release(&record.handle).await;
    }

    async fn release(&self, handle: &str) {
        if let Err(error) = self.addresses.release(handle).await {
            tracing::warn!(%handle, %error, "addresses not released yet; the DEL will do it");
        }
    }

    async fn del_or_queue(&self, del: Del) -> Answer {
        let Err(reason) = self.del(&del).await else {
            return Answer::Done;
        };
        match self.config.queue.push(&del) {
            Ok(()) => {
                tracing::warn!(container = %del.attachment.container_id, %reason, "DEL written down, to be finished later");
                Answer::Done
            }
            Err(error) => busy(
                format!("container {}: {reason}; {error}", del.attachment.container_id),
                "",
            ),
        }
    }

    async fn del(&self, del: &Del) -> Result<(), String> {
        let _container = self.lock(format!("container {}", del.attachment.container_id)).await;
        self.del_locked(del).await
    }

    /// A DEL by somebody who holds the container's lock.
    async fn del_locked(&self, del: &Del) -> Result<(), String> {
        let key = key(&del.attachment);
        let record = self.endpoints.lock().get(&key).cloned();
        let interface = match (&record, &del.pod) {
            (Some(record), _) => Some(record.interface.clone()),
            (None, Some(pod)) => {
                let pod = ObjectKey {
                    namespace: pod.namespace.clone(),
                    name: pod.name.clone(),
                };
                Some(self.interface(&pod, &key).await)
            }
            (None, None) => None,
        };
        if let Some(interface) = interface {
            // Held until the link is gone: a newer ADD of the pod waits, and then the link is not taken from under it.
            let _interface = self.lock(format!("interface {interface}")).await;
            self.forget(&key).await.map_err(|error| error.to_string())?;
            if !self.endpoints.lock().iter().any(|other| other.interface == interface) {
                self.links.delete(&interface).await?;
            }
        }
        self.addresses.release(&handle(&key)).await?;
        if let Some(record) = record {
            tracing::info!(pod = %format!("{}/{}", record.namespace, record.pod), container = %key.container, "detached");
        }
        Ok(())
    }

    async fn forget(&self, key: &AttachmentKey) -> Result<(), crate::persist::PersistError> {
        let removed = self.endpoints.lock().remove(key)?;
        if removed.is_some() {
            self.policy.changed().await;
        }
        Ok(())
    }

    async fn check(&self, check: &Check) -> Result<Answer, Failure> {
        let key = key(&check.attachment);
        let record = self.endpoints.lock().get(&key).cloned().ok_or_else(|| {
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

    async fn interface(&self, pod: &ObjectKey, key: &AttachmentKey) -> String {
        let prefix = &self.links.interface_prefix().await;
        if key.ifname == "eth0" {
            naming::host_interface(prefix, &pod.namespace, &pod.name)
        } else {
            naming::further_host_interface(prefix, &pod.namespace, &pod.name, &key.network, &key.ifname)
        }
    }

    async fn lock(&self, name: String) -> tokio::sync::OwnedMutexGuard<()> {
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
fn handle(key: &AttachmentKey) -> String {
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

fn key(attachment: &Attachment) -> AttachmentKey {
    let protocol::Attachment {
        container_id,
        network,
        ifname,
    } = attachment.clone();
    AttachmentKey {
        network,
        container: container_id,
        ifname,
    }
}

fn remaining(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}
