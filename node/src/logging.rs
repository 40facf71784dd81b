//! Log output for people or machines.

use std::sync::OnceLock;

use clap::ValueEnum;
use margay_api::v3::LogLevel;
use tracing_subscriber::prelude::*;
use tracing_subscriber::{EnvFilter, Registry, fmt, reload};

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
    let (filter, handle) = reload::Layer::new(filter(None));
    // A second start in one process would be a test's; its first filter stays.
    let _ = FILTER.set(handle);
    let base = tracing_subscriber::registry().with(filter);
    let lines = fmt::layer().with_writer(std::io::stderr);
    match format {
        LogFormat::Text => base.with(lines.with_ansi(false)).init(),
        LogFormat::Json => base.with(lines.json().flatten_event(true)).init(),
    }
}

/// Follows FelixConfiguration's logSeverityScreen; `None` goes back to what the environment says.
pub fn set_level(level: Option<LogLevel>) {
    if let Some(handle) = FILTER.get()
        && let Err(error) = handle.reload(filter(level))
    {
        tracing::warn!(%error, "log level not changed");
    }
}

static FILTER: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();

fn filter(level: Option<LogLevel>) -> EnvFilter {
    let word = match level {
        None => {
            return EnvFilter::try_from_env("MARGAY_LOG").unwrap_or_else(|_| EnvFilter::new("info,kube_client=off"));
        }
        Some(LogLevel::Trace) => "trace",
        Some(LogLevel::Debug) => "debug",
        Some(LogLevel::Info) => "info",
        Some(LogLevel::Warning) => "warn",
        Some(LogLevel::Error | LogLevel::Fatal) => "error",
    };
    // The libraries' own debugging drowns ours.
    EnvFilter::new(format!(
        "{word},hyper=info,hyper_util=info,rustls=info,tower=info,kube_client=off"
    ))
}
