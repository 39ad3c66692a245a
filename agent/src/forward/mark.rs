//! The local mark: up to where Kafka has acknowledged each lane, in one small file on this disk.
//!
//! Kafka's own cursor is the authority. The mark serves where Kafka has none: after the brokers forgot it, which they do days after the last commit,
//! and on clusters without transactions. It remembers as whom and to which Kafka it delivered, since another name finds no cursors. It also frees space, since only what is stored here is given back. It may be behind, never ahead. Every store
//! costs flash, so it waits for a pause, for half a minute, or for megabytes that reclaim waits for.
use std::{fmt, path::Path, time::Duration};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::cursor::PerLane;
use crate::buffer::{BufferError, Position, SmallFile};

const FILE: &str = "forward";
const VERSION: u8 = 1;
const IDLE_FOR: Duration = Duration::from_secs(1);
const AT_LEAST_EVERY: Duration = Duration::from_secs(30);
/// JSON is some five times as large as the log's own encoding: this is 4 MiB of the log.
const AFTER_BYTES: usize = 20 << 20;

/// What is stored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Content {
    /// Acknowledged places; `None` before the first.
    lanes: Option<PerLane<Position>>,
    /// The incarnation of another disk from which this one took over, so that it is told once.
    taken_over: Option<[u8; 16]>,
    /// Stored behind the others: a mark of before has none.
    #[serde(skip)]
    address: Option<Address>,
}

/// As whom and to where records are delivered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// Gateway id.
    pub gateway: String,
    /// Before each topic name.
    pub topic_prefix: String,
    /// The id of the Kafka cluster, where it tells.
    pub cluster: Option<String>,
}

impl Address {
    /// Whether what was delivered to `self` stands where `other` leads, as far as both tell.
    pub fn is(&self, other: &Self) -> bool {
        let clusters = self.cluster.as_ref().zip(other.cluster.as_ref());
        self.gateway == other.gateway && self.topic_prefix == other.topic_prefix && clusters.is_none_or(|(one, another)| one == another)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "gateway `{}` in topics `{}*`", self.gateway, self.topic_prefix)?;
        self.cluster.iter().try_for_each(|cluster| write!(f, " of Kafka `{cluster}`"))
    }
}

/// The mark, and what of it is not stored yet.
#[derive(Debug)]
pub struct Mark {
    file: SmallFile,
    stored: Content,
    present: Content,
    bytes: usize,
    moved_at: Duration,
    stored_at: Duration,
}

impl Mark {
    /// Opens it in the data directory `dir`.
    ///
    /// # Errors
    /// If the disk cannot be read. A damaged mark is an absent one.
    pub fn open(dir: &Path, now: Duration) -> Result<Self, BufferError> {
        let (file, content) = SmallFile::open(dir, FILE)?;
        let stored: Content = content.as_deref().and_then(decode).unwrap_or_default();
        Ok(Self { file, present: stored.clone(), stored, bytes: 0, moved_at: now, stored_at: now })
    }

    /// The stored places.
    pub fn lanes(&self) -> Option<PerLane<Position>> {
        self.stored.lanes
    }

    /// Kafka has the lanes up to here, `bytes` of JSON further.
    pub fn moved(&mut self, lanes: PerLane<Position>, bytes: usize, now: Duration) {
        self.present.lanes = Some(lanes);
        self.bytes += bytes;
        self.moved_at = now;
    }

    /// Whether this disk took over from `incarnation` already.
    pub fn has_taken_over(&self, incarnation: Uuid) -> bool {
        self.present.taken_over == Some(incarnation.into_bytes())
    }

    /// This disk took over from `incarnation`.
    pub fn take_over(&mut self, incarnation: Uuid) {
        self.present.taken_over = Some(incarnation.into_bytes());
    }

    /// As whom and to where was delivered so far; `None` if it was not remembered.
    pub fn address(&self) -> Option<&Address> {
        self.present.address.as_ref()
    }

    /// From now on this is delivered to. What the other one tells not, such as its cluster, stays as it was.
    pub fn deliver_to(&mut self, mut address: Address) {
        let before = self.present.address.take().filter(|before| before.is(&address));
        address.cluster = address.cluster.or_else(|| before?.cluster);
        self.present.address = Some(address);
    }

    /// Whether it is time to store it.
    pub fn is_due(&self, now: Duration) -> bool {
        let waited = now.saturating_sub(self.stored_at) >= AT_LEAST_EVERY;
        let idle = now.saturating_sub(self.moved_at) >= IDLE_FOR;
        self.present != self.stored && (idle || waited || self.bytes >= AFTER_BYTES)
    }

