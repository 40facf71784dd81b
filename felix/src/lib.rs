//! The policy engine: what Kubernetes' policies mean, and making the kernel enforce it.
//!
//! Three rooms in a row. [`calc`] turns the cluster's state into what this node must enforce, [`render`] turns that
//! into chains, rules and sets, [`dataplane`] makes the kernel match; [`engine`] runs them for the agent. What goes in is
//! the [`model`], which [`convert`] makes of Kubernetes' objects. Beside them stands [`verdict`], which reads the API's
//! semantics straight and shares no code with the others. Only [`dataplane`] and [`engine`] touch the outside.

pub mod calc;
pub mod convert;
pub mod dataplane;
pub mod engine;
pub mod model;
pub mod render;
mod sys;
pub mod verdict;
