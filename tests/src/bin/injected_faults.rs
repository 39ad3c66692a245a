//! Whether faults are called by their names: simulated machines and instruments with faults that are drawn, through the agent's own decoding, rules and
//! inference. The agent's settings are those that it ships with.
//!
//! `cargo build --release --workspace --features hark-tests/real-brokers --bin injected_faults`, then `target/release/injected_faults [--seeds N]`
#![expect(clippy::print_stdout, reason = "the tables are what the program is for")]
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use hark_tests::injected::{self, CLASSED_LEAST, NAMED_LEAST};

/// Draws machines and instruments with faults and without, and counts what the agent says of each.
///
/// Exit codes: 0 both floors are kept (85 % of the machines, 95 % of the instruments) and nothing healthy is called faulty, 1 otherwise.
#[derive(Debug, Parser)]
#[command(name = "injected_faults")]
struct Arguments {
    /// Machines and instruments for each fault
    #[arg(long, value_name = "N", default_value_t = 100)]
    seeds: u64,
    /// The first seed
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// Tell of each that was not called by its name
    #[arg(long)]
    verbose: bool,
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let seeds = arguments.seed..arguments.seed + arguments.seeds;
    let machines = injected::machines(seeds.clone(), arguments.verbose)?;
    println!("{machines}\n");
    let instruments = injected::instruments(seeds, arguments.verbose)?;
    println!("{instruments}");
    let kept = machines.is_kept(NAMED_LEAST) && instruments.is_kept(CLASSED_LEAST);
    Ok(if kept { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
