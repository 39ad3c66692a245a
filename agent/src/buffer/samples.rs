//! Entries for tests.
use hark_protocol::topics::{Clock, Origin, Quality, Reading, Snapshot, Timestamp, TsSource};

use crate::record::{Body, Entry, Stamp};

/// A reading like those of a plant; `n` makes it distinct.
pub(crate) fn reading(n: u64) -> Entry {
    let value = 20.0 + (n as f64 * 0.37).sin() * 3.0;
    let reading = Reading {
        point: ["de-h.v_rms", "de-h.kurtosis", "winding.temperature"][n as usize % 3].into(),
        value: Some(value),
        unit: "mm/s".into(),
        quality: Quality::Good,
        reason: None,
        source_seq: Some(n),
        boot: "5f0c1a52-90a1-4a8b-a2a5-0c5a2f9f7a11".into(),
        log_ms: n * 10,
    };
    entry(n, Body::Reading(reading))
}

/// A snapshot chunk of `bytes` characters that do not compress below three quarters.
pub(super) fn noise(n: u64, bytes: usize) -> Entry {
    let mut random = fastrand::Rng::with_seed(n);
    let data: String = (0..bytes).map(|_| char::from(b'0' + random.u8(0..64))).collect();
    let snapshot = Snapshot {
        point: "de-h".into(),
        snapshot_id: format!("snapshot-{n}").into(),
        cause_id: None,
        chunk: 1,
        chunks: 1,
        fs_hz: 25_600.0,
        unit: "m/s2".into(),
        scale: 0.001,
        samples: 1,
        speed_hz: None,
        data_b64: data.into(),
    };
    entry(n, Body::Snapshot(snapshot))
}

fn entry(n: u64, body: Body) -> Entry {
    let stamp = Stamp {
        asset: Some("pump-17".into()),
        ts: Timestamp(1_760_000_000_000_000 + n as i64 * 10_000),
        ts_source: TsSource::Gateway,
        clock: Clock::Synced,
        origin: Origin::Simulated,
    };
    Entry { stamp, cause: None, body }
}
