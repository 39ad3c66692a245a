//! Which points kept rows from having a score.
use std::collections::BTreeMap;

use hark_protocol::topics::{Name, ScoreReason};

use crate::inference::AssetView;

/// Rows that lacked a usable value, and of which points.
#[derive(Debug, Default)]
pub(super) struct Missing {
    rows: u64,
    of: BTreeMap<Name, u64>,
}

impl Missing {
    pub(super) fn take(&mut self, view: &AssetView) {
        if view.reason == Some(ScoreReason::MissingPoint) {
            self.rows += 1;
            view.missing_points.iter().for_each(|point| *self.of.entry(point.clone()).or_default() += 1);
        }
    }

    /// Whether most of `rows` rows are among them.
    pub(super) fn is_most_of(&self, rows: u64) -> bool {
        2 * self.rows > rows
    }

    /// For people: the points that most of those rows lacked, or the one that was lacking most often.
    pub(super) fn words(&self) -> String {
        let rows = self.rows;
        let mut most: Vec<&str> = self.of.iter().filter(|(_, count)| 2 * **count > rows).map(|(point, _)| &**point).collect();
        if most.is_empty() {
            most.extend(self.of.iter().max_by_key(|(_, count)| **count).map(|(point, _)| &**point));
        }
        let points = if most.is_empty() { "now one, now another".to_owned() } else { most.join(", ") };
        format!("points without a usable value: {points} ({rows} rows lack one); if a point comes more seldom, give it a `stale_after` of its own")
    }
}
