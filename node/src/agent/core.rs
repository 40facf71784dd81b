//! The one task that owns the node's picture of the cluster and feeds the four engines from it.
//!
//! ```text
//!  watches ──changes──▶ ┌──────┐ ──updates──▶ policy engine (felix)
//!  CNI ─────commands──▶ │ core │ ──config───▶ speaker (bgp)
//!  control ─facts─────▶ │      │ ──desired──▶ host routes
//!  host, addresses ───▶ └──────┘ ──pools────▶ IPAM,  ──snapshot──▶ disk
//! ```
//!
//! Nothing is done before every resource type was listed once, or something stands in for it ([`super::beginning`]): half a
//! picture would tear down what the other half needs.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use ipnetwork::IpNetwork;
use margay_api::validate::network_policy_warnings;
use margay_felix::engine::{Engine, Handle as PolicyEngine};
use margay_netlink::Handle as Netlink;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot, watch};

use super::addresses::IpamBoard;
use super::beginning::{StandIn, stand_in};
use super::cluster::{Altered, Cluster, ClusterChange, Snapshot};
use super::facts::{self, Facts, Sums};
use super::findings::{Board, Finding};
use super::holdings::{self, Lost};
use super::kinds::KINDS;
use super::policy_feed::PolicyFeed;
use super::routing::Routing;
use super::saving::{Saver, Unsaved};
use super::settings::{self, Settings};
use super::watch_report::WatchReport;
use super::watches::Watches;
use super::{desired, pools};
use crate::endpoints::EndpointStore;
use crate::health::{CNI, Condition, Health, IPAM};
use crate::host::{Desired, HostState};
use crate::kube::events::{EventWriter, Notice, Standing, Subject};
use crate::kube::resource::{NETWORK_POLICY, NODE};
use crate::pods::PodBoard;

/// Changes taken in before they are acted on.
const BATCH: usize = 4096;

/// Requests to the core.
#[derive(Debug)]
pub enum Command {
    /// The set of attachments has changed; answered when the engines have been told.
    RecordsChanged(oneshot::Sender<()>),
    /// What control shows.
    Facts(oneshot::Sender<Facts>),
    /// What metrics show.
    Sums(oneshot::Sender<Sums>),
}

/// What the core works with; built by [`super::run`].
#[derive(Debug)]
pub struct Core {
    /// This node.
    pub node: String,
    /// Snapshot file.
    pub snapshot: PathBuf,
    /// Settings where FelixConfiguration says nothing.
    pub defaults: settings::Defaults,
    /// Attachments.
    pub endpoints: Arc<Mutex<EndpointStore>>,
    /// Pods of this node, for CNI.
    pub pods: Arc<PodBoard>,
    /// What IPAM goes by.
    pub ipam: Arc<ArcSwap<IpamBoard>>,
    /// The board of conditions.
    pub health: Health,
    /// Tells users.
    pub events: EventWriter,
    /// The running policy engine, for others.
    pub engine: watch::Sender<Option<PolicyEngine>>,
    /// The settings in force, for others.
    pub settings: watch::Sender<Option<Settings>>,
    /// What the host side shall be.
    pub desired: watch::Sender<Option<Desired>>,
    /// What it is.
    pub host: watch::Receiver<HostState>,
    /// Addresses of pods that IPAM does not count as theirs.
    pub lost: watch::Sender<Vec<Lost>>,
    /// Whether the kernel speaks IPv6.
    pub ipv6: bool,
    /// Networks on this node's interfaces.
    pub connected: watch::Receiver<Vec<IpNetwork>>,
    /// This node's links.
    pub netlink: Netlink,
    /// The speaker and its configuration.
    pub routing: Routing,
    /// The watches' states.
    pub watches: Watches,
    /// What is found about the node's surroundings.
    pub findings: watch::Receiver<Board>,
    /// Whether the Node says that it has no network although it has.
    pub unavailable: watch::Sender<bool>,
}

/// What changes as the core runs.
#[derive(Debug)]
struct Picture {
    cluster: Cluster,
    feed: PolicyFeed,
    /// Resource types whose live list has arrived.
    listed: [bool; ClusterChange::KINDS],
    /// Whether the engines have been given a whole picture.
    complete: bool,
    /// Altered and not yet acted on.
    altered: Altered,
    /// What users must fix, by where it was found.
    faults: BTreeMap<String, Vec<Notice>>,
    /// Those of them that were said.
    told: Standing,
    saver: Saver,
}

