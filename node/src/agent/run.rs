//! Starts the agent's parts in order, and stops them in the reverse.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context;
use arc_swap::ArcSwap;
use ipnetwork::IpNetwork;
use margay_cni::queue::Queue;
use margay_netlink::{Groups, Handle as Netlink};
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};

use super::addresses::{Ipam, IpamBoard};
use super::core::{self, Core};
use super::findings::Findings;
use super::holdings;
use super::observe::{self, Observer};
use super::parts::{CorePolicy, HostLinks};
use super::routing::Routing;
use super::settings::Defaults;
use super::surroundings::{self, Surroundings};
use super::watches::Watches;
use crate::cni_server::{self, Attacher, AttacherConfig};
use crate::endpoints::EndpointStore;
use crate::health::{CNI, Condition, Health};
use crate::host::{self, HostState};
use crate::kube::Api;
use crate::kube::events::EventWriter;
use crate::kube::ipam_store::{KubeStore, SettingsSource};
use crate::pods::PodBoard;
use crate::{control, http, persist};

/// What the command line says.
#[derive(Debug, Clone)]
pub struct Options {
    /// Name of this node's Node object.
    pub node: String,
    /// What must outlive the agent, and the node's reboot.
    pub state_dir: PathBuf,
    /// Sockets.
    pub run_dir: PathBuf,
    /// The runtime's folder of CNI configurations, where the agent sees it.
    pub cni_conf_dir: Option<PathBuf>,
    /// While another agent has the state directory, wait for its end, however long that takes.
    pub stand_by: bool,
    /// Addresses of probes and metrics.
    pub defaults: Defaults,
}

