//! Integration tests of the policy engine.
#![allow(clippy::unwrap_used)]

mod verdict;
