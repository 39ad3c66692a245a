//! Promise 1 on a disk that refuses: while it is full, broken, read-only or silent, senders are held back; nothing that was acknowledged is lost, and
//! the agent goes on by itself when the disk does. Never a person, never a stop.
//!
//! The faults are put into the running program from outside, by `strace`: production code knows nothing of them.
#![expect(clippy::print_stdout, reason = "why a test was left out, for --nocapture")]
use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use hark_tests::{
    plant::{Plant, READINGS_PER_NUMBER},
    support::{Metrics, Process, start_ready, wait_ready, wait_until},
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_hark-under-test");
const SOON: Duration = Duration::from_secs(60);
const DELIVERED_WITHIN: Duration = Duration::from_secs(180);
/// Numbers sent before, during and after a fault.
const READINGS: u64 = 20_000;
/// What a disk has left before it is filled.
const LEFT_BYTES: u64 = 24 << 20;
/// The agent's exit code when a store call hangs.
const STORE_HUNG: i32 = 3;

/// Lets these calls of the agent fail or hang in this way until it is stopped.
fn inject(plant: &Plant, calls: &str, how: &str) -> Result<Process> {
    let (pid, log) = (plant.agent.process()?.pid().to_string(), plant.path().join("strace.log"));
    let (trace, fault, output) = (format!("trace={calls}"), format!("inject={calls}:{how}"), log.display().to_string());
    let mut strace = Process::start(
        "strace",
        Path::new("strace"),
        &["-f", "-q", "-p", &pid, "-e", &trace, "-e", &fault, "-o", &output],
        &[],
        &plant.path().join("strace.err"),
    )?;
    wait_until("strace to attach to all threads", SOON, || {
        strace.check_running().is_ok() && fs::read_to_string(format!("/proc/{pid}/status")).is_ok_and(|status| !status.contains("TracerPid:\t0"))
    })?;
    Ok(strace)
}

/// The disk refuses these calls with `error` for a while, in the middle of sending.
fn refuse_for_a_while(calls: &str, error: &str) -> Result<()> {
    let mut plant = Plant::start(PROGRAM, "quota = \"256 MiB\"")?;
    plant.send(READINGS)?;
    plant.wait_accepted(plant.count(), SOON)?;
    let strace = inject(&plant, calls, &format!("error={error}"))?;
    let durable = plant.count();
    plant.send(READINGS)?;
    plant.wait_metrics("the log to meet the fault", SOON, |metrics| metrics.sum("hark_buffer_errors_total") > Some(0.0))?;
    let accepted = plant.agent.metrics()?.sum("hark_source_readings_accepted_total").unwrap_or(0.0);
    let all = (durable + READINGS) * READINGS_PER_NUMBER;
    ensure!(accepted < all as f64, "readings were called durable that no sync has seen: {accepted} of {all}");
    strace.stop(SOON)?;
    plant.send(READINGS)?;
    plant.wait_accepted(plant.count(), DELIVERED_WITHIN)?;
    let named = plant.check(DELIVERED_WITHIN)?;
    ensure!(named == 0, "{named} records were given up though there was room");
    plant.agent.stop().map(drop)
}

#[test]
fn a_disk_whose_syncs_fail_loses_nothing() -> Result<()> {
    refuse_for_a_while("fdatasync,fsync", "EIO")
}

#[test]
fn a_disk_that_takes_no_bytes_loses_nothing() -> Result<()> {
    refuse_for_a_while("pwrite64", "ENOSPC")
}

#[test]
fn a_disk_that_turns_read_only_loses_nothing() -> Result<()> {
    refuse_for_a_while("pwrite64,mkdir,rename,unlink,fdatasync,fsync", "EROFS")
}

/// A call that never returns: the watchdog ends the process with a code of its own, and the next start has everything.
#[test]
fn a_hung_store_call_ends_the_process_and_loses_nothing() -> Result<()> {
    let mut plant = Plant::start(PROGRAM, "quota = \"256 MiB\"\nstore_timeout = \"3s\"")?;
    plant.send(READINGS)?;
    plant.wait_accepted(plant.count(), SOON)?;
    let strace = inject(&plant, "fdatasync", "delay_enter=20s")?;
    plant.send(READINGS)?;
    let ended = plant.agent.wait_for_end(SOON)?;
    ensure!(ended.code() == Some(STORE_HUNG), "it ended with {ended}");
    // It ends with what it traced.
    let _ = strace.stop(SOON);
    start_ready(&mut plant.agent)?;
    ensure!(plant.check(DELIVERED_WITHIN)? == 0, "records were given up though there was room");
    plant.agent.stop().map(drop)
}

/// A file system in memory, unmounted when dropped.
struct Mount(PathBuf);

impl Mount {
    /// `None` where mounting is not allowed.
    fn tmpfs(at: PathBuf, size: &str) -> Result<Option<Self>> {
        fs::create_dir_all(&at)?;
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "hark-test"])
            .arg(&at)
            .output()
            .context("failed to run mount")?;
        if !mounted.status.success() {
            println!("left out: mounting is not allowed here ({})", String::from_utf8_lossy(&mounted.stderr).trim());
            return Ok(None);
        }
        Ok(Some(Self(at)))
    }

    fn remount(&self, how: &str) -> Result<()> {
        let done = Command::new("mount").args(["-o", &format!("remount,{how}")]).arg(&self.0).status().context("failed to run mount")?;
        ensure!(done.success(), "remounting ended with {done}");
        Ok(())
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazily: the agent may still have files open in it.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Takes all space that is left.
fn fill(filler: &Path) -> Result<()> {
    let mut file = fs::File::create(filler)?;
    for block in [1 << 20, 4 << 10] {
        while file.write_all(&vec![1; block]).is_ok() {}
    }
    Ok(())
}

/// How often the agent said that it waits for the disk; its log goes on over its starts.
fn waits(plant: &Plant) -> usize {
    fs::read_to_string(plant.agent.log()).unwrap_or_default().matches("the buffer cannot be opened").count()
}

/// Starts the agent, which must wait for the disk, and lets `mend` at that. Nothing may be lost by it.
fn start_waits(plant: &mut Plant, mend: impl FnOnce() -> Result<()>) -> Result<()> {
    let before = waits(plant);
    plant.agent.launch()?;
    wait_until("the agent to say that it waits for the disk", SOON, || waits(plant) > before)?;
    plant.agent.check_running()?;
    mend()?;
    wait_ready(&plant.agent)
}

/// No room for anything, on a fresh directory and on one that is in use; then a disk that is read-only.
#[test]
fn a_start_waits_for_a_disk_that_refuses() -> Result<()> {
    let place = tempfile::TempDir::with_prefix("hark-full-")?;
    let Some(mount) = Mount::tmpfs(place.path().join("small"), "96m")? else { return Ok(()) };
    let mut plant = Plant::lay_out(PROGRAM, &format!("dir = \"{}\"\nquota = \"1 GiB\"", mount.0.join("data").display()))?;
    let filler = mount.0.join("filler");
    let make_room = || Ok(fs::remove_file(&filler)?);
    fill(&filler)?;
    start_waits(&mut plant, make_room)?;
    plant.lose_kafka();
    plant.send(READINGS)?;
    plant.wait_accepted(plant.count(), SOON)?;
    plant.agent.kill()?;
    // What was kept in reserve is used up as well.
    let _ = fs::remove_file(mount.0.join("data/ballast"));
    fill(&filler)?;
    start_waits(&mut plant, make_room)?;
    plant.send(READINGS)?;
    let accepted = (READINGS * READINGS_PER_NUMBER) as f64;
    plant.wait_metrics("what this life was sent to be accepted", SOON, |metrics| {
        metrics.sum("hark_source_readings_accepted_total") >= Some(accepted)
    })?;
    plant.agent.kill()?;
    mount.remount("ro")?;
    start_waits(&mut plant, || mount.remount("rw"))?;
    let named = plant.check(DELIVERED_WITHIN)?;
    ensure!(named == 0, "{named} records were given up for a start");
    plant.agent.stop().map(drop)
}

/// A stop that is asked for meanwhile is no failure.
#[test]
fn a_start_that_waits_for_a_disk_can_be_stopped() -> Result<()> {
    let place = tempfile::TempDir::with_prefix("hark-full-")?;
    let Some(mount) = Mount::tmpfs(place.path().join("small"), "16m")? else { return Ok(()) };
    let mut plant = Plant::lay_out(PROGRAM, &format!("dir = \"{}\"\nquota = \"1 GiB\"", mount.0.join("data").display()))?;
    fill(&mount.0.join("filler"))?;
    plant.agent.launch()?;
    wait_until("the agent to say that it waits for the disk", SOON, || waits(&plant) > 0)?;
    let ended = plant.agent.stop()?;
    ensure!(ended.success(), "it ended with {ended}");
    Ok(())
}

/// The disk fills while Kafka is away and sources keep sending; then there is room again.
#[test]
fn a_full_disk_loses_nothing_without_a_name() -> Result<()> {
    let place = tempfile::TempDir::with_prefix("hark-full-")?;
    let Some(mount) = Mount::tmpfs(place.path().join("small"), "160m")? else { return Ok(()) };
    let mut plant = Plant::start(PROGRAM, &format!("dir = \"{}\"\nquota = \"1 GiB\"", mount.0.join("data").display()))?;
    let filler = mount.0.join("filler");
    // The agent has made its files; of the rest a little is left to it.
    let space = rustix::fs::statvfs(&mount.0).context("failed to ask for the space")?;
    let free = space.f_bavail * space.f_frsize;
    fs::write(&filler, vec![1; usize::try_from(free - LEFT_BYTES)?])?;
    plant.lose_kafka();
    let mut full = false;
    for _ in 0..60 {
        plant.send(READINGS)?;
        let messages = plant.messages() as f64;
        let is_full =
            |metrics: &Metrics| metrics.sum("hark_buffer_evicted_bytes_total") > Some(0.0) || metrics.sum("hark_buffer_stalled") > Some(0.0);
        // In a flood Mosquitto runs further ahead of the acknowledgements than the agent remembers.
        plant.wait_metrics("all to be acknowledged or the disk to be full", SOON, |metrics| {
            full = is_full(metrics);
            full || metrics.sum("hark_source_acknowledged_total") >= Some(messages)
        })?;
        if full {
            break;
        }
    }
    ensure!(full, "the disk did not fill: {:?}", plant.agent.metrics()?.sum("hark_buffer_bytes"));
    plant.send(READINGS)?;
    // A start must not need more room than there is.
    plant.agent.kill()?;
    plant.agent.start()?;
    fs::remove_file(&filler)?;
    let named = plant.check(DELIVERED_WITHIN)?;
    println!("{} readings, {named} records named in gaps", plant.count());
    // Fields and locals go in the order of their making, the latest first: the agent before the disk under it.
    plant.agent.stop().map(drop)
}
