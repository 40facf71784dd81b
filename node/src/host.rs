//! The host side of pods: routes, blackholes and settings, kept as wanted.
//!
//! One task owns it. It acts when the wanted state changes, when the kernel tells of a change, and on a timer for what the
//! kernel does not tell of (settings).

pub mod plan;

use std::collections::BTreeMap;
use std::time::Duration;

use futures::FutureExt;
use margay_netlink::{Event, Groups, Handle, Link, Op, RouteFilter, sysctl, table};
use tokio::sync::watch;
use tokio::time::Instant;

pub use plan::{Desired, ROUTE_PROTOCOL};

/// How the host side is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostState {
    /// Rounds completed; 0 means nothing was done yet.
    pub rounds: u64,
    /// The wanted state that the last completed round worked from.
    pub applied: Desired,
    /// What could not be done, with the reason.
    pub errors: Vec<String>,
    /// Interfaces of known pods that do not exist or are down.
    pub missing: Vec<String>,
    /// Interfaces with our prefix that no record knows.
    pub unknown: Vec<String>,
    /// MTU for new pods, in bytes.
    pub pod_mtu: u32,
    /// Routes that were put back or corrected although the wanted state had not changed.
    pub repairs: u64,
}

/// Which of our blackholes are in the kernel: evidence that an earlier agent's state was kept since it ended.
pub async fn blackholes(netlink: &Handle) -> margay_netlink::Result<Vec<ipnetwork::IpNetwork>> {
    let filter = RouteFilter {
        protocol: Some(ROUTE_PROTOCOL),
        table: Some(table::MAIN),
        ..RouteFilter::default()
    };
    let routes = netlink.routes(filter).await?;
    let black = routes
        .into_iter()
        .filter(|route| route.kind == margay_netlink::RouteKind::Blackhole);
    Ok(black.map(|route| route.dst).collect())
}

/// Keeps the host side as the last value of `desired` says, until its sender is gone. `None` means: not known yet, touch
/// nothing.
pub async fn run(
    netlink: Handle,
    desired: watch::Receiver<Option<Desired>>,
    state: watch::Sender<HostState>,
) -> margay_netlink::Result<()> {
    // Before the first list, so that no change falls between.
    let mut monitor = netlink.monitor(Groups::LINKS | Groups::ROUTES)?;
    let mut updates = desired.clone();
    let mut wanted_changed = true;
    loop {
        // Between the wait and here it may have changed once more.
        wanted_changed |= updates.has_changed().unwrap_or(false);
        let wanted = updates.borrow_and_update().clone();
        let refresh = wanted.as_ref().map_or(REFRESH, |wanted| wanted.refresh);
        if let Some(wanted) = wanted {
            let previous = state.borrow().clone();
            let next = round(&netlink, &wanted, previous, wanted_changed).await;
            if state.send_if_modified(|state| std::mem::replace(state, next.clone()) != next) {
                for error in &next.errors {
                    tracing::warn!(%error, "host side not as wanted");
                }
            }
        }
        let next = Instant::now() + PAUSE;
        wanted_changed = tokio::select! {
            changed = updates.changed() => match changed {
                Ok(()) => true,
                Err(_) => return Ok(()),
            },
            () = tokio::time::sleep(refresh) => false,
            () = relevant(&mut monitor, &desired) => false,
        };
        tokio::time::sleep_until(next).await;
        // One look sees all that was told of until now.
        while monitor.next().now_or_never().flatten().is_some() {}
    }
}

/// Least time between two rounds: links come and go by the hundred, and each is told of several times.
const PAUSE: Duration = Duration::from_millis(100);

/// Wait for the first wanted state.
const REFRESH: Duration = Duration::from_secs(90);

async fn round(netlink: &Handle, wanted: &Desired, previous: HostState, wanted_changed: bool) -> HostState {
    let mut state = HostState {
        rounds: previous.rounds + 1,
        applied: wanted.clone(),
        pod_mtu: previous.pod_mtu,
        repairs: previous.repairs,
        ..HostState::default()
    };
    // The CNI plugin sets up the same routes: one that was made between list and change is right at the second look.
    for last in [false, true] {
        state.errors.clear();
        match attempt(netlink, wanted, &mut state, wanted_changed, last).await {
            Ok(true) => break,
            Ok(false) => {}
            Err(error) => {
                state.errors.push(error.to_string());
                break;
            }
        }
    }
    state
}

