//! A node in a network namespace of its own, with pods, and everything outside the cluster in another.

mod wiring;

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::process::Command;
use std::time::Duration;

use margay_api::slim;
use margay_felix::convert;
use margay_felix::dataplane::Backend;
use margay_felix::engine::{BackendChoice, Engine, EngineConfig, Handle};
use margay_felix::model::{Attachment, EndpointId, Pool, Update};
use margay_felix::render::{Config, EndpointToHost};
use margay_netlink::{Addr, IpNetwork, Netns, NextHop, VethSpec};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::permit::Permit;
use super::probe::Probe;
use super::probe::Sentinel;
pub(super) use super::probe::Via;
use wiring::{default, settings, up};

/// The node's own addresses, and those of its neighbour outside.
pub(super) const NODE: [&str; 2] = ["172.16.0.1", "fd00:2::1"];
pub(super) const NEIGHBOUR: [&str; 2] = ["172.16.0.2", "fd00:2::2"];

/// Further addresses outside the cluster; the last of each family lies within the pods' pool.
const OUTSIDE: [&str; 8] = [
    "192.0.2.1",
    "192.0.2.77",
    "203.0.113.5",
    "10.0.1.200",
    "2001:db8::1",
    "2001:db8::77",
    "2001:db8:1::5",
    "fd00:1::200",
];

/// How long something that must happen may take.
pub(super) const DEADLINE: Duration = Duration::from_secs(60);

/// How long something that must not happen is given to happen, after all else has.
const GRACE: Duration = Duration::from_millis(60);

/// From, to, protocol, port, and whether it passes. Ends are `namespace/pod`, `node`, or an address outside; between
/// those that have both families, both are tried.
pub(super) type Expectation<'a> = (&'a str, &'a str, Via, u16, bool);

pub(super) struct Lab {
    pub(super) node: Netns,
    pub(super) outside: Netns,
    pub(super) engine: Handle,
    pub(super) config: EngineConfig,
    links: margay_netlink::Handle,
    pods: BTreeMap<String, PodNetns>,
    namespaces: BTreeMap<String, slim::Namespace>,
    /// Everything that was told to the engine, for one that starts later.
    told: Vec<Update>,
}

pub(super) struct PodNetns {
    pub(super) netns: Netns,
    pub(super) addresses: Vec<IpAddr>,
    pub(super) interface: String,
    object: slim::Pod,
}

/// Runs a test in a fresh lab; at most two at a time. Without root it is skipped, except in CI.
pub(super) fn in_lab<F>(name: &str, backend: Backend, test: F)
where
    F: for<'a> Fn(&'a mut Lab) -> Pin<Box<dyn Future<Output = ()> + 'a>> + Send + Sync,
{
    let is_root = Command::new("id")
        .arg("-u")
        .output()
        .is_ok_and(|output| output.stdout == b"0\n");
    if !is_root {
        assert!(std::env::var_os("CI").is_none(), "kernel tests need root");
        println!("SKIPPED kernel::{name}::{backend}: needs root");
        return;
    }
    let _permit = Permit::take();
    let node = Netns::create().unwrap();
    let run = || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let mut lab = Lab::new(node.clone(), backend).await;
            test(&mut lab).await;
            lab.engine.shutdown().await;
        });
    };
    node.run(run).unwrap();
}

