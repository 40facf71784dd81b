//! What can go wrong with a lab.

use std::io;

use margay_clab::PlanError;

/// Why a lab could not be changed or used.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// The topology file is unusable; nothing was created.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// Namespaces and links need root.
    #[error("a lab needs root: namespaces are made and entered; run with sudo")]
    NotRoot,
    /// Deploying what is already there.
    #[error("lab {0} is already deployed; `margay-lab destroy` it first, or deploy with --reconfigure")]
    AlreadyDeployed(String),
    /// There is no such lab.
    #[error("lab {name} is not deployed; deployed: {deployed}")]
    NotDeployed {
        /// Asked for.
        name: String,
        /// Names of deployed labs, or `none`.
        deployed: String,
    },
    /// No lab was named and there is not exactly one.
    #[error("which lab? deployed: {0}; name one with -t FILE or --name")]
    Ambiguous(String),
    /// There is no such node in the lab.
    #[error("lab {lab} has no node {node}; nodes: {nodes}")]
    NoSuchNode {
        /// The lab.
        lab: String,
        /// Asked for.
        node: String,
        /// Nodes of the lab.
        nodes: String,
    },
    /// A node's process 1 is gone.
    #[error("node {0} is not running; deploy the lab again with --reconfigure")]
    NodeDead(String),
    /// A step failed for a reason of its own.
    #[error("{what}: {detail}")]
    Step {
        /// What was being done.
        what: String,
        /// What went wrong.
        detail: String,
    },
    /// The system refused.
    #[error("{what}: {error}")]
    Io {
        /// What was being done.
        what: String,
        /// What the system says.
        error: io::Error,
    },
}

impl LabError {
    pub(crate) fn io(what: impl Into<String>, error: io::Error) -> LabError {
        LabError::Io {
            what: what.into(),
            error,
        }
    }

    pub(crate) fn step(what: impl Into<String>, detail: impl Into<String>) -> LabError {
        LabError::Step {
            what: what.into(),
            detail: detail.into(),
        }
    }
}
