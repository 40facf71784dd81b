//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::output::Format;

/// Where an agent listens unless told otherwise.
pub(crate) const DEFAULT_SOCKET: &str = "/run/margay/control.sock";

/// Looks into a Margay pod network and at what its policies mean.
#[derive(Debug, Parser)]
#[command(name = "margayctl", version, max_term_width = 100, after_help = EXAMPLES)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
    /// How to print the answer
    #[arg(short, long, value_enum, default_value = "table", global = true)]
    pub(crate) output: Format,
    #[command(flatten)]
    pub(crate) target: Target,
}

const EXAMPLES: &str = "\
Examples:
  margayctl status
  margayctl --lab two-racks bgp peers
  margayctl bgp routes -o json
  echo '{\"from\":\"shop/checkout\",\"to\":\"payments/payments\",\"protocol\":\"TCP\",\"port\":443}' |
    margayctl policy eval --manifests deploy/examples/payments --connections -

Exit status: 0 when everything was answered, 1 when something failed or an agent did not answer, 2 for wrong usage.";

/// Whom to ask.
#[derive(Debug, Args)]
#[command(next_help_heading = "Agents")]
pub(crate) struct Target {
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

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show agents, sessions with the reason of each that is down, blocks and endpoints
    Status,
    /// Addresses
    #[command(subcommand)]
    Ipam(Ipam),
    /// Routing
    #[command(subcommand)]
    Bgp(Bgp),
    /// Policies
    #[command(subcommand)]
    Policy(Policy),
    /// Print what the local agent answers to GET, one line a path
    #[command(hide = true)]
    Raw {
        /// Paths below the control socket, as /v1/status
        #[arg(required = true, value_name = "PATH")]
        paths: Vec<String>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Ipam {
    /// Show blocks with their owners, and who has which address
    Show,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Bgp {
    /// Show sessions, with the reason of each that is down
    Peers,
    /// Show every path of every prefix, and why it is used or not
    Routes,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Policy {
    /// Judge connections by manifests alone, without a cluster
    #[command(after_help = EVAL_EXAMPLES)]
    Eval {
        /// Pods, Namespaces, Nodes and NetworkPolicies: YAML or JSON files, or folders of them
        #[arg(long, required = true, num_args = 1.., value_name = "PATH")]
        manifests: Vec<PathBuf>,
        /// Connections as JSON lines; - is standard input
        #[arg(long, value_name = "FILE|-")]
        connections: PathBuf,
    },
}

const EVAL_EXAMPLES: &str = "\
A connection is a line
  {\"from\":\"shop/checkout\",\"to\":\"payments/payments\",\"protocol\":\"TCP\",\"port\":443}
with pods as namespace/pod or addresses; protocol is TCP (default), UDP, SCTP or ICMP (which has no port).
With -o json each answer repeats the line and adds \"verdict\", \"egress\" and \"ingress\".

Examples:
  margayctl policy eval --manifests deploy/examples/payments --connections connections.jsonl
  kubectl get ns,nodes,pods,netpol -A -o yaml > cluster.yaml
  echo '{\"from\":\"192.0.2.1\",\"to\":\"shop/frontend\",\"port\":8080}' |
    margayctl policy eval --manifests cluster.yaml --connections - -o json";