/// Runs until the channel of changes closes or `stop` is set; leaves the kernel as it is.
pub async fn run(
    mut core: Core,
    mut changes: mpsc::Receiver<ClusterChange>,
    mut commands: mpsc::Receiver<Command>,
    mut stop: watch::Receiver<bool>,
) {
    let mut picture = Picture {
        cluster: Cluster::default(),
        feed: PolicyFeed::default(),
        listed: [false; ClusterChange::KINDS],
        complete: false,
        altered: Altered::default(),
        faults: BTreeMap::new(),
        told: Standing::default(),
        saver: Saver::new(core.snapshot.clone(), core.health.clone()),
    };
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut engine_changes: Option<watch::Receiver<u64>> = None;
    let mut host_ready = false;
    loop {
        tokio::select! {
            change = changes.recv() => {
                let Some(change) = change else { break };
                picture.take(change);
                for _ in 1..BATCH {
                    let Ok(change) = changes.try_recv() else { break };
                    picture.take(change);
                }
            }
            Some(command) = commands.recv() => match command {
                Command::RecordsChanged(done) => {
                    core.act(&mut picture).await;
                    core.records_changed(&mut picture);
                    let _ = done.send(());
                    continue;
                }
                Command::Facts(answer) => {
                    let _ = answer.send(core.facts(&picture));
                    continue;
                }
                Command::Sums(answer) => {
                    let _ = answer.send(facts::sums(&picture.cluster, &core.node));
                    continue;
                }
            },
            () = first_round(&mut core.host), if !host_ready => {
                host_ready = true;
                picture.altered.routing = true;
            }
            Ok(()) = core.findings.changed() => {
                let found = core.findings.borrow_and_update().clone();
                picture.tell_of("surroundings", &core.node, found.into_values());
            }
            Ok(()) = core.connected.changed() => picture.altered.routing = true,
            () = engine_changed(&mut engine_changes) => picture.altered.routing |= core.routing.waits_for_dataplane(),
            _ = tick.tick() => core.tick(&mut picture).await,
            Ok(()) = stop.changed() => break,
        }
        core.health.beat("agent", Duration::from_secs(120));
        if !picture.complete && picture.listed.iter().all(|listed| *listed) {
            picture.complete = true;
            picture.altered = Altered::everything(&picture.cluster);
            tracing::info!(
                pods = picture.cluster.pods.len(),
                policies = picture.cluster.policies.len(),
                nodes = picture.cluster.nodes.len(),
                blocks = picture.cluster.blocks.len(),
                "cluster state complete"
            );
        }
        core.act(&mut picture).await;
        if engine_changes.is_none() {
            engine_changes = core.engine.borrow().as_ref().map(PolicyEngine::watch);
        }
    }
    core.leave(&mut picture).await;
}

impl Picture {
    fn take(&mut self, change: ClusterChange) {
        let kind = change.kind();
        let altered = self.cluster.apply(change);
        self.saver.note(altered.unsaved());
        self.altered.merge(altered);
        self.listed[kind] = true;
    }

    /// Has users told of findings that are about the node as a whole.
    fn tell_of(&mut self, what: &str, node: &str, findings: impl IntoIterator<Item = Finding>) {
        let known = self.cluster.nodes.named(node);
        let subject = Subject {
            resource: NODE,
            namespace: String::new(),
            name: node.to_owned(),
            uid: known.map(|node| node.metadata.uid.clone()).unwrap_or_default(),
        };
        let notices = findings.into_iter().map(|finding| Notice {
            subject: subject.clone(),
            reason: finding.reason,
            message: finding.message,
            warning: true,
        });
        self.faults.insert(what.to_owned(), notices.collect());
    }
}

impl Core {
    /// Brings every engine in line with what was altered.
    async fn act(&mut self, picture: &mut Picture) {
        let Picture { cluster, altered, .. } = picture;
        for key in &altered.pods {
            let here = cluster.pods.get(key).filter(|pod| pod.spec.node_name == self.node);
            if here.is_some() {
                picture.saver.note(Unsaved::Urgent);
            }
            self.pods.set(key, here.cloned());
        }
        if !picture.complete {
            return;
        }
        if altered.felix || self.settings.borrow().is_none() {
            // Links that cannot be read now are no reason to do without settings.
            let links = self.netlink.links().await.unwrap_or_default();
            let (settings, faults) = settings::settings(cluster, &self.node, &self.defaults, &links);
            picture.faults.insert("felix".to_owned(), faults);
            self.take_settings(settings).await;
        }
        let altered = std::mem::take(&mut picture.altered);
        if altered.pools || altered.routing || altered.felix {
            let sorted = pools::sort(&picture.cluster.pools);
            let faults = self.publish_ipam(&picture.cluster, &sorted);
            picture.faults.insert("ipam".to_owned(), faults);
            picture.faults.insert("pools".to_owned(), sorted.faults);
        }
        if self.engine.borrow().is_none() {
            // A new engine knows nothing: it needs everything, whatever was altered.
            self.start_engine(picture).await;
        } else {
            self.feed(picture, &altered);
        }
        if altered.felix || !altered.blocks.is_empty() || self.desired.borrow().is_none() {
            self.publish_desired(picture);
        }
        if altered.pools || !altered.blocks.is_empty() {
            let faults = self.compare_holdings(&picture.cluster);
            picture.faults.insert("addresses".to_owned(), faults);
        }
        if altered.routing || altered.pools || !altered.blocks.is_empty() {
            let ready = self.dataplane_ready();
            let connected = self.connected.borrow().clone();
            let faults = self
                .routing
                .update(&picture.cluster, &self.node, connected, ready, &self.health)
                .await;
            picture.faults.insert("bgp".to_owned(), faults);
        }
        self.tell(picture);
    }

