//! The types that Margay's parts talk about, and pure functions on them.
//!
//! - [`v3`]: the `projectcalico.org/v3` resources, every field of their spec.
//! - [`slim`]: the few fields of Kubernetes' own resources that Margay reads.
//! - [`selector`]: Calico's selector language; [`labels`]: what selectors look at.
//! - [`cidr`]: sets of addresses as CIDRs: contains, overlaps, subtract, split.
//! - [`support`]: the table of values that are accepted today; [`validate`]: what a schema cannot say.
//! - [`control`]: the JSON that the agent's control socket answers.
//!
//! With the feature `kube`, `v3` also has the resource roots and `crd` makes the CRDs of `deploy/crds`.

pub mod cidr;
pub mod control;
#[cfg(feature = "kube")]
pub mod crd;
pub mod labels;
mod nullable;
pub mod selector;
pub mod slim;
pub mod support;
pub mod v3;
pub mod validate;
