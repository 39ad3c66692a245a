//! Damaged partitions, put aside for a person who wants to know, and what could be saved of them.
use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use hark_protocol::topics::LaneName;
use uuid::Uuid;

use super::{
    BufferError, Position,
    dead::tell_unsynced,
    frame::Decoder,
    header::{self, Header, Key},
    lane::Lane,
    marks::LaneMarks,
    rewrite::Found,
    salvage::{Raw, Salvaged},
    small_file::sync_dir,
};
use crate::causes;

/// Under the data directory.
pub(super) const FOLDER: &str = "quarantine";
/// So many damaged partitions are kept; older ones go.
const KEPT: usize = 2;

/// Puts the partition `key` of `lane` aside and its sound frames that end after `after` into its place. Gives what it found there. The partition, which
/// goes to `upto`, must not be written any more.
///
/// # Errors
/// When the disk refuses; the partition then stays where it is.
pub(super) fn save(lane: &Lane, key: Key, (after, upto): (Position, Position), folder: &Path, decoder: &mut Decoder) -> Result<Found, BufferError> {
    let dir = lane.path(key);
    let mut saved = sound(lane.name, key, lane.incarnation_of(key), &dir, decoder)?;
    saved.frames.retain(|(_, last)| *last > after);
    let found = saved.found();
    if saved.frames.is_empty() && saved.marks == LaneMarks::default() {
        put_aside(lane, &dir, folder)?;
        lane.forget(key);
        return Ok(found);
    }
    // Its own header says when it was made and what it may hold.
    let mut header = header::read(&dir).unwrap_or_else(|_| Header {
        lane: lane.name,
        key,
        incarnation: lane.incarnation_of(key).unwrap_or_default(),
        created_ms: 0,
        replaces: Vec::new(),
        holds: Vec::new(),
        salvaged_to: upto,
    });
    header.salvaged_to = header.salvaged_to.max(upto).max(found.end);
    let (_, replaced) = lane.create(header, &[key], false, |target| saved.insert_into(target))?;
    for dir in replaced {
        // What it held is saved. One that cannot be put aside now goes at the next start, and nobody can look at it.
        if let Err(error) = put_aside(lane, &dir, folder) {
            tracing::warn!(error = %causes::chain(&error), "a damaged partition cannot be put aside");
        }
    }
    Ok(found)
}

/// What can be read of the partition `key`, which lies in `dir`: nothing if that strayed in from elsewhere.
pub(super) fn sound(lane: LaneName, key: Key, incarnation: Option<Uuid>, dir: &Path, decoder: &mut Decoder) -> Result<Salvaged, BufferError> {
    if header::read(dir).is_ok_and(|header| !header.is_of(lane, key, incarnation.unwrap_or_default())) {
        return Ok(Salvaged::default());
    }
    let mut sound = match Raw::read(dir) {
        Ok(raw) => raw.salvage(lane, decoder),
        Err(error) if error.kind() == ErrorKind::NotFound => Salvaged::default(),
        Err(error) => return Err(BufferError::io("read", dir, error)),
    };
    sound.frames.retain(|(stored, _)| stored.first >= key.first());
    Ok(sound)
}

/// Moves a directory into `folder`, of which it keeps the newest.
fn put_aside(lane: &Lane, dir: &Path, folder: &Path) -> Result<(), BufferError> {
    fs::create_dir_all(folder).map_err(|error| BufferError::io("create", folder, error))?;
    let kept = entries(folder)?;
    let number = kept.last().and_then(|path| number_of(path)).unwrap_or(0) + 1;
    let name = dir.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let target = folder.join(format!("{number:06}-{}-{name}", lane.name));
    fs::rename(dir, &target).map_err(|error| BufferError::io("put aside", dir, error))?;
    tell_unsynced(sync_dir(folder).and_then(|()| dir.parent().map_or(Ok(()), sync_dir)));
    let surplus = (kept.len() + 1).saturating_sub(KEPT);
    for path in kept.iter().take(surplus) {
        if let Err(error) = remove(path) {
            tracing::warn!(error = %causes::chain(&error), "what lies in quarantine takes up space still");
        }
    }
    Ok(())
}

/// Removes the oldest of `folder` to make room; false if there is none.
pub(super) fn remove_oldest(folder: &Path) -> Result<bool, BufferError> {
    match entries(folder)?.first() {
        Some(path) => remove(path).map(|()| true),
        None => Ok(false),
    }
}

fn remove(path: &Path) -> Result<(), BufferError> {
    fs::remove_dir_all(path).map_err(|error| BufferError::io("remove", path, error))
}

/// What lies in `folder`, oldest first; nothing if it is not there.
pub(super) fn entries(folder: &Path) -> Result<Vec<PathBuf>, BufferError> {
    let listing = match fs::read_dir(folder) {
        Ok(listing) => listing,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(BufferError::io("list", folder, error)),
    };
    let mut paths: Vec<PathBuf> =
        listing.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>().map_err(|error| BufferError::io("list", folder, error))?;
    paths.sort();
    Ok(paths)
}

fn number_of(path: &Path) -> Option<u32> {
    path.file_name()?.to_str()?.split('-').next()?.parse().ok()
}
