//! Promise 2: nothing is doubled; promise 1: nothing is lost. Kills of the agent, restarts of both brokers and failing networks, all at once.
//!
//! The long run is the program `kill_loop`, with the same code.
#![expect(clippy::print_stdout, reason = "how it went, for --nocapture")]
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use hark_tests::kill_loop::{Halt, Outcome, Plan, faults::Pace, run};

const PROGRAM: &str = env!("CARGO_BIN_EXE_hark-under-test");

fn short(kills: u32, delivery: &str) -> Plan {
    let pace = Pace { kafka: Duration::from_secs(15), mosquitto: Duration::from_secs(8), network: Duration::from_secs(4), ..Pace::default() };
    Plan { pace, life: Duration::from_millis(1_500), ..Plan::new(kills, 1, delivery) }
}

fn go(plan: &Plan) -> Result<Outcome> {
    let dir = tempfile::tempdir()?;
    let outcome = run(plan, PROGRAM, dir.path(), &Halt::default(), &mut |line| println!("{line}"))?.context("nobody interrupts it")?;
    println!("{:?}\n{}", outcome.verdict, outcome.line());
    Ok(outcome)
}

/// The harness can bite: where a cursor is stored apart from the records, a kill between the two sends some again, and the ledger sees it.
#[test]
fn at_least_once_doubles_and_the_ledger_sees_it() -> Result<()> {
    let outcome = go(&Plan { until_doubled: true, ..short(40, "at_least_once") })?;
    ensure!(outcome.verdict.duplicated > 0, "{} kills and nothing doubled: either the kills or the ledger miss something", outcome.kills);
    ensure!(outcome.audit.is_none(), "the audit says that it proves something: {outcome:?}");
    ensure!(outcome.verdict.lost == 0 && outcome.verdict.disordered == 0, "{:?}", outcome.verdict);
    Ok(())
}

/// What consumers of a plant may rely on.
#[test]
fn nothing_is_lost_doubled_or_disordered() -> Result<()> {
    let outcome = go(&short(15, "exactly_once"))?;
    ensure!(outcome.is_clean() && outcome.kills == 15, "{outcome:?}");
    ensure!(outcome.delivering > 0, "nothing arrived while the agent was killed, so nothing was shown: {outcome:?}");
    Ok(())
}
