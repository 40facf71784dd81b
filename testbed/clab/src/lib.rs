//! Containerlab topology files: what one says, checked and resolved into a plan.
//!
//! Nothing here makes anything: a faulty file is refused whole, with every fault's line and the way out.

mod expand;
mod fault;
mod fields;
mod images;
mod mgmt;
mod nodes;
mod plan;
pub mod schema;
mod wires;
mod words;
pub mod yaml;

pub use fault::{Fault, Faults};
pub use images::{Recipe, repository};
pub use plan::{Bind, End, EndSetup, LinkPlan, Mgmt, NodeKind, NodePlan, Plan, PlanError};
pub use words::quote;
