//! The node agent: `margay-node`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, Parser, Subcommand};
use margay_node::agent::run::{Options, run};
use margay_node::agent::settings::Defaults;
use margay_node::install::{DEFAULT_CONF_NAME, Install, install};
use margay_node::kube::Api;
use margay_node::kube::client::ApiAddress;
use margay_node::logging::{self, LogFormat};
use margay_node::probe;
use margay_node::uninstall::{Uninstall, uninstall};

/// Margay's agent: one on every node. It attaches pods, enforces network policy and speaks BGP.
///
/// SIGTERM stops it and leaves routes and rules in the kernel: pods go on talking, and BGP peers keep this node's routes
/// for the graceful restart time. Environment variable MARGAY_LOG sets the log filter, for example
/// `info,margay_node=debug`.
#[derive(Debug, Parser)]
#[command(name = "margay-node", version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: RunArgs,
    /// How log lines look.
    #[arg(long, value_enum, default_value = "text", global = true)]
    log_format: LogFormat,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Install the CNI plugin and its configuration on this node, then exit.
    InstallCni(InstallArgs),
    /// Take Margay off this node, then exit: CNI configuration and plugin, pods' interfaces, routes, rules and sets, state.
    ///
    /// What is not Margay's stays. Refused while an agent runs here, and while pods are attached. Status 0 says that nothing
    /// of Margay is left; else what stays is named, and running it again goes on from there.
    Uninstall(UninstallArgs),
    /// Ask the running agent how it is; status 0 says that all is well. For probes.
    Health(HealthArgs),
}

#[derive(Debug, Args)]
struct RunArgs {
    /// Name of this node's Node object.
    #[arg(long, env = "NODENAME", value_name = "NAME")]
    node: Option<String>,
    /// Kubeconfig file; without it, the service account of the pod.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// URL of the API server to use instead of the one configured. The agent must reach it without kube-proxy.
    #[arg(long, env = "MARGAY_API_SERVER", value_name = "URL")]
    api_server: Option<String>,
    /// What must outlive the agent.
    #[arg(long, default_value = "/var/lib/margay", value_name = "DIR")]
    state_dir: PathBuf,
    /// Sockets of the agent.
    #[arg(long, default_value = "/run/margay", value_name = "DIR")]
    run_dir: PathBuf,
    /// Wait while another agent serves this node, and take over when it ends: how an upgrade leaves no gap.
    #[arg(long)]
    stand_by: bool,
    /// Address of /healthz and /readyz, or `off`, where FelixConfiguration does not say.
    #[arg(long, default_value = "127.0.0.1:9099", value_name = "ADDRESS", value_parser = listen)]
    health_listen: Listen,
    /// Address of /metrics, or `off`, where FelixConfiguration does not say.
    #[arg(long, default_value = "off", value_name = "ADDRESS", value_parser = listen)]
    metrics_listen: Listen,
    /// The container runtime's folder of CNI configurations, to say so where it takes another than Margay's. Default: it is
    /// not looked at.
    #[arg(long, value_name = "DIR")]
    cni_conf_dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct HealthArgs {
    /// What to ask.
    #[arg(value_enum)]
    which: probe::Which,
    /// The agent's --run-dir.
    #[arg(long, default_value = "/run/margay", value_name = "DIR")]
    run_dir: PathBuf,
    /// Seconds that the agent has to answer.
    #[arg(long, default_value_t = 5, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    timeout: u64,
}

#[derive(Debug, Args)]
struct InstallArgs {
    /// The plugin's binary. Default: `margay-cni` beside this program.
    #[arg(long, value_name = "FILE")]
    plugin: Option<PathBuf>,
    /// The runtime's folder of plugins.
    #[arg(long, default_value = "/opt/cni/bin", value_name = "DIR")]
    bin_dir: PathBuf,
    /// The runtime's folder of configurations.
    #[arg(long, default_value = "/etc/cni/net.d", value_name = "DIR")]
    conf_dir: PathBuf,
    /// Name of the configuration; the runtime takes the first by name.
    #[arg(long, default_value = DEFAULT_CONF_NAME, value_name = "NAME")]
    conf_name: String,
    /// Name of the network.
    #[arg(long, default_value = "k8s-pod-network", value_name = "NAME")]
    network: String,
    /// The one CNI version to write; default: 1.0.0, and an offer of 1.1.0 to runtimes that can choose (libcni 1.2).
    #[arg(long, value_name = "VERSION")]
    cni_version: Option<String>,
    /// The agent's socket as the host sees it.
    #[arg(long, default_value = "/run/margay/cni.sock", value_name = "FILE")]
    socket: PathBuf,
    /// The agent's --state-dir as the host sees it: the plugin keeps DELs there while the agent is away.
    #[arg(long, default_value = "/var/lib/margay", value_name = "DIR")]
    state_dir: PathBuf,
    /// Do not chain portmap, which serves hostPort, where it is among the runtime's plugins.
    #[arg(long)]
    no_portmap: bool,
    /// Further plugin to chain; may be given several times.
    #[arg(long, value_name = "NAME")]
    chain: Vec<String>,
}

#[derive(Debug, Args)]
struct UninstallArgs {
    /// Only tell what would go.
    #[arg(long)]
    dry_run: bool,
    /// Go on although pods are attached: they lose their network.
    #[arg(long)]
    force: bool,
    /// The runtime's folder of plugins.
    #[arg(long, default_value = "/opt/cni/bin", value_name = "DIR")]
    bin_dir: PathBuf,
    /// The runtime's folder of configurations.
    #[arg(long, default_value = "/etc/cni/net.d", value_name = "DIR")]
    conf_dir: PathBuf,
    /// The agent's --state-dir.
    #[arg(long, default_value = "/var/lib/margay", value_name = "DIR")]
    state_dir: PathBuf,
    /// The agent's --run-dir.
    #[arg(long, default_value = "/run/margay", value_name = "DIR")]
    run_dir: PathBuf,
    /// What pods' interfaces begin with (FelixConfiguration's interfacePrefix), for those that the agent's records do not name.
    #[arg(long, default_value = "mgy", value_name = "PREFIX")]
    interface_prefix: String,
}

#[derive(Debug, Clone, Copy)]
struct Listen(Option<SocketAddr>);

fn listen(text: &str) -> Result<Listen, String> {
    match text {
        "off" => Ok(Listen(None)),
        text => text
            .parse()
            .map(|address| Listen(Some(address)))
            .map_err(|_| "give ADDRESS:PORT or off".to_owned()),
    }
}

fn main() -> anyhow::Result<ExitCode> {
    let cli = Cli::parse();
    logging::start(cli.log_format);
    match cli.command {
        Some(Command::InstallCni(args)) => install(&args.resolve()?)?,
        Some(Command::Uninstall(args)) => take_off(args)?,
        Some(Command::Health(args)) => return health(&args),
        None => agent(cli.run)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn take_off(args: UninstallArgs) -> anyhow::Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("this changes routes, packet filters and files of the system: run it as root");
    }
    let what = Uninstall {
        bin_dir: args.bin_dir,
        conf_dir: args.conf_dir,
        state_dir: args.state_dir,
        run_dir: args.run_dir,
        interface_prefix: args.interface_prefix,
        force: args.force,
        dry_run: args.dry_run,
    };
    single_threaded()?.block_on(uninstall(&what, &mut std::io::stdout().lock()))
}

fn single_threaded() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start")
}