    /// The attachments differ: policy engine and host side hear of it before the runtime does.
    fn records_changed(&mut self, picture: &mut Picture) {
        if picture.complete && self.engine.borrow().is_some() {
            self.feed(picture, &Altered::default());
        }
        if picture.complete {
            self.publish_desired(picture);
        }
        if !self.lost.borrow().is_empty() {
            let faults = self.compare_holdings(&picture.cluster);
            picture.faults.insert("addresses".to_owned(), faults);
        }
    }

    fn feed(&self, picture: &mut Picture, altered: &Altered) {
        let engine = self.engine.borrow();
        let Some(engine) = engine.as_ref() else { return };
        let sorted = pools::sort(&picture.cluster.pools);
        let endpoints = self.endpoints.lock();
        let fed = picture
            .feed
            .round(&picture.cluster, altered, sorted.for_policy(), endpoints.iter());
        for update in fed.updates {
            engine.update(update);
        }
        for (key, problems) in fed.policies {
            let policy = picture.cluster.policies.get(&key);
            let notice = |reason, message| Notice {
                subject: Subject {
                    resource: NETWORK_POLICY,
                    namespace: key.namespace.clone(),
                    name: key.name.clone(),
                    uid: policy.map(|policy| policy.metadata.uid.clone()).unwrap_or_default(),
                },
                reason,
                message,
                warning: true,
            };
            let faults = problems.iter().map(|problem| {
                let message = format!(
                    "{}: {}; the policy allows nothing until that is mended",
                    problem.field, problem.message
                );
                notice("PolicyInvalid", message)
            });
            let oddities = policy.map(network_policy_warnings).unwrap_or_default();
            let oddities = oddities.iter().map(|odd| notice("PolicyAmbiguous", odd.to_string()));
            let notices = faults.chain(oddities);
            picture.faults.insert(format!("policy {key}"), notices.collect());
        }
    }

    async fn take_settings(&mut self, settings: Settings) {
        let previous = self.settings.borrow().clone();
        let restart = previous
            .as_ref()
            .is_some_and(|previous| previous.engine_differs(&settings));
        if previous.as_ref() == Some(&settings) {
            return;
        }
        self.settings.send_replace(Some(settings));
        if restart && let Some(engine) = self.engine.send_replace(None) {
            tracing::info!("policy engine restarts with new settings; its rules stay meanwhile");
            engine.shutdown().await;
        }
    }

    async fn start_engine(&mut self, picture: &mut Picture) {
        let Some(config) = self.settings.borrow().as_ref().map(Settings::engine) else {
            return;
        };
        match Engine::start(config).await {
            Ok(engine) => {
                self.engine.send_replace(Some(engine.clone()));
                picture.feed = PolicyFeed::default();
                self.feed(picture, &Altered::everything(&picture.cluster));
                engine.in_sync();
            }
            Err(error) => {
                // Tried again with the next tick: everything is still marked as altered there.
                self.health.set("dataplane", Condition::NotReady(error.to_string()));
                picture.altered.felix = true;
            }
        }
    }

    fn publish_desired(&self, picture: &Picture) {
        let settings = self.settings.borrow();
        let Some(settings) = settings.as_ref() else { return };
        let desired = desired::desired(&picture.cluster, &self.node, self.endpoints.lock().iter(), settings);
        self.desired.send_if_modified(|current| {
            let changed = current.as_ref() != Some(&desired);
            *current = Some(desired);
            changed
        });
    }

    fn compare_holdings(&self, cluster: &Cluster) -> Vec<Notice> {
        let lost = holdings::lost(cluster.blocks.iter(), self.endpoints.lock().iter());
        let faults = holdings::faults(&lost);
        self.lost
            .send_if_modified(|current| std::mem::replace(current, lost.clone()) != lost);
        faults
    }

    fn publish_ipam(&self, cluster: &Cluster, sorted: &pools::Pools<'_>) -> Vec<Notice> {
        let wished = self.settings.borrow().as_ref().is_none_or(|settings| settings.ipv6);
        let (board, faults) = IpamBoard::new(cluster, sorted, &self.node, self.ipv6 && wished);
        self.health.set(IPAM, board.condition());
        self.ipam.store(Arc::new(board));
        faults
    }

