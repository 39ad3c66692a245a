//! What becomes of a block whose samples are not as they should be.
use std::f64::consts::TAU;

use super::*;
use crate::{clock::Clock, config, source::decode::Block};

const PUMP: &str = r#"
id = "pump"
[[waveform]]
id = "vib"
unit = "m/s2"
speed_rpm = 1797
speed_search = 0.05
bearing = { elements = 9, element_mm = 7.94, pitch_mm = 39.04 }
features = ["v_rms", "crest", "env.bpfo"]
"#;

/// The pump's source, with room for raw blocks.
struct Bench {
    registry: Arc<Registry>,
    counters: SourceCounters,
}

impl Bench {
    fn new() -> Self {
        let pump = config::check_asset_text("pump", PUMP).unwrap();
        let registry = Registry::keeping(&BTreeMap::from([(pump.id.clone(), pump)]), Origin::Live, 1 << 20);
        Self { registry: registry.into(), counters: SourceCounters::new("plant".into(), "mqtt", "none", Clock::new()) }
    }

    /// The readings of a block that the source calls `quality`, milliseconds after the boot: point, whether it has a value, quality, reason.
    fn take(&self, samples: Vec<f64>, quality: Quality, log_ms: u64) -> Vec<(Name, bool, Quality, Option<QualityReason>)> {
        let value = Value::Block(Block { fs_hz: 12_000.0, unit: None, scale: 1.0, samples });
        let sample = Sample { asset: None, point: None, value, time: None, quality, sequence: None };
        let now = Now { ts: Timestamp(1_750_000_000_000_000), log_ms, boot: "boot".into(), state: ClockState::Synced };
        let (context, mut entries) = (Context { asset: Some("pump"), point: Some("vib"), self_test: false }, Vec::new());
        Intake::new(self.registry.clone()).take(sample, context, &now, &self.counters, &mut entries);
        let of = |entry: Entry| if let Body::Reading(reading) = entry.body { reading } else { panic!("it is a reading") };
        entries.into_iter().map(of).map(|reading| (reading.point, reading.value.is_some(), reading.quality, reading.reason)).collect()
    }
}

/// A sine at the nominal speed, in hundredths, that goes no farther than `end`.
fn sine(end: f64) -> Vec<f64> {
    (0..16_384).map(|i| (100.0 * (TAU * 29.95 * f64::from(i) / 12_000.0).sin().clamp(-end, end)).round() / 100.0).collect()
}

/// All readings of a block are of this worth.
#[track_caller]
fn check(readings: &[(Name, bool, Quality, Option<QualityReason>)], expected: (bool, Quality, Option<QualityReason>)) {
    assert!(readings.len() >= 4, "{readings:?}");
    assert!(readings.iter().all(|(_, is_there, quality, reason)| (*is_there, *quality, *reason) == expected), "{readings:?}");
}

#[test]
fn what_is_computed_of_a_cut_signal_is_uncertain() {
    let bench = Bench::new();
    check(&bench.take(sine(1.0), Quality::Good, 0), (true, Quality::Good, None));
    let clipping = Some(QualityReason::Clipping);
    let readings = bench.take(sine(0.8), Quality::Good, 60_000);
    check(&readings, (true, Quality::Uncertain, clipping));
    let has = |point: &str| readings.iter().any(|reading| &*reading.0 == point);
    assert!(["vib.v_rms", "vib.crest", "vib.speed_tracked"].into_iter().all(has) && !has("vib.fault.outer"), "no fault is named of it: {readings:?}");
    // The strengths of the bearing's four faults.
    let causes = [("dropped", "feature_unavailable", 4), ("quality", "clipping", readings.len() as u64)];
    assert_eq!(bench.counters.causes(), causes);
    // What the source itself says may be worse.
    check(&bench.take(sine(0.8), Quality::Uncertain, 120_000), (true, Quality::Uncertain, clipping));
    check(&bench.take(sine(0.8), Quality::Bad, 180_000), (false, Quality::Bad, Some(QualityReason::Source)));
    check(&bench.take(sine(1.0), Quality::Uncertain, 240_000), (true, Quality::Uncertain, Some(QualityReason::Source)));
    assert_eq!(bench.registry.blocks(&"pump".into(), None).len(), 4, "the newest are kept, cut or not");
}

#[test]
fn a_flat_line_is_no_machine_without_vibration() {
    for level in [0.0, 9.81] {
        let bench = Bench::new();
        let readings = bench.take(vec![level; 16_384], Quality::Good, 0);
        check(&readings, (false, Quality::Bad, Some(QualityReason::Stuck)));
        assert_eq!(bench.counters.causes(), [("quality", "stuck", readings.len() as u64)]);
        assert_eq!(bench.registry.blocks(&"pump".into(), None).len(), 1, "who looks for the cause has the block");
        // The rules are asked of the next block, which need not wait.
        let next = bench.take(sine(1.0), Quality::Good, 1_000);
        assert_eq!(next.len(), readings.len(), "{next:?}");
        check(&next, (true, Quality::Good, None));
    }
}

#[test]
fn of_a_block_with_a_hole_every_reading_is_bad_and_says_why() {
    let bench = Bench::new();
    let mut samples = sine(1.0);
    samples[4_711] = f64::NAN;
    let readings = bench.take(samples, Quality::Good, 0);
    check(&readings, (false, Quality::Bad, Some(QualityReason::NotANumber)));
    assert_eq!(bench.counters.causes(), [("not_kept", "not_a_number", 1), ("quality", "not_a_number", readings.len() as u64)]);
    assert_eq!(bench.registry.blocks(&"pump".into(), None).len(), 0, "a hole would be kept as zero");
    // The rules are asked of the next block, which need not wait.
    let next = bench.take(sine(1.0), Quality::Good, 1_000);
    assert_eq!(next.len(), readings.len(), "{next:?}");
    check(&next, (true, Quality::Good, None));
}
