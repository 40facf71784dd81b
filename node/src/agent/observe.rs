//! The running agent as control API and metrics show it.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use margay_api::control::{
    self, BgpPeer, BgpRoute, BgpState, BgpStatus, DataplaneStatus, DatastoreStatus, Endpoint, IpamBlock, NextHop,
    NodeStatus, Probe, Problem,
};
use margay_bgp::speaker::status::{PathStatus, PeerStatus, RouteStatus};
use margay_bgp::speaker::{self, Handle as Speaker};
use margay_felix::engine::{EndpointState, Handle as PolicyEngine};
use margay_netlink::Handle as Netlink;
use tokio::sync::{mpsc, oneshot, watch};

use super::core::Command;
use super::facts::Facts;
use super::policy_feed;
use crate::control::{Source, Unavailable};
use crate::health::{BGP, Condition, Health, Report};
use crate::host::HostState;
use crate::kube::time::rfc3339;
use crate::metrics::Observation;

/// Looks at every part of the agent.
#[derive(Debug, Clone)]
pub struct Observer {
    /// This node.
    pub node: String,
    /// To the core.
    pub commands: mpsc::Sender<Command>,
    /// The policy engine, while it runs.
    pub engine: watch::Receiver<Option<PolicyEngine>>,
    /// The speaker, while it runs.
    pub speaker: watch::Receiver<Option<Speaker>>,
    /// The host side.
    pub host: watch::Receiver<HostState>,
    /// Conditions.
    pub health: Health,
    /// Names of interfaces.
    pub netlink: Netlink,
    /// When the agent started.
    pub started: (Instant, SystemTime),
}