fn health(args: &HealthArgs) -> anyhow::Result<ExitCode> {
    let (socket, patience) = (args.run_dir.join("control.sock"), Duration::from_secs(args.timeout));
    let probe = single_threaded()?.block_on(probe::ask(&socket, args.which, patience))?;
    print!("{}", probe.text);
    Ok(if probe.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl InstallArgs {
    fn resolve(self) -> anyhow::Result<Install> {
        let beside = || Ok::<_, std::io::Error>(std::env::current_exe()?.with_file_name("margay-cni"));
        let plugin = match self.plugin {
            Some(plugin) => plugin,
            None => beside().context("cannot find this program's own path; give --plugin FILE")?,
        };
        Ok(Install {
            plugin,
            bin_dir: self.bin_dir,
            conf_dir: self.conf_dir,
            conf_name: self.conf_name,
            network: self.network,
            cni_version: self.cni_version,
            socket: self.socket,
            state_dir: self.state_dir,
            portmap: !self.no_portmap,
            chain: self.chain,
        })
    }
}

fn agent(args: RunArgs) -> anyhow::Result<()> {
    let Some(node) = args.node.filter(|name| !name.is_empty()) else {
        bail!("which node is this? give --node NAME or set NODENAME to the name of its Node object");
    };
    if !nix::unistd::geteuid().is_root() {
        bail!("margay-node changes routes and packet filters: run it as root");
    }
    // One provider for every TLS connection of this process; kube finds it there.
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        bail!("a TLS provider is installed already");
    }
    let options = Options {
        node,
        state_dir: args.state_dir,
        run_dir: args.run_dir,
        cni_conf_dir: args.cni_conf_dir,
        stand_by: args.stand_by,
        defaults: Defaults {
            health: args.health_listen.0,
            metrics: args.metrics_listen.0,
        },
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start")?;
    let ended = runtime.block_on(async {
        let address = ApiAddress {
            kubeconfig: args.kubeconfig.as_deref(),
            server: args.api_server.as_deref(),
            manager: "margay-node",
        };
        let api = Api::connect(&address).await?;
        run(options, api, margay_node::shutdown::requested()?).await
    });
    // What is still under way on blocking threads has nobody to answer to.
    runtime.shutdown_timeout(Duration::from_millis(200));
    ended
}
