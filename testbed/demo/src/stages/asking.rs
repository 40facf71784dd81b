//! Who reaches whom: every source asks every target, and how often it is asked again.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::{Story, indent};
use crate::{
    fabric,
    matrix::{self, Expectation, Observation, OddCell, Seen},
};
use margay_agnhost::probe::Outcome;

/// The example's pods.
pub(super) const PODS: &str = "payments/02-pods.yaml";
/// How long an exchange may take in a matrix, where most are denied and take all of it.
const BRISK: Duration = Duration::from_secs(1);
const POLICY_IN_FORCE: Duration = Duration::from_secs(60);

/// When asking again ends although cells are odd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Until {
    /// At the deadline: policy takes effect on each node on its own.
    Deadline,
    /// When two rounds in a row find the same cells odd: a fault that stays is not waited for.
    Settled,
}

/// Pods by `namespace/name` with their addresses, and the plain hosts, as sources and targets of probes.
pub(super) struct Cast {
    pub(super) addresses: BTreeMap<String, Vec<IpAddr>>,
    pub(super) pods: BTreeMap<String, String>,
}

impl Story {
    /// Probes until all is as expected or `until` says enough. Prints the last round.
    pub(super) fn expect(&self, name: &str, until: Until) -> Result<()> {
        let expected = Expectation::read(&self.expectation(name))?;
        let cast = self.cast()?;
        let deadline = Instant::now() + POLICY_IN_FORCE;
        let expired = || Instant::now() >= deadline;
        let (seen, odd) = ask_again(until, expired, || {
            let seen = self.observe(&cast, &expected)?;
            let odd = matrix::odd_cells(&expected, &seen);
            Ok((seen, odd))
        })?;
        println!("{}", indent(&matrix::table(&expected, &seen)));
        refuse_odd(&odd)
    }

    pub(super) fn cast(&self) -> Result<Cast> {
        let pods = self.examples.join(PODS);
        let pods = self
            .shell
            .kubectl(&["get", "-o", "json", "-f", &pods.to_string_lossy()])?;
        let pods: Value = serde_json::from_str(&pods)?;
        let mut cast = Cast {
            addresses: BTreeMap::new(),
            pods: BTreeMap::new(),
        };
        for pod in pods["items"].as_array().into_iter().flatten() {
            let name = pod["metadata"]["name"].as_str().unwrap_or_default();
            let namespace = pod["metadata"]["namespace"].as_str().unwrap_or_default();
            let ips = pod["status"]["podIPs"].as_array().into_iter().flatten();
            let ips = ips.filter_map(|ip| ip["ip"].as_str()?.parse().ok()).collect();
            cast.addresses.insert(name.to_owned(), ips);
            cast.pods.insert(name.to_owned(), format!("{namespace}/{name}"));
        }
        let some_pod = cast
            .addresses
            .get("frontend")
            .context("the pod shop/frontend is gone")?
            .clone();
        let client = some_pod
            .iter()
            .map(|pod| fabric::source_towards(&self.shell, "client", *pod))
            .collect::<Result<_>>();
        cast.addresses
            .insert("client".to_owned(), client.context("the client's addresses")?);
        let nodes: Value = serde_json::from_str(&self.shell.kubectl(&["get", "node", "node1", "-o", "json"])?)?;
        let internal = nodes["status"]["addresses"].as_array().into_iter().flatten();
        let internal = internal.filter(|address| address["type"] == "InternalIP");
        let internal = internal
            .filter_map(|address| address["address"].as_str()?.parse().ok())
            .collect();
        cast.addresses.insert("node1".to_owned(), internal);
        Ok(cast)
    }

    /// Every source asks every target at the same time, over each address family the target has.
    pub(super) fn observe(&self, cast: &Cast, expected: &Expectation) -> Result<Observation> {
        let targets: Vec<(String, Vec<SocketAddr>)> = expected
            .targets
            .iter()
            .map(|target| {
                let (name, port) = target
                    .rsplit_once(':')
                    .with_context(|| format!("{target} is no name:port"))?;
                let port: u16 = port.parse().with_context(|| format!("{target} has no port number"))?;
                let ips = cast
                    .addresses
                    .get(name)
                    .with_context(|| format!("nobody is called {name}"))?;
                ensure!(!ips.is_empty(), "{name} has no address");
                Ok((
                    target.clone(),
                    ips.iter().map(|ip| SocketAddr::new(*ip, port)).collect(),
                ))
            })
            .collect::<Result<_>>()?;
        let all: Vec<SocketAddr> = targets.iter().flat_map(|(_, sockets)| sockets).copied().collect();
        let answers: Vec<(String, Result<Vec<Outcome>>)> = thread::scope(|scope| {
            let asked: Vec<_> = expected
                .rows
                .iter()
                .map(|(source, _)| {
                    let whence = cast.pods.get(source).unwrap_or(source);
                    (
                        source.clone(),
                        scope.spawn(|| self.probe_from(whence, None, &all, BRISK)),
                    )
                })
                .collect();
            let joined = asked.into_iter().map(|(source, asked)| {
                (
                    source,
                    asked
                        .join()
                        .unwrap_or_else(|_| Err(anyhow::anyhow!("the probing thread failed"))),
                )
            });
            joined.collect()
        });
        let mut observation = Observation::new();
        for (source, outcomes) in answers {
            let outcomes = outcomes.with_context(|| format!("probing from {source}"))?;
            let own = if cast.pods.contains_key(&source) {
                cast.addresses[&source].clone()
            } else {
                fabric::addresses(&self.shell, &source)?
            };
            for (target, sockets) in &targets {
                let results = sockets.iter().map(|socket| {
                    let family = if socket.is_ipv4() { "IPv4" } else { "IPv6" };
                    let outcome = outcomes.iter().find(|outcome| outcome.target == *socket);
                    (family, judged(outcome, &own))
                });
                observation.insert((source.clone(), target.clone()), results.collect());
            }
        }
        Ok(observation)
    }