    /// Stores it, durably, if it changed.
    ///
    /// # Errors
    /// What the disk says; the previous mark then still stands.
    pub fn store(&mut self, now: Duration) -> Result<(), BufferError> {
        if self.present != self.stored {
            self.file.store(&encode(&self.present))?;
            self.stored = self.present.clone();
        }
        (self.bytes, self.stored_at) = (0, now);
        Ok(())
    }
}

/// The places that are stored in the data directory `dir`.
///
/// # Errors
/// If the disk cannot be read.
pub fn stored(dir: &Path) -> Result<Option<PerLane<Position>>, BufferError> {
    Ok(Mark::open(dir, Duration::ZERO)?.lanes())
}

fn encode(content: &Content) -> Vec<u8> {
    let mut bytes = vec![VERSION];
    bytes.extend(postcard::to_stdvec(content).expect("numbers encode"));
    bytes.extend(content.address.iter().flat_map(|address| postcard::to_stdvec(address).expect("texts encode")));
    bytes
}

fn decode(bytes: &[u8]) -> Option<Content> {
    let (&VERSION, content) = bytes.split_first()? else { return None };
    let (content, address) = postcard::take_from_bytes::<Content>(content).ok()?;
    Some(Content { address: postcard::from_bytes(address).ok(), ..content })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn at(seq: u64) -> PerLane<Position> {
        [Position { ordinal: 3, seq }; 4]
    }

    #[test]
    fn it_is_found_as_it_was_stored() {
        let dir = tempfile::tempdir().unwrap();
        let mut mark = Mark::open(dir.path(), SECOND).unwrap();
        assert_eq!(mark.lanes(), None);
        mark.moved(at(7), 1, SECOND);
        mark.take_over(Uuid::from_bytes([9; 16]));
        assert_eq!(Mark::open(dir.path(), SECOND).unwrap().lanes(), None);
        mark.store(SECOND).unwrap();
        let mark = Mark::open(dir.path(), SECOND).unwrap();
        assert_eq!(mark.lanes(), Some(at(7)));
        assert!(mark.has_taken_over(Uuid::from_bytes([9; 16])) && !mark.has_taken_over(Uuid::from_bytes([8; 16])));
    }

    fn address(gateway: &str, cluster: Option<&str>) -> Address {
        Address { gateway: gateway.to_owned(), topic_prefix: "hark.".to_owned(), cluster: cluster.map(str::to_owned) }
    }

    #[test]
    fn it_remembers_where_it_delivered_to() {
        let dir = tempfile::tempdir().unwrap();
        let mut mark = Mark::open(dir.path(), SECOND).unwrap();
        mark.moved(at(7), 1, SECOND);
        mark.store(SECOND).unwrap();
        // As it was stored before there was an address.
        assert_eq!(decode(&encode(&mark.stored)).map(|content| (content.lanes, content.address)), Some((Some(at(7)), None)));
        mark.deliver_to(address("g", Some("c")));
        mark.store(SECOND).unwrap();
        let mut mark = Mark::open(dir.path(), SECOND).unwrap();
        assert_eq!((mark.lanes(), mark.address()), (Some(at(7)), Some(&address("g", Some("c")))));
        mark.deliver_to(address("g", None));
        assert_eq!(mark.address(), Some(&address("g", Some("c"))), "a cluster that does not tell its id now");
        mark.deliver_to(address("h", None));
        assert_eq!(mark.address(), Some(&address("h", None)));
    }

    #[test]
    fn an_address_is_another_by_what_both_tell() {
        let one = address("g", Some("c"));
        assert!(one.is(&one) && one.is(&address("g", None)) && address("g", None).is(&one));
        assert!(!one.is(&address("h", None)) && !one.is(&address("g", Some("d"))));
        assert!(!one.is(&Address { topic_prefix: "demo.".to_owned(), ..one.clone() }));
    }

    #[test]
    fn it_is_stored_seldom_enough_for_flash_and_often_enough_for_reclaim() {
        let dir = tempfile::tempdir().unwrap();
        let mut mark = Mark::open(dir.path(), Duration::ZERO).unwrap();
        assert!(!mark.is_due(SECOND * 100), "nothing moved");
        mark.moved(at(1), 100, SECOND * 100);
        assert!(mark.is_due(SECOND * 100), "nothing was stored for long");
        mark.store(SECOND * 100).unwrap();
        mark.moved(at(2), 100, SECOND * 101);
        assert!(!mark.is_due(SECOND * 101) && mark.is_due(SECOND * 102));
        // Never idle.
        mark.moved(at(3), 100, SECOND * 129);
        assert!(!mark.is_due(SECOND * 129));
        mark.moved(at(4), 100, SECOND * 130);
        assert!(mark.is_due(SECOND * 130));
        mark.store(SECOND * 130).unwrap();
        mark.moved(at(5), AFTER_BYTES, SECOND * 130);
        assert!(mark.is_due(SECOND * 130));
    }
}
