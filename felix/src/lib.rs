//! The policy engine: what Kubernetes' policies mean, and making the kernel enforce it.

pub mod verdict;
