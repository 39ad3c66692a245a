//! What became of machines, and what that says of all machines like them.
use std::{collections::BTreeMap, time::Duration};

use serde_json::{Value, json};

use crate::scenario::DAY_S;

/// A machine-month, days.
const MONTH_DAYS: f64 = 365.25 / 12.0;

/// An alarm that came up.
#[derive(Clone, Debug)]
pub struct Raised {
    /// Days since the machine's first reading.
    pub day: f64,
    /// A bare anomaly, which is no alarm in the sense of ISA-18.2.
    pub is_advice: bool,
    /// Within 24 h after the end of a commissioning.
    pub in_first_day: bool,
    /// The point that is over its limit or contributes most.
    pub point: String,
    /// In the unit of what is judged.
    pub value: Option<f64>,
}

/// One machine, or several.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Machines in here.
    pub machines: u64,
    /// Machine-days from the end of the first commissioning on.
    pub days: f64,
    /// End of the first commissioning of one machine, s.
    pub learned_s: Option<f64>,
    /// Commissionings that were refused.
    pub refused: u64,
    /// Rows of the grid, those that got a score among them.
    pub rows: u64,
    /// Rows with a score.
    pub scored: u64,
    /// Processor time of the engine.
    pub cpu: Duration,
    /// All alarms and advice.
    pub raised: Vec<Raised>,
    /// Largest smoothed score, of which 1 is the limit.
    pub score_max: f64,
    /// Limits that moved, in the order of time: day and limit.
    pub moved: Vec<(f64, f64)>,
    /// Looks at the engine, one each minute.
    pub looks: u64,
    /// Looks at which there was a score, and at which it was over its limit.
    pub looks_scored: u64,
    /// See above.
    pub looks_above: u64,
    /// Looks at which an alarm or advice stood.
    pub looks_in_alarm: u64,
}

impl Tally {
    /// That of a machine that lived for `days`, with the days that count.
    pub fn of_one(self, days: f64) -> Self {
        let learned = self.learned_s.map_or(days, |learned_s| learned_s / DAY_S);
        Self { machines: 1, days: days - learned, ..self }
    }

    /// Adds what became of `others`.
    pub fn join(&mut self, others: &Self) {
        self.machines += others.machines;
        self.days += others.days;
        self.refused += others.refused;
        self.rows += others.rows;
        self.scored += others.scored;
        self.cpu += others.cpu;
        self.raised.extend(others.raised.iter().cloned());
        self.score_max = self.score_max.max(others.score_max);
        self.moved.extend(others.moved.iter().copied());
        self.looks += others.looks;
        self.looks_scored += others.looks_scored;
        self.looks_above += others.looks_above;
        self.looks_in_alarm += others.looks_in_alarm;
    }

    /// Alarms of priority low and above.
    pub fn alarms(&self) -> u64 {
        self.count(false, false)
    }

    fn count(&self, is_advice: bool, first_day_only: bool) -> u64 {
        let counts = |raised: &&Raised| raised.is_advice == is_advice && (raised.in_first_day || !first_day_only);
        self.raised.iter().filter(counts).count() as u64
    }

    /// `count` per machine-month, and the exact upper bound at 95 % (one-sided, as a limit is meant).
    fn per_month(&self, count: u64) -> (f64, f64) {
        let months = self.days / MONTH_DAYS;
        (count as f64 / months, poisson_upper(count) / months)
    }

    /// Points of alarms and advice, the most frequent first, each with how often.
    fn points(&self) -> String {
        let mut counts = BTreeMap::<&str, u64>::new();
        self.raised.iter().for_each(|raised| *counts.entry(&raised.point).or_default() += 1);
        let mut counts: Vec<_> = counts.into_iter().collect();
        counts.sort_by_key(|&(_, count)| std::cmp::Reverse(count));
        counts.iter().take(4).map(|(point, count)| format!("{point} {count}")).collect::<Vec<_>>().join(", ")
    }

    fn shares(&self) -> [f64; 3] {
        let percent = |part: u64, whole: u64| 100.0 * part as f64 / whole.max(1) as f64;
        [percent(self.scored, self.rows), percent(self.looks_above, self.looks_scored), percent(self.looks_in_alarm, self.looks)]
    }

    fn cpu_us_per_row(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.rows.max(1) as f64
    }

