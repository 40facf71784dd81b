//! Integration tests of the testbed, in one binary.

mod apiserver;
mod cluster;
