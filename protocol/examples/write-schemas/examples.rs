//! One value of each topic. They belong together: a pump whose bearing begins to fail, as its gateway tells it.
use hark_protocol::topics::{
    Alarm, AlarmState, Asset, Baseline, Clock, CompactedRecord, Event, EventKind, Feedback, FeedbackAction, GapReason, Gateway, Identity,
    InstrumentStatus, LaneName, OperatingState, Origin, Phase, Prediction, Priority, Quality, Reading, Record, SCHEMA_VERSION, Snapshot, Subject,
    Timestamp, TsSource, Zone,
};

const GATEWAY: &str = "gw-hall3-01";
const ASSET: &str = "pump-p101";
const INCARNATION: &str = "6f2c9f0e-6d0b-4b60-9d0e-3f5a1c2b7d41";
const PREVIOUS_INCARNATION: &str = "b1d7a4c2-90ce-4f35-8a77-12e6c05d3f98";
const BOOT: &str = "0b7c5d7e-3d54-4e0c-a8de-6a9f0c1e2d33";
const CONFIGURATION: &str = "4d1f0e5c8a9b27360f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a6978";
const MODEL: &str = "stage-a";
const MODEL_VERSION: &str = "1.0.0";
const MODEL_HASH: &str = "9c56cc51b374c3ba189210d5b6d4bf57790d351c96c47c02190ecf1e430635ab";
const BASELINE: &str = "6-310433-load-2";
const ALARM_ID: &str = "pump-p101/de-h.env.bpfo/2026-05-11T14:02:30Z";
const CASE_ID: &str = "pump-p101/2026-05-09T22:47:00Z";
/// 2026-05-11T14:02:30.250Z.
const NOW: Timestamp = Timestamp(1_778_508_150_250_000);

fn subject(asset: Option<&str>) -> Subject {
    Subject::new(asset.map(Into::into), NOW, TsSource::Gateway, Clock::Synced, Origin::Live)
}

fn record<B>(lane: LaneName, seq: u64, asset: Option<&str>, body: B) -> Record<B> {
    Record { identity: Identity::new(GATEWAY.into(), INCARNATION.to_owned(), lane, seq, subject(asset)), body }
}

fn compacted<B>(topic: &str, key: &str, asset: Option<&str>, body: B) -> CompactedRecord<B> {
    let event_id = format!("{GATEWAY}/{INCARNATION}/{topic}/{key}/{}", NOW.as_millis());
    CompactedRecord { event_id, gw: GATEWAY.into(), inc: INCARNATION.to_owned(), subject: subject(asset), body }
}

/// A feature of a vibration block.
pub(crate) fn reading() -> Record<Reading> {
    let reading = Reading {
        point: "de-h.v_rms".into(),
        value: Some(3.4172),
        unit: "mm/s".into(),
        quality: Quality::Good,
        reason: None,
        source_seq: Some(88_214),
        boot: BOOT.into(),
        log_ms: 5_961_730_112,
    };
    record(LaneName::Inputs, 184_467, Some(ASSET), reading)
}