    /// Whether packets to and from pods would be treated as they should be.
    fn dataplane_ready(&self) -> bool {
        let programmed = self
            .engine
            .borrow()
            .as_ref()
            .is_some_and(|engine| engine.status().in_sync);
        programmed && self.host.borrow().rounds > 0
    }

    /// Says each fault once, when it is new.
    fn tell(&self, picture: &mut Picture) {
        picture.faults.retain(|_, notices| !notices.is_empty());
        picture
            .told
            .update(picture.faults.values().flatten().cloned(), &self.events);
    }

    fn facts(&self, picture: &Picture) -> Facts {
        let mut problems = picture
            .faults
            .values()
            .flatten()
            .map(|notice| (notice.clone(), picture.told.since(notice)))
            .collect::<Vec<_>>();
        problems.dedup();
        facts::facts(
            &picture.cluster,
            &self.node,
            &self.endpoints.lock(),
            problems,
            self.watches.undecodable(),
        )
    }

    async fn tick(&mut self, picture: &mut Picture) {
        let now = Instant::now();
        let report = self.watches.report();
        if !picture.complete {
            self.stand_in(picture, &report, now);
        }
        let failing = report.failing(now);
        let condition = match (picture.complete, failing.is_empty()) {
            (_, true) => Condition::Ready("connected".to_owned()),
            (true, false) => Condition::Degraded(format!("working from what was last known; {}", failing.join("; "))),
            (false, false) => Condition::NotReady(failing.join("; ")),
        };
        self.health.set("datastore", condition);
        let attaching = report
            .attach_blocker()
            .map_or_else(|| Condition::Ready(String::new()), Condition::Degraded);
        self.health.set(CNI, attaching);
        picture.tell_of("resources", &self.node, report.missing(now));
        let said = picture.cluster.nodes.named(&self.node);
        let said = said.is_some_and(|node| node.status.network_unavailable);
        let unavailable = said && picture.complete && self.health.readiness().ok;
        self.unavailable
            .send_if_modified(|current| std::mem::replace(current, unavailable) != unavailable);
        if self.routing.wants_retry() || self.engine.borrow().is_none() {
            picture.altered.routing = true;
        }
        if picture.complete {
            picture.saver.tick(|| picture.cluster.snapshot()).await;
        } else {
            self.tell(picture);
        }
    }

    /// Goes on without the lists that do not come, where something stands in for every one of them.
    fn stand_in(&self, picture: &mut Picture, report: &WatchReport, now: Instant) {
        let missing = KINDS.iter().enumerate().filter(|(at, _)| !picture.listed[*at]);
        let stand_ins: BTreeMap<usize, StandIn> = missing
            .map(|(at, kind)| (at, stand_in(kind, report.trouble(at), now)))
            .collect();
        if stand_ins.is_empty() || stand_ins.values().any(|by| *by == StandIn::Wait) {
            return;
        }
        let of_last_run = |by: &StandIn| matches!(by, StandIn::Snapshot | StandIn::SnapshotOrNone);
        let snapshot = if stand_ins.values().any(of_last_run) {
            picture.saver.load()
        } else {
            None
        };
        if snapshot.is_none() && stand_ins.values().any(|by| *by == StandIn::Snapshot) {
            return;
        }
        for (at, by) in &stand_ins {
            let resource = KINDS[*at].resource.full_name();
            let last_run = snapshot.is_some() && of_last_run(by);
            tracing::warn!(%resource, last_run, "no list comes: starting from what the last run knew, or without");
        }
        for change in snapshot.into_iter().flat_map(Snapshot::into_changes) {
            if stand_ins.get(&change.kind()).is_some_and(of_last_run) {
                picture.altered.merge(picture.cluster.apply(change));
            }
        }
        picture.complete = true;
        picture.altered = Altered::everything(&picture.cluster);
    }

    async fn leave(&mut self, picture: &mut Picture) {
        if picture.complete {
            picture.saver.leave(|| picture.cluster.snapshot()).await;
        }
        self.routing.leave().await;
        if let Some(engine) = self.engine.send_replace(None) {
            engine.shutdown().await;
        }
    }
}

async fn first_round(host: &mut watch::Receiver<HostState>) {
    if host.wait_for(|host| host.rounds > 0).await.is_err() {
        std::future::pending().await
    }
}

async fn engine_changed(changes: &mut Option<watch::Receiver<u64>>) {
    match changes {
        Some(receiver) => {
            if receiver.changed().await.is_err() {
                *changes = None;
            }
        }
        None => std::future::pending().await,
    }
}
