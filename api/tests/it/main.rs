//! Tests of the whole crate.

#![allow(clippy::unwrap_used, reason = "helpers of tests panic as tests do")]

#[cfg(feature = "kube")]
mod cel;
#[cfg(feature = "kube")]
mod crds;
mod table;
