//! The stages of the story, in the order a person watches them.

mod asking;

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{
    fabric,
    matrix::{self, Expectation},
    own,
};
use asking::{Until, refuse_odd};
use margay_clab::quote;
use margay_testkit::shell::{Shell, wait_for};

const CONVERGENCE: Duration = Duration::from_secs(30);
const NODE_SERVER_PORT: u16 = 8090;
const CLIENT_PORT: u16 = 8080;
/// How long an exchange may take that must succeed at the first try.
const PATIENT: Duration = Duration::from_secs(10);

/// The story on one lab.
pub struct Story {
    /// How commands reach the lab.
    pub shell: Shell,
    /// The repository's `deploy/examples`.
    pub examples: PathBuf,
    /// A command run in a node before the last matrix, to show that the demo notices: (node, command).
    pub tamper: Option<(String, String)>,
    started: Instant,
}

impl Story {
    /// A story that has not begun.
    #[must_use]
    pub fn new(shell: Shell, examples: PathBuf, tamper: Option<(String, String)>) -> Self {
        Self {
            shell,
            examples,
            tamper,
            started: Instant::now(),
        }
    }

    /// Tells the whole story.
    ///
    /// # Errors
    /// At the first stage that is not as expected, naming what differs.
    pub fn tell(&mut self) -> Result<()> {
        self.stage(
            "fabric",
            "two spines, two top-of-rack routers, three nodes, one client",
            |story| {
                // Only a given API server is there already.
                let given = story.shell.kubeconfig.is_some();
                if given {
                    own::refuse_strangers(&story.shell, &story.examples)?;
                }
                story.shell.lab(&["deploy"], &["--reconfigure"])?;
                // What ran of an earlier demo ended with its lab.
                if given { own::clear(&story.shell) } else { Ok(()) }
            },
        )?;
        self.stage(
            "cluster",
            "API server, CRDs, one agent and one pod runner a node",
            |story| {
                let informed = story.shell.kubeconfig.is_none() || own::has_information(&story.shell)?;
                story.shell.lab(&["cluster", "up"], &[])?;
                let lab: Value = serde_json::from_str(&story.shell.lab(&["inspect"], &["-o", "json"])?)?;
                let kubeconfig = lab["kubeconfig"]
                    .as_str()
                    .context("margay-lab inspect names no kubeconfig")?;
                story.shell.kubeconfig = Some(kubeconfig.into());
                if !informed {
                    wait_for("the controller makes a ClusterInformation", CONVERGENCE, || {
                        own::mark_information(&story.shell)
                    })?;
                }
                story.apply("two-racks").map(drop)
            },
        )?;
        self.stage(
            "pods",
            "checkout, payments (two containers), postgres, frontend, intruder",
            |story| {
                story.apply("payments/01-namespaces.yaml")?;
                story.apply(asking::PODS)?;
                let pods = story.examples.join(asking::PODS);
                let pods = pods.to_string_lossy();
                story
                    .shell
                    .kubectl(&["wait", "--for=condition=Ready", "--timeout=60s", "-f", &pods])?;
                story.serve_on("client", CLIENT_PORT)?;
                story.serve_on("node1", NODE_SERVER_PORT)?;
                print!("{}", story.shell.kubectl(&["get", "pods", "-A", "-o", "wide"])?);
                Ok(())
            },
        )?;
        self.stage(
            "localhost",
            "the containers of one pod reach each other at localhost",
            Self::localhost,
        )?;
        self.stage("routes", "every router learnt every node's block", Self::routes)?;
        self.stage("open", "before any policy", |story| {
            println!("   (each cell is one HTTP exchange a family; allow: the server saw the source's own address; ·: no answer in 1 s)");
            story.expect("1-open.txt", Until::Deadline)
        })?;
        self.stage("ecmp", "both ways between the racks carry packets", Self::both_ways)?;
        self.stage("default-deny", "kubectl apply -f 03-default-deny.yaml", |story| {
            story.apply("payments/03-default-deny.yaml")?;
            story.expect("2-default-deny.txt", Until::Deadline)
        })?;
        self.stage("allow", "kubectl apply -f 04-allow.yaml", |story| {
            story.apply("payments/04-allow.yaml")?;
            story.expect("3-allowed.txt", Until::Deadline)?;
            if let Some((node, command)) = story.tamper.clone() {
                // What fails from here on is the tampering and nothing else.
                story.shell.in_node(&node, &["sh", "-c", &command])?;
                story.expect("3-allowed.txt", Until::Settled)?;
            }
            Ok(())
        })?;
        self.next_steps();
        Ok(())
    }

