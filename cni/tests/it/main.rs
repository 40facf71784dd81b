//! The plugin's binary against a kernel and a fake agent, in private network namespaces.

mod add;
mod agent;
mod check;
mod del;
mod input;
mod node;
