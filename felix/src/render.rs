//! From what this node must enforce to chains, rules and sets. Pure.

mod config;

pub use config::{AllowAction, Config, EndpointToHost};
