//! Log output for people or machines.

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One readable line an event.
    Text,
    /// One JSON object an event.
    Json,
}

/// Starts logging to standard error. `MARGAY_LOG` filters (`info`, `margay_node=debug,margay_bgp=trace`, …).
pub fn start(format: LogFormat) {
    let filter = EnvFilter::try_from_env("MARGAY_LOG").unwrap_or_else(|_| EnvFilter::new("info,kube_client=warn"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => builder.with_ansi(false).init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
}
