//! Promise 1 through a power cut: whatever the log has called durable is there when the power comes back, in order and byte for byte.
//!
//! A child process, which is this test started again under `strace`, runs the log as the agent does: the commit loop, all lanes, several incarnations,
//! reclaim. It says what is durable as soon as it is told. From its writes and syncs disks are built as a power cut may leave them at any moment (see
//! `hark_tests::power`), and the log is opened on each.
#![expect(clippy::print_stdout, reason = "the child speaks through its output; the parent says what it saw, for --nocapture")]
use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use hark::{
    buffer::{
        Log, LogSettings, Position,
        commit::{self, Append, CommitPolicy, Done},
        marks::{NodeMark, SourceMark},
    },
    hold::Hold,
    record::{Body, Entry, Stamp},
};
use hark_protocol::node::Kind;
use hark_protocol::topics::{Clock as ClockState, Event, EventKind, LaneName, Origin, Quality, Reading, Timestamp, TsSource};
use hark_tests::{
    power::{Disk, Luck, Step, contents, record},
    support::Random,
};

const CHILD_DIR: &str = "HARK_POWER_CUT_DIR";
/// Incarnations of the child, and appends in each.
const LIVES: u32 = 3;
const APPENDS: u64 = 260;

fn settings() -> LogSettings {
    LogSettings { partition_min_bytes: 40_000, partition_max_bytes: 40_000, ..LogSettings::new(1 << 30) }
}

/// What stands at a position: it follows from the position, so that whoever reads it knows what to expect.
fn entry(lane: LaneName, at: Position) -> Entry {
    let mut random = Random::new((u64::from(at.ordinal) << 40) + ((lane as u64) << 32) + at.seq);
    let stamp = Stamp {
        asset: Some("pump-17".into()),
        ts: Timestamp(1_760_000_000_000_000 + at.seq as i64 * 1_000),
        ts_source: TsSource::Gateway,
        clock: ClockState::Synced,
        origin: Origin::Simulated,
    };
    // Every seventh does not fit a frame of the store and travels in parts.
    let letters = if at.seq.is_multiple_of(7) { random.below(20_000) } else { random.below(60) };
    let text: String = (0..letters).map(|_| char::from(b'0' + random.below(64) as u8)).collect();
    let body = if lane == LaneName::Inputs && letters < 60 {
        Body::Reading(Reading {
            point: "de-h.v_rms".into(),
            value: Some(random.unit()),
            unit: "mm/s".into(),
            quality: Quality::Good,
            reason: None,
            source_seq: Some(at.seq),
            boot: "5f0c1a52-90a1-4a8b-a2a5-0c5a2f9f7a11".into(),
            log_ms: at.seq,
        })
    } else {
        Body::Event(Box::new(Event { detail_json: Some(text.into()), ..Event::new(EventKind::Audit) }))
    };
    Entry { stamp, cause: None, body }
}

/// What a source remembers of the inputs up to a position.
fn mark(at: Position) -> SourceMark {
    let mut last_seq = [0; Kind::COUNT];
    last_seq[Kind::Features.index()] = at.seq as u32;
    SourceMark::Node { source: "line".into(), node: 7, mark: NodeMark { boot: at.ordinal, last_seq, ..NodeMark::default() } }
}

/// Says a line in one piece, so that it is one call in the trace.
fn say(line: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(format!("\n{line}\n").as_bytes()).and_then(|()| out.flush());
}

#[test]
#[ignore = "the child of the tests below"]
fn child() {
    let Some(dir) = std::env::var_os(CHILD_DIR) else { return };
    (1..=LIVES).for_each(|life| live(dir.as_ref(), life));
}

