//! Everything that knows the Kubernetes API.

pub mod client;
pub mod error;
pub mod events;
pub mod ipam_store;
pub mod lease;
pub mod resource;
pub mod time;
pub mod watch;

pub use client::Api;
pub use error::ApiError;
pub use resource::ResourceType;
