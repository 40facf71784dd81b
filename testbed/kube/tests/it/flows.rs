//! Numbered packets between pods while something happens, and what became of them.

use std::time::Duration;

use margay_agnhost::traffic::{Flow, Tally};
use margay_testkit::programs;

use super::harness::{Kube, Running};

/// Packets a second.
pub(crate) const RATE: u32 = 200;

/// One end of a flow.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    /// The node the pod is on.
    pub(crate) node: String,
    /// Path of its network namespace there.
    pub(crate) netns: String,
}

/// Where the pod `namespace/name` sends from.
pub(crate) fn source(kube: &Kube, pod: &str) -> Source {
    let (namespace, name) = pod.split_once('/').unwrap();
    let object = format!("pod -n {namespace} {name}");
    let node = kube.field(&object, "{.spec.nodeName}");
    let address = kube.field(&object, "{.status.podIP}");
    let script =
        format!("for n in /run/netns/*; do nsenter --net=$n ip -o address | grep -qwF '{address}/32' && echo $n; done");
    let found = kube.node(&node, &script).unwrap_or_else(|e| e.words);
    let netns = found
        .lines()
        .next()
        .unwrap_or_else(|| panic!("{pod} has no network namespace on {node}"));
    Source {
        node,
        netns: netns.to_owned(),
    }
}

/// Packets under way.
pub(crate) struct Traffic(Running);

/// Begins to send to `to`, for `duration`.
pub(crate) fn send(kube: &Kube, from: &Source, to: &str, flow: Flow, duration: Duration) -> Traffic {
    let flow = match flow {
        Flow::Established => "established",
        Flow::New => "new",
    };
    let script = format!(
        "exec nsenter --net={} {} traffic {to}:8081 --flow {flow} --rate {RATE} --duration {}s",
        from.netns,
        programs::path("margay-agnhost").display(),
        duration.as_secs()
    );
    Traffic(kube.run_on(&from.node, &script))
}

/// What became of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) sent: u32,
    pub(crate) answered: u32,
    /// The longest run of packets without an answer.
    pub(crate) longest: Duration,
}

impl Traffic {
    /// Waits for its end.
    pub(crate) fn outcome(self) -> Outcome {
        let words = self.0.output();
        let tally: Tally = serde_json::from_str(words.trim()).unwrap_or_else(|e| panic!("{e}: {words:?}"));
        let longest = tally
            .missing
            .iter()
            .map(|(first, last)| last - first + 1)
            .max()
            .unwrap_or(0);
        Outcome {
            sent: tally.sent,
            answered: tally.answered,
            longest: Duration::from_secs(1) / RATE * longest,
        }
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let lost = self.sent.saturating_sub(self.answered);
        match (lost, self.answered) {
            (0, _) => write!(f, "all {} back", self.sent),
            (_, 0) => write!(f, "none of {}", self.sent),
            _ => write!(
                f,
                "{lost} of {} lost, longest {:.2} s",
                self.sent,
                self.longest.as_secs_f64()
            ),
        }
    }
}
