//! The content of a partition without its store: what its file holds, byte for byte.
//!
//! sled takes damage for the end of its file, or panics. Every value that Hark gives it is sealed ([`super::seal`]), so those that are whole are found
//! in the file whatever sled makes of it.
use std::{
    collections::BTreeMap,
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use hark_protocol::topics::LaneName;
use memmap2::MmapMut;

use super::{
    Position,
    frame::Decoder,
    is_of_medium,
    marks::{self, LaneMarks, Mark},
    partition::{Partition, StoreError, Stored},
    rewrite::{self, Found},
    seal::{self, Header},
};

/// The file of a partition as it lies on the disk, held in memory: some 16 MiB at most.
///
/// In pages of its own: what the C library lends in such sizes it keeps for good, for each thread that ever opened a partition.
pub(super) struct Raw {
    pages: MmapMut,
    unreadable: usize,
}

/// What a disk gives or does not give as one.
const PAGE_BYTES: usize = 4_096;
/// Rounds of reads that get nothing, after which pages count as lost.
const READS_IN_VAIN: u32 = 5;

/// What was found in it.
#[derive(Debug, Default)]
pub(super) struct Salvaged {
    /// The sound frames with the last position of each, in order.
    pub(super) frames: Vec<(Stored, Position)>,
    /// What the marks say, as far as they are sound.
    pub(super) marks: LaneMarks,
    /// The end of the newest commit of which anything is left.
    pub(super) end: Position,
}

impl Salvaged {
    /// What it covers.
    pub(super) fn found(&self) -> Found {
        Found { frames: self.frames.iter().map(|(stored, last)| (stored.first, *last)).collect(), end: self.end }
    }

    /// Puts it into `target`, which is empty.
    ///
    /// # Errors
    /// What the store says.
    pub(super) fn insert_into(self, target: &Partition) -> Result<(), StoreError> {
        rewrite::insert(target, self.frames.into_iter().map(|(stored, _)| Ok(stored)))?;
        // Joined: all pieces of a partition together may be too many for one batch.
        target.insert(Vec::new(), 0, marks::encode(&self.marks.repeated()))
    }
}

impl Raw {
    /// Reads the file of the partition in `dir`.
    pub(super) fn read(dir: &Path) -> io::Result<Self> {
        let file = File::open(file(dir))?;
        let mut pages = MmapMut::map_anon(usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?)?;
        let unreadable = match file.read_exact_at(&mut pages, 0) {
            Err(error) if is_of_medium(&error) => match unreadable_pages(&mut pages, |page, at| file.read_exact_at(page, at)) {
                // Not one page: the disk may be away for a moment, and give all of it later.
                all if all * PAGE_BYTES >= pages.len() => return Err(error),
                some => some,
            },
            read => read.map(|()| 0)?,
        };
        Ok(Self { pages, unreadable })
    }

    /// Pages that the disk does not give: zeros stand for them.
    pub(super) fn unreadable(&self) -> usize {
        self.unreadable
    }

    /// Whether it has records of `lane` from `first` on.
    pub(super) fn has_records_of(&self, lane: LaneName, first: Position) -> bool {
        seal::find_all(&self.pages).any(|(head, _)| !head.is_of_marks() && head.lane == lane as u8 && head.first() >= first)
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.pages
    }

    /// The last record of a partition that begins at `first` of which it is certain that it was durable: a later commit had begun. What the first commit of
    /// a partition or an incarnation proves lies elsewhere.
    pub(super) fn proven(&self, first: Position) -> Position {
        let frames = seal::find_all(&self.pages).filter(|(head, _)| !head.is_of_marks());
        frames.map(|(head, _)| head.proven()).filter(|proven| proven.seq > 0 && *proven >= first).max().unwrap_or_default()
    }

    /// Everything of `lane` in it that is whole.
    pub(super) fn salvage(&self, lane: LaneName, decoder: &mut Decoder) -> Salvaged {
        let mut parts: BTreeMap<Position, BTreeMap<u16, (Header, &[u8])>> = BTreeMap::new();
        let mut pieces = BTreeMap::new();
        for (head, bytes) in seal::find_all(&self.pages).map(|(head, range)| (head, &self.pages[range])) {
            if head.is_of_marks() {
                // The store rewrites its leaves: the same piece may be found again.
                let content = Header::open(bytes).map(|(_, content, _)| content.to_vec());
                content.into_iter().for_each(|content| drop(pieces.insert((head.marks_at(), head.part), content)));
            } else if head.lane == lane as u8 {
                parts.entry(head.first()).or_default().insert(head.part, (head, bytes));
            }
        }
        let mut salvaged = Salvaged { marks: LaneMarks::of_sound_pieces(&pieces.into_values().collect::<Vec<_>>()), ..Salvaged::default() };
        for (first, parts) in parts {
            salvaged.end = parts.values().map(|(head, _)| head.commit_end()).fold(salvaged.end, Position::max);
            let stored = Stored { first, parts: parts.into_values().map(|(_, bytes)| bytes.to_vec()).collect() };
            let Ok(frame) = decoder.decode(lane, first, &stored.parts) else { continue };
            // The mark of these may be lost.
            let cause = frame.entries.iter().filter_map(|(_, entry)| entry.cause).max();
            cause.into_iter().for_each(|cause| salvaged.marks.apply(&Mark::Cause(cause)));
            salvaged.frames.push((stored, Position { seq: frame.last_seq(), ..first }));
        }
        salvaged
    }
}

/// Reads page by page what cannot be read at once, and gives how many pages cannot be read at all. A page that failed is tried again as long as that
/// gets any, and some times more: a cable that is loose is no bad sector.
fn unreadable_pages(pages: &mut [u8], mut read: impl FnMut(&mut [u8], u64) -> io::Result<()>) -> usize {
    let mut bad: Vec<usize> = (0..pages.len().div_ceil(PAGE_BYTES)).collect();
    let mut in_vain = 0;
    while !bad.is_empty() && in_vain < READS_IN_VAIN {
        let before = bad.len();
        bad.retain(|at| {
            let from = at * PAGE_BYTES;
            let to = (from + PAGE_BYTES).min(pages.len());
            let page = &mut pages[from..to];
            read(page, from as u64).inspect_err(|_| page.fill(0)).is_err()
        });
        in_vain = if bad.len() < before { 0 } else { in_vain + 1 };
    }
    bad.len()
}

fn file(dir: &Path) -> PathBuf {
    dir.join("db")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        buffer::{
            frame::{Encoder, Records},
            marks, samples,
        },
        record::Cause,
    };

    const LANE: LaneName = LaneName::Predictions;

    /// A commit of three records that do not fit one frame, and a file that holds it twice, with its marks and the frame of another lane.
    #[test]
    fn sound_frames_are_found_with_what_they_tell() {
        let cause = |seq| Cause { ordinal: 1, seq, n: 0 };
        let mut records = Records::default();
        for n in 0..3 {
            let entry = crate::record::Entry { cause: Some(cause(n)), ..samples::noise(n, 5_000) };
            records.push(&postcard::to_stdvec(&entry).unwrap());
        }
        let first = Position { ordinal: 7, seq: 100 };
        let mut encoder = Encoder::new().unwrap();
        let frames: Vec<Vec<u8>> = encoder.encode(LANE, first, &records).unwrap().into_iter().flat_map(|frame| frame.parts).collect();
        let other = encoder.encode(LaneName::Inputs, first, &records).unwrap().remove(0).parts.remove(0);
        let piece = marks::encode(&[Mark::Cause(cause(1))]).remove(0);
        let marks = Header::of_marks(4, 0).seal(&piece);
        let whole = [&marks[..], &other, &frames[0], &frames[1], &frames[2], &frames[1]].concat();
        let raw = |bytes: &[u8]| {
            let mut pages = MmapMut::map_anon(bytes.len()).unwrap();
            pages.copy_from_slice(bytes);
            Raw { pages, unreadable: 0 }
        };
        assert_eq!(raw(&whole).proven(first), Position::default(), "a first commit proves nothing of this partition");
        assert_eq!(raw(&whole).proven(Position { seq: 90, ..first }), Position { seq: 99, ..first });
        // Nor does the first commit of a later life, though its place comes after all of this one.
        let later = encoder.encode(LANE, Position { ordinal: 8, seq: 1 }, &records).unwrap().remove(0).parts.remove(0);
        assert_eq!(raw(&later).proven(first), Position::default());
        let mut decoder = Decoder::new().unwrap();
        let mut salvage = |bytes: Vec<u8>| raw(&bytes).salvage(LANE, &mut decoder);
        let seqs = |salvaged: &Salvaged| salvaged.frames.iter().map(|(stored, last)| (stored.first.seq, last.seq)).collect::<Vec<_>>();
        let found = salvage(whole.clone());
        assert_eq!((seqs(&found), found.end.seq, found.marks.cause), (vec![(100, 100), (101, 101), (102, 102)], 102, Some(cause(2))));
        // The mark and the last frame are gone: the others tell the end, and the highest cause that is left.
        let mut damaged = whole;
        damaged[marks.len() - 1] ^= 1;
        let last = marks.len() + other.len() + frames[0].len() + frames[1].len();
        damaged[last + frames[2].len() - 1] ^= 1;
        let found = salvage(damaged);
        assert_eq!((seqs(&found), found.end.seq, found.marks.cause), (vec![(100, 100), (101, 101)], 102, Some(cause(1))));
    }

    /// Pages 0 and 3 are never read; page 1 after two errors, page 2 after five, which count as one round in vain after the other.
    #[test]
    fn a_page_counts_as_lost_when_reads_of_all_that_failed_get_nothing_for_some_rounds() {
        let mut errors_to_come = [u32::MAX, 2, 5, u32::MAX, 0];
        let mut pages = vec![7; 4 * PAGE_BYTES + 10];
        let unreadable = unreadable_pages(&mut pages, |page, at| {
            let left = &mut errors_to_come[at as usize / PAGE_BYTES];
            // What a failed read leaves behind is not what stood there.
            page.fill(if *left == 0 { 1 } else { 9 });
            *left = left.saturating_sub(1);
            if page[0] == 1 { Ok(()) } else { Err(io::Error::other("a bad sector")) }
        });
        let firsts: Vec<u8> = pages.chunks(PAGE_BYTES).map(|page| page[0]).collect();
        assert_eq!((unreadable, firsts), (2, vec![0, 1, 1, 0, 1]));
        assert!(pages.chunks(PAGE_BYTES).all(|page| page.iter().all(|byte| *byte == page[0])));
    }
}
