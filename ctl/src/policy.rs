//! `margayctl policy`: what policies mean.

mod connections;
mod eval;
mod stored;

pub(crate) use eval::eval;
