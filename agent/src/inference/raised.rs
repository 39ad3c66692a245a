//! Which alarms an asset has had: labels come days after an alarm is over, when nothing else knows of it any more.
//!
//! An alarm's id is the place of the record that raised it, so ids rise with the log. The newest are remembered; of the time before them, and before the
//! asset was known here, nobody can say any more what was raised, and an id of that time is believed.
use std::{collections::VecDeque, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::record::Cause;

/// Alarms that are remembered of an asset: half a year of what it may raise without being a nuisance (ten a week).
const REMEMBERED: usize = 256;

/// What raised an alarm, and what it is called by: `12/4711`, or `12/4711/1` for the second one of that record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct AlarmId(pub(super) Cause);

impl fmt::Display for AlarmId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Cause { ordinal, seq, n } = self.0;
        write!(f, "{ordinal}/{seq}")?;
        if n == 0 { Ok(()) } else { write!(f, "/{n}") }
    }
}

impl FromStr for AlarmId {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut parts = text.split('/');
        let ordinal = parts.next().and_then(|part| part.parse().ok());
        let seq = parts.next().and_then(|part| part.parse().ok());
        let n = parts.next().map_or(Some(0), |part| part.parse().ok());
        let (Some(ordinal), Some(seq), Some(n), None) = (ordinal, seq, n, parts.next()) else { return Err(()) };
        let id = Self(Cause { ordinal, seq, n });
        // `+1/7`, `01/7` and `1/7/0` name nothing: training compares ids as texts.
        if id.to_string() == text { Ok(id) } else { Err(()) }
    }
}

/// The alarms that an asset raised last.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Raised {
    /// The oldest first.
    newest: VecDeque<AlarmId>,
    /// Before this place there may have been others; not known until the asset is heard of.
    known_from: Option<AlarmId>,
}

impl Raised {
    /// The asset is heard of at the place `at` of the log; the first time counts.
    pub(super) fn begin(&mut self, at: Cause) {
        self.known_from.get_or_insert(AlarmId(at));
    }

    /// It raised an alarm.
    pub(super) fn remember(&mut self, id: AlarmId) {
        self.newest.push_back(id);
        if self.newest.len() > REMEMBERED {
            self.newest.pop_front();
            self.known_from = self.newest.front().copied();
        }
    }

    /// Whether the asset had the alarm called `id`, as far as is known.
    pub(super) fn has(&self, id: &str) -> bool {
        let Ok(id) = id.parse() else { return false };
        self.newest.contains(&id) || self.known_from.is_some_and(|known_from| id < known_from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(seq: u64) -> Cause {
        Cause { ordinal: 12, seq, n: 0 }
    }

    #[test]
    fn an_id_is_its_text_and_no_other() {
        for id in ["12/4711", "1/7/2", "4294967295/18446744073709551615"] {
            assert_eq!(id.parse::<AlarmId>().map(|id| id.to_string()), Ok(id.to_owned()));
        }
        let wrong = ["", "12", "12/", "/7", "12/x", "+12/7", "012/7", "12/7/0", "12/7/", "12/7/1/1", " 12/7", "4294967296/1", "-1/7", "pump/vib/now"];
        assert!(wrong.iter().all(|wrong| wrong.parse::<AlarmId>().is_err()));
    }

    #[test]
    fn what_was_raised_is_known_however_long_it_is_over() {
        let mut raised = Raised::default();
        assert!(!raised.has("12/6"), "nothing is known of it at all");
        raised.begin(place(10));
        raised.begin(place(30));
        raised.remember(AlarmId(place(20)));
        assert!(raised.has("12/20") && !raised.has("12/21") && !raised.has("12/20/1") && !raised.has("13/1"));
        assert!(!raised.has("12/10") && raised.has("12/9") && raised.has("11/4711"), "before it was known here");
    }

    #[test]
    fn what_was_raised_long_ago_is_forgotten_and_believed() {
        let mut raised = Raised::default();
        raised.begin(place(1));
        let seqs = || (1..=REMEMBERED as u64 + 1).map(|n| 10 * n);
        seqs().for_each(|seq| raised.remember(AlarmId(place(seq))));
        assert!(seqs().all(|seq| raised.has(&AlarmId(place(seq)).to_string())));
        assert_eq!(raised.newest.len(), REMEMBERED);
        assert!(raised.has("12/19") && !raised.has("12/21"));
    }
}
