//! Promise 1: nothing is lost silently. A partition that is damaged while the agent is stopped costs its own records at most, and a gap names them.
//! Files that the disk does not give, put there by `strace`, cost nothing as long as the records can be read.
use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use hark_tests::{
    plant::{Plant, READINGS_PER_NUMBER},
    support::{start_ready, wait_ready},
};
use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_hark-under-test");
const DELIVERED_WITHIN: Duration = Duration::from_secs(120);
/// Some six partitions of 1.4 MiB.
const NUMBERS: u64 = 400_000;

/// The `db` files of the inputs lane, oldest first.
fn partitions(plant: &Plant) -> Result<Vec<PathBuf>> {
    let lane = plant.data().join("inputs");
    let mut found: Vec<PathBuf> = fs::read_dir(&lane)?.map(|entry| Ok(entry?.path().join("db"))).collect::<Result<_>>()?;
    found.retain(|file| file.exists());
    found.sort();
    Ok(found)
}

/// Flips a byte of a file in the part of it that is used, at these shares of it.
fn flip(db: &Path, shares: impl IntoIterator<Item = f64>) -> Result<()> {
    let mut bytes = fs::read(db)?;
    let used = bytes.iter().rposition(|byte| *byte != 0).context("an empty partition")?;
    shares.into_iter().for_each(|share| bytes[(used as f64 * share) as usize] ^= 0x10);
    Ok(fs::write(db, bytes)?)
}

/// Fills the buffer while Kafka is away, stops the agent, lets `damage` at a partition in the middle, and starts again.
/// Gives how many records gaps name, and how many a partition holds; everything else is in Kafka.
fn after(damage: impl FnOnce(&Path) -> Result<()>) -> Result<(u64, u64)> {
    let mut plant = Plant::start(PROGRAM, "quota = \"64 MiB\"")?;
    plant.lose_kafka();
    plant.send(NUMBERS)?;
    plant.wait_accepted(plant.count(), DELIVERED_WITHIN)?;
    plant.agent.stop()?;
    let partitions = partitions(&plant)?;
    ensure!(partitions.len() >= 3, "only {} partitions to choose from", partitions.len());
    damage(&partitions[partitions.len() / 2])?;
    start_ready(&mut plant.agent)?;
    let named = plant.check(DELIVERED_WITHIN)?;
    plant.agent.stop()?;
    Ok((named, plant.count() * READINGS_PER_NUMBER / partitions.len() as u64))
}

/// Each costs what stands around it: a frame, of some 200 readings.
#[test]
fn flipped_bytes_cost_a_few_frames() -> Result<()> {
    let (named, in_one) = after(|db| flip(db, (1..16).map(|part| f64::from(part) / 16.0)))?;
    // A store has most frames twice, so a byte need not cost anything.
    ensure!(named <= in_one / 8, "{named} records are named, a partition holds some {in_one}");
    Ok(())
}

/// How many readings an export of the stopped agent has, and how many records it names as missing.
fn exported(plant: &Plant) -> Result<(u64, u64)> {
    let (mut readings, mut missing) = (0, 0);
    for line in plant.agent.command(&["buffer", "export", "--lane", "inputs"])?.lines() {
        let line: Value = serde_json::from_str(line)?;
        match (line["gap_from_seq"].as_u64(), line["gap_to_seq"].as_u64()) {
            (Some(from), Some(to)) => missing += to + 1 - from,
            _ => readings += u64::from(line.get("point").is_some()),
        }
    }
    Ok((readings, missing))
}

