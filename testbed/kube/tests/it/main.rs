//! Margay on real Kubernetes, installed as `deploy/README.md` says, from a user's side. How to write one: `harness`.

#![allow(clippy::unwrap_used, reason = "helpers of tests panic as tests do")]

mod admission;
mod bench;
mod ctl;
mod dns;
mod faults;
mod first_packet;
mod flows;
mod from_calico;
mod guides;
mod harness;
mod ingress;
mod payments;
mod pods;
mod services;
mod sidecar;
mod specs;