/// Above its limit, with a forecast.
pub(crate) fn prediction() -> Record<Prediction> {
    let prediction = Prediction {
        phase: Phase::Scoring,
        state: OperatingState::Running,
        reason: None,
        regime: Some("load-2".into()),
        score: Some(31.8),
        score_max: Some(34.25),
        limit: Some(22.5),
        above: true,
        alarm: true,
        health: Some(43.5),
        health_reason: Some("score over its limit".into()),
        zone: Some(Zone::B),
        forecast: Some("remaining_life".into()),
        end_event: Some("functional_failure".into()),
        failure_mode: Some("spalling of a rolling bearing".into()),
        t_p10_s: Some(777_600.0),
        t_p50_s: Some(1_641_600.0),
        t_p90_s: Some(3_110_400.0),
        capped: Some(false),
        horizon_1_s: Some(86_400.0),
        p_fail_1: Some(0.004),
        horizon_2_s: Some(604_800.0),
        p_fail_2: Some(0.07),
        horizon_3_s: Some(2_592_000.0),
        p_fail_3: Some(0.81),
        t2: Some(1.9),
        q: Some(3.4),
        contrib_1_point: Some("de-h.env.bpfo".into()),
        contrib_1_share: Some(0.62),
        contrib_2_point: Some("de-h.kurtosis".into()),
        contrib_2_share: Some(0.21),
        contrib_3_point: Some("de-temp".into()),
        contrib_3_share: Some(0.09),
        quality: Quality::Good,
        model: Some(MODEL.into()),
        model_version: Some(MODEL_VERSION.into()),
        model_hash: Some(MODEL_HASH.into()),
        baseline_id: Some(BASELINE.into()),
        config_hash: CONFIGURATION.into(),
        input_from: Some(format!("{INCARNATION}/184290").into()),
        input_to: Some(format!("{INCARNATION}/184467").into()),
        remaining_life_s: Some(1_812_000.0),
        life_rows: Some(20_731),
        forecast_model: Some("bearing-rul".into()),
        forecast_model_version: Some("1.0.0".into()),
        forecast_model_hash: Some(MODEL_HASH.into()),
        forecast_input_from: Some(format!("{INCARNATION}/310").into()),
        forecast_input_to: Some(format!("{INCARNATION}/184467").into()),
    };
    record(LaneName::Predictions, 20_731, Some(ASSET), prediction)
}

