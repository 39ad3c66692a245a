//! A sensor node and the world around it, without hardware.
//!
//! - [`firmware`]: the node itself, as on a microcontroller: no `std`, no allocator, every buffer fixed.
//!
//! With feature `std` (default):
//! - [`machine`]: the physics it measures, with a hidden damage and its laws.
//! - [`sensor`]: what its converter makes of that.
//! - [`disturbance`]: what goes wrong with sensor and line.
//! - [`simulation`]: all of them together in simulated time; the same seed gives the same bytes.
//! - [`serial`], [`mqtt`]: a node on a pseudo terminal, a machine behind a broker, each on its own thread.
//! - [`replay`]: recorded files to either.
#![cfg_attr(
    feature = "std",
    expect(clippy::disallowed_methods, reason = "the simulated world around the node runs by the clock; nothing here is replayed")
)]
#![cfg_attr(not(any(feature = "std", test)), no_std)]

pub mod firmware;

#[cfg(feature = "std")]
pub mod disturbance;
#[cfg(feature = "std")]
mod handle;
#[cfg(feature = "std")]
pub mod machine;
#[cfg(feature = "std")]
pub mod mqtt;
#[cfg(feature = "std")]
pub mod replay;
#[cfg(feature = "std")]
pub mod sensor;
#[cfg(feature = "std")]
pub mod serial;
#[cfg(feature = "std")]
pub mod simulation;
#[cfg(feature = "std")]
mod stop;

#[cfg(feature = "std")]
pub use handle::{NodeHandle, NodeStats};
#[cfg(feature = "std")]
pub use mqtt::{MqttNode, MqttNodeConfig};
#[cfg(feature = "std")]
pub use replay::{ReplayConfig, ReplayReport, replay_to_mqtt, replay_to_pty};
#[cfg(feature = "std")]
pub use serial::{SerialNode, SerialNodeConfig};
#[cfg(feature = "std")]
pub use stop::{Stop, StopHandle};
