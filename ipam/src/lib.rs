//! Addresses for pods out of blocks, by compare-and-swap alone.
//!
//! A node claims blocks of a pool and gives out addresses of its own blocks; when its blocks are full it takes another,
//! and in need single addresses of other nodes' blocks. Everything is kept in three kinds of objects of
//! [`margay_api::v3`], as Calico keeps them: the block itself, each node's claim to it (BlockAffinity) and the handles by
//! which addresses are released. There is no lock and no leader: each step is one write that fails if its object changed,
//! and the order of the steps is such that a crash between any two leaves nothing that the next call or a
//! [`gc::Collector`] does not mend.
//!
//! - Claim: affinity `pending` → block → affinity `confirmed`. Only a confirmed affinity counts to others.
//! - Release: read the block → affinity `pendingDeletion` → the block at the revision read → affinity gone.
//! - Assign: handle → block. Free: block → handle. So an allocation always has its handle.
//!
//! The allocator is pure: [`store::Store`] brings the objects, the settings and the time.

pub mod allocator;
pub mod block;
mod error;
pub mod gc;
mod names;
mod pools;
pub mod store;
mod time;

pub use allocator::{Allocator, Assigned, Assignment, Attributes, Request};
pub use error::{Error, Family, PoolState};
pub use names::{affinity_name, block_name, handle_name, node_hash};
pub use pools::automatic;
