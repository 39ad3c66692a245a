//! Hark's agent: listens to machines and warns before they fail.
//!
//! ```text
//! source ──► buffer ──► inference ──► buffer ──► forward ──► Kafka
//! ```
//! Start reading at `pipeline.rs`, which wires these stages.
pub mod buffer;
pub mod config;
pub mod inference;
pub mod record;
pub mod signal;
