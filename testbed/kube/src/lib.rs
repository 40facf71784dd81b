//! Real Kubernetes on a lab: etcd, API server, scheduler, controller manager, kubelet, containerd and kube-proxy, on the
//! nodes of a topology that are labelled for it. README.md beside this crate shows how to use it.
//!
//! | module | knows |
//! |---|---|
//! | [`assets`] | the pieces that `make kube` built |
//! | [`spec`] | what labels of a topology mean; pure |
//! | [`config`], [`pki`] | configuration files, command lines and certificates; pure |
//! | [`machine`] | namespaces, file system, services and power of a node |
//! | [`cluster`] | a whole cluster: up, down, open |
//! | [`backup`] | etcd's snapshots |
//! | [`place`] | what is kept where |
//!
//! Nothing here touches the host's network. A cluster that was being brought up or taken down when its caller was killed
//! leaves nothing that [`cluster::down`] does not clear.

pub mod assets;
pub mod backup;
pub mod cluster;
pub mod config;
pub mod dns;
pub mod machine;
pub mod pki;
pub mod place;
pub mod relay;
pub mod spec;

pub use assets::Assets;
pub use cluster::{Cluster, Options, down, up};
pub use machine::{Machine, UnitStatus};
