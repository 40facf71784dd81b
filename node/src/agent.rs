//! The node's agent. [`run`] starts it; [`core`] is its heart; what is pure stands beside.

pub mod addresses;
pub mod beginning;
pub mod bgp_config;
pub mod bgp_peers;
pub mod blocks;
mod closed_policy;
pub mod cluster;
pub mod core;
pub mod desired;
pub mod facts;
pub mod findings;
pub mod holdings;
pub mod identity;
pub mod kinds;
pub mod observe;
pub mod overlay;
pub mod parts;
pub mod policy_feed;
pub mod pools;
pub mod routing;
pub mod run;
pub mod saving;
pub mod settings;
pub mod surroundings;
pub mod table;
pub mod watch_report;
pub mod watches;