    /// Runs the prober where `source` is: in a pod's container (`namespace/name`) or on a node.
    pub(super) fn probe_from(
        &self,
        source: &str,
        container: Option<&str>,
        targets: &[SocketAddr],
        limit: Duration,
    ) -> Result<Vec<Outcome>> {
        let program = self.shell.program("margay-agnhost");
        let targets: Vec<String> = targets.iter().map(ToString::to_string).collect();
        let limit = format!("--timeout={}s", limit.as_secs());
        let mut command = vec![program.as_str(), "probe", &limit];
        command.extend(targets.iter().map(String::as_str));
        let output = if source.contains('/') {
            self.shell.in_pod(source, container, &command)?
        } else {
            self.shell.in_node(source, &command)?
        };
        output
            .lines()
            .map(|line| serde_json::from_str(line).with_context(|| format!("the prober said {line:?}")))
            .collect()
    }
}

/// Asks until no cell is odd, until `expired`, or until the odd cells have settled if that is enough.
fn ask_again<T>(
    until: Until,
    expired: impl Fn() -> bool,
    mut ask: impl FnMut() -> Result<(T, Vec<OddCell>)>,
) -> Result<(T, Vec<OddCell>)> {
    let mut before = Vec::new();
    loop {
        let (seen, odd) = ask()?;
        if odd.is_empty() || expired() || (until == Until::Settled && odd == before) {
            return Ok((seen, odd));
        }
        before = odd;
    }
}

fn judged(outcome: Option<&Outcome>, own: &[IpAddr]) -> Seen {
    match outcome {
        Some(Outcome { seen: Some(seen), .. }) if own.contains(seen) => Seen::Allowed,
        Some(Outcome { seen: Some(seen), .. }) => Seen::Translated(*seen),
        Some(Outcome { error, .. }) => Seen::Denied(error.clone().unwrap_or_default()),
        None => Seen::Denied("the prober gave no answer".to_owned()),
    }
}

pub(super) fn refuse_odd(odd: &[OddCell]) -> Result<()> {
    if odd.is_empty() {
        return Ok(());
    }
    let cells = odd.iter().map(|cell| format!("\n  {cell}")).collect::<String>();
    bail!("{} cell(s) are not as expected:{cells}", odd.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The round that was the last, and what it found, when the rounds find `rounds` and then nothing more.
    fn asked(until: Until, rounds: &[&[&str]]) -> (usize, Vec<String>) {
        let cell = |name: &&str| OddCell {
            source: (*name).to_owned(),
            target: String::new(),
            what: String::new(),
        };
        let mut round = 0;
        let found = ask_again(
            until,
            || false,
            || {
                round += 1;
                let odd = rounds.get(round - 1).into_iter().copied().flatten().map(cell).collect();
                Ok((round, odd))
            },
        );
        let (last, odd) = found.unwrap();
        (last, odd.into_iter().map(|cell| cell.source).collect())
    }

    #[test]
    fn rounds_go_on_until_nothing_is_odd() {
        assert_eq!(asked(Until::Deadline, &[&["a"], &["a"], &["a"]]), (4, vec![]));
    }

    #[test]
    fn odd_cells_that_stay_end_the_rounds_of_who_waits_for_them() {
        let settled = asked(Until::Settled, &[&["a", "b"], &["a"], &["a"], &["a"]]);
        assert_eq!(
            settled,
            (3, vec!["a".to_owned()]),
            "a slow first round is not the answer"
        );
        assert_eq!(asked(Until::Settled, &[&["a"]]), (2, vec![]));
    }

    #[test]
    fn the_deadline_ends_the_rounds() {
        let (rounds, odd) = ask_again(
            Until::Deadline,
            || true,
            || {
                let source = String::from("a");
                Ok((
                    1,
                    vec![OddCell {
                        source,
                        target: String::new(),
                        what: String::new(),
                    }],
                ))
            },
        )
        .unwrap();
        assert_eq!((rounds, odd.len()), (1, 1));
    }
}
