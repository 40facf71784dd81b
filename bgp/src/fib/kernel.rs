//! The Linux kernel's routing table, kept equal to what the RIB wants.
//!
//! A reconciler: it knows what is wanted and what it believes to be installed, writes only the difference, in batches,
//! and lists the table anew whenever an event contradicts its belief. Routes of other protocols are never touched.

mod convert;

use std::collections::HashMap;
use std::io;
use std::time::Duration;

use futures::FutureExt;
use ipnetwork::IpNetwork;
use margay_netlink::{Event, Groups, Handle, Monitor, Op, Route, RouteFilter};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use self::convert::Style;
use super::{Fib, FibBatch, FibRoute, Sources, Started, Topology};

/// Routes a batch.
const BATCH: usize = 512;

/// Wait before something the kernel refused is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// Where routes are put and how they are told from others'.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KernelConfig {
    /// Routing table.
    pub table: u32,
    /// Route protocol number; nothing else on the machine may use it.
    pub protocol: u8,
    /// Metric. Not 0, so that connected networks (IPv4) win against the same prefix from BGP, and one that no other
    /// daemon uses: the kernel holds one route for each prefix and metric.
    pub metric: u32,
}

impl Default for KernelConfig {
    fn default() -> Self {
        KernelConfig {
            table: margay_netlink::table::MAIN,
            protocol: 77,
            metric: 77,
        }
    }
}

/// The kernel of one network namespace as a forwarding plane.
#[derive(Debug)]
pub struct KernelFib {
    handle: Handle,
    monitor: Option<Monitor>,
    wanted: HashMap<IpNetwork, FibRoute>,
    /// What the kernel holds of ours; `None` for a route that is not as we would write it.
    installed: HashMap<IpNetwork, Option<FibRoute>>,
    /// Routes of ours with another metric, as an earlier configuration had it.
    strays: Vec<Route>,
    /// Everything wanted is known, so the rest may go.
    complete: bool,
    topology: Topology,
    topology_outdated: bool,
    /// It could not be read, and is to be when the retry timer runs out.
    topology_retry: bool,
    routes_outdated: bool,
    retry_at: Option<Instant>,
    forwarding_kept: bool,
    /// What is asked for; `style` has of it what the machine has.
    sources: Option<watch::Receiver<Sources>>,
    style: Style,
}

impl KernelFib {
    /// A forwarding plane in the namespace of `handle`.
    pub fn new(handle: Handle, config: KernelConfig) -> Self {
        KernelFib {
            handle,
            monitor: None,
            wanted: HashMap::new(),
            installed: HashMap::new(),
            strays: Vec::new(),
            complete: false,
            topology: Topology::default(),
            topology_outdated: false,
            topology_retry: false,
            routes_outdated: false,
            retry_at: None,
            forwarding_kept: false,
            sources: None,
            style: Style {
                config,
                sources: Sources::default(),
            },
        }
    }

    /// Gives routes the source addresses that `sources` says, whenever it says others.
    pub fn sources(mut self, sources: watch::Receiver<Sources>) -> Self {
        self.sources = Some(sources);
        self
    }

    /// Says that what the caller forwards for its own networks was kept over a restart, so that it is one (RFC 4724
    /// section 4.2) even where no peer had told a route.
    pub fn forwarding_kept(mut self, kept: bool) -> Self {
        self.forwarding_kept = kept;
        self
    }

    async fn list_installed(&mut self) -> margay_netlink::Result<()> {
        let filter = RouteFilter {
            table: Some(self.style.config.table),
            protocol: Some(self.style.config.protocol),
            ..RouteFilter::default()
        };
        let routes = self.handle.routes(filter).await?;
        let ours = |r: &Route| r.metric == Some(self.style.config.metric);
        let (ours, strays): (Vec<Route>, _) = routes.into_iter().partition(ours);
        self.strays = strays;
        self.installed = ours
            .into_iter()
            .map(|r| (r.dst, convert::from_kernel(&r, &self.style)))
            .collect();
        Ok(())
    }

    async fn read_topology(&self) -> margay_netlink::Result<Topology> {
        let addrs = self.handle.addrs().await?;
        let filter = RouteFilter {
            table: Some(margay_netlink::table::MAIN),
            ..RouteFilter::default()
        };
        let routes = self.handle.routes(filter).await?;
        Ok(convert::topology(&addrs, &routes, self.style.config.protocol))
    }

