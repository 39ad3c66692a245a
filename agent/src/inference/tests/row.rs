//! Rows: when one closes, what makes it incomplete, and how often it becomes a prediction.
use super::*;

#[test]
fn a_silent_point_is_missing_and_a_gap_fills_the_window_again() {
    let mut engine = engine_with(|_| {});
    feed(&mut engine, 1, &machine(ROWS + 10, usize::MAX));
    let start = 1000.0 + (ROWS + 10) as f64;
    // Only `a` goes on: `b` is held for three rows, then missing.
    let alone: Vec<Entry> = (0..8).map(|i| reading(start + f64::from(i), "a", Some(0.0))).collect();
    let out = feed(&mut engine, 1000, &alone);
    let reasons: Vec<_> = predictions(&out).iter().map(|p| p.reason).collect();
    assert_eq!(
        reasons,
        [
            None,
            None,
            None,
            Some(ScoreReason::MissingPoint),
            Some(ScoreReason::MissingPoint),
            Some(ScoreReason::MissingPoint),
            Some(ScoreReason::MissingPoint)
        ]
    );
    let missing = predictions(&out)[3];
    assert_eq!((missing.quality, missing.health, missing.health_reason.as_deref()), (Quality::Bad, None, Some("missing_point")));
    // Both again: three rows fill the window, the fourth is scored; then six seconds of silence.
    let both = |from: f64, rows: u32| -> Vec<Entry> {
        (0..rows).flat_map(|i| ["a", "b"].map(|point| reading(from + f64::from(i), point, Some(0.1)))).collect()
    };
    for from in [start + 8.0, start + 17.0] {
        let out = feed(&mut engine, 2000, &both(from, 4));
        let reasons: Vec<_> = predictions(&out).iter().map(|p| p.reason).skip_while(|r| *r == Some(ScoreReason::MissingPoint)).collect();
        let filling = Some(ScoreReason::WindowFilling);
        assert_eq!(reasons, [filling, filling, filling, None], "from {from}");
    }
    assert_eq!(engine.counters().model_failures, 0);
}

#[test]
fn a_tick_closes_an_overdue_row_and_nothing_else() {
    let mut engine = engine_with(|_| {});
    assert!(feed(&mut engine, 1, &[event(900.0, EventKind::Tick, None)]).is_empty(), "before any reading");
    assert!(feed(&mut engine, 2, &[reading(1000.0, "a", Some(1.0)), reading(1000.0, "b", None)]).is_empty());
    assert!(feed(&mut engine, 4, &[event(1000.9, EventKind::Tick, None)]).is_empty(), "the slot is not over");
    let out = feed(&mut engine, 5, &[event(1001.0, EventKind::Tick, None)]);
    assert_eq!(predictions(&out)[0].reason, Some(ScoreReason::MissingPoint));
    assert_eq!(out[0].1.cause, Some(Cause { ordinal: 2, seq: 5, n: 0 }));
    assert!(feed(&mut engine, 6, &[event(1002.0, EventKind::Tick, None)]).is_empty(), "closed already");
}

#[test]
fn what_is_unknown_late_or_bad_is_counted() {
    let mut engine = engine_with(|_| {});
    let mut stranger = reading(1000.0, "a", Some(1.0));
    stranger.stamp.asset = Some("other".into());
    let mut gateway = event(1000.0, EventKind::Clock, None);
    gateway.stamp.asset = None;
    let entries = [
        stranger,
        gateway,
        reading(1000.0, "c", Some(1.0)),
        reading(1000.0, "note", Some(1.0)),
        reading(1000.0, "a", None),
        reading(990.0, "a", Some(1.0)),
    ];
    assert!(feed(&mut engine, 1, &entries).is_empty());
    let counters = engine.counters();
    assert_eq!((counters.unknown_asset, counters.unknown_point, counters.bad, counters.late, counters.readings), (1, 1, 1, 1, 4));
    assert_eq!(engine.view("pump").unwrap().bad_points, ["a".into()]);
    assert_eq!(engine.asset_records(Timestamp(1010 * SECOND))[0].1.silent_s, Some(10.0));
}

/// One sensor whose clock runs ahead does not take the rows of all others with it.
#[test]
fn a_time_that_runs_ahead_opens_no_row() {
    let mut undisturbed = engine_with(|_| {});
    let expected = feed(&mut undisturbed, 1, &machine(400, 300));
    let mut engine = engine_with(|_| {});
    let mut out = feed(&mut engine, 1, &machine(400, 300)[..700]);
    let mut ahead = reading(1000.0 + 72_000.0, "a", Some(1.0));
    let Body::Reading(body) = &mut ahead.body else { panic!("it is a reading") };
    (body.quality, body.reason) = (Quality::Uncertain, Some(QualityReason::Clock));
    assert!(feed(&mut engine, 701, &[ahead]).is_empty());
    out.extend(feed(&mut engine, 701, &machine(400, 300)[700..]));
    assert!(out == expected);
    assert_eq!((engine.counters().ahead, engine.counters().late), (1, 0));
}

#[test]
fn predictions_between_changes_come_at_their_pace_with_the_largest_score() {
    let entries = machine(300, usize::MAX);
    let every_row = feed(&mut engine_with(|_| {}), 1, &entries);
    let sparse = feed(&mut engine_with(|asset| asset.predict_every = Duration::from_secs(30)), 1, &entries);
    let (all, few) = (predictions(&every_row), predictions(&sparse));
    // Rows 0, 30 … 120 while commissioning, then row 150 (the change of phase), 180 …
    assert_eq!(few.len(), 10);
    let largest = all[181..=210].iter().filter_map(|p| p.score).fold(0.0, f64::max);
    assert_eq!(few[7].score_max, Some(largest));
    assert_eq!(few[7].score, all[210].score);
}

#[test]
fn numbers_beyond_the_model_are_a_reason_and_not_a_panic() {
    let mut engine = engine_with(|_| {});
    feed(&mut engine, 1, &machine(ROWS + 10, usize::MAX));
    let out = feed(&mut engine, 1000, &[reading(2000.0, "a", Some(f64::MAX)), reading(2000.0, "b", Some(-f64::MAX))]);
    assert_eq!(predictions(&out)[0].reason, Some(ScoreReason::WindowFilling));
    let huge: Vec<Entry> = (1..5).flat_map(|i| ["a", "b"].map(|point| reading(2000.0 + f64::from(i), point, Some(f64::MAX)))).collect();
    let out = feed(&mut engine, 1002, &huge);
    assert_eq!(predictions(&out)[3].reason, Some(ScoreReason::ModelFailed));
    assert_eq!(engine.counters().model_failures, 2);
    let calm: Vec<Entry> = (5..12).flat_map(|i| ["a", "b"].map(|point| reading(2000.0 + f64::from(i), point, Some(0.0)))).collect();
    let out = feed(&mut engine, 1010, &calm);
    assert!(predictions(&out)[6].score.is_some(), "the model works again");
}
