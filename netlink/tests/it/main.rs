//! The crate against a kernel, in private network namespaces.

mod kernel;
mod links;
mod monitor;
mod namespaces;
mod routes;
