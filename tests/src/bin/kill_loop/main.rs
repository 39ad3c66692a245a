//! `kill -9` loops of the real agent against a real Kafka; see `hark_tests::kill_loop`.
//!
//! `cargo run --release --workspace --features hark-tests/real-brokers --bin kill_loop -- --kills 500 [--seed N] [--delivery at_least_once]`
//!
//! Its last line is `N kills: 0 lost, 0 duplicated, 0 disordered`, and its exit code says the same: 0 clean, 1 not, 130 interrupted. The agent is this
//! very program, started again with `run` as its first argument: so it cannot be another build than the one that tests it.
#![expect(clippy::print_stdout, reason = "progress and the last line are what the program is for")]
use std::{process::ExitCode, sync::Arc, time::Duration};

use anyhow::{Context, Result, bail};
use hark_tests::kill_loop::{Halt, Plan, run};

fn main() -> ExitCode {
    if std::env::args().nth(1).is_some_and(|argument| !argument.starts_with("--")) {
        return hark::main();
    }
    match kill() {
        Ok(code) => code,
        Err(error) => {
            println!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn kill() -> Result<ExitCode> {
    let plan = plan(std::env::args().skip(1))?;
    let program = std::env::current_exe()?.display().to_string();
    let dir = tempfile::TempDir::with_prefix("hark-kill-")?;
    let halt = Arc::new(Halt::default());
    let _signals = halt_on_signal(halt.clone())?;
    println!("{} kills, seed {}, {}, in {}", plan.kills, plan.seed, plan.delivery, dir.path().display());
    let Some(outcome) = run(&plan, &program, dir.path(), &halt, &mut |line| println!("{line}")).with_context(|| keep(dir.path()))? else {
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

fn plan(mut arguments: impl Iterator<Item = String>) -> Result<Plan> {
    let mut plan = Plan::new(500, 1, "exactly_once");
    while let Some(name) = arguments.next() {
        let value = arguments.next().with_context(|| format!("{name} needs a value"))?;
        match name.as_str() {
            "--kills" => plan.kills = value.parse().context("--kills needs a number")?,
            "--seed" => plan.seed = value.parse().context("--seed needs a number")?,
            "--delivery" if ["exactly_once", "at_least_once"].contains(&value.as_str()) => plan.delivery = value,
            "--life-ms" => plan.life = Duration::from_millis(value.parse().context("--life-ms needs a number")?),
            _ => bail!("unknown: {name} {value}; there are --kills N, --seed N, --delivery exactly_once|at_least_once, --life-ms N"),
        }
    }
    Ok(plan)
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
