//! What was said of many cases, by what was true.
use std::{collections::BTreeMap, fmt, ops::Range};

use anyhow::Result;

/// A kind of case, with the word that is right for it.
pub(super) trait Kind: Copy {
    /// For the table.
    fn name(self) -> &'static str;

    /// What the agent must say; `None`: nothing.
    fn expected(self) -> Option<&'static str>;

    /// Cases for each seed.
    fn times(self) -> u64 {
        1
    }
}

/// Right answers and others; shown as a table.
#[derive(Debug, Default)]
pub struct Tally {
    lines: Vec<String>,
    faulty: u64,
    right: u64,
    /// Answers on what is in order.
    false_words: u64,
}

impl Tally {
    /// Runs each kind with each seed, and with as many more behind them as it has times. `run` gives what the agent says; `verbose`: those that are not right are in the table, too.
    ///
    /// # Errors
    /// What `run` says.
    pub(super) fn of<K: Kind>(
        title: &str,
        kinds: &[K],
        seeds: Range<u64>,
        verbose: bool,
        run: impl Fn(K, u64) -> Result<Option<String>>,
    ) -> Result<Self> {
        let mut tally = Self { lines: vec![format!("{title:<14} right of all   otherwise")], ..Self::default() };
        for &kind in kinds {
            let mut said: BTreeMap<String, u64> = BTreeMap::new();
            let more = (kind.times() - 1) * (seeds.end - seeds.start);
            for seed in seeds.start..seeds.end + more {
                let word = run(kind, seed)?;
                if verbose && word.as_deref() != kind.expected() {
                    tally.lines.push(format!("  {} with seed {seed}: {word:?}", kind.name()));
                }
                *said.entry(word.unwrap_or_else(|| "nothing".to_owned())).or_default() += 1;
            }
            tally.add(kind, said);
        }
        Ok(tally)
    }

    fn add<K: Kind>(&mut self, kind: K, mut said: BTreeMap<String, u64>) {
        let all: u64 = said.values().sum();
        let right = said.remove(kind.expected().unwrap_or("nothing")).unwrap_or(0);
        let others: Vec<String> = said.iter().map(|(word, count)| format!("{word} {count}")).collect();
        self.lines.push(format!("{:<14} {right:>5} of {all:<5} {}", kind.name(), others.join(", ")).trim_end().to_owned());
        if kind.expected().is_some() {
            (self.faulty, self.right) = (self.faulty + all, self.right + right);
        } else {
            self.false_words += all - right;
        }
    }

    fn share(&self) -> f64 {
        100.0 * self.right as f64 / self.faulty.max(1) as f64
    }

    /// At least `least` % are right, and nothing healthy is called faulty.
    pub fn is_kept(&self, least: f64) -> bool {
        self.share() >= least && self.false_words == 0
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines.iter().try_for_each(|line| writeln!(f, "{line}"))?;
        let Self { right, faulty, false_words, .. } = self;
        write!(f, "{:<14} {right} of {faulty} faults, {:.1} %; {false_words} healthy ones called faulty", "in all", self.share())
    }
}