/// One look and its changes; false when a route was in the way and looking again may help.
async fn attempt(
    netlink: &Handle,
    wanted: &Desired,
    state: &mut HostState,
    wanted_changed: bool,
    last: bool,
) -> margay_netlink::Result<bool> {
    let filter = RouteFilter {
        protocol: Some(ROUTE_PROTOCOL),
        table: Some(table::MAIN),
        ..RouteFilter::default()
    };
    let (links, routes) = (netlink.links().await?, netlink.routes(filter).await?);
    let plan = plan::plan(wanted, &links, &routes);
    state.missing = plan.missing;
    state.unknown = plan::unknown_interfaces(wanted, &links)
        .into_iter()
        .map(str::to_owned)
        .collect();
    state.pod_mtu = plan::pod_mtu(&links, &wanted.interface_prefix, wanted.mtu_interfaces.as_deref());
    state
        .errors
        .extend(settings(netlink, &links, wanted, plan.settings).await);
    if plan.ops.is_empty() {
        return Ok(true);
    }
    for op in &plan.ops {
        tracing::debug!(change = %op, repair = !wanted_changed, "host route");
    }
    let results = netlink.batch(plan.ops.clone()).await;
    let in_the_way = results
        .iter()
        .filter_map(|result| result.as_ref().err())
        .any(margay_netlink::Error::is_exists);
    if in_the_way && !last {
        return Ok(false);
    }
    if !wanted_changed {
        state.repairs += results.iter().filter(|result| result.is_ok()).count() as u64;
    }
    for (op, result) in plan.ops.iter().zip(results) {
        state
            .errors
            .extend(result.err().and_then(|error| complaint(op, &error)));
    }
    Ok(true)
}

async fn settings(
    netlink: &Handle,
    links: &[Link],
    wanted: &Desired,
    pods: Vec<(String, &'static str)>,
) -> Vec<String> {
    let names: Vec<String> = links.iter().map(|link| link.name.clone()).collect();
    let prefix = wanted.interface_prefix.clone();
    let written = netlink
        .run_in_netns(move || {
            let read = |name: &String| {
                Some((
                    name.clone(),
                    sysctl::read(&format!("net/ipv6/conf/{name}/accept_ra")).ok()?,
                ))
            };
            let accept_ra: BTreeMap<_, _> = names.iter().filter_map(read).collect();
            let all = plan::node_settings(&accept_ra, &prefix).into_iter().chain(pods);
            // A setting that does not exist: IPv6 is off, or the interface has just gone.
            let failed = |result: &Result<bool, margay_netlink::Error>| {
                result
                    .as_ref()
                    .err()
                    .filter(|error| !error.is_not_found())
                    .map(ToString::to_string)
            };
            all.filter_map(|(path, value)| failed(&sysctl::ensure(&path, value)))
                .collect::<Vec<_>>()
        })
        .await;
    written.unwrap_or_else(|error| vec![error.to_string()])
}

/// What to say about a change that failed; nothing when the object went away by itself, as routes do with their link.
fn complaint(op: &Op, error: &margay_netlink::Error) -> Option<String> {
    match op {
        Op::DeleteRoute(_) if error.is_not_found() => None,
        Op::AddRoute(route) if error.is_exists() => Some(format!(
            "{op}: somebody else's route to {} is in the way; it is left alone: remove it (ip route show {})",
            route.dst, route.dst
        )),
        _ => Some(error.to_string()),
    }
}

/// Waits until something happened to a link or route that concerns us.
async fn relevant(monitor: &mut margay_netlink::Monitor, desired: &watch::Receiver<Option<Desired>>) {
    loop {
        let concerns = match monitor.next().await {
            None => return std::future::pending().await,
            Some(Event::Overrun) => true,
            Some(Event::Link(_) | Event::LinkGone(_)) => true,
            Some(Event::RouteGone(route)) => route.protocol == ROUTE_PROTOCOL,
            Some(Event::Route(route)) => {
                route.protocol != ROUTE_PROTOCOL
                    && desired
                        .borrow()
                        .as_ref()
                        .is_some_and(|wanted| claims(wanted, &route.dst))
            }
            Some(_) => false,
        };
        if concerns {
            return;
        }
    }
}

fn claims(wanted: &Desired, network: &ipnetwork::IpNetwork) -> bool {
    wanted.blocks.contains(network)
        || (network.prefix() == if network.is_ipv4() { 32 } else { 128 }
            && wanted.pods.values().flatten().any(|address| *address == network.ip()))
}
