//! How often a healthy machine alarms: simulated pumps before the agent's inference, in simulated time, each with changes that are no faults.
//!
//! `cargo build --release --workspace --features hark-tests/real-brokers --bin machine_days`, then
//! `target/release/machine_days [--days N] [--seed S] [--scenario NAME] [--json]`
#![expect(clippy::print_stdout, reason = "the table is what the program is for")]
mod life;
mod pump;
mod scenario;
mod tally;
mod wander;

use std::{
    num::NonZero,
    process::ExitCode,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
};

use anyhow::{Context, Result};
use clap::Parser;
use hark::config::Config;

use self::{
    life::Life,
    scenario::Scenario,
    tally::{HEAD, Tally},
};

/// A machine lives for so long at most, days; what more is asked for becomes more machines.
const LIFE_MOST_DAYS: f64 = 30.0;

/// Runs healthy simulated pumps through the agent's inference and counts what it raises: alarms (priority low and above), and advice (a bare anomaly)
/// apart from them. Readings come at 1 Hz, a block of 32 768 samples of vibration every 10 simulated minutes. Rates are by days after the first
/// commissioning, a month is a twelfth of 365.25 days, bounds are exact (Poisson, one-sided 95 %).
///
/// Exit codes: 0 no alarm, 1 an alarm on a healthy machine. With 912 days after commissioning none is what keeps the bound at 0.1 a month.
#[derive(Debug, Parser)]
#[command(name = "machine_days")]
struct Arguments {
    /// Machine-days in all, commissioning included, the same for each scenario
    #[arg(long, value_name = "N", default_value_t = 90.0)]
    days: f64,
    /// All randomness of plants and machines follows from it
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// This scenario alone; `worn` and `unbalanced`, which have a fault, run only so
    #[arg(long, value_name = "NAME", value_parser = scenario_named)]
    scenario: Option<Scenario>,
    /// Machines at a time; one per core unless set
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,
    /// A line of JSON per scenario, and one for all
    #[arg(long)]
    json: bool,
}

fn scenario_named(name: &str) -> Result<Scenario, String> {
    let mut all = Scenario::EACH.into_iter().chain(Scenario::FAULTS);
    let known: Vec<&str> = all.clone().map(Scenario::name).collect();
    all.find(|scenario| scenario.name() == name).ok_or_else(|| format!("there are: {}", known.join(", ")))
}

/// A machine that is to be run.
#[derive(Clone, Copy, Debug)]
struct Order {
    scenario: Scenario,
    seed: u64,
    days: f64,
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let directory = tempfile::tempdir().context("failed to make a directory")?;
    let config = life::configuration(directory.path())?;
    let scenarios = arguments.scenario.map_or_else(|| Scenario::EACH.to_vec(), |scenario| vec![scenario]);
    let orders = orders(&arguments, &scenarios);
    let jobs = arguments.jobs.unwrap_or_else(|| thread::available_parallelism().map_or(1, NonZero::get));
    let tallies = run(&config, &orders, jobs)?;

    if !arguments.json {
        println!("{HEAD}");
    }
    let tell = |name: &str, tally: &Tally| println!("{}", if arguments.json { tally.json(name).to_string() } else { tally.line(name) });
    let mut total = Tally::default();
    for scenario in scenarios {
        let mut sum = Tally::default();
        orders.iter().zip(&tallies).filter(|(order, _)| order.scenario == scenario).for_each(|(_, tally)| sum.join(tally));
        tell(scenario.name(), &sum);
        total.join(&sum);
    }
    tell("total", &total);
    Ok(if total.alarms() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Equal parts for all scenarios, in as many machines as they need.
fn orders(arguments: &Arguments, scenarios: &[Scenario]) -> Vec<Order> {
    let share = arguments.days / scenarios.len() as f64;
    let machines = (share / LIFE_MOST_DAYS).ceil().max(1.0);
    let numbers = 0..machines as u64;
    // A number of its own for each machine, whichever scenarios are run beside it.
    let seed = |number: u64, scenario: Scenario| arguments.seed.wrapping_mul(1_000_003) + 100 * number + scenario as u64;
    numbers
        .flat_map(|number| scenarios.iter().map(move |&scenario| Order { scenario, seed: seed(number, scenario), days: share / machines }))
        .collect()
}

/// Runs all machines, `jobs` at a time; gives what became of each, in order.
#[expect(clippy::disallowed_methods, reason = "its threads end with it")]
fn run(config: &Config, orders: &[Order], jobs: usize) -> Result<Vec<Tally>> {
    let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let work = || {
        loop {
            let index = next.fetch_add(1, Relaxed);
            let Some(order) = orders.get(index) else { break };
            let tally = one(config, order);
            done.lock().unwrap_or_else(PoisonError::into_inner).push((index, tally));
        }
    };
    thread::scope(|scope| {
        (0..jobs.clamp(1, orders.len().max(1))).for_each(|_| drop(scope.spawn(work)));
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, tally)| tally).collect()
}

fn one(config: &Config, order: &Order) -> Result<Tally> {
    let Order { scenario, seed, days } = *order;
    let tally = Life::new(config, scenario, days, seed)?.live(days).of_one(days);
    eprintln!("{} (seed {seed}, {days:.1} days): {}", scenario.name(), tally.story());
    Ok(tally)
}
