//! The node's agent.

pub mod bgp_config;
pub mod bgp_peers;
pub mod blocks;
pub mod cluster;
pub mod identity;
pub mod overlay;
pub mod policy_feed;
pub mod pools;
pub mod settings;
pub mod table;