/// One incarnation: appends to all lanes, gives back what is old.
fn live(dir: &Path, life: u32) {
    let (log, writer) = Log::open(dir, settings()).expect("the log opens");
    let ordinal = log.incarnation().ordinal;
    let (appender, requests) = commit::channel(64);
    let hold = Arc::new(Hold::new());
    let policy = CommitPolicy {
        max_delay: Duration::from_millis(2),
        max_bytes: 8_000,
        housekeeping_every: Duration::from_millis(5),
        ..CommitPolicy::default()
    };
    let settings = commit::Settings { hold: hold.clone(), ..commit::Settings::unbounded(policy) };
    #[expect(clippy::disallowed_methods, reason = "joined below")]
    let commits = thread::spawn({
        let log = log.clone();
        move || commit::run(writer, log, requests, settings)
    });
    let mut cursor = log.cursor("forward").expect("the cursor opens");
    let (mut random, mut next) = (Random::new(u64::from(life)), [1_u64; LaneName::ALL.len()]);
    for step in 0..APPENDS {
        let lane = LaneName::ALL[[0, 0, 0, 0, 1, 2, 3][random.below(7)]];
        let count = 1 + random.below(4) as u64;
        let first = next[lane as usize];
        next[lane as usize] += count;
        let entries = (first..first + count).map(|seq| entry(lane, Position { ordinal, seq })).collect();
        let done: Done = Box::new(move |outcome| {
            let committed = outcome.expect("the append is taken");
            say(&format!("durable {lane} {} {}", committed.last.ordinal, committed.last.seq));
        });
        let marks = if lane == LaneName::Inputs { vec![mark(Position { ordinal, seq: first + count - 1 })] } else { Vec::new() };
        let append = Append { lane, entries, marks, urgent: random.chance(0.3), done: Some(done) };
        appender.blocking_append(append).expect("the commit loop runs");
        if step % 60 == 59 {
            // What an earlier incarnation left, or half of this one, is needed by nobody any more.
            let behind = Position { ordinal, seq: log.committed(LaneName::Inputs).seq / 2 };
            cursor.store(behind).expect("the cursor is stored");
            say(&format!("cursor inputs {ordinal} {}", behind.seq));
            say(&format!("given back inputs {ordinal} {}", behind.seq));
            hold.forward_stored(LaneName::Inputs, behind);
            hold.checkpoint_stored(behind);
        }
    }
    drop(appender);
    commits.join().expect("the commit loop does not panic").expect("the disk obeys");
}

/// What the child had said when the power failed.
#[derive(Clone, Debug, Default)]
struct Promised {
    /// By lane and incarnation: the last durable seq.
    durable: BTreeMap<(String, u32), u64>,
    /// Up to here the inputs lane may be gone.
    given_back: Position,
    cursor: Position,
}

impl Promised {
    fn hear(&mut self, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        let position = |ordinal: &str, seq: &str| Some(Position { ordinal: ordinal.parse().ok()?, seq: seq.parse().ok()? });
        match words[..] {
            ["durable", lane, ordinal, seq] => {
                let Some(at) = position(ordinal, seq) else { return };
                self.durable.insert((lane.to_owned(), at.ordinal), at.seq);
            }
            ["given", "back", "inputs", ordinal, seq] => self.given_back = position(ordinal, seq).unwrap_or(self.given_back),
            ["cursor", "inputs", ordinal, seq] => self.cursor = position(ordinal, seq).unwrap_or(self.cursor),
            _ => {}
        }
    }

    /// Opens the log in `dir` and compares.
    fn check(&self, dir: &Path) -> Result<()> {
        for (path, bytes) in contents(dir)? {
            ensure!(bytes.is_none() || !path.iter().any(|part| part == "blobs"), "{} is a file that the store never syncs", path.display());
        }
        let (log, _writer) = Log::open(dir, settings()).context("the log does not open")?;
        for lane in LaneName::ALL {
            let start = log.start(lane);
            let may_start_at = if lane == LaneName::Inputs { self.given_back } else { Position::default() };
            let kept_from_the_first =
                start.seq == 0 && self.durable.keys().filter(|(name, _)| name == lane.as_str()).all(|(_, ordinal)| *ordinal >= start.ordinal);
            ensure!(start <= may_start_at || kept_from_the_first, "lane {lane} begins after {start}, given back was {may_start_at}");
            let found = read(&log, lane, start)?;
            for ((name, ordinal), seq) in self.durable.iter().filter(|((name, _), _)| name == lane.as_str()) {
                let needed = Position { ordinal: *ordinal, seq: *seq };
                let last = found.get(ordinal).copied().unwrap_or(0);
                ensure!(last >= *seq || needed <= may_start_at, "lane {name}: {needed} was called durable and the last on disk is {ordinal}/{last}");
            }
            // A mark behind its records would let a source store them twice; one before them would lose them.
            if let (LaneName::Inputs, Some((ordinal, seq))) = (lane, found.last_key_value()) {
                let mark = log.source_marks().node("line", 7).map(|mark| (mark.boot, u64::from(mark.last_seq[Kind::Features.index()])));
                ensure!(mark == Some((*ordinal, *seq)), "the mark says {mark:?}, the last record is {ordinal}/{seq}");
            }
        }
        let cursor = log.cursor("forward").context("the cursor does not open")?.position().unwrap_or_default();
        ensure!(cursor >= self.cursor, "the cursor stands at {cursor}, stored was {}", self.cursor);
        Ok(())
    }
}