/// A byte in what was written last before a kill: what lies behind it was acknowledged, and is neither lost nor taken for a torn tail.
#[test]
fn a_flipped_byte_in_the_newest_partition_of_a_killed_agent_is_no_torn_tail() -> Result<()> {
    for share in [0.3, 0.45, 0.6, 0.9] {
        let mut plant = Plant::start(PROGRAM, "quota = \"64 MiB\"")?;
        plant.lose_kafka();
        plant.send(40_000)?;
        plant.wait_accepted(plant.count(), DELIVERED_WITHIN)?;
        // The byte may hit what the last commit remembers of messages: those not yet acknowledged would come again and be stored again.
        let messages = plant.messages() as f64;
        plant.wait_metrics("all messages to be acknowledged", DELIVERED_WITHIN, |metrics| {
            metrics.sum("hark_source_acknowledged_total") >= Some(messages)
        })?;
        plant.agent.kill()?;
        flip(partitions(&plant)?.last().context("no partition")?, [share])?;
        let (readings, missing) = exported(&plant)?;
        start_ready(&mut plant.agent)?;
        let named = plant.check(DELIVERED_WITHIN)?;
        ensure!(named < 2_500, "{named} records are named after a byte at {share}");
        let sent = plant.count() * READINGS_PER_NUMBER;
        ensure!(missing == named && readings + missing >= sent, "{readings} of {sent} exported, {missing} named in it, {named} by the agent");
        plant.agent.stop()?;
    }
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

/// Launches the agent on a disk that answers reads of these files with EIO: those that `when` counts, of all of them together.
fn launch_without(plant: &mut Plant, files: &[PathBuf], when: &str) -> Result<PathBuf> {
    let trace = tempfile::NamedTempFile::new_in(plant.path())?.into_temp_path().keep()?;
    let (log, fault) = (trace.display().to_string(), format!("inject=read,pread64:error=EIO:when={when}"));
    // With -D the agent itself is the child, which a kill then meets.
    let mut strace = vec!["strace", "-D", "-f", "-q", "-o", &log, "-e", "trace=read,pread64", "-e", &fault];
    let names: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
    names.iter().for_each(|name| strace.extend(["-P", name]));
    plant.agent.launch_under(&strace)?;
    Ok(trace)
}

fn faults(trace: &Path) -> usize {
    fs::read_to_string(trace).unwrap_or_default().matches("EIO (Input/output error) (INJECTED)").count()
}

/// One life of the agent without these files, in which it takes readings as in any other; then it is killed.
fn live_without(plant: &mut Plant, files: &[PathBuf], when: &str) -> Result<()> {
    let what = format!("{files:?} unreadable, {when}");
    let trace = launch_without(plant, files, when).context(what.clone())?;
    wait_ready(&plant.agent).with_context(|| what.clone())?;
    let before = plant.count();
    plant.send(2_000)?;
    plant.wait_accepted(plant.count() - before, DELIVERED_WITHIN).with_context(|| what.clone())?;
    ensure!(faults(&trace) > 0, "{what}: no read met the fault");
    plant.agent.kill()
}

/// Of each small file of the data directory that has two generations the one that was written last.
fn small_files(plant: &Plant) -> Result<Vec<PathBuf>> {
    let mut newest: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(plant.data())? {
        let file = entry?.path();
        let other = file.with_extension("1");
        if file.extension().is_some_and(|extension| extension == "0") && other.exists() {
            let written = |file: &Path| fs::metadata(file).and_then(|meta| meta.modified()).ok();
            newest.push(if written(&other) > written(&file) { other } else { file });
        }
    }
    newest.sort();
    Ok(newest)
}

/// A bad sector outside the records, and a disk that answers only when asked again.
#[test]
fn what_cannot_be_read_beside_the_records_costs_nothing() -> Result<()> {
    let mut plant = Plant::start(PROGRAM, "quota = \"64 MiB\"")?;
    plant.lose_kafka();
    plant.send(NUMBERS / 2)?;
    plant.wait_accepted(plant.count(), DELIVERED_WITHIN)?;
    plant.agent.stop()?;
    // Files that a life writes once have their second generation.
    start_ready(&mut plant.agent)?;
    plant.agent.stop()?;
    let small = small_files(&plant)?;
    ensure!(small.len() >= 2, "only {small:?}");
    for file in &small {
        live_without(&mut plant, std::slice::from_ref(file), "1+")?;
    }
    // What is only a hint, or was written once, with all that there is of it.
    let data = plant.data();
    let both = |name: &str| [0, 1].map(|slot| data.join(format!("{name}.{slot}")));
    for hint in [both("configured"), both("feedback")] {
        if hint.iter().any(|file| file.exists()) {
            live_without(&mut plant, &hint, "1+")?;
        }
    }
    for (name, when) in [("header", "1+"), ("conf", "1+"), ("db", "1..40")] {
        let newest = partitions(&plant)?.pop().context("no partition")?;
        live_without(&mut plant, &[newest.with_file_name(name)], when)?;
    }
    // The others are read when Kafka is back.
    let others = partitions(&plant)?;
    let beside: Vec<PathBuf> = others[..others.len() - 1].iter().flat_map(|db| [db.with_file_name("header"), db.with_file_name("conf")]).collect();
    launch_without(&mut plant, &beside, "1+")?;
    let named = plant.check(DELIVERED_WITHIN)?;
    ensure!(named == 0, "{named} records are named, all of which could be read");
    plant.agent.stop().map(drop)
}
