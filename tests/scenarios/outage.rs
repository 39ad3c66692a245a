//! Promise 3: the link may be away for days. Memory stays flat, nothing is lost; and where the quota does not suffice, what is lost has a name.
//!
//! The long forms are ignored by default: `cargo test --release --workspace --features hark-tests/real-brokers --test outage -- --ignored --nocapture`.
#![expect(clippy::print_stdout, reason = "rates and memory, for --nocapture")]
#![expect(clippy::disallowed_methods, reason = "a measurement reads the clock")]
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use hark_protocol::topics::ALARMS;
use hark_tests::{
    plant::{Plant, READINGS_PER_NUMBER},
    support::{Metrics, PREFIX, machine::Usage},
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_hark-under-test");
const MIB: f64 = (1 << 20) as f64;
/// Between two looks at memory and disk.
const BATCH: u64 = 25_000;
const PATIENCE: Duration = Duration::from_secs(300);
/// What the agent may take more in the second half of an outage than in the first, which fills its caches.
const FLAT_MIB: f64 = 24.0;

/// Resident memory of the agent, MiB.
fn resident(plant: &Plant) -> Result<f64> {
    Ok(Usage::of(plant.agent.process()?.pid())?.rss_kib as f64 / 1024.0)
}

/// Sends while Kafka is away until `enough`, then brings Kafka back and waits until it has everything. Gives the records that gaps name.
fn away(plant: &mut Plant, enough: impl Fn(&Metrics) -> bool, drained_within: Duration) -> Result<u64> {
    plant.lose_kafka();
    let (began, mut resident_mib) = (Instant::now(), Vec::new());
    let metrics = loop {
        plant.send(BATCH)?;
        plant.wait_accepted(plant.count(), PATIENCE)?;
        resident_mib.push(resident(plant)?);
        let metrics = plant.agent.metrics()?;
        if enough(&metrics) {
            break metrics;
        }
    };
    let (readings, took) = ((plant.count() * READINGS_PER_NUMBER) as f64, began.elapsed().as_secs_f64());
    let most_of = |part: &[f64]| part.iter().copied().fold(0.0, f64::max);
    let (first, second) = resident_mib.split_at(resident_mib.len() / 2);
    let (first, second) = (most_of(first), most_of(second));
    let mib = |name| metrics.sum(name).unwrap_or(0.0) / MIB;
    println!(
        "in: {readings} readings, {:.0} MiB, {:.0} MiB on disk and {:.0} MiB given up, in {took:.0} s = {:.0}/s; resident at most \
         {first:.0} MiB in its first half, {second:.0} MiB in its second",
        mib("hark_buffer_committed_bytes_total"),
        mib("hark_buffer_bytes"),
        mib("hark_buffer_evicted_bytes_total"),
        readings / took
    );
    ensure!(second < first + FLAT_MIB, "memory grew: {resident_mib:.0?} MiB");
    let back = Instant::now();
    let named = plant.check(drained_within)?;
    let (out, took) = (readings - named as f64, back.elapsed().as_secs_f64());
    println!("out: {out} in {took:.0} s = {:.0}/s; {named} records named in gaps; resident {:.0} MiB", out / took, resident(plant)?);
    Ok(named)
}

/// So much was committed, before compression.
fn committed(mib: f64) -> impl Fn(&Metrics) -> bool {
    move |metrics| metrics.sum("hark_buffer_committed_bytes_total") >= Some(mib * MIB)
}

/// So much of the disk was given up although Kafka did not have it.
fn evicted(mib: f64) -> impl Fn(&Metrics) -> bool {
    move |metrics| metrics.sum("hark_buffer_evicted_bytes_total") >= Some(mib * MIB)
}

#[test]
fn nothing_is_lost_while_kafka_is_away() -> Result<()> {
    let mut plant = Plant::start(PROGRAM, "quota = \"1 GiB\"")?;
    ensure!(away(&mut plant, committed(64.0), PATIENCE)? == 0, "there was room for all");
    plant.agent.stop().map(drop)
}

#[test]
#[ignore = "the long form: minutes and some GiB"]
fn nothing_is_lost_while_kafka_is_away_and_2_gib_come_in() -> Result<()> {
    let mut plant = Plant::start(PROGRAM, "quota = \"8 GiB\"")?;
    ensure!(away(&mut plant, committed(2048.0), 12 * PATIENCE)? == 0, "there was room for all");
    plant.agent.stop().map(drop)
}

/// Sends until so many MiB were given up, behind an alarm: that and everything else that is not a reading or a score is in Kafka afterwards.
fn evict(mib: f64) -> Result<()> {
    let mut plant = Plant::start(PROGRAM, "quota = \"64 MiB\"")?;
    plant.lose_kafka();
    let changes = plant.raise_alarm()?;
    ensure!(away(&mut plant, evicted(mib), PATIENCE)? > 0, "nothing was evicted, so nothing was shown");
    let alarms = plant.kafka.read_committed(&ALARMS.full_name(PREFIX))?.len() as u64;
    ensure!(alarms == changes, "{alarms} changes of an alarm are in Kafka, {changes} were made");
    plant.agent.stop().map(drop)
}

/// A little more than the smallest quota takes.
#[test]
fn what_is_evicted_has_a_name() -> Result<()> {
    evict(8.0)
}

#[test]
#[ignore = "the long form: minutes"]
fn what_is_evicted_of_ten_times_the_quota_has_a_name() -> Result<()> {
    evict(576.0)
}
