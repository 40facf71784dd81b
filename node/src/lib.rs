//! The node agent of Margay.

pub mod agent;
pub mod cni_server;
pub mod control;
pub mod endpoints;
pub mod health;
pub mod host;
pub mod http;
pub mod kube;
pub mod logging;
pub mod metrics;
pub mod persist;
pub mod pods;
