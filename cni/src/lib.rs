//! The CNI plugin `margay-cni` and its protocol with the node's agent.
//!
//! The plugin is thin: it asks the agent, makes the veth, and returns. Who does what:
//!
//! | | plugin | agent |
//! |---|---|---|
//! | addresses, names, MTU, policy | | all, before it answers `Add` |
//! | veth, pod side | makes, deletes | |
//! | host side (routes, settings, link-local address) | sets once, so that the pod can talk when ADD returns | owns: repairs, removes |
//! | what to undo after a failed ADD | deletes the veth, sends `Del` | releases what `Add` took |
//!
//! - [`protocol`]: the messages and their framing, for both ends and any runtime.
//! - [`naming`]: names of host interfaces.
//! - [`host`]: what the host side of a pod consists of, as data: the plugin sets it up, the agent keeps it so.
//! - [`queue`]: DELs that the agent has not heard of yet, on disk.
//! - [`plugin`]: the commands of the CNI specification; [`spec`]: its documents.

pub mod host;
pub mod naming;
pub mod plugin;
pub mod protocol;
pub mod queue;
pub mod spec;