impl Lab {
    async fn new(node: Netns, backend: Backend) -> Self {
        let outside = Netns::create().unwrap();
        let links = margay_netlink::Handle::new().unwrap();
        settings(true);
        outside.run(|| settings(false)).unwrap();
        let eth0 = VethSpec {
            name: "eth0",
            peer_name: "eth0",
            peer_netns: Some(&outside),
            up: true,
            ..VethSpec::default()
        };
        let eth0 = links.create_veth(eth0).await.unwrap();
        up(&links, "lo").await;
        for (address, length) in NODE.iter().zip(["24", "64"]) {
            links
                .add_addr(Addr::new(eth0.index, net(&format!("{address}/{length}"))).nodad())
                .await
                .unwrap();
        }
        let there = margay_netlink::Handle::in_netns(&outside).unwrap();
        let (peer, lo) = (up(&there, "eth0").await, up(&there, "lo").await);
        for (address, length) in NEIGHBOUR.iter().zip(["24", "64"]) {
            there
                .add_addr(Addr::new(peer, net(&format!("{address}/{length}"))).nodad())
                .await
                .unwrap();
        }
        for address in OUTSIDE {
            there
                .add_addr(Addr::new(lo, host(address.parse().unwrap())).nodad())
                .await
                .unwrap();
        }
        for i in 0..2 {
            let (here, beyond) = (NODE[i].parse().unwrap(), NEIGHBOUR[i].parse().unwrap());
            links
                .route_replace(default(here).hop(NextHop::via(beyond)))
                .await
                .unwrap();
            there
                .route_replace(default(here).hop(NextHop::via(here)))
                .await
                .unwrap();
        }
        let config = EngineConfig {
            rules: Config {
                endpoint_to_host: EndpointToHost::Drop,
                ..Config::default()
            },
            backend: match backend {
                Backend::Nft => BackendChoice::Nft,
                Backend::Legacy => BackendChoice::Legacy,
            },
            ..EngineConfig::default()
        };
        let engine = Engine::start(config.clone()).await.unwrap();
        Self {
            node,
            outside,
            engine,
            config,
            links,
            pods: BTreeMap::new(),
            namespaces: BTreeMap::new(),
            told: Vec::new(),
        }
    }

    /// A lab whose engine knows these namespaces, with one label `team` each, and is in sync.
    pub(super) async fn begin(&mut self, namespaces: &[(&str, &str)]) {
        for (name, team) in namespaces {
            self.namespace(name, team);
        }
        self.engine.in_sync();
        self.condition("in sync", |lab| lab.engine.status().in_sync).await;
    }

    pub(super) fn namespace(&mut self, name: &str, team: &str) {
        let namespace =
            json!({"metadata": {"name": name, "labels": {"team": team, "kubernetes.io/metadata.name": name}}});
        let namespace: slim::Namespace = serde_json::from_value(namespace).unwrap();
        self.tell(convert::namespace(&namespace));
        self.namespaces.insert(name.to_owned(), namespace);
    }

    pub(super) fn namespaces(&self) -> Vec<slim::Namespace> {
        self.namespaces.values().cloned().collect()
    }

    pub(super) fn objects(&self) -> Vec<slim::Pod> {
        self.pods.values().map(|pod| pod.object.clone()).collect()
    }

    /// A running pod with its interface, whose policy is in force.
    pub(super) async fn pod(&mut self, name: &str, app: &str, ports: Value) {
        self.wire(name, app, ports).await;
        self.tell_pod(name);
        self.attach(name);
        self.programmed(name).await;
    }

