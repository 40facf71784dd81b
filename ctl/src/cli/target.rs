//! Whom to ask.

use std::path::PathBuf;

use clap::Args;

/// Where an agent listens unless told otherwise.
pub(crate) const DEFAULT_SOCKET: &str = "/run/margay/control.sock";
/// Where Margay is installed unless told otherwise.
pub(crate) const DEFAULT_NAMESPACE: &str = "margay-system";

/// Whom to ask.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Agents")]
pub(crate) struct Target {
    /// Ask the agents of this context's cluster [default: the current one]
    #[arg(long, value_name = "NAME", global = true, conflicts_with_all = ["socket", "lab"])]
    pub(crate) context: Option<String>,
    /// Find contexts in this file [default: those of $KUBECONFIG, else ~/.kube/config, else the pod's service account]
    #[arg(long, value_name = "FILE", global = true, conflicts_with_all = ["socket", "lab"])]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Margay's namespace in the cluster [default: margay-system]
    #[arg(short, long, value_name = "NAME", global = true, conflicts_with_all = ["socket", "lab"])]
    pub(crate) namespace: Option<String>,
    /// Ask this node's agent alone; may be given several times, or as a list with commas
    #[arg(
        long = "node",
        value_name = "NAME",
        global = true,
        value_delimiter = ',',
        conflicts_with = "socket"
    )]
    pub(crate) nodes: Vec<String>,
    /// Ask the agent that listens on this socket [default: /run/margay/control.sock, where it exists]
    #[arg(long, value_name = "PATH", global = true, conflicts_with = "lab")]
    pub(crate) socket: Option<PathBuf>,
    /// Ask every cluster node of a lab [default: $MARGAY_LAB, else the only lab deployed, when no agent runs here]
    #[arg(long, value_name = "NAME|FILE.clab.yml", global = true)]
    pub(crate) lab: Option<String>,
    /// How long an agent may take to answer
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3600), global = true)]
    pub(crate) timeout: u64,
}

impl Target {
    /// Whether a cluster is named, by any of its options.
    pub(crate) fn names_cluster(&self) -> bool {
        self.context.is_some() || self.kubeconfig.is_some() || self.namespace.is_some()
    }

    /// Margay's namespace.
    pub(crate) fn namespace(&self) -> &str {
        self.namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE)
    }
}
