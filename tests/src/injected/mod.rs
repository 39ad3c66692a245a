//! Whether faults are called by their names: simulated machines and instruments with faults that are drawn, through the agent's own intake, rules and
//! inference. The agent's settings are those that it ships with.
mod agent;
mod drawn;
mod instruments;
mod machines;
mod tally;

use std::ops::Range;

use anyhow::Result;

pub use self::tally::Tally;
use self::{instruments::Trouble, machines::Injected};

/// Of all faults of machines so many must be named correctly, %.
pub const NAMED_LEAST: f64 = 85.0;
/// Of all faults of instruments so many must have their class after NE 107, %.
pub const CLASSED_LEAST: f64 = 95.0;

/// Machines with each fault, one for each seed, and three without.
///
/// # Errors
/// Where a configuration is refused.
pub fn machines(seeds: Range<u64>, verbose: bool) -> Result<Tally> {
    Tally::of("machines", &Injected::ALL, seeds, verbose, machines::run)
}

/// Instruments with each fault and without, one for each seed.
///
/// # Errors
/// Where a configuration is refused.
pub fn instruments(seeds: Range<u64>, verbose: bool) -> Result<Tally> {
    Tally::of("instruments", &Trouble::ALL, seeds, verbose, instruments::run)
}
