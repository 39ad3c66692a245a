//! How far the topic of commands was read, kept in the data directory.
use std::{collections::BTreeMap, fmt, path::Path};

use serde::{Deserialize, Serialize};

use crate::{
    audit::kafka::Partition,
    buffer::{BufferError, SmallFile},
};

const FILE: &str = "feedback";
/// More partitions than the topic ever has; with it the file is bounded.
const PARTITIONS_MAX: usize = 1_024;

/// How far the topic was read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Place {
    /// Of this cluster, where that is known.
    cluster: Option<String>,
    /// Next offset by partition.
    next: BTreeMap<i32, i64>,
}

impl Place {
    /// Where to begin in `partitions` of `cluster`: where reading ended, and else with what is left. Offsets of another cluster say nothing, nor do those
    /// beyond the end: then the topic was made anew.
    pub(super) fn found(&self, cluster: Option<String>, partitions: &mut [Partition]) -> Self {
        let same = self.cluster.is_none() || cluster.is_none() || self.cluster == cluster;
        for partition in partitions.iter_mut() {
            let known = self.next.get(&partition.number).copied().filter(|next| same && (partition.low..=partition.high).contains(next));
            partition.next = known.unwrap_or(partition.low);
        }
        let next = partitions.iter().map(|partition| (partition.number, partition.next)).take(PARTITIONS_MAX).collect();
        Self { cluster, next }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut next = self.next.iter();
        next.next().map_or(Ok(()), |(partition, offset)| write!(f, "{partition}@{offset}"))?;
        next.try_for_each(|(partition, offset)| write!(f, " {partition}@{offset}"))
    }
}

/// The same with the file that it is kept in.
#[derive(Debug)]
pub(super) struct PlaceFile {
    file: SmallFile,
    topic: String,
    place: Place,
    stored: Place,
}

/// Content of the file.
#[derive(Serialize, Deserialize)]
struct Stored {
    topic: String,
    place: Place,
}

impl PlaceFile {
    /// What is stored in `dir` of `topic`; its beginning, if nothing is, or of another one.
    pub(super) fn open(dir: &Path, topic: &str) -> Result<Self, BufferError> {
        let (file, content) = SmallFile::open_hint(dir, FILE)?;
        let stored: Option<Stored> = content.and_then(|content| serde_json::from_slice(&content).ok());
        let place = stored.filter(|stored| stored.topic == topic).map(|stored| stored.place).unwrap_or_default();
        Ok(Self { file, topic: topic.to_owned(), stored: place.clone(), place })
    }

    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    pub(super) fn set(&mut self, place: Place) {
        self.place = place;
    }

    /// The next record of `partition` is that at `next`.
    pub(super) fn moved(&mut self, partition: i32, next: i64) {
        // One that reading did not begin with is none of the topic.
        if let Some(at) = self.place.next.get_mut(&partition) {
            *at = next.max(*at);
        }
    }

    /// Writes it, if it has changed.
    pub(super) fn store(&mut self) -> Result<(), BufferError> {
        if self.place == self.stored {
            return Ok(());
        }
        let content = Stored { topic: self.topic.clone(), place: self.place.clone() };
        self.file.store(&serde_json::to_vec(&content).expect("plain data into growing memory cannot fail"))?;
        self.stored = self.place.clone();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(cluster: Option<&str>, next: &[(i32, i64)]) -> Place {
        Place { cluster: cluster.map(str::to_owned), next: next.iter().copied().collect() }
    }

    #[test]
    fn reading_goes_on_where_it_ended_and_else_begins_anew() {
        let check = |place: Place, cluster: Option<&str>, low: i64, high: i64, expected: i64| {
            let mut partitions = [Partition { number: 0, low, high, next: low }];
            let found = place.found(cluster.map(str::to_owned), &mut partitions);
            assert_eq!((partitions[0].next, found.next[&0]), (expected, expected), "{place:?}");
            assert_eq!(found.cluster.as_deref(), cluster);
        };
        check(Place::default(), Some("a"), 3, 9, 3);
        check(place(Some("a"), &[(0, 7)]), Some("a"), 3, 9, 7);
        check(place(Some("a"), &[(0, 9)]), Some("a"), 3, 9, 9);
        check(place(None, &[(0, 7)]), Some("a"), 3, 9, 7);
        check(place(Some("a"), &[(0, 7)]), Some("b"), 3, 9, 3);
        check(place(Some("a"), &[(0, 10)]), Some("a"), 3, 9, 3);
        check(place(Some("a"), &[(0, 2)]), Some("a"), 3, 9, 3);
        check(place(Some("a"), &[(1, 7)]), Some("a"), 3, 9, 3);
    }

    #[test]
    fn what_was_stored_is_found_for_the_same_topic() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = PlaceFile::open(dir.path(), "hark.feedback.v1").unwrap();
        assert_eq!(*file.place(), Place::default());
        file.set(place(Some("a"), &[(0, 3)]));
        file.moved(0, 5);
        file.moved(0, 4);
        file.moved(7, 1);
        file.store().unwrap();
        assert_eq!(*PlaceFile::open(dir.path(), "hark.feedback.v1").unwrap().place(), place(Some("a"), &[(0, 5)]));
        assert_eq!(*PlaceFile::open(dir.path(), "demo.feedback.v1").unwrap().place(), Place::default());
    }
}
