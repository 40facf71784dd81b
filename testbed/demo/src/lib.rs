//! The story that `make demo` tells: a routed, policed pod network comes up on one machine and proves itself.
//!
//! It types what a user would type (`margay-lab`, `kubectl`, `vtysh`, `birdc`), so that every step can be repeated by
//! hand. Nothing here decides what is right: the fabric's and the policy's expectations are committed files.

pub mod fabric;
pub mod host;
pub mod matrix;
pub mod own;
pub mod stages;