/// Reads a lane to its end, each record being the one that belongs there, without holes. Gives the last seq by incarnation.
fn read(log: &Log, lane: LaneName, start: Position) -> Result<BTreeMap<u32, u64>> {
    let (mut reader, mut after, mut last) = (log.reader(lane)?, start, BTreeMap::new());
    loop {
        let records = reader.read(after, 500, usize::MAX).with_context(|| format!("lane {lane} cannot be read after {after}"))?;
        if records.is_empty() {
            return Ok(last);
        }
        for (position, found) in records {
            let expected = if position.ordinal == after.ordinal { after.seq + 1 } else { 1 };
            ensure!(position.seq == expected, "lane {lane}: {position} follows {after}");
            ensure!(found == entry(lane, position), "lane {lane}: {position} holds what nobody wrote there");
            after = position;
            last.insert(position.ordinal, position.seq);
        }
    }
}

/// A recorded run of the child.
struct Run {
    bench: tempfile::TempDir,
    steps: Vec<Step>,
}

impl Run {
    fn record() -> Result<Self> {
        let bench = tempfile::TempDir::with_prefix("hark-power-")?;
        let (dir, trace) = (bench.path().join("data"), bench.path().join("trace"));
        fs::create_dir(&dir)?;
        let (program, place) = (std::env::current_exe()?, dir.display().to_string());
        let steps = record(&dir, &trace, &program, &["child", "--exact", "--ignored", "--nocapture", "--test-threads=1"], &[(CHILD_DIR, &place)])?;
        println!("{} steps, trace of {} MB", steps.len(), fs::metadata(&trace)?.len() >> 20);
        Ok(Self { bench, steps })
    }

    fn dir(&self) -> PathBuf {
        self.bench.path().join("data")
    }

    /// Cuts the power `cuts` times and looks each time.
    fn cut_the_power(&self, cuts: usize, seed: u64) -> Result<()> {
        let state = self.bench.path().join("state");
        let mut random = Random::new(seed);
        let mut at: Vec<usize> = (0..cuts).map(|_| random.below(self.steps.len())).collect();
        at.sort_unstable();
        let (mut disk, mut promised, mut taken) = (Disk::new(&self.dir()), Promised::default(), 0);
        for (number, cut) in at.into_iter().chain([self.steps.len()]).enumerate() {
            for step in &self.steps[taken..cut] {
                disk.take(step)?;
                if let Step::Said(line) = step {
                    promised.hear(line);
                }
            }
            taken = cut;
            let luck = [Luck::Nothing, Luck::Some(0.1), Luck::Some(0.5), Luck::Some(0.9), Luck::Everything][random.below(5)];
            if state.exists() {
                fs::remove_dir_all(&state)?;
            }
            disk.cut(&state, luck, &mut random)?;
            promised.check(&state).with_context(|| format!("cut {number} of {cuts} at step {cut} of {taken}, {luck:?}, seed {seed}"))?;
        }
        let said = promised.durable.values().sum::<u64>();
        ensure!(said > 1_000 && promised.given_back.ordinal == LIVES, "the child did too little: {promised:?}");
        // If strace had missed a way of writing, the states would have been wrong: with everything kept they are what the child left.
        fs::remove_dir_all(&state)?;
        disk.cut(&state, Luck::Everything, &mut random)?;
        ensure!(contents(&state)? == contents(&self.dir())?, "the replayed writes are not those of the child");
        println!("{cuts} power cuts of a run of {said} records: nothing lost");
        Ok(())
    }
}

/// The second half shows that this can fail: with the syncs of the stores taken out of the recording, as if the log did not call them, it does.
#[test]
fn what_was_called_durable_survives_a_power_cut() -> Result<()> {
    let mut run = Run::record()?;
    run.cut_the_power(30, 1)?;
    let barriers = |step: &Step| matches!(step, Step::SyncBegan { data_only: true, .. });
    ensure!(run.steps.iter().any(barriers), "there is no barrier to take out");
    run.steps.retain(|step| !barriers(step));
    let failure = run.cut_the_power(30, 1).err().context("without the barrier nothing was lost, so nothing was shown")?;
    let failure = format!("{failure:#}");
    println!("without the barrier: {failure}");
    ensure!(failure.contains("called durable") || failure.contains("does not open") || failure.contains("cannot be read"), "{failure}");
    Ok(())
}

/// The long form.
#[test]
#[ignore = "takes minutes: cargo test --workspace --features hark-tests/real-brokers --test power_cut -- --ignored"]
fn what_was_called_durable_survives_many_power_cuts() -> Result<()> {
    (1..=4).try_for_each(|seed| Run::record()?.cut_the_power(100, seed))
}