/// Runs until `stop` is set. The kernel keeps what it has: pods go on talking.
pub async fn run(options: Options, api: Api, mut stop: watch::Receiver<bool>) -> anyhow::Result<()> {
    let started = (Instant::now(), SystemTime::now());
    persist::private_dir(&options.state_dir)?;
    // Two agents would take each other's sockets and remove each other's routes.
    let Some(_claim) = claim(&options.state_dir, options.stand_by, &mut stop).await? else {
        return Ok(());
    };
    let queue = Queue::new(options.state_dir.join("cni-dels"));
    if let Err(error) = persist::sweep(&options.state_dir).and_then(|()| queue.sweep()) {
        tracing::warn!(%error, "drafts of an earlier run not removed");
    }
    std::fs::create_dir_all(&options.run_dir)
        .with_context(|| format!("cannot create run directory {}", options.run_dir.display()))?;
    let health = Health::default();
    health.beat("agent", Duration::from_secs(120));
    health.set(
        "dataplane",
        Condition::NotReady("waiting for the cluster's state".to_owned()),
    );
    health.set("datastore", Condition::NotReady("connecting".to_owned()));
    let (endpoints, unusable) = EndpointStore::open(&options.state_dir.join("endpoints"))?;
    if !unusable.is_empty() {
        let texts: Vec<_> = unusable.iter().map(ToString::to_string).collect();
        let why = format!(
            "{}; the pod of each passes no traffic: delete that pod, then the file",
            texts.join("; ")
        );
        health.set("state endpoints", Condition::Degraded(why));
    }
    tracing::info!(node = %options.node, endpoints = endpoints.iter().count(), "starting");
    let endpoints = Arc::new(Mutex::new(endpoints));

    let netlink = Netlink::new().context("cannot talk to the kernel by netlink; the agent needs CAP_NET_ADMIN")?;
    let blackholes = host::blackholes(&netlink)
        .await
        .context("cannot read the kernel's routes")?;
    let ipv6 = std::path::Path::new("/proc/net/if_inet6").exists();
    let (speaker, speaker_watch) = watch::channel(None);
    let bgp_file = options.state_dir.join("bgp.json");
    let mut routing = Routing::new(netlink.clone(), bgp_file, !blackholes.is_empty(), ipv6, speaker);
    routing.resume(&health).await;

    let (desired, desired_watch) = watch::channel(None);
    let (host_state, host_watch) = watch::channel(HostState::default());
    tokio::spawn(keep("host routes", {
        let (netlink, desired_watch, host_state) = (netlink.clone(), desired_watch, host_state);
        move || host::run(netlink.clone(), desired_watch.clone(), host_state.clone())
    }));
    let (connected, connected_watch) = watch::channel(networks(&netlink).await?);
    tokio::spawn(follow_addresses(netlink.clone(), connected));

    let (changes, changes_queue) = mpsc::channel(1024);
    let watches = Watches::start(&api, &changes);
    drop(changes);
    let (commands, commands_queue) = mpsc::channel(64);
    let (engine, engine_watch) = watch::channel(None);
    let (settings, settings_watch) = watch::channel(None);
    let pods = Arc::new(PodBoard::default());
    let board = Arc::new(ArcSwap::from_pointee(IpamBoard::default()));

    let store = KubeStore::new(
        api.clone(),
        SettingsSource(Arc::new({
            let board = board.clone();
            move || board.load().settings.as_ref().clone()
        })),
    );
    let ipam = Arc::new(Ipam::new(store, &options.node, board.clone()));
    let (lost, lost_watch) = watch::channel(Vec::new());
    tokio::spawn(holdings::keep(
        ipam.clone(),
        endpoints.clone(),
        lost_watch,
        health.clone(),
    ));
    let policy = CorePolicy {
        commands: commands.clone(),
        engine: engine_watch.clone(),
    };
    let links = HostLinks {
        netlink: netlink.clone(),
        host: host_watch.clone(),
        settings: settings_watch.clone(),
    };
    let attacher = Arc::new(Attacher::new(
        AttacherConfig {
            node: options.node.clone(),
            add_timeout: Duration::from_secs(45),
            status_patience: Duration::from_secs(15),
            queue,
        },
        (ipam, policy, links),
        pods.clone(),
        health.clone(),
        endpoints.clone(),
    ));
    let observer = Observer {
        node: options.node.clone(),
        commands,
        engine: engine_watch,
        speaker: speaker_watch,
        host: host_watch.clone(),
        health: health.clone(),
        netlink: netlink.clone(),
        started,
    };

    let socket = |name: &str| {
        let path = options.run_dir.join(name);
        cni_server::bind(&path).with_context(|| format!("cannot listen on {}", path.display()))
    };
    let (cni_socket, control_socket) = (socket("cni.sock")?, socket("control.sock")?);
    let mut servers = tokio::task::JoinSet::new();
    servers.spawn(serve_cni(cni_socket, attacher.clone(), health.clone()));
    servers.spawn({
        let observer = Arc::new(observer.clone());
        async move {
            if let Err(error) = control::serve(control_socket, observer).await {
                tracing::error!(%error, "control API ended");
            }
        }
    });
    servers.spawn(observer.clone().watch_conditions());
    let (health_address, metrics_address) = (
        watch::Sender::new(options.defaults.health),
        watch::Sender::new(options.defaults.metrics),
    );
    servers.spawn(http::serve(
        "health server",
        http::health_router(health.clone()),
        health_address.subscribe(),
        health.clone(),
    ));
    let metrics = http::metrics_router(observe::metrics(observer, attacher.metrics().clone()));
    servers.spawn(http::serve(
        "metrics server",
        metrics,
        metrics_address.subscribe(),
        health.clone(),
    ));
    servers.spawn(follow_settings(settings_watch, health_address, metrics_address));

    let findings = Findings::default();
    let (unavailable, unavailable_watch) = watch::channel(false);
    surroundings::look(
        &mut servers,
        Surroundings {
            node: options.node.clone(),
            cni_conf_dir: options.cni_conf_dir.clone(),
        },
        api.clone(),
        unavailable_watch,
        &findings,
    );
    let core = Core {
        node: options.node.clone(),
        snapshot: options.state_dir.join("cluster.json"),
        defaults: options.defaults.clone(),
        endpoints,
        pods,
        ipam: board,
        health,
        events: EventWriter::start(api, "margay-node", options.node.clone()),
        engine,
        settings,
        desired,
        host: host_watch,
        ipv6,
        lost,
        connected: connected_watch,
        netlink,
        routing,
        watches,
        findings: findings.subscribe(),
        unavailable,
    };
    core::run(core, changes_queue, commands_queue, stop.clone()).await;
    servers.shutdown().await;
    if !*stop.borrow_and_update() {
        anyhow::bail!("the agent's core ended by itself");
    }
    tracing::info!("stopped; routes and rules stay in the kernel");
    Ok(())
}

