//! Health, 0 to 100: how far the machine is from its commissioned state.

/// Health by the anomaly scale: 100 at the median score of commissioning rows that the fit had not seen, 50 at the limit, linear, within 0 and 100.
pub(super) fn from_score(score: f64, median: f64, limit: f64) -> f64 {
    let span = limit - median;
    // The limit is at least 1.15 times the median and above 0, so the span is positive wherever a baseline was accepted.
    (100.0 - 50.0 * (score - median) / span).clamp(0.0, 100.0)
}

#[cfg(test)]
mod tests {
    use super::from_score;

    #[test]
    fn is_linear_between_median_and_limit_and_stays_in_range() {
        for (score, health) in [(1.0, 100.0), (0.5, 100.0), (2.0, 75.0), (3.0, 50.0), (5.0, 0.0), (50.0, 0.0)] {
            assert!((from_score(score, 1.0, 3.0) - health).abs() < 1e-12, "score {score}");
        }
    }
}
