//! The node's agent and the cluster's controller.
//!
//! - [`agent`]: one task watches the cluster and feeds the four engines: policy, BGP, addresses, host routes.
//! - [`kube`]: everything that knows the Kubernetes API.
//! - [`cni_server`], [`control`], [`http`]: what others ask of the agent.
//! - [`host`]: routes to local pods and the settings they need.
//! - [`endpoints`], [`persist`]: what outlives the agent.
//! - [`controller`]: the few cluster-wide jobs.
//! - [`install`]: the CNI plugin on the host; [`uninstall`]: all of Margay off it.

pub mod agent;
pub mod cni_server;
pub mod control;
pub mod controller;
pub mod endpoints;
pub mod health;
pub mod host;
pub mod http;
pub mod install;
pub mod kube;
pub mod logging;
pub mod metrics;
pub mod persist;
pub mod pods;
pub mod probe;
pub mod shutdown;
pub mod uninstall;
