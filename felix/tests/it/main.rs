//! Integration tests of the policy engine.
#![allow(clippy::unwrap_used)]

mod interpreter;
mod kernel;
mod mutants;
mod node;
mod property;
mod rng;
mod verdict;
mod world;
