//! A sensor node and the world around it, without hardware.
//!
//! - [`firmware`]: the node itself, as on a microcontroller: no `std`, no allocator, every buffer fixed.
#![cfg_attr(not(any(feature = "std", test)), no_std)]

pub mod firmware;
#[cfg(feature = "std")]
pub mod machine;