    /// Writes what differs for these prefixes.
    async fn write(&mut self, prefixes: Vec<IpNetwork>) {
        let mut changes: Vec<(IpNetwork, Option<FibRoute>, Op)> = Vec::new();
        for prefix in prefixes {
            let wanted = self.wanted.get(&prefix);
            match (wanted, self.installed.get(&prefix)) {
                (Some(route), Some(Some(there))) if route == there => {}
                (Some(route), _) => {
                    let op = Op::ReplaceRoute(convert::to_kernel(&prefix, route, &self.style));
                    changes.push((prefix, Some(route.clone()), op));
                }
                (None, Some(there)) if self.complete => {
                    let route = there.clone().unwrap_or(FibRoute::Unicast(Default::default()));
                    // With whatever source address it has.
                    let gone = Route {
                        src: None,
                        ..convert::to_kernel(&prefix, &route, &self.style)
                    };
                    let op = Op::DeleteRoute(gone);
                    changes.push((prefix, None, op));
                }
                (None, _) => {}
            }
        }
        for chunk in changes.chunks(BATCH) {
            let ops = chunk.iter().map(|(_, _, op)| op.clone()).collect();
            let results = self.handle.batch(ops).await;
            for ((prefix, route, op), result) in chunk.iter().zip(results) {
                match (result, route) {
                    (Ok(()), Some(route)) => {
                        self.installed.insert(*prefix, Some(route.clone()));
                    }
                    (Ok(()), None) => {
                        self.installed.remove(prefix);
                    }
                    (Err(error), None) if error.is_not_found() => {
                        self.installed.remove(prefix);
                    }
                    (Err(error), _) => {
                        warn!(%op, %error, "the kernel refused a route; trying again");
                        self.routes_outdated = true;
                        self.retry_at = Some(Instant::now() + RETRY);
                    }
                }
            }
        }
        // Last, so that their successors are there.
        self.remove_strays().await;
    }

    async fn remove_strays(&mut self) {
        if !self.complete || self.strays.is_empty() {
            return;
        }
        let strays = std::mem::take(&mut self.strays);
        for chunk in strays.chunks(BATCH) {
            let ops = chunk.iter().cloned().map(Op::DeleteRoute).collect();
            for (route, result) in chunk.iter().zip(self.handle.batch(ops).await) {
                if let Err(error) = result
                    && !error.is_not_found()
                {
                    warn!(prefix = %route.dst, %error, "the kernel keeps a route of ours with another metric; trying again");
                    self.routes_outdated = true;
                    self.retry_at = Some(Instant::now() + RETRY);
                }
            }
        }
    }

    /// Takes of the source addresses asked for those that this machine has. Whether that is news.
    fn choose_sources(&mut self) -> bool {
        let asked = self
            .sources
            .as_mut()
            .map_or_else(Sources::default, |s| *s.borrow_and_update());
        let usable = asked.among(&self.topology.addresses);
        if usable != asked {
            warn!(
                ?asked,
                "this machine lacks a source address for its routes; leaving it out until it is there"
            );
        }
        std::mem::replace(&mut self.style.sources, usable) != usable
    }

    async fn repair(&mut self) {
        self.routes_outdated = false;
        if let Err(error) = self.list_installed().await {
            warn!(%error, "cannot list routes; trying again");
            self.routes_outdated = true;
            self.retry_at = Some(Instant::now() + RETRY);
            return;
        }
        let mut prefixes: Vec<IpNetwork> = self.wanted.keys().copied().collect();
        prefixes.extend(self.installed.keys().filter(|p| !self.wanted.contains_key(*p)));
        self.write(prefixes).await;
    }

    fn note(&mut self, event: Event) {
        match event {
            Event::Link(_) | Event::LinkGone(_) | Event::Overrun => {
                // Routes that go with their link go without an event of their own.
                self.routes_outdated = true;
                self.topology_outdated = true;
            }
            Event::Addr(_) | Event::AddrGone(_) => {
                self.routes_outdated = true;
                self.topology_outdated = true;
            }
            Event::Route(route) if self.is_ours(&route) => {
                let there = convert::from_kernel(&route, &self.style);
                if self.installed.get(&route.dst) != Some(&there) {
                    self.routes_outdated = true;
                }
            }
            Event::RouteGone(route) if self.is_ours(&route) => {
                if self.installed.contains_key(&route.dst) {
                    debug!(prefix = %route.dst, "a route of ours was removed");
                    self.routes_outdated = true;
                }
            }
            Event::Route(route) | Event::RouteGone(route) => {
                if route.table == margay_netlink::table::MAIN {
                    self.topology_outdated = true;
                }
                // Somebody may have replaced ours by theirs.
                if self.installed.contains_key(&route.dst) {
                    self.routes_outdated = true;
                }
            }
            Event::Neigh(_) | Event::NeighGone(_) => {}
        }
    }