/// The outer ring of a bearing.
pub(crate) fn alarm() -> Record<Alarm> {
    let alarm = Alarm {
        alarm_id: ALARM_ID.into(),
        case_id: Some(CASE_ID.into()),
        state: AlarmState::ActiveUnacknowledged,
        previous_state: AlarmState::Normal,
        priority: Priority::Medium,
        what: "drive-end bearing, outer ring".into(),
        since: "2026-05-11T14:02:00.250000Z".into(),
        point: Some("de-h.env.bpfo".into()),
        value: Some(0.41),
        limit: Some(0.25),
        unit: Some("[g]".into()),
        zone: Some(Zone::B),
        failure_mode: Some("VIB".into()),
        cause: Some("spalling of the outer ring".into()),
        advice: Some("check lubrication; take a second measurement at the drive end; plan the bearing for the next stop".into()),
        consequence: Some("seizure of the pump".into()),
        respond_by: Some("2026-05-20T14:02:30.250000Z".into()),
        confidence: Some(0.83),
        quality: Quality::Good,
        until: None,
        actor: None,
        comment: None,
        contrib_1_point: Some("de-h.env.bpfo".into()),
        contrib_1_share: Some(0.62),
        contrib_2_point: Some("de-h.kurtosis".into()),
        contrib_2_share: Some(0.21),
        contrib_3_point: Some("de-temp".into()),
        contrib_3_share: Some(0.09),
        model: Some(MODEL.into()),
        model_version: Some(MODEL_VERSION.into()),
        model_hash: Some(MODEL_HASH.into()),
        baseline_id: Some(BASELINE.into()),
        config_hash: CONFIGURATION.into(),
        input_from: Some(format!("{INCARNATION}/184290").into()),
        input_to: Some(format!("{INCARNATION}/184467").into()),
        evidence_json: Some(r#"{"bpfo_hz":104.6,"harmonics":3,"snapshot_id":"pump-p101/de-h/2026-05-11T14:02:28Z"}"#.into()),
    };
    record(LaneName::Alarms, 12, Some(ASSET), alarm)
}

/// A gap: the event that the audit needs.
pub(crate) fn event() -> Record<Event> {
    let event = Event {
        text: Some("the buffer reached its quota: 8192 readings were given up before they could be delivered".into()),
        count: Some(8_192),
        gap_lane: Some(LaneName::Inputs),
        gap_inc: Some(PREVIOUS_INCARNATION.into()),
        gap_from_seq: Some(1),
        gap_to_seq: Some(8_192),
        gap_bytes: Some(1_048_576),
        gap_reason: Some(GapReason::Quota),
        ..Event::new(EventKind::Gap)
    };
    record(LaneName::Events, 3, None, event)
}

/// The first of four chunks; eight samples instead of thousands, to stay readable.
pub(crate) fn snapshot() -> Record<Snapshot> {
    let snapshot = Snapshot {
        point: "de-h".into(),
        snapshot_id: "pump-p101/de-h/2026-05-11T14:02:28Z".into(),
        cause_id: Some(ALARM_ID.into()),
        chunk: 1,
        chunks: 4,
        fs_hz: 25_600.0,
        unit: "[g]".into(),
        scale: 0.000_488_281_25,
        samples: 8,
        speed_hz: Some(49.17),
        data_b64: "AAAQAO//JQDR/zMAvf9AAA==".into(),
    };
    record(LaneName::Inputs, 184_471, Some(ASSET), snapshot)
}

/// A gateway that catches up after two hours without a link.
pub(crate) fn gateway() -> CompactedRecord<Gateway> {
    let gateway = Gateway {
        period_s: 30.0,
        version: "0.1.0".into(),
        os: "Linux 6.1.0-35-amd64".into(),
        uptime_s: 1_209_613.5,
        inc_ordinal: 7,
        link: "connected".into(),
        delivery: "exactly_once".into(),
        plaintext_accepted: None,
        accepted: 205_213,
        delivered: 184_102,
        buffered: 12_919,
        buffer_bytes: 9_437_184,
        buffer_quota_bytes: 2_147_483_648,
        buffer_oldest_s: Some(7_204.5),
        gap_records: 8_192,
        lanes_json: r#"{"inputs":{"first":"7/8192","last":"7/184471","acked":"7/171560","buffered":12911,"bytes":8912896,"oldest_s":7204.5},"predictions":{"first":"7/20000","last":"7/20731","acked":"7/20724","buffered":7,"bytes":524288,"oldest_s":41.2},"alarms":{"first":"6/11","last":"7/1","acked":"7/0","buffered":1,"bytes":0,"oldest_s":0.2},"events":{"first":"7/0","last":"7/3","acked":"7/3","buffered":0,"bytes":0,"oldest_s":null}}"#.into(),
        sources_json: r#"[{"name":"hall-3","kind":"mqtt","state":"connected","guarantee":"redelivery","accepted":201873},{"name":"p101","kind":"serial","state":"connected","guarantee":"replay","accepted":3340}]"#.into(),
        counters_json: r#"{"hall-3.rejected.not_json":2,"p101.node.repeated":311}"#.into(),
        certificates_json: r#"[{"name":"kafka client","subject":"CN=gw-hall3-01","expires":"2027-01-31T00:00:00Z"}]"#.into(),
        rss_bytes: Some(61_341_696),
    };
    compacted("gateways.v1", GATEWAY, None, gateway)
}

/// The pump with its alarm open.
pub(crate) fn asset() -> CompactedRecord<Asset> {
    let asset = Asset {
        name: "Feed pump 101".into(),
        path: Some("acme/ulm/hall-3/line-2/p101".into()),
        class: Some("pump-centrifugal".into()),
        lifecycle: "active".into(),
        phase: Phase::Scoring,
        commissioning_progress: None,
        commissioning_rows: None,
        commissioning_running_s: None,
        commissioning_running_needed_s: None,
        commissioning_starts: None,
        commissioning_starts_needed: None,
        commissioning_refused: None,
        state: OperatingState::Running,
        regime: Some("load-2".into()),
        health: Some(43.5),
        health_reason: Some("score over its limit".into()),
        zone: Some(Zone::B),
        above: true,
        alarm_state: AlarmState::ActiveUnacknowledged,
        alarm_id: Some(ALARM_ID.into()),
        case_id: Some(CASE_ID.into()),
        instrument_status: InstrumentStatus::MaintenanceRequired,
        instruments_json: r#"{"de-h":"normal","de-temp":"maintenance_required","speed":"normal"}"#.into(),
        quality: Quality::Good,
        silent_s: Some(0.3),
        points_json: r#"[{"point":"de-h.v_rms","unit":"mm/s"},{"point":"de-h.kurtosis","unit":"1"},{"point":"de-h.env.bpfo","unit":"[g]"},{"point":"de-temp","unit":"Cel"},{"point":"speed","unit":"/min"}]"#.into(),
        model: Some(MODEL.into()),
        model_version: Some(MODEL_VERSION.into()),
        model_hash: Some(MODEL_HASH.into()),
        baseline_id: Some(BASELINE.into()),
        config_hash: CONFIGURATION.into(),
        forecast: Some("time_to_limit".into()),
        end_event: Some("de-h.v_rms:zone_c".into()),
        t_p10_s: Some(259_200.0),
        t_p50_s: Some(518_400.0),
        t_p90_s: Some(1_209_600.0),
        capped: Some(false),
        forecast_model: None,
        forecast_model_refused: None,
    };
    compacted("assets.v1", ASSET, Some(ASSET), asset)
}

/// Weights of two points, to stay readable.
pub(crate) fn baseline() -> CompactedRecord<Baseline> {
    let baseline = Baseline {
        baseline_id: BASELINE.into(),
        regime: Some("load-2".into()),
        model: MODEL.into(),
        model_version: MODEL_VERSION.into(),
        model_hash: MODEL_HASH.into(),
        config_hash: CONFIGURATION.into(),
        verdict: "accepted_with_remarks".into(),
        remarks: Some("ran at one speed only".into()),
        accepted_by: Some("policy".into()),
        rows: 20_160,
        starts: Some(2),
        rows_held_back: 20_157,
        input_from: format!("{PREVIOUS_INCARNATION}/8193").into(),
        input_to: format!("{PREVIOUS_INCARNATION}/310433").into(),
        limit: 1.0,
        limit_by: None,
        score_median: 0.61,
        points_json: r#"["de-h.v_rms","de-temp"]"#.into(),
        weights_json: r#"{"mean":[2.1,48.3],"inv_std":[3.125,0.244],"least":[-1.0,-1e30],"regression":[0.11,0.0,0.01,0.17,0.19,0.01,0.0,0.28,0.41,0.02,0.03,0.52],"bias":[0.002,-0.001],"whitening":[0.84,-0.05,-0.05,0.67],"slow_regression":[0.1,0.0,0.02,0.15,0.17,0.01,0.01,0.25,0.4,0.02,0.03,0.5],"slow_bias":[0.002,-0.001],"slow_whitening":[0.61,-0.04,-0.04,0.49],"pca_components":[0.71,0.71],"pca_inv_variance":[0.53],"pca_limits":[6.1,0.4]}"#.into(),
        range_json: r#"{"de-h.v_rms":[0.9,4.2],"de-temp":[31.0,62.5]}"#.into(),
        means_by: None,
    };
    compacted("baselines.v1", &format!("{ASSET}/{BASELINE}"), Some(ASSET), baseline)
}

/// A person shelves the alarm until the next stop.
pub(crate) fn feedback() -> Feedback {
    const COMMAND_ID: &str = "0d0c6f2e-7a35-4b8f-b0a9-7f0e6a1c9d55";
    // 2026-05-11T15:20:00Z.
    let now = Timestamp(1_778_512_800_000_000);
    Feedback {
        event_id: format!("{GATEWAY}/feedback.v1/{ASSET}/{COMMAND_ID}"),
        gw: GATEWAY.into(),
        inc: Some(INCARNATION.to_owned()),
        sv: SCHEMA_VERSION,
        asset: ASSET.into(),
        ts: now.to_string(),
        ts_ms: now.as_millis(),
        ts_source: TsSource::Sender,
        clock: Clock::Synced,
        origin: Origin::Live,
        command_id: COMMAND_ID.into(),
        actor: "m.huber".into(),
        role: "maintenance".into(),
        issued_at: "2026-05-11T15:20:00.000000Z".into(),
        expires_at: "2026-05-11T16:20:00.000000Z".into(),
        alarm_id: Some(ALARM_ID.into()),
        action: FeedbackAction::Shelve,
        point: Some("de-h.env.bpfo".into()),
        until: Some("2026-05-13T06:00:00.000000Z".into()),
        label: Some("true_alarm".into()),
        failure_mode: Some("VIB".into()),
        comment: Some("bearing ordered, change on Wednesday".into()),
    }
}
