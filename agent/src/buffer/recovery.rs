//! What the disk says at the start: how far each lane goes, which marks stand there, and what is lost.
use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use hark_protocol::topics::{GapReason, LaneName};
use serde::{Deserialize, Serialize};
use tracing::error;

use super::{
    BufferError, Position, SmallFile,
    frame::Decoder,
    header::Key,
    lane::{self, Lane},
    marks::LaneMarks,
    quarantine,
    rewrite::Found,
};
use crate::causes;

/// A loss that no event names yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Owed {
    pub(super) lane: LaneName,
    pub(super) from: Position,
    pub(super) to: Position,
    pub(super) reason: GapReason,
}

/// The highest seqs that were ever committed, beside the log: without them nobody would miss a tail that a failing disk lost.
///
/// A small file has them, durably, now and then; a note of every commit, which no sync follows, outlives a kill but perhaps not a power cut. Both may be
/// behind, never ahead.
#[derive(Debug)]
pub(super) struct HighWater {
    file: SmallFile,
    stored: Seqs,
    note_path: PathBuf,
    note: Option<File>,
    noted: Seqs,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Seqs {
    ordinal: u32,
    last_seq: [u64; LaneName::ALL.len()],
}

impl HighWater {
    pub(super) fn open(dir: &Path) -> Result<Self, BufferError> {
        let (file, content) = SmallFile::open(dir, "high-water")?;
        let note_path = dir.join("committed");
        let noted = fs::read(&note_path).ok().and_then(|bytes| read_note(&bytes)).unwrap_or_default();
        let stored = content.and_then(|bytes| postcard::from_bytes(&bytes).ok()).unwrap_or_default();
        Ok(Self { file, stored, note_path, note: None, noted })
    }

    /// The newest incarnation that stored it.
    pub(super) fn ordinal(&self) -> u32 {
        self.stored.ordinal.max(self.noted.ordinal)
    }

    /// How far each lane was committed at least.
    pub(super) fn ends(&self) -> [Position; LaneName::ALL.len()] {
        let end = |seqs: &Seqs, lane: LaneName| Position { ordinal: seqs.ordinal, seq: seqs.last_seq[lane as usize] };
        LaneName::ALL.map(|lane| end(&self.stored, lane).max(end(&self.noted, lane)))
    }

    /// Stores what is committed now, if it is more.
    pub(super) fn store(&mut self, ordinal: u32, last_seq: [u64; LaneName::ALL.len()]) -> Result<(), BufferError> {
        let seqs = Seqs { ordinal, last_seq };
        if seqs == self.stored {
            return Ok(());
        }
        self.file.store(&postcard::to_stdvec(&seqs).map_err(BufferError::Encode)?)?;
        self.stored = seqs;
        Ok(())
    }

    /// Notes what is committed now, if it is more. Where the disk refuses there is no note: it is only one more witness.
    pub(super) fn note(&mut self, ordinal: u32, last_seq: [u64; LaneName::ALL.len()]) {
        let seqs = Seqs { ordinal, last_seq };
        if seqs == self.noted {
            return;
        }
        if self.note.is_none() {
            self.note = File::options().create(true).truncate(false).write(true).open(&self.note_path).ok();
        }
        let written = self.note.as_ref().is_some_and(|file| file.write_all_at(&write_note(&seqs), 0).is_ok());
        self.noted = if written { seqs } else { Seqs::default() };
    }
}

/// The last record that a lane had for certain, of what several witnesses say. One that knows of a later incarnation without a record in the lane says
/// nothing of those before.
pub(super) fn known_end(witnesses: [Position; 3]) -> Position {
    witnesses.into_iter().filter(|end| end.seq > 0).max().unwrap_or_default()
}

/// A CRC-32C and the numbers.
fn write_note(seqs: &Seqs) -> Vec<u8> {
    let numbers = [u64::from(seqs.ordinal)].into_iter().chain(seqs.last_seq).flat_map(u64::to_le_bytes).collect::<Vec<u8>>();
    [&crc32c::crc32c(&numbers).to_le_bytes()[..], &numbers].concat()
}

/// `None` for what is torn or was never written.
fn read_note(bytes: &[u8]) -> Option<Seqs> {
    let (crc, numbers) = bytes.split_first_chunk::<4>()?;
    if crc32c::crc32c(numbers).to_le_bytes() != *crc {
        return None;
    }
    let mut numbers = numbers.as_chunks::<8>().0.iter().map(|number| u64::from_le_bytes(*number));
    let ordinal = u32::try_from(numbers.next()?).ok()?;
    let last_seq: Vec<u64> = numbers.collect();
    Some(Seqs { ordinal, last_seq: last_seq.try_into().ok()? })
}

/// Looks into the newest partition of each lane.
pub(super) struct Recovery<'a> {
    lanes: &'a [Lane; LaneName::ALL.len()],
    quarantine: PathBuf,
    decoder: Decoder,
    end: Recovered,
}