    fn is_ours(&self, route: &Route) -> bool {
        route.protocol == self.style.config.protocol && route.table == self.style.config.table
    }

    /// Waits for the next event or the retry timer, then takes all events that are there.
    async fn wait(&mut self) {
        let retry_at = self.retry_at;
        let timer = async {
            match retry_at {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        let Some(monitor) = &mut self.monitor else {
            return std::future::pending().await;
        };
        let sources = &mut self.sources;
        let others = async {
            let told = match sources {
                Some(sources) => sources.changed().await.is_ok(),
                None => false,
            };
            if !told {
                std::future::pending::<()>().await;
            }
        };
        let event = tokio::select! {
            event = monitor.next() => event,
            () = others => {
                self.routes_outdated |= self.choose_sources();
                return;
            }
            () = timer => {
                self.retry_at = None;
                self.routes_outdated = true;
                self.topology_outdated |= std::mem::take(&mut self.topology_retry);
                return;
            }
        };
        let mut next = Some(event);
        while let Some(event) = next {
            match event {
                Some(event) => self.note(event),
                None => {
                    warn!("no more kernel events; foreign changes will not be repaired");
                    self.monitor = None;
                    return;
                }
            }
            next = self.monitor.as_mut().and_then(|m| m.next().now_or_never());
        }
    }
}

impl Fib for KernelFib {
    async fn start(&mut self) -> io::Result<Started> {
        let groups = Groups::LINKS | Groups::ADDRS | Groups::ROUTES;
        self.monitor = Some(self.handle.monitor(groups).map_err(io::Error::other)?);
        self.topology = self.read_topology().await.map_err(io::Error::other)?;
        self.choose_sources();
        self.list_installed().await.map_err(io::Error::other)?;
        let kept = self.installed.len() + self.strays.len();
        if kept > 0 {
            info!(
                routes = kept,
                "found routes of an earlier run; keeping them until peers have spoken"
            );
        }
        Ok(Started {
            topology: self.topology.clone(),
            restored: kept > 0 || self.forwarding_kept,
        })
    }

    async fn apply(&mut self, batch: FibBatch) {
        let mut prefixes: Vec<IpNetwork> = Vec::with_capacity(batch.changes.len());
        for change in batch.changes {
            prefixes.push(change.prefix);
            match change.route {
                Some(route) => self.wanted.insert(change.prefix, route),
                None => self.wanted.remove(&change.prefix),
            };
        }
        if batch.complete && !self.complete {
            self.complete = true;
            prefixes.extend(self.installed.keys().filter(|p| !self.wanted.contains_key(*p)));
        }
        self.write(prefixes).await;
    }

    async fn changed(&mut self) {
        // After a refusal, wait: the kernel would only refuse again.
        while !self.topology_outdated && (!self.routes_outdated || self.retry_at.is_some()) {
            self.wait().await;
        }
    }

    async fn catch_up(&mut self) -> Option<Topology> {
        let topology = self.look_around().await;
        if self.routes_outdated && self.retry_at.is_none() {
            self.repair().await;
        }
        topology
    }

    async fn flush(&mut self) {
        self.wanted.clear();
        self.complete = true;
        let all: Vec<IpNetwork> = self.installed.keys().copied().collect();
        self.write(all).await;
    }
}

impl KernelFib {
    /// Reads the topology where events say that it may be another; before routes are repaired, which may bear no
    /// source address that has gone.
    async fn look_around(&mut self) -> Option<Topology> {
        if !self.topology_outdated {
            return None;
        }
        self.topology_outdated = false;
        match self.read_topology().await {
            Ok(topology) if topology == self.topology => None,
            Ok(topology) => {
                self.topology = topology.clone();
                self.routes_outdated |= self.choose_sources();
                Some(topology)
            }
            Err(error) => {
                warn!(%error, "cannot read the networks of this machine; trying again");
                self.topology_retry = true;
                self.retry_at = Some(Instant::now() + RETRY);
                None
            }
        }
    }
}