    /// Probes once and compares with one expectation, on a lab that is up. Prints the table.
    ///
    /// # Errors
    /// If cells differ, naming each.
    pub fn check(&mut self, expectation: &str) -> Result<()> {
        let expected = Expectation::read(&self.expectation(expectation))?;
        let cast = self.cast()?;
        let seen = self.observe(&cast, &expected)?;
        println!("{}", matrix::table(&expected, &seen));
        refuse_odd(&matrix::odd_cells(&expected, &seen))
    }

    fn stage(&mut self, name: &str, what: &str, act: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        println!("\n── {name}: {what}");
        let began = Instant::now();
        act(self).with_context(|| format!("stage {name}"))?;
        println!(
            "   {name} done in {:.1} s ({:.1} s in all)",
            began.elapsed().as_secs_f32(),
            self.elapsed()
        );
        Ok(())
    }

    fn elapsed(&self) -> f32 {
        self.started.elapsed().as_secs_f32()
    }

    fn apply(&self, path: &str) -> Result<String> {
        let path = self.examples.join(path);
        self.shell.kubectl(&["apply", "-f", &path.to_string_lossy()])
    }

    fn expectation(&self, name: &str) -> PathBuf {
        self.examples.join("payments/expected").join(name)
    }

    /// A plain host's server, in the background of its node, where it ends with the lab.
    fn serve_on(&self, node: &str, port: u16) -> Result<()> {
        let command = format!(
            "setsid {} netexec --http-port={port} --udp-port=-1 </dev/null >/var/log/agnhost.log 2>&1 &",
            self.shell.program("margay-agnhost")
        );
        self.shell.in_node(node, &["sh", "-c", &command]).map(drop)
    }

    fn localhost(&mut self) -> Result<()> {
        for (container, port) in [("metrics", 443), ("app", 9090)] {
            let target = SocketAddr::from(([127, 0, 0, 1], port));
            let outcome = self
                .probe_from("payments/payments", Some(container), &[target], PATIENT)?
                .pop();
            let seen = outcome.as_ref().and_then(|outcome| outcome.seen);
            ensure!(
                seen.is_some_and(|seen| seen.is_loopback()),
                "payments, container {container} → localhost:{port}: {outcome:?}"
            );
            println!("   payments, container {container} → localhost:{port}: answered");
        }
        Ok(())
    }

    fn routes(&mut self) -> Result<()> {
        let blocks = fabric::blocks(&self.shell)?;
        ensure!(
            blocks.len() == 3,
            "each of the three nodes has a block; found {blocks:?}"
        );
        let families = [false, true].map(|six| -> Vec<String> {
            let all = blocks.values().flatten();
            all.filter(|block| block.contains(':') == six).cloned().collect()
        });
        for router in fabric::ROUTERS {
            for (ask, blocks) in router.ask.iter().zip(&families) {
                let words = fabric::words_naming(&self.shell, router.name, ask, blocks, CONVERGENCE)?;
                if router.name.starts_with("tor") {
                    println!("   {} says (`{}`):\n{}", router.name, quoted(ask), indent(&words));
                }
            }
        }
        for (tor, far) in [("tor1", &["node3"][..]), ("tor2", &["node1", "node2"])] {
            for block in far.iter().filter_map(|node| blocks.get(*node)).flatten() {
                wait_for(&format!("{tor} has two ways to {block}"), CONVERGENCE, || {
                    let ways = fabric::next_hops(&self.shell, tor, block)?;
                    ensure!(ways.len() == 2, "its kernel has {ways:?}");
                    println!(
                        "   {tor} → {block}: two next hops in the kernel: {}",
                        ways.join(" and ")
                    );
                    Ok(())
                })?;
            }
        }
        // Every router and node must be able to forward to every block, over IPv6 too.
        for router in fabric::ROUTERS {
            for block in families.iter().flatten() {
                wait_for(&format!("{} forwards to {block}", router.name), CONVERGENCE, || {
                    fabric::next_hops(&self.shell, router.name, block)
                })?;
            }
        }
        Ok(())
    }