    /// A line of the table, under [`HEAD`].
    pub fn line(&self, name: &str) -> String {
        let of = |is_advice| {
            let (count, first_day) = (self.count(is_advice, false), self.count(is_advice, true));
            let (rate, upper) = self.per_month(count);
            format!("{count} | {rate:.2} | {upper:.2} | {first_day}")
        };
        let [scored, above, in_alarm] = self.shares();
        format!(
            "| {name} | {} | {:.1} | {} | {} | {scored:.1} | {above:.2} | {in_alarm:.2} | {:.2} | {:.1} | {} |",
            self.machines,
            self.days,
            of(false),
            of(true),
            self.score_max,
            self.cpu_us_per_row(),
            self.points()
        )
    }

    /// The same for a program.
    pub fn json(&self, name: &str) -> Value {
        let of = |is_advice| {
            let count = self.count(is_advice, false);
            let (per_month, upper_95) = self.per_month(count);
            json!({ "count": count, "per_machine_month": per_month, "upper_95": upper_95, "in_first_24_h": self.count(is_advice, true) })
        };
        let [scored, above, in_alarm] = self.shares();
        json!({
            "scenario": name, "machines": self.machines, "machine_days": self.days, "refused": self.refused,
            "alarms": of(false), "advice": of(true), "scored_percent": scored, "above_percent": above, "in_alarm_percent": in_alarm,
            "score_max": self.score_max, "limits_moved": self.moved.len(),
            "cpu_us_per_row": self.cpu_us_per_row(), "points": self.points(),
        })
    }

    /// What came up on one machine, and when.
    pub fn story(&self) -> String {
        let one = |raised: &Raised| {
            let kind = if raised.is_advice { "advice" } else { "ALARM" };
            let value = raised.value.map_or_else(String::new, |value| format!(" {value:.2}"));
            format!("day {:.2} {kind} {}{value}", raised.day, raised.point)
        };
        let learned = self.learned_s.map_or_else(|| "not learned".to_owned(), |s| format!("learned on day {:.2}", s / DAY_S));
        let first: Vec<String> = self.raised.iter().take(8).map(one).collect();
        let moved: Vec<String> = self.moved.iter().map(|(day, limit)| format!("{limit:.2} on day {day:.1}")).collect();
        let moved = if moved.is_empty() { String::new() } else { format!(", limit {}", moved.join(", ")) };
        format!("{learned}, {} refused, top score {:.2}{moved}, {} raised: {}", self.refused, self.score_max, self.raised.len(), first.join("; "))
    }
}

/// Head of the table.
pub const HEAD: &str = "\
| scenario | machines | machine-days | alarms | a month | ≤ (95 %) | first 24 h | advice | a month | ≤ (95 %) | first 24 h | scored % | above % | in alarm % | top score | µs a row | points |
|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|";

/// The largest mean under which `count` events or fewer still come with a probability of 5 %.
fn poisson_upper(count: u64) -> f64 {
    let (mut low, mut high) = (0.0, 2.0 * count as f64 + 20.0);
    for _ in 0..100 {
        let middle = (low + high) / 2.0;
        if at_most(count, middle) > 0.05 { low = middle } else { high = middle }
    }
    high
}

/// Probability of `count` events or fewer where `mean` (above 0) are expected. In logarithms: e to the minus thousand is nothing.
fn at_most(count: u64, mean: f64) -> f64 {
    let mut log_term = -mean;
    let mut sum = log_term.exp();
    for k in 1..=count {
        log_term += mean.ln() - (k as f64).ln();
        sum += log_term.exp();
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upper_bounds_are_those_of_the_tables() {
        for (count, upper) in [(0, 2.996), (1, 4.744), (2, 6.296), (10, 16.962), (100, 118.08)] {
            let found = poisson_upper(count);
            assert!((found / upper - 1.0).abs() < 1e-3, "{count}: {found} for {upper}");
        }
    }

    #[test]
    fn months_without_an_alarm_that_a_bound_of_a_tenth_takes() {
        let upper = |days| Tally { days, ..Tally::default() }.per_month(0);
        assert!(upper(912.0).0 == 0.0 && upper(912.0).1 < 0.1 && upper(911.0).1 > 0.1, "{:?}", upper(912.0));
    }
}