    /// A pod's namespace and links, of which the engine knows nothing yet.
    pub(super) async fn wire(&mut self, name: &str, app: &str, ports: Value) {
        let n = self.pods.len() + 1;
        let addresses = vec![
            IpAddr::from(Ipv4Addr::new(10, 0, 1, n as u8)),
            IpAddr::from(Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, n as u16)),
        ];
        let (namespace, short) = name.split_once('/').unwrap();
        let ips: Vec<Value> = addresses.iter().map(|ip| json!({"ip": ip})).collect();
        let object = json!({"metadata": {"namespace": namespace, "name": short, "uid": format!("u{n}"), "labels": {"app": app}},
            "spec": {"nodeName": "here", "containers": [{"name": "c", "ports": ports}]},
            "status": {"phase": "Running", "podIP": ips[0]["ip"], "podIPs": ips}});
        let pod = PodNetns {
            netns: Netns::create().unwrap(),
            addresses,
            interface: format!("mgy{n:011x}"),
            object: serde_json::from_value(object).unwrap(),
        };
        wiring::link(&self.links, &pod).await;
        self.pods.insert(name.to_owned(), pod);
    }

    pub(super) fn tell_pod(&mut self, name: &str) {
        let update = convert::pod(&self.pods[name].object);
        self.tell(update);
    }

    pub(super) fn relabel(&mut self, name: &str, app: &str) {
        self.pods
            .get_mut(name)
            .unwrap()
            .object
            .metadata
            .labels
            .insert("app".into(), app.into());
        self.tell_pod(name);
    }

    pub(super) fn attach(&mut self, name: &str) {
        let pod = &self.pods[name];
        let attachment = Attachment {
            uid: pod.object.metadata.uid.as_str().into(),
            interface: pod.interface.as_str().into(),
            addresses: pod.addresses.clone(),
        };
        self.tell(Update::Attachment(id(name), Some(attachment)));
    }

    /// A NetworkPolicy by `namespace/name` and spec.
    pub(super) fn policy(&mut self, name: &str, spec: Value) {
        let (namespace, short) = name.split_once('/').unwrap();
        let object = json!({"metadata": {"namespace": namespace, "name": short}, "spec": spec});
        let (update, problems) = convert::network_policy(&serde_json::from_value(object).unwrap());
        assert!(problems.is_empty(), "{problems:?}");
        self.tell(update);
    }

    pub(super) fn no_policy(&mut self, name: &str) {
        let (namespace, short) = name.split_once('/').unwrap();
        self.tell(Update::Policy(
            margay_felix::model::PolicyId::new(namespace, short),
            None,
        ));
    }

    pub(super) fn pool(&mut self, cidr: &str, nat_outgoing: bool) {
        self.tell(Update::Pool(net(cidr), Some(Pool { nat_outgoing })));
    }

    pub(super) fn tell(&mut self, update: Update) {
        self.told.push(update.clone());
        self.engine.update(update);
    }

    /// Waits until everything that was told so far is in force, by way of any pod.
    pub(super) async fn settled(&self) {
        let any = self.pods.keys().next().unwrap();
        self.programmed(any).await;
    }

    pub(super) async fn programmed(&self, name: &str) {
        self.engine.wait_programmed(&id(name), DEADLINE).await.unwrap();
    }

    /// Ends the engine and starts another, which is told the same and is in sync.
    pub(super) async fn restart(&mut self) {
        self.engine.shutdown().await;
        self.engine = Engine::start(self.config.clone()).await.unwrap();
        self.told.iter().cloned().for_each(|update| self.engine.update(update));
        self.engine.in_sync();
        self.condition("in sync again", |lab| lab.engine.status().in_sync).await;
    }

    pub(super) async fn condition(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + DEADLINE;
        while !holds(self) {
            assert!(
                Instant::now() < deadline,
                "not in time: {what}; {:?}",
                self.engine.status()
            );
            sleep(Duration::from_millis(5)).await;
        }
    }

    pub(super) fn at(&self, name: &str) -> &PodNetns {
        &self.pods[name]
    }

    /// Sends a packet for each, all at once, and compares what is answered. A packet counts as denied once another that was
    /// sent to the same place after all of them has arrived.
    pub(super) async fn expect(&self, expectations: &[Expectation<'_>]) {
        let mut probes: Vec<(String, bool, Probe)> = Vec::new();
        let mut places: BTreeSet<(&str, bool)> = BTreeSet::new();
        for &(from, to, via, port, passes) in expectations {
            for (source, destination) in self.address_pairs(from, to) {
                let probe = Probe::send(self.netns(from), Some(source), SocketAddr::new(destination, port), via);
                let what = format!("{from} -> {to} ({destination}) {via:?} {port}: passes={passes}");
                probes.push((what, passes, probe));
                places.insert((to, destination.is_ipv4()));
            }
        }
        let mut sentinels: Vec<_> = places.into_iter().map(|(place, v4)| self.sentinel(place, v4)).collect();
        let deadline = Instant::now() + DEADLINE;
        let mut grace = None;
        loop {
            probes.iter_mut().for_each(|(_, _, probe)| probe.poll());
            sentinels.retain_mut(|sentinel| !sentinel.arrived());
            let waiting = probes.iter().any(|(_, passes, probe)| *passes && !probe.answered);
            let now = Instant::now();
            if !waiting && sentinels.is_empty() {
                grace.get_or_insert(now + GRACE);
            }
            if now >= grace.unwrap_or(deadline) {
                break;
            }
            sleep(Duration::from_millis(2)).await;
        }
        assert!(
            sentinels.is_empty(),
            "what no rule concerns does not arrive: {sentinels:?}"
        );
        let odd: Vec<_> = probes
            .iter()
            .filter(|(_, passes, probe)| *passes != probe.answered)
            .map(|(what, ..)| what)
            .collect();
        assert!(
            odd.is_empty(),
            "of {} probes these are odd:\n{odd:#?}\n{}",
            probes.len(),
            self.saved().join("\n")
        );
    }

    /// From the node, which reaches its pods and the outside whatever the policies.
    fn sentinel(&self, place: &str, v4: bool) -> Sentinel {
        let known = |pod: &PodNetns| {
            let endpoints = self.engine.status().endpoints;
            endpoints.iter().any(|endpoint| *endpoint.interface == *pod.interface)
        };
        let pod = self.pods.get(place);
        // What an unknown pod answers to neighbour discovery is dropped; ARP is not.
        let family = usize::from(!v4 && pod.is_none_or(known));
        let to = match pod {
            Some(pod) => pod.addresses[family],
            None if place == "node" || NODE.contains(&place) => NODE[family].parse().unwrap(),
            None => NEIGHBOUR[family].parse().unwrap(),
        };
        Sentinel::send(&self.node, NODE[family].parse().unwrap(), self.netns(place), to)
    }

    /// Our part and that of others in all tables, without counters, and all sets, in the order in which it is saved.
    pub(super) fn saved(&self) -> Vec<String> {
        let backend = self.engine.status().backend;
        let mut lines = Vec::new();
        for tool in [format!("iptables-{backend}-save"), format!("ip6tables-{backend}-save")] {
            let saved = output(&tool, &[]);
            let kept = saved.lines().filter(|line| !line.starts_with('#'));
            lines.extend(kept.map(|line| line.split(" [").next().unwrap_or(line).to_owned()));
        }
        let mut sets: Vec<String> = output("ipset", &["save"]).lines().map(str::to_owned).collect();
        sets.sort();
        lines.extend(sets);
        lines
    }

    /// An iptables command of the back end in use.
    pub(super) fn iptables(&self, arguments: &str) {
        let tool = format!("iptables-{}", self.engine.status().backend);
        output(&tool, &arguments.split(' ').chain(["-w", "10"]).collect::<Vec<_>>());
    }

    pub(super) fn netns(&self, place: &str) -> &Netns {
        match self.pods.get(place) {
            Some(pod) => &pod.netns,
            None if place == "node" || NODE.contains(&place) => &self.node,
            None => &self.outside,
        }
    }

    /// The addresses that the two have, of each family that both have.
    pub(super) fn address_pairs(&self, from: &str, to: &str) -> Vec<(IpAddr, IpAddr)> {
        let addresses = |place: &str| match self.pods.get(place) {
            Some(pod) => pod.addresses.clone(),
            None if place == "node" => NODE.map(|text| text.parse().unwrap()).into(),
            None => vec![
                place
                    .parse()
                    .unwrap_or_else(|_| panic!("{place} is no pod and no address")),
            ],
        };
        let sources = addresses(from);
        let pairs = addresses(to).into_iter().filter_map(|to| {
            let from = sources.iter().find(|from| from.is_ipv4() == to.is_ipv4())?;
            Some((*from, to))
        });
        pairs.collect()
    }
}

pub(super) fn id(name: &str) -> EndpointId {
    let (namespace, name) = name.split_once('/').unwrap();
    EndpointId::new(namespace, name)
}

/// Runs a tool in the calling thread's namespace; it must succeed.
pub(super) fn output(tool: &str, arguments: &[&str]) -> String {
    let output = Command::new(tool)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("{tool}: {error}"));
    assert!(
        output.status.success(),
        "{tool} {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

pub(super) fn net(text: &str) -> IpNetwork {
    text.parse().unwrap()
}

pub(super) fn host(address: IpAddr) -> IpNetwork {
    IpNetwork::from(address)
}