    fn both_ways(&mut self) -> Result<()> {
        const CONNECTIONS: u16 = 64;
        let cast = self.cast()?;
        for (tor, from, to) in [("tor1", "checkout", "postgres"), ("tor2", "postgres", "checkout")] {
            let port = if to == "postgres" { 5432 } else { 8080 };
            for address in cast.addresses.get(to).into_iter().flatten() {
                let ways = fabric::next_hops(&self.shell, tor, &self.block_of(*address)?)?;
                let before = fabric::packets_sent(&self.shell, tor, &ways)?;
                let targets = vec![SocketAddr::new(*address, port); usize::from(CONNECTIONS)];
                let outcomes = self.probe_from(&cast.pods[from], None, &targets, PATIENT)?;
                let answered = outcomes.iter().filter(|outcome| outcome.seen.is_some()).count();
                ensure!(
                    answered == targets.len(),
                    "{from} → {to}: {answered} of {CONNECTIONS} answered"
                );
                let after = fabric::packets_sent(&self.shell, tor, &ways)?;
                let sent: BTreeMap<_, _> = after
                    .iter()
                    .map(|(way, n)| (way, n - before.get(way).unwrap_or(n)))
                    .collect();
                // Fewer than a packet a connection over a way would mean keepalives of the routers, not our traffic.
                ensure!(
                    sent.len() == 2 && sent.values().all(|packets| *packets >= u64::from(CONNECTIONS)),
                    "{tor} → {to} ({address}): both ways must carry packets; sent {sent:?}"
                );
                let sent = sent
                    .iter()
                    .map(|(way, n)| format!("{n} packets over {way}"))
                    .collect::<Vec<_>>()
                    .join(", ");
                println!("   {from} → {to} ({address}), {CONNECTIONS} connections, at {tor}: {sent}");
            }
        }
        Ok(())
    }

    fn block_of(&self, address: IpAddr) -> Result<String> {
        let blocks = fabric::blocks(&self.shell)?;
        let mut all = blocks.into_values().flatten();
        all.find(|block| {
            block
                .parse::<ipnetwork::IpNetwork>()
                .is_ok_and(|block| block.contains(address))
        })
        .with_context(|| format!("no block holds {address}"))
    }

    fn next_steps(&self) {
        let kubeconfig = self.shell.kubeconfig.as_deref().unwrap_or(Path::new("?"));
        let [kubeconfig, bin] = [kubeconfig, &self.shell.bin].map(|path| quote(&path.to_string_lossy()));
        // Without it the programs look for the lab elsewhere.
        let labs = std::env::var("MARGAY_LAB_DIR").ok().filter(|dir| !dir.is_empty());
        let labs = labs.map_or(String::new(), |dir| format!(" MARGAY_LAB_DIR={}", quote(&dir)));
        println!(
            "\nThe network is up and as expected ({:.1} s). What to try next:\n\n\
             \x20 export KUBECONFIG={kubeconfig} PATH={bin}:$PATH{labs}\n\
             \x20 kubectl get pods -A -o wide\n\
             \x20 margayctl status\n\
             \x20 margay-lab exec node1 -- ip route\n\
             \x20 margay-lab exec tor1 -- vtysh -c 'show bgp summary'\n\
             \x20 kubectl delete networkpolicy -n payments payments\n\
             \x20 margay-demo check 3-allowed.txt        # payments is cut off: the odd cells are named\n\
             \x20 make demo-down\n",
            self.elapsed()
        );
    }
}

/// A command as a person would type it.
fn quoted(command: &[&str]) -> String {
    command
        .iter()
        .map(|word| {
            if word.contains(' ') {
                format!("'{word}'")
            } else {
                (*word).to_owned()
            }
        })
        .collect::<Vec<_>>()
        .join(" ")
}

fn indent(text: &str) -> String {
    text.trim_end()
        .lines()
        .map(|line| format!("   {line}"))
        .collect::<Vec<_>>()
        .join("\n")
}
