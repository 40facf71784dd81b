//! Log output for people or machines.

use std::sync::OnceLock;

use clap::ValueEnum;
use margay_api::v3::LogLevel;
use parking_lot::Mutex;
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
    let (filter, handle) = reload::Layer::new(filter(*LEVELS.lock()));
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
    change(|levels| levels.agent = level);
}

/// Follows BGPConfiguration's logSeverityScreen, for the speaker alone; `None` treats it like the rest of the agent.
pub fn set_bgp_level(level: Option<LogLevel>) {
    change(|levels| levels.bgp = level);
}

#[derive(Debug, Clone, Copy)]
struct Levels {
    agent: Option<LogLevel>,
    bgp: Option<LogLevel>,
}

fn change(set: impl FnOnce(&mut Levels)) {
    let mut levels = LEVELS.lock();
    set(&mut levels);
    if let Some(handle) = FILTER.get()
        && let Err(error) = handle.reload(filter(*levels))
    {
        tracing::warn!(%error, "log level not changed");
    }
}

static FILTER: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();
static LEVELS: Mutex<Levels> = Mutex::new(Levels { agent: None, bgp: None });

fn filter(levels: Levels) -> EnvFilter {
    let base = match levels.agent.map(word) {
        None => EnvFilter::try_from_env("MARGAY_LOG").unwrap_or_else(|_| EnvFilter::new("info,kube_client=off")),
        // The libraries' own debugging drowns ours.
        Some(word) => EnvFilter::new(format!(
            "{word},hyper=info,hyper_util=info,rustls=info,tower=info,kube_client=off"
        )),
    };
    let directive = levels
        .bgp
        .and_then(|level| format!("margay_bgp={}", word(level)).parse().ok());
    match directive {
        Some(directive) => base.add_directive(directive),
        None => base,
    }
}

fn word(level: LogLevel) -> &'static str {
    match level {
        LogLevel::Trace => "trace",
        LogLevel::Debug => "debug",
        LogLevel::Info => "info",
        LogLevel::Warning => "warn",
        LogLevel::Error | LogLevel::Fatal => "error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_speaker_has_a_level_of_its_own() {
        let text = |agent, bgp| filter(Levels { agent, bgp }).to_string();
        let both = text(Some(LogLevel::Warning), Some(LogLevel::Debug));
        assert!(both.contains("warn") && both.contains("margay_bgp=debug"), "{both}");
        assert!(!text(Some(LogLevel::Warning), None).contains("margay_bgp"));
    }
}
