//! Integration tests of margay-bgp: two speakers joined in memory under a fake clock, the corpus of the fuzz target,
//! and real routers in network namespaces.

mod bgpd;
mod corpus;
mod interop;
mod kernel;
mod lab;
mod pair;
mod simulation;
mod speaker;
