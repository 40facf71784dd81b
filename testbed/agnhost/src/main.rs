//! `margay-agnhost`: what pods with Kubernetes' agnhost image run in a lab.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Parser, Subcommand};
use ipnetwork::IpNetwork;
use margay_agnhost::{self as agnhost, Protocol, Servers, arrivals, probe, sweep, traffic};

#[derive(Parser)]
#[command(
    name = "margay-agnhost",
    version,
    about = "Network tests' servers and clients, worded as agnhost"
)]
struct Cli {
    #[command(subcommand)]
    command: Cmd,
}

#[derive(Subcommand)]
enum Cmd {
    /// Serve /clientip, /hostname, /echo?msg= and /healthz over HTTP, and echo, hostname and clientip over UDP
    Netexec {
        #[arg(long, default_value_t = 8080)]
        http_port: u16,
        /// -1 for none
        #[arg(long, default_value_t = 8081, allow_negative_numbers = true)]
        udp_port: i32,
    },
    /// Try one connection; says TIMEOUT, REFUSED, DNS or OTHER when there is none
    Connect {
        /// host:port
        target: String,
        #[arg(long, default_value = "1s", value_parser = duration)]
        timeout: Duration,
        #[arg(long, value_enum, default_value = "tcp")]
        protocol: Protocol,
    },
    /// Do nothing until killed
    Pause,
    /// Ask /clientip of every target at once; one line of JSON per answer
    Probe {
        #[arg(long, default_value = "1s", value_parser = duration)]
        timeout: Duration,
        #[arg(required = true)]
        targets: Vec<SocketAddr>,
    },
    /// Send numbered packets to a UDP server and tell which came back, as JSON
    Traffic {
        target: SocketAddr,
        #[arg(long, value_enum, default_value = "established")]
        flow: traffic::Flow,
        /// Packets a second
        #[arg(long, default_value_t = 200)]
        rate: u32,
        #[arg(long, default_value = "10s", value_parser = duration)]
        duration: Duration,
    },
    /// Send packets to every address of some networks, and tell which ever answered, as JSON, a line each second
    Sweep {
        /// Networks, of one family
        #[arg(required = true)]
        networks: Vec<IpNetwork>,
        #[arg(long, default_value_t = 8081)]
        port: u16,
        /// Within which every address gets its packet
        #[arg(long, default_value = "50ms", value_parser = duration)]
        interval: Duration,
        #[arg(long, default_value = "10s", value_parser = duration)]
        duration: Duration,
    },
    /// Tell when the first UDP packet of each sender arrives, a sender being what its packets say; a line of JSON each
    Arrivals {
        #[arg(long, default_value_t = 8082)]
        port: u16,
        #[arg(long, default_value = "10s", value_parser = duration)]
        duration: Duration,
    },
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Cmd) -> anyhow::Result<()> {
    match command {
        Cmd::Netexec { http_port, udp_port } => {
            let udp = (udp_port >= 0)
                .then(|| u16::try_from(udp_port))
                .transpose()
                .context("--udp-port")?;
            let servers = Servers::listen(Some(http_port), udp)?;
            println!("serving HTTP on {http_port}, UDP on {udp_port}");
            agnhost::serve(servers)?;
        }
        Cmd::Connect {
            target,
            timeout,
            protocol,
        } => agnhost::connect(&target, protocol, timeout)?,
        Cmd::Pause => loop {
            std::thread::park();
        },
        Cmd::Probe { timeout, targets } => {
            for outcome in probe::exchange_all(&targets, timeout) {
                println!("{}", serde_json::to_string(&outcome)?);
            }
        }
        Cmd::Traffic {
            target,
            flow,
            rate,
            duration,
        } => {
            println!(
                "{}",
                serde_json::to_string(&traffic::run(target, flow, rate, duration)?)?
            );
        }
        Cmd::Sweep {
            networks,
            port,
            interval,
            duration,
        } => sweep::run(&networks, port, interval, duration, |state| {
            println!("{}", serde_json::to_string(state).unwrap_or_default());
        })?,
        Cmd::Arrivals { port, duration } => {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).with_context(|| format!("UDP port {port}"))?;
            arrivals::run(&socket, duration, |arrival| {
                println!("{}", serde_json::to_string(arrival).unwrap_or_default());
            })?;
        }
    }
    Ok(())
}

/// `1s`, `500ms`, `2m`, or plain seconds.
fn duration(text: &str) -> Result<Duration, String> {
    let at = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    let scale = match unit {
        "ms" => 0.001,
        "s" | "" => 1.0,
        "m" => 60.0,
        _ => return Err(format!("{text:?} is not a duration; write 500ms, 1s or 2m")),
    };
    let number: f64 = number
        .parse()
        .map_err(|_| format!("{text:?} is not a duration; write 500ms, 1s or 2m"))?;
    Duration::try_from_secs_f64(number * scale).map_err(|e| e.to_string())
}
