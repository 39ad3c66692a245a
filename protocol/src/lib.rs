//! What travels between Hark's parts, and nothing else.
//!
//! - [`node`]: frames between a sensor node and the agent on a serial line. No `std`, no allocator, bytes frozen per version.
//! - [`topics`] (feature `std`): the records on Kafka. Within `.v1` fields are only added, optional; consumers ignore what they do not know.
//!
//! The names in `topics` are a contract with dashboards, SQL tables and notebooks that we do not own: none is ever changed or reused.
#![cfg_attr(not(feature = "std"), no_std)]

pub mod node;
#[cfg(feature = "std")]
pub mod topics;
