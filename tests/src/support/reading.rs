//! Readings for benchmarks of the log.
use hark::record::{Body, Entry, Stamp};
use hark_protocol::topics::{Clock, Origin, Quality, Reading, Timestamp, TsSource};

/// Reading number `n` of six machines, 10 ms after the one before: about 100 bytes encoded, with digits that differ as those of real sensors do.
pub fn reading(n: u64) -> Entry {
    let noise = (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as f64 / 16_777_216.0;
    let reading = Reading {
        point: ["de-h.v_rms", "de-h.kurtosis", "de-v.v_rms", "winding.temperature", "shaft.speed"][n as usize % 5].into(),
        value: Some(20.0 + noise),
        unit: "mm/s".into(),
        quality: Quality::Good,
        reason: None,
        source_seq: Some(n),
        boot: "5f0c1a52-90a1-4a8b-a2a5-0c5a2f9f7a11".into(),
        log_ms: n * 10,
    };
    let asset = ["pump-17", "fan-03", "gearbox-line-2", "pump-18", "fan-04", "mixer-1"][n as usize % 6];
    let ts = Timestamp(1_760_000_000_000_000 + n as i64 * 10_000);
    let stamp = Stamp { asset: Some(asset.into()), ts, ts_source: TsSource::Gateway, clock: Clock::Synced, origin: Origin::Simulated };
    Entry { stamp, cause: None, body: Body::Reading(reading) }
}
