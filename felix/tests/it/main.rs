//! Integration tests of the policy engine.
#![allow(clippy::unwrap_used)]

mod calc;
mod interpreter;
mod kernel;
mod mutants;
mod node;
mod property;
mod render;
mod rng;
mod shrink;
mod spoil;
mod state;
mod verdict;
mod world;