impl Observer {
    async fn facts(&self) -> Result<Facts, Unavailable> {
        self.ask(Command::Facts).await
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, Unavailable> {
        let gone = || Unavailable("the agent is stopping".to_owned());
        let (answer, told) = oneshot::channel();
        self.commands.send(command(answer)).await.map_err(|_| gone())?;
        told.await.map_err(|_| gone())
    }

    fn speaker(&self) -> Result<Speaker, Unavailable> {
        let running = self.speaker.borrow().clone();
        running.ok_or_else(|| {
            Unavailable("the BGP speaker does not run yet: the agent's /readyz says what it waits for".to_owned())
        })
    }

    async fn peer_status(&self) -> Result<Vec<PeerStatus>, Unavailable> {
        self.speaker()?.peers().await.map_err(stopped)
    }

    /// One moment, for metrics.
    pub async fn observe(&self) -> Observation {
        let sums = self.ask(Command::Sums).await.unwrap_or_default();
        let peers = Source::bgp_peers(self).await.unwrap_or_default();
        let engine = self.engine.borrow().as_ref().map(PolicyEngine::status);
        let host = self.host.borrow().clone();
        let ready = self.health.readiness();
        let mut seen = Observation {
            node: self.node.clone(),
            route_repairs: host.repairs,
            cluster: sums.counts,
            ipam: (sums.ipam.blocks, sums.ipam.used, sums.ipam.borrowed),
            api_connected: matches!(self.health.get("datastore"), Some(Condition::Ready(_))),
            bgp_routes: peers.iter().map(|peer| peer.prefixes_accepted).sum(),
            peers,
            ready: ready.ok,
            ..Observation::default()
        };
        if let Some(status) = engine {
            let programmed = status.endpoints.iter().filter(|e| e.state == EndpointState::Programmed);
            seen.endpoints = status.endpoints.len() as u64;
            seen.endpoints_programmed = programmed.count() as u64;
            seen.policies = status.policies.len() as u64;
            seen.in_sync = status.in_sync;
            seen.chains = status.counters.chains as u64;
            seen.rules = status.counters.rules as u64;
            seen.sets = status.counters.sets as u64;
            seen.set_members = status.counters.members as u64;
            seen.applied = status.counters.applied;
            seen.apply_failures = status.counters.failed;
            seen.rule_repairs = status.counters.repairs;
        }
        seen
    }

    /// Keeps the conditions of engines that do not report by themselves, until dropped.
    pub async fn watch_conditions(self) {
        loop {
            if let Some(status) = self.engine.borrow().as_ref().map(PolicyEngine::status) {
                self.health.set(
                    "dataplane",
                    match (status.in_sync, status.error) {
                        (false, error) => {
                            Condition::NotReady(error.unwrap_or_else(|| "the first rules are being written".to_owned()))
                        }
                        (true, Some(error)) => Condition::Degraded(error),
                        (true, None) => Condition::Ready(format!("in sync, iptables {}", status.backend)),
                    },
                );
            }
            let host = self.host.borrow().clone();
            self.health.set(
                "routes",
                match (host.rounds, host.errors.as_slice()) {
                    (0, _) => Condition::NotReady("host routes are not set up yet".to_owned()),
                    (_, []) => Condition::Ready(String::new()),
                    (_, errors) => Condition::Degraded(errors.join("; ")),
                },
            );
            if let Ok(peers) = self.peer_status().await {
                self.health.set(BGP, bgp_condition(&peers));
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
}

impl Source for Observer {
    fn health(&self) -> control::Health {
        let probe = |report: Report| Probe {
            ok: report.ok,
            text: report.text,
        };
        control::Health {
            live: probe(self.health.liveness()),
            ready: probe(self.health.readiness()),
        }
    }

    async fn status(&self) -> NodeStatus {
        let facts = self.facts().await.unwrap_or_default();
        let speaker = self.speaker().ok();
        let mut bgp = BgpStatus::default();
        if let Some(speaker) = speaker
            && let Ok(status) = speaker.status().await
        {
            bgp.local_as = status.local_as;
            bgp.router_id = status.router_id.to_string();
            bgp.peers = status.peers as u64;
            bgp.established = status.established as u64;
            let peers = speaker.peers().await.unwrap_or_default();
            bgp.routes = peers.iter().map(|peer| peer.prefixes_accepted as u64).sum();
        }
        let readiness = self.health.readiness();
        let mut problems: Vec<_> = self
            .health
            .troubles()
            .into_iter()
            .map(|trouble| Problem {
                part: trouble.part,
                message: trouble.reason,
                since: Some(rfc3339(trouble.since, false)),
            })
            .collect();
        let lost_since = problems
            .iter()
            .find(|problem| problem.part == "datastore")
            .and_then(|problem| problem.since.clone());
        problems.extend(facts.problems.into_iter().map(|(message, since)| Problem {
            part: "config".to_owned(),
            message,
            since: since.map(|at| rfc3339(at, false)),
        }));
        let datastore = match self.health.get("datastore") {
            Some(Condition::Ready(_)) => DatastoreStatus {
                connected: true,
                synced: true,
                ..DatastoreStatus::default()
            },
            Some(Condition::Degraded(error)) => DatastoreStatus {
                synced: true,
                lost_since,
                last_error: Some(error),
                ..DatastoreStatus::default()
            },
            Some(Condition::NotReady(error)) => DatastoreStatus {
                lost_since,
                last_error: Some(error),
                ..DatastoreStatus::default()
            },
            None => DatastoreStatus::default(),
        };
        NodeStatus {
            node: self.node.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at: rfc3339(self.started.1, false),
            uptime_seconds: self.started.0.elapsed().as_secs(),
            ready: readiness.ok,
            problems,
            addresses: facts.addresses,
            dataplane: self.dataplane(),
            bgp,
            ipam: facts.ipam,
            datastore,
        }
    }

    async fn bgp_peers(&self) -> Result<Vec<BgpPeer>, Unavailable> {
        let speaker = self.speaker()?;
        let local_as = speaker.status().await.map_err(stopped)?.local_as;
        let now = SystemTime::now();
        Ok(self
            .peer_status()
            .await?
            .into_iter()
            .map(|peer| shown_peer(peer, local_as, now))
            .collect())
    }

    async fn bgp_routes(&self) -> Result<Vec<BgpRoute>, Unavailable> {
        let routes = self.speaker()?.routes().await.map_err(stopped)?;
        let links = self.netlink.links().await.unwrap_or_default();
        let name = |index: u32| {
            links
                .iter()
                .find(|link| link.index == index)
                .map(|link| link.name.clone())
        };
        Ok(routes
            .into_iter()
            .flat_map(|route| shown_routes(route, &name))
            .collect())
    }

    async fn ipam_blocks(&self) -> Result<Vec<IpamBlock>, Unavailable> {
        Ok(self.facts().await?.blocks)
    }

    async fn endpoints(&self) -> Result<Vec<Endpoint>, Unavailable> {
        let mut endpoints = self.facts().await?.endpoints;
        let status = self.engine.borrow().as_ref().map(PolicyEngine::status);
        for endpoint in &mut endpoints {
            let Some(status) = &status else {
                endpoint.policy.reason = Some("the policy engine does not run yet".to_owned());
                continue;
            };
            let id = policy_feed::endpoint(&endpoint.namespace, &endpoint.pod, &endpoint.ifname);
            let state = status
                .endpoints
                .iter()
                .find(|other| other.id == id)
                .map(|other| other.state);
            endpoint.policy.in_force = state == Some(EndpointState::Programmed) && status.in_sync;
            if endpoint.policy.in_force {
                endpoint.policy.reason = None;
            } else if endpoint.policy.reason.is_none() {
                endpoint.policy.reason = status
                    .error
                    .clone()
                    .or_else(|| Some("the rules are being written".to_owned()));
            }
        }
        Ok(endpoints)
    }
}

impl Observer {
    fn dataplane(&self) -> DataplaneStatus {
        let engine = self.engine.borrow();
        let Some(engine) = engine.as_ref() else {
            return DataplaneStatus::default();
        };
        let status = engine.status();
        DataplaneStatus {
            in_sync: status.in_sync && status.error.is_none(),
            backend: status.backend.to_string(),
            revision: status.counters.updates + status.queued as u64,
            in_force: status.counters.updates,
            last_error: status.error,
            endpoints: status.endpoints.len() as u64,
            policies: status.policies.len() as u64,
        }
    }
}

/// Sessions that are down never make the node unready: pods of one node reach each other, and a rollout must not stall
/// because a router does. Which are down, and why, is said all the same.
fn bgp_condition(peers: &[PeerStatus]) -> Condition {
    let down: Vec<_> = peers
        .iter()
        .filter(|peer| peer.state != "Established")
        .map(|peer| {
            let name = peer.name.as_deref().unwrap_or("peer");
            let why = peer
                .last_error
                .as_deref()
                .map_or(String::new(), |error| format!(" ({error})"));
            format!("{name} at {} is {}{why}", peer.address, peer.state)
        })
        .collect();
    let up = peers.len() - down.len();
    if down.is_empty() {
        Condition::Ready(format!("{up} of {} sessions established", peers.len()))
    } else {
        Condition::Degraded(format!(
            "{up} of {} sessions established: {}",
            peers.len(),
            down.join("; ")
        ))
    }
}

fn stopped(_: speaker::Error) -> Unavailable {
    Unavailable("the BGP speaker has stopped".to_owned())
}

fn shown_peer(peer: PeerStatus, local_as: u32, now: SystemTime) -> BgpPeer {
    let state = match peer.state {
        "Connect" => BgpState::Connect,
        "Active" => BgpState::Active,
        "OpenSent" => BgpState::OpenSent,
        "OpenConfirm" => BgpState::OpenConfirm,
        "Established" => BgpState::Established,
        _ => BgpState::Idle,
    };
    let since = now
        .checked_sub(Duration::from_secs(peer.since_seconds))
        .map(|at| rfc3339(at, false));
    let reason = (state != BgpState::Established).then(|| {
        let told = peer.last_error.clone().or_else(|| peer.notes.first().cloned());
        told.unwrap_or_else(|| "waiting for the first connection".to_owned())
    });
    BgpPeer {
        address: peer.address.to_string(),
        port: (peer.port != 179).then_some(peer.port),
        name: peer.name.unwrap_or_default(),
        remote_as: peer.remote_as,
        local_as,
        router_id: peer.router_id.map(|id| id.to_string()),
        state,
        since,
        reason,
        last_error: peer.last_error,
        prefixes_received: peer.prefixes_received as u64,
        prefixes_accepted: peer.prefixes_accepted as u64,
        prefixes_sent: peer.prefixes_advertised as u64,
        hold_time_seconds: u64::from(peer.hold_time.unwrap_or(0)),
        capabilities: peer
            .families
            .iter()
            .map(|family| format!("{family:?}-unicast").to_lowercase())
            .chain(peer.capabilities.iter().map(|name| (*name).to_owned()))
            .collect(),
    }
}

fn shown_routes(route: RouteStatus, name: &impl Fn(u32) -> Option<String>) -> Vec<BgpRoute> {
    let used = route.paths.iter().filter(|path| path.used).count();
    let resolved: Vec<_> = route
        .next_hops
        .iter()
        .map(|hop| NextHop {
            address: Some(hop.via),
            interface: name(hop.interface),
        })
        .collect();
    let one = |path: &PathStatus| {
        let received = path.next_hop.map(|address| NextHop {
            address: Some(address),
            interface: None,
        });
        let next_hops = match received {
            // The kernel's view belongs to the path that stands for all that are in use.
            Some(_) if path.best && !resolved.is_empty() => resolved.clone(),
            received => received.into_iter().collect(),
        };
        let why = match (path.best, path.used, &path.reason) {
            (true, _, _) => "best".to_owned(),
            (_, true, _) => "equal to the best".to_owned(),
            (_, _, Some(reason)) => reason.clone(),
            _ => "not chosen".to_owned(),
        };
        BgpRoute {
            prefix: route.prefix.to_string(),
            next_hops,
            as_path: path.as_path.clone(),
            source: path.peer.map_or("local".to_owned(), |peer| peer.to_string()),
            best: path.used,
            multipath: path.used && used > 1,
            why,
            origin: path.origin.to_owned(),
            local_pref: path.local_pref,
            med: path.med,
            communities: path.communities.clone(),
            stale: path.stale,
        }
    };
    route.paths.iter().map(one).collect()
}

/// A metrics renderer for [`crate::http::metrics_router`].
pub fn metrics(observer: Observer, cni: crate::metrics::CniMetrics) -> crate::http::Render {
    Arc::new(move || {
        let (observer, cni) = (observer.clone(), cni.clone());
        Box::pin(async move { crate::metrics::render(&observer.observe().await, &cni) })
    })
}