/// Claims the state directory; a predecessor that is ending gets a moment to do so.
async fn claim(
    state_dir: &std::path::Path,
    stand_by: bool,
    stop: &mut watch::Receiver<bool>,
) -> Result<Option<std::fs::File>, persist::PersistError> {
    let deadline = Instant::now() + Duration::from_secs(5);
    let mut told = false;
    loop {
        match persist::claim_dir(state_dir) {
            Err(persist::PersistError::InUse { .. }) if stand_by || Instant::now() < deadline => {
                if stand_by && !told {
                    tracing::info!("another agent serves this node: standing by until it ends");
                    told = true;
                }
                let pause = tokio::time::sleep(Duration::from_millis(if stand_by { 10 } else { 50 }));
                tokio::select! {
                    () = pause => {}
                    _ = stop.wait_for(|stop| *stop) => return Ok(None),
                }
            }
            claimed => return claimed.map(Some),
        }
    }
}

/// DELs from disk first: what was deleted while the agent was away must not be served as if it lived.
async fn serve_cni<A, P, L>(listener: tokio::net::UnixListener, attacher: Arc<Attacher<A, P, L>>, health: Health)
where
    A: cni_server::Addresses,
    P: cni_server::Policy,
    L: cni_server::Links,
{
    health.set(CNI, Condition::Ready(String::new()));
    let replaying = async {
        loop {
            let left = attacher.replay().await;
            let pause = if left > 0 {
                Duration::from_secs(5)
            } else {
                Duration::from_secs(30)
            };
            tokio::time::sleep(pause).await;
        }
    };
    tokio::join!(
        cni_server::serve(listener, attacher.clone()),
        replaying,
        attacher.reclaim()
    );
}

/// Restarts a part that ends, and says so.
async fn keep<F, Fut>(what: &'static str, start: F)
where
    F: Fn() -> Fut,
    Fut: Future<Output = margay_netlink::Result<()>>,
{
    loop {
        match start().await {
            Ok(()) => return,
            Err(error) => tracing::error!(%what, %error, "ended; restarting"),
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

async fn networks(netlink: &Netlink) -> margay_netlink::Result<Vec<IpNetwork>> {
    let mut networks: Vec<_> = netlink.addrs().await?.into_iter().map(|addr| addr.network).collect();
    networks.retain(|network| !network.ip().is_loopback());
    networks.sort();
    networks.dedup();
    Ok(networks)
}

/// Keeps the list of connected networks.
async fn follow_addresses(netlink: Netlink, connected: watch::Sender<Vec<IpNetwork>>) {
    let Ok(mut monitor) = netlink.monitor(Groups::ADDRS) else {
        return;
    };
    loop {
        match networks(&netlink).await {
            Ok(networks) => {
                connected.send_if_modified(|current| std::mem::replace(current, networks.clone()) != networks);
            }
            Err(error) => tracing::warn!(%error, "addresses not read"),
        }
        if monitor.next().await.is_none() {
            return;
        }
    }
}

/// Moves the servers to where FelixConfiguration wants them.
async fn follow_settings(
    mut settings: watch::Receiver<Option<super::settings::Settings>>,
    health: watch::Sender<Option<std::net::SocketAddr>>,
    metrics: watch::Sender<Option<std::net::SocketAddr>>,
) {
    while settings.changed().await.is_ok() {
        let current = settings.borrow_and_update().clone();
        if let Some(settings) = current {
            health.send_if_modified(|address| std::mem::replace(address, settings.health) != settings.health);
            metrics.send_if_modified(|address| std::mem::replace(address, settings.metrics) != settings.metrics);
            crate::logging::set_level(settings.log_level);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_stands_by_takes_over_when_the_other_ends() {
        let dir = tempfile::tempdir().unwrap();
        let present = persist::claim_dir(dir.path()).unwrap();
        let (stop, mut stopped) = watch::channel(false);
        let next = claim(dir.path(), true, &mut stopped);
        tokio::pin!(next);
        // Longer than who does not stand by would wait.
        tokio::time::pause();
        assert!(tokio::time::timeout(Duration::from_secs(60), &mut next).await.is_err());
        tokio::time::resume();
        drop(present);
        assert!(next.await.unwrap().is_some());
        drop(stop);
    }

    #[tokio::test]
    async fn who_stands_by_ends_when_told_to() {
        let dir = tempfile::tempdir().unwrap();
        let _present = persist::claim_dir(dir.path()).unwrap();
        let (stop, mut stopped) = watch::channel(false);
        stop.send(true).unwrap();
        assert!(claim(dir.path(), true, &mut stopped).await.unwrap().is_none());
    }
}