/// What the newest partitions said.
#[derive(Debug, Default)]
pub(super) struct Recovered {
    pub(super) marks: [LaneMarks; LaneName::ALL.len()],
    /// Losses that are known already.
    pub(super) owed: Vec<Owed>,
    /// Damaged partitions and what was found in them: the rest of each is lost.
    pub(super) saved: Vec<(LaneName, Key, Found)>,
}

impl<'a> Recovery<'a> {
    pub(super) fn new(lanes: &'a [Lane; LaneName::ALL.len()], dir: &Path) -> Result<Self, BufferError> {
        let decoder = Decoder::new().map_err(|error| BufferError::io("decompress", dir, error))?;
        Ok(Self { lanes, quarantine: dir.join(quarantine::FOLDER), decoder, end: Recovered::default() })
    }

    /// The last seq of `ordinal` in each lane, made durable: what a reader sees now must not vanish later. Where more is known of, the rest is lost.
    pub(super) fn last_seqs(&mut self, ordinal: u32) -> Result<[u64; LaneName::ALL.len()], BufferError> {
        let mut last_seqs = [0; LaneName::ALL.len()];
        for (lane, last_seq) in self.lanes.iter().zip(&mut last_seqs) {
            let at_least = if lane.known_end.ordinal == ordinal { lane.known_end.seq } else { 0 };
            *last_seq = self.sound(lane, |recovery, lane| recovery.last_seq(lane, ordinal))?;
            let ends = self.end.saved.iter().filter(|(name, _, found)| *name == lane.name && found.end.ordinal == ordinal);
            let at_least = ends.map(|(.., found)| found.end.seq).fold(at_least, u64::max);
            if at_least > *last_seq {
                let at = |seq| Position { ordinal, seq };
                self.end.owed.push(Owed { lane: lane.name, from: at(*last_seq + 1), to: at(at_least), reason: GapReason::TornTail });
                *last_seq = at_least;
            }
        }
        Ok(last_seqs)
    }

    /// The marks of each lane, and what is lost.
    pub(super) fn end(mut self) -> Result<Recovered, BufferError> {
        for lane in self.lanes {
            self.end.marks[lane.name as usize] = self.sound(lane, |_, lane| marks_of(lane))?;
        }
        Ok(self.end)
    }

    /// Asks `question`; where a partition turns out to be damaged, once more of what could be saved of it, or of the one before it.
    fn sound<T>(&mut self, lane: &Lane, question: impl Fn(&mut Self, &Lane) -> Result<T, BufferError>) -> Result<T, BufferError> {
        let mut asked = Vec::new();
        loop {
            let (partition, source) = match question(self, lane) {
                Err(BufferError::Damaged { partition, source, .. }) if !asked.contains(&partition) => (partition, source),
                answer => return answer,
            };
            error!(lane = lane.name.as_str(), partition = %partition.display(), error = %causes::chain(&source), "the newest partition of a lane is damaged, saving what can be read");
            if let Some((key, _)) = Key::of(&partition) {
                let found = quarantine::save(lane, key, (Position::default(), lane.known_end), &self.quarantine, &mut self.decoder)?;
                self.end.saved.push((lane.name, key, found));
            }
            asked.push(partition);
        }
    }

    fn last_seq(&mut self, lane: &Lane, ordinal: u32) -> Result<u64, BufferError> {
        last_seq(lane, ordinal, &mut self.decoder)
    }
}

/// The last seq of `ordinal` in `lane` by the newest partition, which opening it has made durable.
pub(super) fn last_seq(lane: &Lane, ordinal: u32, decoder: &mut Decoder) -> Result<u64, BufferError> {
    let Some(key) = lane.newest(ordinal) else { return Ok(0) };
    let Some(partition) = lane.partition(key)? else { return Ok(0) };
    let dir = lane.path(key);
    let end = Position { ordinal, seq: u64::MAX };
    let newest = partition.frame_at(end).map_err(|error| lane::damaged(lane.name, &dir, key.first(), error))?;
    let Some(stored) = newest.filter(|stored| stored.first.ordinal == ordinal) else {
        return Ok(if key.ordinal == ordinal { key.first_seq - 1 } else { 0 });
    };
    let frame = decoder.decode(lane.name, stored.first, &stored.parts);
    let frame = frame.map_err(|error| BufferError::Damaged { lane: lane.name, partition: dir, from: stored.first, source: error.into() })?;
    Ok(frame.last_seq())
}

/// The marks of `lane`, from its newest partition.
pub(super) fn marks_of(lane: &Lane) -> Result<LaneMarks, BufferError> {
    let Some(key) = lane.keys().last().copied() else { return Ok(LaneMarks::default()) };
    let Some(partition) = lane.partition(key)? else { return Ok(LaneMarks::default()) };
    let dir = lane.path(key);
    let pieces = partition.marks().map_err(|error| lane::damaged(lane.name, &dir, key.first(), error))?;
    LaneMarks::of_pieces(&pieces).ok_or_else(|| BufferError::Damaged {
        lane: lane.name,
        partition: dir,
        from: key.first(),
        source: super::FrameError::Content.into(),
    })
}
