//! What a forecast of a life was worth.
use hark::inference::Prognosis;

use crate::life::{BLOCK_EVERY_S, Row};

/// Zone boundaries of the class, mm/s.
const ZONES: [(&str, f64); 2] = [("de.v_rms:zone_c", 2.8), ("de.v_rms:zone_d", 4.5)];

/// What became of lives.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    lives: u64,
    near: u64,
    held: u64,
    asked: u64,
    /// Rows of healthy running, and of those the ones with a date.
    healthy: u64,
    dated: u64,
}

impl Tally {
    pub fn join(&mut self, other: Self) {
        self.lives += other.lives;
        self.near += other.near;
        self.held += other.held;
        self.asked += other.asked;
        self.healthy += other.healthy;
        self.dated += other.dated;
    }

    pub fn line(self, name: &str) -> String {
        let percent = |part: u64, whole: u64| 100.0 * part as f64 / whole.max(1) as f64;
        let Self { lives, near, held, asked, healthy, dated } = self;
        format!("| {name} | {lives} | {:.0} | {:.0} ({asked}) | {:.2} |", percent(near, lives), percent(held, asked), percent(dated, healthy))
    }
}

/// What was told after a row: when it ends, s, with p10, p50 and p90 from the row on.
#[derive(Clone, Copy, Debug)]
struct Told {
    truth_s: f64,
    p10_s: f64,
    p50_s: f64,
    p90_s: f64,
    /// It names a time: of a model an open end names none.
    is_date: bool,
}

/// Judges the rows of a life, each with what was told after it; the machine failed with the last. `drawn`, 0 to 1, says at which row the interval is asked.
/// A date is a forecast that names a time.
pub fn judge(rows: &[(Row, Option<Prognosis>)], healthy_s: f64, drawn: f64) -> Tally {
    // Zones are reached to stay, but for noise: the last row below the boundary.
    let reached = |level: f64| rows.iter().rposition(|(row, _)| row.velocity_mm_s < level).map_or(0.0, |place| rows[place].0.at_s);
    let ends = ZONES.map(|(name, level)| (name, reached(level)));
    let failed_s = rows.last().map_or(0.0, |(row, _)| row.at_s + BLOCK_EVERY_S);
    let of_model = rows.iter().any(|(_, told)| told.as_ref().is_some_and(|told| told.of_model.is_some()));
    // Of a trend the machine's last zone is the end that counts.
    let end_s = if of_model { failed_s } else { ends[1].1.min(failed_s) };
    let told: Vec<(f64, Option<Told>)> =
        rows.iter().map(|(row, told)| (row.at_s, told.as_ref().and_then(|told| compare(told, row.at_s, &ends, failed_s)))).collect();
    let third = |at_s: f64| at_s >= healthy_s + (end_s - healthy_s) * 2.0 / 3.0 && at_s < end_s - BLOCK_EVERY_S;
    let is_near = |told: Option<Told>| told.is_some_and(|told| (told.p50_s - told.truth_s).abs() <= 0.3 * told.truth_s.abs().max(BLOCK_EVERY_S));
    let last: Vec<bool> = told.iter().filter(|(at_s, _)| third(*at_s)).map(|(_, told)| is_near(*told)).collect();
    let worn: Vec<Told> = told.iter().filter(|(at_s, _)| (healthy_s..end_s).contains(at_s)).filter_map(|(_, told)| *told).collect();
    let asked = worn.get((drawn * worn.len() as f64) as usize);
    let healthy = told.iter().filter(|(at_s, _)| *at_s < healthy_s);
    Tally {
        lives: 1,
        near: u64::from(2 * last.iter().filter(|near| **near).count() >= last.len()),
        held: u64::from(asked.is_some_and(|told| (told.p10_s..=told.p90_s).contains(&told.truth_s))),
        asked: u64::from(asked.is_some()),
        healthy: healthy.clone().count() as u64,
        dated: healthy.filter(|(_, told)| told.is_some_and(|told| told.is_date)).count() as u64,
    }
}

fn compare(told: &Prognosis, at_s: f64, ends: &[(&str, f64)], failed_s: f64) -> Option<Told> {
    let reached_s = match told.of_model {
        Some(_) => failed_s,
        None => ends.iter().find(|(zone, _)| **zone == *told.end_event)?.1,
    };
    let Prognosis { p10_s, p50_s, p90_s, .. } = *told;
    let truth_s = reached_s - at_s;
    // An open end holds all that is beyond it.
    let truth_s = if told.capped && told.of_model.is_some() { truth_s.min(p90_s.max(p10_s)) } else { truth_s };
    Some(Told { truth_s, p10_s, p50_s, p90_s, is_date: told.of_model.is_none() || !told.capped })
}
