//! Probes, asked from the node's network namespace as a kubelet does.

use std::time::Duration;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{interval_at, timeout};

use super::shim;

/// What a probe is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Purpose {
    Startup,
    Readiness,
    Liveness,
}

/// A probe's threshold was reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) container: String,
    pub(crate) purpose: Purpose,
    pub(crate) healthy: bool,
    pub(crate) message: String,
}

/// What is asked of whom.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) container: core::Container,
    pub(crate) purpose: Purpose,
    pub(crate) probe: core::Probe,
    /// Address of the pod.
    pub(crate) ip: String,
    /// First process of the container.
    pub(crate) pid: i32,
    /// Environment of commands in the container.
    pub(crate) env: std::collections::BTreeMap<String, String>,
}

/// Asks for ever; each time a threshold is reached, says so.
pub(crate) async fn ask(asked: Asked, verdicts: mpsc::UnboundedSender<Verdict>) {
    let seconds = |value: Option<i32>, default: u64| {
        Duration::from_secs(
            value
                .and_then(|v| u64::try_from(v).ok())
                .filter(|v| *v > 0)
                .unwrap_or(default),
        )
    };
    let probe = &asked.probe;
    let delay = Duration::from_secs(u64::try_from(probe.initial_delay_seconds.unwrap_or(0)).unwrap_or(0));
    let limit = seconds(probe.timeout_seconds, 1);
    let successes = probe.success_threshold.unwrap_or(1).max(1);
    let failures = probe.failure_threshold.unwrap_or(3).max(1);
    let mut ticks = interval_at(tokio::time::Instant::now() + delay, seconds(probe.period_seconds, 10));
    let (mut row, mut last): (i32, Option<bool>) = (0, None);
    // A server that is just starting is asked for readiness more often at first: a lab should be quick.
    let mut eager = 40;
    loop {
        if last == Some(false) && eager > 0 && asked.purpose == Purpose::Readiness {
            eager -= 1;
            let _ = timeout(Duration::from_millis(50), ticks.tick()).await;
        } else {
            ticks.tick().await;
        }
        let outcome = match timeout(limit, once(&asked)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(format!("no answer within {} s", limit.as_secs())),
        };
        let healthy = outcome.is_ok();
        if healthy {
            eager = 0;
        }
        row = if last == Some(healthy) {
            row.saturating_add(1)
        } else {
            1
        };
        last = Some(healthy);
        if row == if healthy { successes } else { failures } {
            let verdict = Verdict {
                container: asked.container.name.clone(),
                purpose: asked.purpose,
                healthy,
                message: outcome.err().unwrap_or_default(),
            };
            if verdicts.send(verdict).is_err() {
                return;
            }
        }
    }
}

async fn once(asked: &Asked) -> Result<(), String> {
    let probe = &asked.probe;
    if let Some(get) = &probe.http_get {
        if get.scheme.as_deref() == Some("HTTPS") {
            return Err("httpGet over HTTPS is not supported by the lab's pod runner; use tcpSocket".into());
        }
        let host = get.host.clone().unwrap_or_else(|| asked.ip.clone());
        let port = port(&get.port, &asked.container)?;
        return http(&host, port, get.path.as_deref().unwrap_or("/")).await;
    }
    if let Some(socket) = &probe.tcp_socket {
        let host = socket.host.clone().unwrap_or_else(|| asked.ip.clone());
        let port = port(&socket.port, &asked.container)?;
        return TcpStream::connect((host.as_str(), port))
            .await
            .map(drop)
            .map_err(|e| format!("{host}:{port}: {e}"));
    }
    if let Some(exec) = &probe.exec {
        let (pid, env, words) = (asked.pid, asked.env.clone(), exec.command.clone().unwrap_or_default());
        let code = tokio::task::spawn_blocking(move || shim::exec(pid, &env, &words))
            .await
            .map_err(|e| e.to_string())?
            .map_err(|e| format!("{e:#}"))?;
        return if code == 0 {
            Ok(())
        } else {
            Err(format!("the command ended with {code}"))
        };
    }
    Err("this kind of probe is not supported by the lab's pod runner; use httpGet, tcpSocket or exec".into())
}

async fn http(host: &str, port: u16, path: &str) -> Result<(), String> {
    let at = |e: std::io::Error| format!("http://{host}:{port}{path}: {e}");
    let mut stream = TcpStream::connect((host, port)).await.map_err(at)?;
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nUser-Agent: kube-probe/margay\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.map_err(at)?;
    let mut head = Vec::new();
    let mut buffer = [0; 1024];
    while !head.windows(2).any(|w| w == b"\r\n") {
        match stream.read(&mut buffer).await.map_err(at)? {
            0 => break,
            n => head.extend_from_slice(&buffer[..n]),
        }
    }
    let line = String::from_utf8_lossy(&head);
    let code: Option<u16> = line.split_whitespace().nth(1).and_then(|c| c.parse().ok());
    match code {
        Some(200..=399) => Ok(()),
        Some(code) => Err(format!("http://{host}:{port}{path} answered {code}")),
        None => Err(format!("http://{host}:{port}{path} did not answer in HTTP")),
    }
}

fn port(port: &IntOrString, container: &core::Container) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => container
            .ports
            .iter()
            .flatten()
            .find(|p| p.name.as_deref() == Some(name))
            .map(|p| p.container_port)
            .or_else(|| name.parse().ok()),
    };
    number
        .and_then(|n| u16::try_from(n).ok())
        .ok_or_else(|| format!("the probe's port {port:?} is no port of the container"))
}
