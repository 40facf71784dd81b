//! The cluster's controller: `margay-controller`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Parser;
use margay_node::controller::{Options, run};
use margay_node::kube::Api;
use margay_node::kube::client::ApiAddress;
use margay_node::logging::{self, LogFormat};

/// Margay's controller: releases what deleted nodes leave behind. Any number may run; one leads.
#[derive(Debug, Parser)]
#[command(name = "margay-controller", version)]
struct Cli {
    /// Kubeconfig file; without it, the service account of the pod.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// URL of the API server to use instead of the one configured.
    #[arg(long, env = "MARGAY_API_SERVER", value_name = "URL")]
    api_server: Option<String>,
    /// Namespace of the Lease that decides who leads.
    #[arg(long, env = "POD_NAMESPACE", default_value = "margay-system", value_name = "NAME")]
    namespace: String,
    /// Name of this replica, unique; default: host name and a random number.
    #[arg(long, env = "POD_NAME", value_name = "NAME")]
    identity: Option<String>,
    /// Seconds that a node must be gone before its addresses are released (Calico's leakGracePeriod is 900).
    #[arg(long, default_value_t = 900, value_name = "SECONDS")]
    leak_grace: u64,
    /// Seconds between two looks at the cluster.
    #[arg(long, default_value_t = 10, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    interval: u64,
    /// Address of /healthz and /readyz, or `off`.
    #[arg(long, default_value = "off", value_name = "ADDRESS")]
    health_listen: String,
    /// How log lines look.
    #[arg(long, value_enum, default_value = "text")]
    log_format: LogFormat,
}

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    logging::start(cli.log_format);
    let health = match cli.health_listen.as_str() {
        "off" => None,
        text => {
            let address: SocketAddr = text
                .parse()
                .map_err(|_| anyhow::anyhow!("--health-listen {text:?} is neither ADDRESS:PORT nor off"))?;
            Some(address)
        }
    };
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        bail!("a TLS provider is installed already");
    }
    let identity = cli.identity.unwrap_or_else(|| {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        // Not the process id, which is 1 in every container.
        format!("{}-{:08x}", host.trim(), fastrand::u32(..))
    });
    let options = Options {
        namespace: cli.namespace,
        identity,
        leak_grace: Duration::from_secs(cli.leak_grace),
        interval: Duration::from_secs(cli.interval),
        health,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start")?;
    runtime.block_on(async {
        let address = ApiAddress {
            kubeconfig: cli.kubeconfig.as_deref(),
            server: cli.api_server.as_deref(),
            manager: "margay-controller",
        };
        let api = Api::connect(&address).await?;
        run(options, api, margay_node::shutdown::requested()?).await
    })
}
