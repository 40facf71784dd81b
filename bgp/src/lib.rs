//! A BGP-4 speaker for the edge of a routed fabric: a library and the daemon `margay-bgpd`.
//!
//! From the wire inwards:
//!
//! - [`wire`]: bytes ↔ messages, with the error handling of RFC 7606;
//! - [`session`]: the state machine of one peer (RFC 4271 section 8), pure: events and `now` in, outputs out;
//! - [`rib`]: Adj-RIB-In, decision, Loc-RIB, Adj-RIB-Out, graceful restart; pure too;
//! - [`filter`], [`config`]: what a person writes;
//! - [`fib`]: where chosen routes go, a trait with a kernel and an in-memory implementation;
//! - [`speaker`]: the shell of sockets, clocks and tasks around the pure rooms.

pub mod config;
pub mod fib;
pub mod filter;
pub mod prefix;
pub mod rib;
pub mod session;
pub mod speaker;
pub mod wire;
