//! What is missing is said: silence, and gaps in the inputs.
use super::*;

/// The score was over its limit for a moment, and then there was none for longer than the on-delay: that is no alarm yet.
#[test]
fn delays_do_not_run_while_there_is_no_score() {
    let mut engine = engine_with(|_| {});
    let entries = machine(400, 300);
    let mut rows = entries.chunks(2).enumerate();
    let (above, _) = rows
        .by_ref()
        .find(|(row, entries)| {
            feed(&mut engine, 2 * *row as u64 + 1, entries);
            engine.view("pump").unwrap().above
        })
        .unwrap();
    let mut out = Vec::new();
    for (row, entries) in rows {
        let blind = (above + 1..above + 30).contains(&row);
        let entries = if blind { vec![entries[0].clone(), reading(1000.1 + row as f64, "b", None)] } else { entries.to_vec() };
        out.extend(feed(&mut engine, 2 * row as u64 + 1, &entries));
    }
    assert!(predictions(&out).iter().any(|p| p.reason == Some(ScoreReason::MissingPoint) && p.above));
    let since = alarms(&out)[0].since.to_string();
    assert!(since >= Timestamp((1000 + above as i64 + 30) * SECOND).to_string(), "{since}");
}

fn ticks(from: f64, to: f64) -> Vec<Entry> {
    (0..).map(|n| from + 0.75 * f64::from(n)).take_while(|second| *second <= to).map(|second| event(second, EventKind::Tick, None)).collect()
}

/// A dead sensor never looks like a healthy machine, and what a node kept while it was cut off is still taken in order.
#[test]
fn silence_is_a_verdict_once_and_then_at_the_pace_of_predictions() {
    let mut engine = engine_with(|asset| asset.predict_every = Duration::from_secs(6));
    feed(&mut engine, 1, &machine(ROWS + 10, usize::MAX));
    let last = 1000.1 + (ROWS + 9) as f64;
    // The stale limit is 3 s: four ticks say nothing, the fifth does; 6 s later it is said again.
    let out = feed(&mut engine, 1000, &ticks(last + 0.75, last + 3.0));
    assert_eq!(reasons(&out), []);
    let out = feed(&mut engine, 1004, &ticks(last + 3.75, last + 12.0));
    assert_eq!(reasons(&out), [Some(ScoreReason::MissingPoint); 2]);
    assert_eq!((predictions(&out)[0].quality, predictions(&out)[0].health, engine.counters().silences), (Quality::Bad, None, 1));
    assert_eq!(out[0].1.cause, Some(Cause { ordinal: 2, seq: 1004, n: 0 }));
    let silent = engine.view("pump").unwrap();
    assert_eq!((silent.health, silent.reason), (None, Some(ScoreReason::MissingPoint)));
    let (mut heard, before) = (engine.silences(), engine.counters());
    assert_eq!(heard.remove(0).2, Timestamp(((last + 12.0) * SECOND as f64) as i64));
    // The node comes back with what it kept: the first of it is a second after what came last.
    let mut kept = machine(ROWS + 30, usize::MAX);
    let out = feed(&mut engine, 2000, &kept.split_off(2 * (ROWS + 10)));
    assert_eq!((engine.counters().late, engine.counters().rows_scored), (before.late, before.rows_scored + 20));
    assert_eq!(reasons(&out).first(), Some(&None));
}

#[test]
fn behind_a_gap_the_quality_and_the_reason_say_so() {
    let mut engine = engine_with(|_| {});
    let entries = machine(ROWS + 40, usize::MAX);
    feed(&mut engine, 1, &entries[..2 * (ROWS + 10)]);
    engine.pass_gap();
    let out = feed(&mut engine, 1000, &entries[2 * (ROWS + 20)..]);
    let gap = Some(ScoreReason::InputGap);
    assert_eq!(reasons(&out)[..5], [gap, gap, gap, None, None]);
    let qualities: Vec<Quality> = predictions(&out).iter().map(|p| p.quality).collect();
    // The rows up to the first full window are marked, and so is every window that holds one of them.
    assert!(qualities[..7].iter().all(|quality| *quality == Quality::Uncertain), "{qualities:?}");
    assert!(qualities[7..].iter().all(|quality| *quality == Quality::Good), "{qualities:?}");
    assert_eq!(predictions(&out)[0].health_reason.as_deref(), Some("input_gap"));
    // In commissioning too.
    let mut engine = engine_with(|_| {});
    feed(&mut engine, 1, &entries[..100]);
    engine.pass_gap();
    assert_eq!(
        reasons(&feed(&mut engine, 1000, &entries[200..210])),
        [gap, gap, gap, Some(ScoreReason::Commissioning), Some(ScoreReason::Commissioning)]
    );
}
