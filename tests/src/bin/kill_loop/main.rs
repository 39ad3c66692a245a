//! `kill -9` loops of the real agent against a real Kafka; see `hark_tests::kill_loop`.
//!
//! `cargo run --release --workspace --features hark-tests/real-brokers --bin kill_loop -- --help`
//!
//! The agent is this very program, started again with `run` as its first argument: so it cannot be another build than the one that tests it.
#![expect(clippy::print_stdout, reason = "progress and the last line are what the program is for")]
use std::{process::ExitCode, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use hark_tests::kill_loop::{Halt, Plan, run};

/// Kills the agent (SIGKILL) at random moments while machines send, brokers restart and networks fail, with a real Kafka and a real Mosquitto on
/// this machine; then all is healed, and Kafka alone must show each reading once and in order.
///
/// The last line is `N kills: 0 lost, 0 duplicated, 0 disordered`. Exit code: 0 clean, 1 a fault, 2 wrong arguments, 130 interrupted.
/// HARK_KEEP=1 keeps the logs of a run that found a fault.
#[derive(Parser)]
#[command(name = "kill_loop")]
struct Arguments {
    /// Kills of the agent; some fifteen a minute on two cores.
    #[arg(long, value_name = "N", default_value_t = 500)]
    kills: u32,
    /// All random moments follow from it.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// `kafka.delivery` of the agent; with `at_least_once` the run must find duplicates.
    #[arg(long, value_enum, default_value_t = Delivery::ExactlyOnce)]
    delivery: Delivery,
    /// Mean life of the agent between two kills, in milliseconds.
    #[arg(long, value_name = "MS")]
    life_ms: Option<u64>,
}

#[derive(Clone, Copy, ValueEnum)]
#[value(rename_all = "snake_case")]
enum Delivery {
    ExactlyOnce,
    AtLeastOnce,
}

impl Arguments {
    fn plan(&self) -> Plan {
        let delivery = match self.delivery {
            Delivery::ExactlyOnce => "exactly_once",
            Delivery::AtLeastOnce => "at_least_once",
        };
        let plan = Plan::new(self.kills, self.seed, delivery);
        Plan { life: self.life_ms.map_or(plan.life, Duration::from_millis), ..plan }
    }
}

fn main() -> ExitCode {
    // As `Agent` calls it.
    if std::env::args().nth(1).is_some_and(|argument| !argument.starts_with('-')) {
        return hark::main();
    }
    match kill(&Arguments::parse().plan()) {
        Ok(code) => code,
        Err(error) => {
            println!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn kill(plan: &Plan) -> Result<ExitCode> {
    let program = std::env::current_exe()?.display().to_string();
    let dir = tempfile::TempDir::with_prefix("hark-kill-")?;
    let halt = Arc::new(Halt::default());
    let _signals = halt_on_signal(halt.clone())?;
    println!("{} kills, seed {}, {}, in {}", plan.kills, plan.seed, plan.delivery, dir.path().display());
    let Some(outcome) = run(plan, &program, dir.path(), &halt, &mut |line| println!("{line}")).with_context(|| keep(dir.path()))? else {
        println!("interrupted");
        return Ok(ExitCode::from(130));
    };
    outcome.verdict.examples.iter().for_each(|example| println!("{example}"));
    println!("found: {:?}", outcome.verdict.findings);
    let ([kafka, mosquitto, to_kafka, to_mosquitto], [records, named]) = (outcome.faults, outcome.verdict.records);
    println!("{} readings of machines sent, {records} records in Kafka, {named} named in gaps", outcome.sent);
    println!("{} of the kills ended a life in which records arrived", outcome.delivering);
    println!("restarts: Kafka {kafka}, Mosquitto {mosquitto}; faults of the network: to Kafka {to_kafka}, to Mosquitto {to_mosquitto}");
    let audit = match outcome.audit {
        None => "this agent has none",
        Some(true) => "clean",
        Some(false) => "a fault",
    };
    println!("hark audit: {audit}");
    let clean = outcome.is_clean();
    if !clean && std::env::var_os("HARK_KEEP").is_some() {
        println!("everything is kept in {}", dir.keep().display());
    }
    println!("{}", outcome.line());
    Ok(if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn keep(dir: &std::path::Path) -> String {
    format!("the run in {} failed", dir.display())
}

/// Ends the run at SIGINT and SIGTERM; the programs are stopped by their pids when the run is left.
fn halt_on_signal(halt: Arc<Halt>) -> Result<tokio::runtime::Runtime> {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let (mut interrupt, mut terminate) =
        runtime.block_on(async { Ok::<_, std::io::Error>((signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)) })?;
    #[expect(clippy::disallowed_methods, reason = "it ends with the runtime, which the caller holds")]
    runtime.spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        halt.set();
    });
    Ok(runtime)
}
