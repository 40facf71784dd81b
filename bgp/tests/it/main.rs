//! Integration tests of margay-bgp: two speakers joined in memory under a fake clock, and real routers in network
//! namespaces.

mod pair;
mod simulation;
