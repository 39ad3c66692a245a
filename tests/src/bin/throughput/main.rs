//! How much goes through the whole path, and how fast: a load generator, a real Mosquitto, the real agent and a real Kafka on one machine.
//!
//! `cargo build --release --workspace --features hark-tests/real-brokers --bin throughput`, then
//! `target/release/throughput [--quick] [--json] [CASE...]`
//!
//! The agent is this very program, started again with `run` as its first argument: so it cannot be an older build than the one that measures it.
//! Every case counts in Kafka what arrived, and the program fails if a reading that the agent took is missing there.
#![expect(clippy::print_stdout, reason = "the table is what the program is for")]
mod arrivals;
mod case;
mod report;
mod run;

use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use hark_tests::support::{Kafka, machine};

use self::{case::Case, run::Bench};

fn main() -> ExitCode {
    // As `Agent::start` calls it, and as the agent then calls itself.
    if std::env::args_os().nth(1).is_some_and(|argument| argument == "run" || hark::is_part(&argument)) {
        return hark::main();
    }
    match measure() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            println!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the cases that are asked for. False if a reading was lost.
fn measure() -> Result<bool> {
    let (mut json, mut quick, mut wanted) = (false, false, Vec::new());
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            "--json" => json = true,
            "--quick" => quick = true,
            name => wanted.push(name.to_owned()),
        }
    }
    let cases: Vec<Case> = Case::all(quick).into_iter().filter(|case| wanted.is_empty() || wanted.iter().any(|name| name == case.name)).collect();
    ensure!(!cases.is_empty(), "no such case; there are: {}", Case::all(quick).iter().map(|case| case.name).collect::<Vec<_>>().join(", "));

    let dir = tempfile::tempdir().context("failed to make a directory")?;
    let before = machine::load_average()?;
    if !json {
        println!("{}\nload average before: {before}\n", machine::describe()?);
    }
    let kafka = Kafka::start(&dir.path().join("kafka"))?;
    let bench = Bench { dir: dir.path().to_owned(), kafka };
    let mut rows = Vec::new();
    for case in &cases {
        let row = bench.run(case).with_context(|| format!("case {} failed", case.name))?;
        println!("{}", if json { row.json() } else { row.text() });
        rows.push(row);
    }
    if !json {
        println!("\n{}\nload average after: {}", report::table(&rows), machine::load_average()?);
    }
    Ok(rows.iter().all(|row| row.lost == 0))
}
