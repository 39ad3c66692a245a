//! Promise 3: the link may be away for days. Memory stays flat, nothing is lost; and where the quota does not suffice, what is lost has a name.
//!
//! The long forms are ignored by default: `cargo test --release --workspace --features hark-tests/real-brokers --test outage -- --ignored --nocapture`.
#![expect(clippy::print_stdout, reason = "rates and memory, for --nocapture")]
#![expect(clippy::disallowed_methods, reason = "a measurement reads the clock")]
use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use hark_tests::plant::Plant;

const PROGRAM: &str = env!("CARGO_BIN_EXE_hark-under-test");
const MIB: f64 = (1 << 20) as f64;
/// Between two looks at memory and disk.
const BATCH: u64 = 50_000;
const PATIENCE: Duration = Duration::from_secs(300);
/// What the agent may take more at the end of an outage than after its first batch.
const FLAT_MIB: f64 = 24.0;

/// Resident memory of the agent, MiB.
fn resident(plant: &Plant) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{}/status", plant.agent.process()?.pid()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? / 1024.0)
}

/// Sends while Kafka is away until the buffer has taken this much of the disk in all, what it gave up included; then brings Kafka back.
/// Gives the records that gaps name.
fn away(plant: &mut Plant, total_mib: f64, drained_within: Duration) -> Result<u64> {
    plant.lose_kafka();
    let (began, mut first, mut most, mut taken_mib) = (Instant::now(), None, 0.0_f64, 0.0);
    while taken_mib < total_mib {
        plant.send(BATCH)?;
        plant.wait_accepted(plant.count(), PATIENCE)?;
        let metrics = plant.agent.metrics()?;
        let bytes = |name| metrics.sum(name).unwrap_or(0.0);
        taken_mib = (bytes("hark_buffer_bytes") + bytes("hark_buffer_evicted_bytes_total")) / MIB;
        let now = resident(plant)?;
        // The first batch fills caches; what counts is whether more data take more memory.
        first.get_or_insert(now);
        most = most.max(now);
    }
    let (count, took) = (plant.count(), began.elapsed().as_secs_f64());
    let first = first.unwrap_or(most);
    println!(
        "in: {count} readings, {taken_mib:.0} MiB of disk in {took:.0} s = {:.0}/s; resident {first:.0} MiB, at most {most:.0} MiB",
        count as f64 / took
    );
    ensure!(most < first + FLAT_MIB, "memory grew from {first:.0} to {most:.0} MiB");
    let back = Instant::now();
    let named = plant.check(drained_within)?;
    let (out, took) = (count - named.min(count), back.elapsed().as_secs_f64());
    println!("out: {out} in {took:.0} s = {:.0}/s; {named} records named in gaps; resident {:.0} MiB", out as f64 / took, resident(plant)?);
    Ok(named)
}

#[test]
fn nothing_is_lost_while_kafka_is_away() -> Result<()> {
    let mut plant = Plant::start(PROGRAM, "quota = \"1 GiB\"")?;
    ensure!(away(&mut plant, 64.0, PATIENCE)? == 0, "there was room for all");
    plant.agent.stop().map(drop)
}

#[test]
#[ignore = "the long form: minutes and some GiB"]
fn nothing_is_lost_while_kafka_is_away_and_2_gib_come_in() -> Result<()> {
    let mut plant = Plant::start(PROGRAM, "quota = \"4 GiB\"")?;
    ensure!(away(&mut plant, 2048.0, 12 * PATIENCE)? == 0, "there was room for all");
    plant.agent.stop().map(drop)
}

/// One and a half times what the smallest quota takes.
#[test]
fn what_is_evicted_has_a_name() -> Result<()> {
    let mut plant = Plant::start(PROGRAM, "quota = \"64 MiB\"")?;
    ensure!(away(&mut plant, 96.0, PATIENCE)? > 0, "nothing was evicted, so nothing was shown");
    plant.agent.stop().map(drop)
}

#[test]
#[ignore = "the long form: minutes"]
fn what_is_evicted_of_ten_times_the_quota_has_a_name() -> Result<()> {
    let mut plant = Plant::start(PROGRAM, "quota = \"64 MiB\"")?;
    ensure!(away(&mut plant, 640.0, PATIENCE)? > 0, "nothing was evicted, so nothing was shown");
    plant.agent.stop().map(drop)
}
