//! `margayctl policy`: what policies mean, without a cluster.

mod connections;
mod eval;

pub(crate) use eval::eval;
