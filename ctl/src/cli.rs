//! The command line.

mod target;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::output::Format;

pub(crate) use target::{DEFAULT_NAMESPACE, DEFAULT_SOCKET, Target};

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
Whom it asks, unless told: the agent of this machine, where there is one; else the only lab deployed
here; else all agents of the cluster that the kubeconfig's current context names, in their pods. Any
of --context, --kubeconfig and -n chooses the cluster. deploy/README.md says which rights that takes.

Examples:
  margayctl status
  margayctl status --context production --check
  margayctl -n margay-system --node node7 bgp peers -w
  margayctl --lab two-racks bgp routes -o json
  margayctl policy eval --from shop/checkout --to payments/payments --port 443/tcp
  source <(margayctl completion bash)

Exit status: 0 when everything was answered, 1 when something failed or an agent did not answer
(status --check: or anything is down), 2 for wrong usage.";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show how all is: sums first, then what is wrong, as sessions that are down with the reason of each
    Status {
        /// Show every agent, session, block and endpoint too
        #[arg(short, long)]
        all: bool,
        /// Exit with 1 when anything is down, for scripts and monitors
        #[arg(long, conflicts_with = "watch")]
        check: bool,
        #[command(flatten)]
        again: Again,
    },
    /// Addresses
    #[command(subcommand)]
    Ipam(Ipam),
    /// Routing
    #[command(subcommand)]
    Bgp(Bgp),
    /// Policies
    #[command(subcommand)]
    Policy(Policy),
    /// Print what completes this program's words in a shell
    #[command(after_help = COMPLETION_EXAMPLES)]
    Completion {
        /// Which shell
        #[arg(value_enum)]
        shell: Shell,
    },
    /// Print what the local agent answers to GET, one line a path
    #[command(hide = true)]
    Raw {
        /// Paths below the control socket, as /v1/status
        #[arg(required = true, value_name = "PATH")]
        paths: Vec<String>,
    },
}

/// Whether to ask again and again.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Again {
    /// Ask again every so many seconds (2 when none are given) until interrupted, and show the newest answer alone
    #[arg(short, long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "2",
        value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) watch: Option<u64>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Ipam {
    /// Show blocks with their owners, and who has which address
    Show {
        #[command(flatten)]
        again: Again,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Bgp {
    /// Show sessions, with the reason of each that is down
    Peers {
        #[command(flatten)]
        again: Again,
    },
    /// Show every path of every prefix, and why it is used or not
    Routes {
        #[command(flatten)]
        again: Again,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Policy {
    /// Judge connections: by manifests alone, or by what the cluster's API server holds
    #[command(after_help = EVAL_EXAMPLES)]
    Eval(Eval),
}

/// What to judge, and by what.
#[derive(Debug, Args)]
pub(crate) struct Eval {
    /// Pods, Namespaces, Nodes and NetworkPolicies: YAML or JSON files, or folders of them [default: the cluster's own]
    #[arg(long, num_args = 1.., value_name = "PATH")]
    pub(crate) manifests: Vec<PathBuf>,
    /// Connections as JSON lines; - is standard input
    #[arg(long, value_name = "FILE|-", required_unless_present = "from", conflicts_with_all = ["from", "to", "port"])]
    pub(crate) connections: Option<PathBuf>,
    /// Who opens the connection
    #[arg(long, value_name = "NAMESPACE/POD|ADDRESS", requires = "to")]
    pub(crate) from: Option<String>,
    /// Who answers it: after a Service was translated, so a pod and not the Service's address
    #[arg(long, value_name = "NAMESPACE/POD|ADDRESS", requires = "from", requires = "port")]
    pub(crate) to: Option<String>,
    /// The destination's port, as 443/tcp (tcp may be left out), 53/udp, 9/sctp; or icmp
    #[arg(long, value_name = "PORT/PROTOCOL", requires = "from")]
    pub(crate) port: Option<String>,
}

/// A shell that can complete words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Shell {
    /// GNU Bash.
    Bash,
    /// Z shell.
    Zsh,
    /// fish.
    Fish,
}

const EVAL_EXAMPLES: &str = "\
A connection is a line
  {\"from\":\"shop/checkout\",\"to\":\"payments/payments\",\"protocol\":\"TCP\",\"port\":443}
with pods as namespace/pod or addresses; protocol is TCP (default), UDP, SCTP or ICMP (which has no port).
With -o json each answer repeats the line and adds \"verdict\", \"egress\" and \"ingress\".

Without --manifests, pods, namespaces, nodes and NetworkPolicies are read from the API server that the
kubeconfig names (of a lab, with --lab or $MARGAY_LAB). What agents have put in force by now is not
asked: margayctl status tells that.

Examples:
  margayctl policy eval --from shop/checkout --to payments/payments --port 443/tcp
  margayctl policy eval --manifests deploy/examples/payments --connections connections.jsonl
  kubectl get ns,nodes,pods,netpol -A -o yaml > cluster.yaml
  echo '{\"from\":\"192.0.2.1\",\"to\":\"shop/frontend\",\"port\":8080}' |
    margayctl policy eval --manifests cluster.yaml --connections - -o json";

const COMPLETION_EXAMPLES: &str = "\
Examples:
  margayctl completion bash > /etc/bash_completion.d/margayctl
  margayctl completion zsh > \"${fpath[1]}/_margayctl\"
  margayctl completion fish > ~/.config/fish/completions/margayctl.fish";
