//! Promise 1: nothing is lost silently. A partition that is damaged while the agent is stopped costs its own records at most, and a gap names them.
use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use hark_tests::{plant::Plant, support::start_ready};

const PROGRAM: &str = env!("CARGO_BIN_EXE_hark-under-test");
const DELIVERED_WITHIN: Duration = Duration::from_secs(120);
/// Some ten partitions of 1 MiB.
const READINGS: u64 = 250_000;

/// The `db` files of the inputs lane, oldest first.
fn partitions(plant: &Plant) -> Result<Vec<PathBuf>> {
    let lane = plant.data().join("inputs");
    let mut found: Vec<PathBuf> = fs::read_dir(&lane)?.map(|entry| Ok(entry?.path().join("db"))).collect::<Result<_>>()?;
    found.retain(|file| file.exists());
    found.sort();
    Ok(found)
}

/// Fills the buffer while Kafka is away, stops the agent, lets `damage` at a partition in the middle, and starts again.
/// Gives how many records gaps name; everything else is in Kafka.
fn after(damage: impl FnOnce(&Path) -> Result<()>) -> Result<(u64, u64)> {
    let mut plant = Plant::start(PROGRAM, "quota = \"1 GiB\"")?;
    plant.lose_kafka();
    plant.send(READINGS)?;
    plant.wait_accepted(READINGS, DELIVERED_WITHIN)?;
    plant.agent.stop()?;
    let partitions = partitions(&plant)?;
    ensure!(partitions.len() >= 4, "only {} partitions to choose from", partitions.len());
    damage(&partitions[partitions.len() / 2])?;
    start_ready(&mut plant.agent)?;
    let named = plant.check(DELIVERED_WITHIN)?;
    plant.agent.stop()?;
    Ok((named, plant.count() / partitions.len() as u64))
}

#[test]
fn a_flipped_byte_costs_one_partition_at_most() -> Result<()> {
    let (named, in_one) = after(|db| {
        let mut bytes = fs::read(db)?;
        let end = bytes.iter().rposition(|byte| *byte != 0).context("an empty partition")?;
        bytes[end / 2] ^= 0x10;
        Ok(fs::write(db, bytes)?)
    })?;
    ensure!(named > 0, "the damage was not noticed");
    ensure!(named < 3 * in_one, "{named} records are named, a partition holds some {in_one}");
    Ok(())
}

#[test]
fn a_cut_tail_costs_one_partition_at_most() -> Result<()> {
    let (named, in_one) = after(|db| {
        let bytes = fs::read(db)?;
        let end = bytes.iter().rposition(|byte| *byte != 0).context("an empty partition")?;
        Ok(fs::write(db, &bytes[..end / 2])?)
    })?;
    ensure!(named > 0, "the damage was not noticed");
    ensure!(named < 3 * in_one, "{named} records are named, a partition holds some {in_one}");
    Ok(())
}
