//! The testbed: labs of routers and hosts in namespaces, a cluster on them, an API server for labs, and the demo.
pub mod agnhost;
pub mod apiserver;
pub mod cluster;
pub mod kubelet;
pub mod lab;
pub mod story;
pub mod traffic;
