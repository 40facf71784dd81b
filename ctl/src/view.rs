//! Commands that show what agents say. Asking is somebody else's work: these turn answers into text.

mod bgp;
mod ipam;
mod status;

use jiff::Timestamp;

use crate::fleet::{Fleet, Question};
use crate::output::{Format, Output};

/// Something to look at.
#[derive(Debug, Clone, Copy)]
pub(crate) enum View {
    /// How all is.
    Status {
        /// Whether every row is shown, and not only what is wrong.
        all: bool,
        /// Whether something that is down is a failure.
        check: bool,
    },
    /// Blocks and addresses.
    Ipam,
    /// Sessions.
    Peers,
    /// Paths.
    Routes,
}

impl View {
    /// What agents must be asked for it.
    pub(crate) fn questions(self) -> &'static [Question] {
        match self {
            Self::Status { .. } => &[Question::STATUS, Question::PEERS, Question::BLOCKS, Question::ENDPOINTS],
            Self::Ipam => &[Question::BLOCKS],
            Self::Peers => &[Question::PEERS],
            Self::Routes => &[Question::ROUTES],
        }
    }

    /// Whether it shows what the API server alone knows.
    pub(crate) fn wants_known(self) -> bool {
        match self {
            Self::Status { .. } | Self::Ipam => true,
            Self::Peers | Self::Routes => false,
        }
    }

    /// What is seen in these answers.
    pub(crate) fn show(self, fleet: &Fleet, format: Format, now: Timestamp) -> Output {
        match self {
            Self::Status { all, check } => status::status(fleet, format, now, all, check),
            Self::Ipam => ipam::ipam(fleet, format, now),
            Self::Peers => bgp::peers(fleet, format, now),
            Self::Routes => bgp::routes(fleet, format),
        }
    }
}

/// The row of a node that did not answer: the column `state` says so, the last one why.
fn unreachable<const N: usize>(node: &str, state: usize, reason: &str) -> [String; N] {
    let mut row = [const { String::new() }; N];
    node.clone_into(&mut row[0]);
    "unreachable".clone_into(&mut row[state]);
    reason.clone_into(&mut row[N - 1]);
    row
}

/// Several values in one cell.
fn list<T: ToString>(values: impl IntoIterator<Item = T>) -> String {
    values
        .into_iter()
        .map(|value| value.to_string())
        .collect::<Vec<_>>()
        .join(",")
}

/// A count with its noun.
fn counted(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}
