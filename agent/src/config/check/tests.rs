//! What is refused, one wrong key at a time: each case begins with a configuration without fault.
use std::fs;

use super::*;
use crate::config::Threshold;

const GATEWAY: &str = "[gateway]\nid = \"gw\"\n";
const ASSET: &str = "id = \"pump\"\n[[point]]\nid = \"flow\"\nunit = \"l/min\"\ncolumn = \"Q\"\n[[point]]\nid = \"speed\"\nunit = \"/min\"\n\
[[waveform]]\nid = \"de-h\"\nunit = \"[g]\"\n";

/// Loads a gateway file and asset files `a0.toml`, `a1.toml` ….
fn load_texts(load: fn(&Path) -> Result<Config, ConfigError>, hark: &str, assets: &[&str]) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("assets")).unwrap();
    fs::write(dir.path().join("hark.toml"), hark).unwrap();
    for (i, text) in assets.iter().enumerate() {
        fs::write(dir.path().join(format!("assets/a{i}.toml")), text).unwrap();
    }
    load(dir.path()).map_or_else(|error| error.faults, |_| Vec::new())
}

#[track_caller]
fn check(hark: &str, asset: &str, expected: &[&str]) {
    let faults = load_texts(load, hark, &[asset]);
    let all = expected.len() == faults.len() && expected.iter().zip(&faults).all(|(expected, fault)| fault.contains(expected));
    assert!(all, "expected {expected:#?}\n of {hark}{asset}\n but got {faults:#?}");
}

/// `tables` after the gateway's own in `hark.toml`.
#[track_caller]
fn check_hark(tables: &str, expected: &[&str]) {
    check(&format!("{GATEWAY}{tables}"), ASSET, expected);
}

/// The asset with `before` replaced.
#[track_caller]
fn check_asset_with(before: &str, after: &str, expected: &[&str]) {
    assert!(ASSET.contains(before), "{before}");
    check(GATEWAY, &ASSET.replacen(before, after, 1), expected);
}

fn mqtt(name: &str, topics: &str) -> String {
    format!("[[mqtt]]\nname = \"{name}\"\nhost = \"localhost\"\n{topics}")
}

fn topic(template: &str, keys: &str) -> String {
    format!("[[mqtt.topic]]\ntemplate = \"{template}\"\n{keys}\n")
}

fn serial(name: &str, keys: &str) -> String {
    format!("[[serial]]\nname = \"{name}\"\npath = \"/dev/{name}\"\n{keys}\n")
}

fn csv(columns: &str) -> String {
    serial("port", &format!("format = \"csv\"\nasset = \"pump\"\ncolumns = {columns}"))
}

const VALUE: &str = "payload = { value = \"/value\" }";
const JSON: &str = "format = \"json\"\nasset = \"pump\"\npayload = { values = \"\" }";
const PLANT: &str = "plant/{asset}/{point}";

#[test]
fn sources_have_names_clients_and_ports_of_their_own() {
    let topic = topic(PLANT, VALUE);
    check_hark(&[mqtt("a", &topic), mqtt("b", &topic), serial("c", JSON), serial("d", JSON)].concat(), &[]);
    let names = [mqtt("a", &topic), serial("b", JSON), serial("a", JSON)].concat();
    check_hark(&names, &["hark.toml: serial[1].name: `a` is that of mqtt[0] too; expected a name"]);
    let twice = format!("client_id = \"hark\"\n{topic}");
    check_hark(&[mqtt("a", &twice), mqtt("b", &twice)].concat(), &["mqtt[1].client_id: `hark` at `localhost:1883` is that of mqtt[0] too"]);
    let port = serial("b", JSON).replace("/dev/b", "/dev/a");
    check_hark(&[serial("a", JSON), port].concat(), &["serial[1].path: `/dev/a` is that of serial[0] too"]);
}

#[test]
fn templates_give_valid_filters() {
    for (template, expected) in [
        ("", "is empty"),
        ("plant/{asset}/{point}/#/x", "has `#` before its end"),
        ("{asset}/{asset}/{point}", "captures `{asset}` twice"),
        ("plant-{asset}/{asset}/{point}", "has a capture beside other characters in `plant-{asset}`"),
        ("plant/a+/{asset}/{point}", "has a wildcard beside other characters"),
        ("a\\u0000b/{asset}/{point}", "holds a NUL"),
    ] {
        let named = format!("asset = \"pump\"\npoint = \"flow\"\n{VALUE}");
        check_hark(
            &mqtt("a", &topic(template, &named)),
            &[&format!("hark.toml: mqtt[0].topic[0].template: `{template}` {expected}").replace("\\u0000", "\\0")],
        );
    }
}

#[test]
fn templates_of_a_broker_do_not_overlap() {
    let (general, special) = (topic(PLANT, VALUE), topic("plant/pump/{point}", &format!("asset = \"pump\"\n{VALUE}")));
    let expected = "mqtt[0].topic[1].template: `plant/pump/{point}` overlaps with `plant/{asset}/{point}` of topic[0]";
    check_hark(&mqtt("a", &format!("{general}{special}")), &[expected]);
    check_hark(&[mqtt("a", &general), mqtt("b", &special)].concat(), &[]);
    let waveform = topic("plant/{asset}/{point}/waveform", "payload = { waveform = true }");
    check_hark(&mqtt("a", &format!("{general}{waveform}")), &[]);
}

#[test]
fn checks_of_points_are_possible_and_have_what_they_need() {
    let speed = "id = \"speed\"\nunit = \"/min\"\n";
    let all = "range = [0.0, 3000.0]\nmax_rate = 200.0\nstuck_after = \"10s\"\nstuck_within = 0.0\nclips = \"high\"\n";
    for (keys, expected) in [
        (all, &[][..]),
        ("max_rate = 0.0\n", &["a0.toml: point.max_rate: of `speed` is 0; expected a rate above 0, in `/min` per second"]),
        ("max_rate = inf\n", &["point.max_rate: of `speed` is inf; expected"]),
        ("stuck_within = 1.0\n", &["point.stuck_within: of `speed` says nothing alone; expected `stuck_after`"]),
        ("stuck_after = \"1m\"\nstuck_within = -1.0\n", &["point.stuck_within: of `speed` is -1; expected 0 or more, in `/min`"]),
        ("stuck_after = \"9s\"\n", &["point.stuck_after: `9s` is out of range; expected 10s to 31d"]),
        ("clips = \"low\"\n", &["point.clips: of `speed` names ends of a range; expected `range`"]),
        ("clips = \"top\"\n", &["unknown variant `top`, expected one of `low`, `high`, `both`"]),
    ] {
        check_asset_with(speed, &format!("{speed}{keys}"), expected);
    }
    let delay = "id = \"pump\"\n[instrument]\non_delay = \"2d\"\n";
    check_asset_with("id = \"pump\"\n", delay, &["a0.toml: instrument.on_delay: `2d` is out of range; expected 0s to 1d"]);
}

#[test]
fn points_that_sources_name_are_there() {
    for (template, keys, expected) in [
        ("plant/{asset}", "point = \"Q\"\npayload = { value = \"/value\" }", None),
        (
            "plant/{asset}",
            "point = \"colour\"\npayload = { value = \"/value\" }",
            Some("topic[0].point: `colour` is not known to any asset; expected the id"),
        ),
        ("plant/x", "asset = \"pump\"\npoint = \"colour\"\npayload = { value = \"/v\" }", Some("topic[0].point: `colour` is not known to `pump`")),
        ("plant/x", "asset = \"fan\"\npoint = \"flow\"\npayload = { value = \"/v\" }", Some("topic[0].asset: `fan` has no file")),
        ("plant/x", "asset = \"pump\"\npoint = \"de-h\"\npayload = { waveform = true }", None),
        ("plant/x", "asset = \"pump\"\npoint = \"flow\"\npayload = { waveform = true }", Some("expected the id of a `[[waveform]]`")),
    ] {
        check_hark(&mqtt("a", &topic(template, keys)), &expected.into_iter().collect::<Vec<_>>());
    }
    for (columns, expected) in [
        ("[\"ts\", \"Q\", \"\", \"speed\", \"de-h.v_rms\"]", &[][..]),
        ("[\"ts\", \"flow\", \"colour\"]", &["serial[0].columns: `colour` is no point of `pump`; expected the id or column"]),
        ("[\"ts\", \"flow\", \"flow\"]", &["`flow` stands twice"]),
        ("[\"ts\", \"time\", \"flow\"]", &["several columns for the time"]),
        ("[\"ts\", \"\"]", &["names no point; expected at least one of `pump`"]),
    ] {
        check_hark(&csv(columns), expected);
    }
    let node = |channels: &str| serial("port", &format!("format = \"node\"\n[[serial.node]]\nid = 7\nasset = \"pump\"\nchannels = {channels}"));
    check_hark(&node("[\"de-h\", \"\"]"), &[]);
    check_hark(&node("[\"nde-h\"]"), &["serial[0].node.channels: `nde-h` of node 7 is no beginning of a point"]);
    check_hark(&node("[]"), &["of node 7 are empty"]);
    check_hark(&serial("port", "format = \"json\""), &["names no asset", "names no point"]);
}

#[test]
fn a_file_that_cannot_be_read_is_not_said_to_lack_what_it_holds() {
    let hark = format!("{GATEWAY}{}", mqtt("a", &topic("plant/{asset}", &format!("point = \"flow\"\n{VALUE}"))));
    assert!(matches!(&load_texts(load_to_run, &hark, &["id = pump"])[..], [fault] if fault.contains("a0.toml: TOML parse error")));
}

#[test]
fn points_of_an_asset_do_not_clash() {
    for (column, expected) in [
        ("speed", "a0.toml: point.column: `speed` of `flow` is the id or column of `speed` too"),
        ("de-h.v_rms", "`de-h.v_rms` of `flow` is the id or column of `de-h.v_rms` too"),
        ("", "`` of `flow` names no point"),
        ("ts", "`ts` of `flow` names no point"),
    ] {
        check_asset_with("\"Q\"", &format!("\"{column}\""), &[expected]);
    }
    check_asset_with("id = \"speed\"", "id = \"speed\"\ncolumn = \"Q\"", &["`Q` of `speed` is the id or column of `flow` too"]);
    check_asset_with("\"Q\"", "\"flow\"", &[]);
    check_asset_with("[[waveform]]", "[[waveform]]\nid = \"de-h\"\nunit = \"[g]\"\n[[waveform]]", &["waveform.id: `de-h` stands twice"]);
}

#[test]
fn waveforms_are_of_an_acceleration_on_a_possible_bearing() {
    let with = |key: &str, expected: &[&str]| check_asset_with("unit = \"[g]\"", &format!("unit = \"[g]\"\n{key}"), expected);
    check_asset_with("unit = \"[g]\"", "unit = \"g\"", &[]);
    check_asset_with("unit = \"[g]\"", "unit = \"m/s2\"", &[]);
    check_asset_with("unit = \"[g]\"", "unit = \"mm/s\"", &["waveform.unit: `mm/s` of `de-h` is no acceleration; use `[g]` or `m/s2`"]);
    with("speed_point = \"speed\"", &[]);
    with("speed_point = \"rpm\"", &["waveform.speed_point: `rpm` of `de-h` is no point of this asset"]);
    with("speed_point = \"flow\"", &["`flow` of `de-h` has unit `l/min`; expected `/min` or `Hz`"]);
    with("speed_rpm = 0", &["waveform.speed_rpm: of `de-h` must be above 0"]);
    with("speed_rpm = 1480\nspeed_search = 0.3", &[]);
    with("speed_rpm = 1480\nspeed_search = 0.5", &["waveform.speed_search: of `de-h` is 0.5; expected a part of the speed up to 0.3"]);
    with("envelope_band_hz = [2000, inf]", &["waveform.envelope_band_hz"]);
    for (bearing, expected) in [
        ("elements = 9, element_mm = 7.94, pitch_mm = 39.04", &[][..]),
        ("elements = 2, element_mm = 7.94, pitch_mm = 39.04", &["waveform.bearing.elements: of `de-h` is 2; expected at least 3"]),
        (
            "elements = 9, element_mm = 39.04, pitch_mm = 7.94",
            &["bearing.element_mm: of `de-h` is 39.04; expected less than the pitch diameter of 7.94"],
        ),
        ("elements = 9, element_mm = 8, pitch_mm = 8", &["expected less than the pitch diameter"]),
        ("elements = 90, element_mm = 7.94, pitch_mm = 39.04", &["have no room"]),
        ("elements = 9, element_mm = nan, pitch_mm = 39.04", &["bearing.element_mm: of `de-h` is NaN"]),
        ("elements = 9, element_mm = -1, pitch_mm = inf", &["bearing.element_mm: of `de-h` is -1", "bearing.pitch_mm: of `de-h` is inf"]),
        ("elements = 9, element_mm = 7.94, pitch_mm = 39.04, contact_deg = 90", &["bearing.contact_deg: of `de-h` is 90"]),
    ] {
        with(&format!("bearing = {{ {bearing} }}"), expected);
    }
}

#[test]
fn durations_are_within_sensible_ranges() {
    for (every, expected) in [
        ("1s", &[][..]),
        ("1h", &[]),
        ("0s", &["gateway.heartbeat_every: `0s` is out of range; expected 1s to 1h"]),
        ("61m", &["expected 1s to 1h"]),
        ("often", &["gateway.heartbeat_every: `often` is no duration"]),
    ] {
        check_hark(&format!("heartbeat_every = \"{every}\""), expected);
    }
    check_hark("[buffer]\ncommit_max_delay = \"0s\"", &["buffer.commit_max_delay: `0s` is out of range; expected 1ms to 10s"]);
    let session = |expiry: &str| mqtt("a", &format!("session_expiry = \"{expiry}\"\n{}", topic(PLANT, VALUE)));
    check_hark(&session("0s"), &["mqtt[0].session_expiry: `0s` is out of range; expected 10s to 365d"]);
    check_hark(&session("7d"), &[]);
    for (keys, expected) in [
        ("grid = \"10ms\"\nstale_after = \"10ms\"\npredict_every = \"0s\"", &[][..]),
        ("grid = \"1d\"", &[]),
        ("grid = \"9ms\"", &["a0.toml: grid: `9ms` is out of range; expected 10ms to 1d"]),
        ("grid = \"2d\"", &["grid: `2d` is out of range"]),
        ("grid = \"fast\"", &["grid: `fast` is no duration"]),
        ("stale_after = \"500ms\"", &["stale_after: `500ms` is out of range; expected 1s to 31d"]),
        ("predict_every = \"25h\"", &["predict_every: `25h` is out of range; expected 0s to 1d"]),
        ("alarm = { on_delay = \"2d\", off_delay = \"-1s\" }", &["alarm.on_delay: `2d` is out of range", "alarm.off_delay: `-1s` is no duration"]),
    ] {
        check_asset_with("id = \"pump\"\n", &format!("id = \"pump\"\n{keys}\n"), expected);
    }
}

#[test]
fn values_of_each_point_are_stale_in_their_own_time() {
    for key in ["point", "waveform"] {
        let before = format!("[[{key}]]\n");
        let with = |stale_after: &str, expected: &[&str]| check_asset_with(&before, &format!("{before}stale_after = \"{stale_after}\"\n"), expected);
        with("1s", &[]);
        with("500ms", &[&format!("a0.toml: {key}.stale_after: `500ms` is out of range; expected 1s to 31d")]);
        with("32d", &[&format!("{key}.stale_after: `32d` is out of range; expected 1s to 31d")]);
        with("soon", &[&format!("{key}.stale_after: `soon` is no duration")]);
    }
    let asset = |asset: &str, waveform: &str, points: &str| {
        let text = format!(
            "id = \"a\"\n{asset}\n[[point]]\nid = \"flow\"\nunit = \"l/min\"\n{points}[[waveform]]\nid = \"de\"\nunit = \"[g]\"\nspeed_rpm = 1480\nvanes = 6\n{waveform}\n"
        );
        check_asset_text("a", &text).map(|asset| {
            let seconds = |id: &str| asset.points.iter().find(|point| &*point.id == id).map(|point| asset.stale_after(point).as_secs());
            ["flow", "de.temperature", "de.v_rms", "de.crest", "de.speed_tracked", "de.fault.cavitation"].map(|id| seconds(id).unwrap_or(0))
        })
    };
    let velocity = "[[point]]\nid = \"de.v_rms\"\nunit = \"mm/s\"\nseverity = \"2-rigid\"\n";
    // A feature of a node's channel is as any other reading.
    let more = format!("{velocity}[[point]]\nid = \"de.temperature\"\nunit = \"Cel\"\n");
    for (of_asset, of_waveform, points, expected) in [
        ("", "", "", [5, 0, 1_800, 1_800, 1_800, 1_800]),
        ("stale_after = \"10s\"", "", &*more, [10, 10, 1_800, 1_800, 1_800, 1_800]),
        ("stale_after = \"1h\"", "", &more, [3_600; 6]),
        ("", "stale_after = \"3m\"", &more, [5, 5, 180, 180, 180, 180]),
        ("", "stale_after = \"3m\"", &format!("stale_after = \"7s\"\n{velocity}stale_after = \"9s\"\n"), [7, 0, 9, 180, 180, 180]),
    ] {
        assert_eq!(asset(of_asset, of_waveform, points).unwrap(), expected, "{of_asset} {of_waveform} {points}");
    }
    let stuck = format!("{velocity}stuck_after = \"59m\"\n");
    let fault = asset("", "", &stuck).unwrap_err().to_string();
    assert!(fault.contains("point.stuck_after: `59m` is out of range; expected 1h to 31d"), "{fault}");
    assert!(asset("", "stale_after = \"1m\"", &stuck).is_ok());
}

#[test]
fn running_needs_a_machine_and_a_source_and_replaying_does_not() {
    let source = format!("{GATEWAY}{}", mqtt("a", &topic(PLANT, VALUE)));
    assert_eq!(load_texts(load_to_run, &source, &[ASSET]), [""; 0]);
    assert_eq!(load_texts(load, GATEWAY, &[]), [""; 0]);
    let faults = load_texts(load_to_run, GATEWAY, &[]);
    assert!(faults.len() == 2 && faults[0].contains("assets: *.toml: there is none; expected one file"), "{faults:?}");
    assert!(faults[1].contains("hark.toml: mqtt, serial: there is no source; expected at least one"), "{faults:?}");
}

/// Six scored points: those of the vibration sensor too.
#[test]
fn rows_that_no_checkpoint_can_hold_are_refused() {
    let source = format!("{GATEWAY}{}", mqtt("a", &topic(PLANT, VALUE)));
    let asset = |id: &str, rows: u32| ASSET.replacen("id = \"pump\"\n", &format!("id = \"{id}\"\ncommissioning.rows = {rows}\n"), 1);
    // 56 MiB are 1 223 338 rows of six values.
    assert_eq!(load_texts(load_to_run, &source, &[&asset("a", 1_136_938), &asset("b", 86_400)]), [""; 0]);
    let files = [asset("a", 1_136_939), asset("b", 86_400)];
    let faults = load_texts(load_to_run, &source, &[&files[0], &files[1]]);
    let [fault] = &faults[..] else { panic!("{faults:?}") };
    for part in
        ["assets: commissioning: rows of all machines take 57 MiB", "most of all `a` with 53 MiB", "expected 56 MiB at most: a coarser `grid`"]
    {
        assert!(fault.contains(part), "{part} in {fault}");
    }
    assert_eq!(load_texts(load, &source, &[&files[0], &files[1]]), [""; 0], "a back-test has no checkpoint");
    assert!(check_asset_text("asset", &asset("a", 2_000_000)).unwrap_err().faults[0].contains("with 92 MiB"));
}

#[test]
fn a_machine_is_learned_from_a_day_of_running_and_two_starts() {
    let commissioning = |keys: &str, states: bool| {
        let operating = if states { "[operating]\npoint = \"speed\"\nrunning = 600.0\n" } else { "" };
        let text = ASSET.replacen("id = \"pump\"\n", &format!("id = \"pump\"\n{keys}\n{operating}"), 1);
        check_asset_text("asset", &text).map(|asset| (asset.commissioning.rows, asset.commissioning.starts)).map_err(|error| error.faults.join("; "))
    };
    for (keys, states, expected) in [
        ("", false, (86_400, 0)),
        ("", true, (86_400, 2)),
        ("grid = \"500ms\"", false, (172_800, 0)),
        ("grid = \"1m\"", false, (1_440, 0)),
        ("grid = \"10m\"", false, (400, 0)),
        ("commissioning.running = \"1h\"", true, (3_600, 2)),
        ("commissioning = { rows = 130, starts = 0 }", true, (130, 0)),
        ("commissioning.starts = 0", false, (86_400, 0)),
    ] {
        assert_eq!(commissioning(keys, states), Ok(expected), "{keys}");
    }
    for (keys, states, expected) in [
        ("commissioning.rows = 129", false, "commissioning.rows: 129 are too few to learn from: expected 130 at least"),
        ("commissioning = { rows = 400, running = \"1h\" }", false, "commissioning.rows: says the same as `running`"),
        ("commissioning.running = \"1s\"", false, "commissioning.running: `1s` is out of range; expected 1m to 90d"),
        ("commissioning.starts = 1", false, "commissioning.starts: needs to know when the machine runs; expected `[operating]`, or 0"),
    ] {
        let faults = commissioning(keys, states).unwrap_err();
        assert!(faults.contains(expected), "{keys}: {faults}");
    }
}

#[test]
fn kafka_brokers_are_hosts_with_ports() {
    const ACCEPTED: &str = "plaintext_accepted = \"own VLAN\"";
    for (brokers, more, expected) in [
        ("localhost:9092, 127.0.0.1:9093,[::1]:9094", "", &[][..]),
        ("", "", &["hark.toml: kafka.brokers: is empty; expected `host:port`"]),
        (" ", ACCEPTED, &["kafka.brokers: is empty"]),
        ("localhost", "", &["kafka.brokers: `localhost` is no broker; expected `host:port`"]),
        ("a:9092,b,c:x,:1,d:0,::1:9092", ACCEPTED, &["`b` is no", "`c:x` is no", "`:1` is no", "`d:0` is no", "`::1:9092` is no"]),
        ("localhost:9092,", "", &["`` is no broker"]),
        ("localhost:9092, kafka:9092", "", &["plain text to `kafka` is refused"]),
        ("kafka:9092", ACCEPTED, &[]),
        ("kafka:9092", "plaintext_accepted = \" \"", &["plain text to `kafka` is refused"]),
    ] {
        check_hark(&format!("[kafka]\nbrokers = \"{brokers}\"\n{more}"), expected);
    }
    check_hark(&mqtt("a", &topic(PLANT, VALUE)).replace("localhost", ""), &["mqtt[0].host: is empty"]);
}

#[test]
fn an_unknown_key_is_a_fault() {
    check_hark("colour = 1", &["hark.toml: TOML parse error"]);
    check_asset_with("id = \"pump\"\n", "id = \"pump\"\ncolour = 1\n", &["unknown field `colour`"]);
}

#[test]
fn limits_are_in_order_within_the_range_and_say_something() {
    let speed = "id = \"speed\"\nunit = \"/min\"\n";
    for (limits, expected) in [
        ("{ high = 1600.0, high_high = 1800.0, failure_mode = \"OHE\", check = \"a\", otherwise = \"b\", cause = \"c\", deadband = 5.0 }", &[][..]),
        ("{ }", &["a0.toml: point.limits: of `speed` say nothing; expected one at least of low_low, low, high, high_high"]),
        ("{ high = 1800.0, high_high = 1600.0 }", &["of `speed` have high = 1800 and high-high = 1600; expected the second above the first"]),
        ("{ low = nan }", &["of `speed` have a low limit of NaN; expected a number"]),
        ("{ high = 3000.0 }", &["have a high limit of 3000, not inside the range [0, 3000]: beyond that a value is bad and never an alarm"]),
        ("{ high = 1600.0, deadband = -1.0 }", &["point.limits.deadband: of `speed` is -1; expected 0 or more, in `/min`"]),
        ("{ high = 1600.0, failure_mode = \"HOT\" }", &["point.limits.failure_mode: of `speed` `HOT` is none of VIB, NOI"]),
        ("{ low = 1000.0, high = 1600.0, deadband = 599.0 }", &[]),
        (
            "{ low = 1000.0, high = 1600.0, deadband = 600.0 }",
            &["point.limits.deadband: of `speed` is 600, unless set 1 % of the range; expected less than 600, the way from low to high"],
        ),
        (
            "{ low_low = 10.0, high_high = 40.0 }",
            &["point.limits.deadband: of `speed` is 30, unless set 1 % of the range; expected less than 30, the way from low-low to high-high"],
        ),
        ("{ high = 1600.0, deadband = 1600.0 }", &[]),
        (
            "{ high = 1600.0, high_high = 2000.0, deadband = 1601.0 }",
            &[
                "deadband: of `speed` is 1601, unless set 1 % of the range; expected at most 1600, the way from high to 0, beyond which no value comes",
            ],
        ),
        ("{ low_low = 20.0, low = 2500.0, deadband = 501.0 }", &["expected at most 500, the way from low to 3000, beyond which no value comes: an"]),
        ("{ high = 20.0 }", &["deadband: of `speed` is 30, unless set 1 % of the range; expected at most 20, the way from high to 0, beyond"]),
        ("{ low_low = 2990.0, deadband = 10.0 }", &[]),
        ("{ hgh = 1.0 }", &["unknown field `hgh`"]),
        (
            "{ low = 1.0, only_running = true }",
            &["point.limits.only_running: of `speed` needs to know when the machine runs; expected `[operating]`"],
        ),
    ] {
        check_asset_with(speed, &format!("{speed}range = [0.0, 3000.0]\nlimits = {limits}\n"), expected);
    }
}

#[test]
fn alarms_are_told_where_nobody_takes_them_for_readings() {
    let with =
        |keys: &str| format!("{}[annunciation]\n{keys}\n", mqtt("plant", &topic("plant/{asset}/{point}/{x}", "payload = { value = \"/value\" }")));
    for (keys, expected) in [
        ("broker = \"plant\"", &[][..]),
        ("command = [\"/bin/true\", \"-x\"]\ncommand_every = \"1m\"", &[]),
        ("", &["annunciation: says nothing; expected `broker`, `command` or both"]),
        ("broker = \"hall\"", &["annunciation.broker: `hall` is no `[[mqtt]]` of this file; known are: plant"]),
        ("broker = \"plant\"\ntopic = \"a/+\"", &["annunciation.topic: `a/+` is no topic to publish below; expected"]),
        ("broker = \"plant\"\ntopic = \"plant/a\"", &["annunciation.topic: `plant/a` is below `plant/{asset}/{point}/{x}`, which is read"]),
        ("command = [\"horn\"]", &["annunciation.command: `horn` is no absolute path; expected"]),
        ("broker = \"plant\"\ncommand_every = \"1ms\"", &["annunciation.command_every: `1ms` is out of range; expected 1s to 1h"]),
    ] {
        check_hark(&with(keys), expected);
    }
}

#[test]
fn the_operating_state_is_told_from_a_point_of_the_machine() {
    let with = |keys: &str, expected: &[&str]| {
        check_asset_with("[[waveform]]", &format!("[operating]\n{keys}\n[[waveform]]"), expected);
    };
    let speed = "point = \"speed\"\nrunning = 600.0\n";
    let all = "idle = 50.0\ndeadband = 20.0\nsettle = \"30s\"\nsteady_rate = 10.0\nscore_idle = true\n\
load = { point = \"flow\", bounds = [10.0, 20.0], deadband = 1.0 }\n";
    with(speed, &[]);
    with(&format!("{speed}{all}"), &[]);
    with("point = \"de-h.v_rms\"\nrunning = 0.5\n", &[]);
    with("point = \"speed\"\n", &["missing field `running`"]);
    with("point = \"rpm\"\nrunning = 600.0\n", &["a0.toml: operating.point: `rpm` is no point of this asset; expected the id of one"]);
    with("point = \"speed\"\nrunning = 0.0\n", &["operating.running: is 0; expected a value above 0, in `/min`"]);
    for (keys, expected) in [
        ("idle = 600.0", &["operating.idle: is 600; expected less than `running`, 600"][..]),
        ("idle = -1.0", &["operating.idle: is -1; expected a value above 0, in `/min`"]),
        ("deadband = 600.0", &["operating.deadband: is 600; expected 0 up to, not including, 600, the way from"]),
        ("idle = 50.0\ndeadband = 50.0", &["operating.deadband: is 50; expected 0 up to, not including, 50"]),
        ("deadband = nan", &["operating.deadband: is NaN"]),
        ("settle = \"2h\"", &["operating.settle: `2h` is out of range; expected 0s to 1h"]),
        ("steady_rate = 0.0", &["operating.steady_rate: is 0; expected a rate above 0, in `/min` per second"]),
        ("steady_rate = 1.0\nsettle = \"0s\"", &["operating.steady_rate: is measured over `settle`, which is 0s"]),
        ("score_idle = true", &["operating.score_idle: scores a state that there is not; expected `idle`"]),
        ("load = { point = \"amps\", bounds = [1.0] }", &["operating.load.point: `amps` is no point of this asset"]),
        ("load = { point = \"flow\", bounds = [] }", &["operating.load.bounds: is empty; expected at least one"]),
        ("load = { point = \"flow\", bounds = [2.0, 1.0] }", &["operating.load.bounds: is [2.0, 1.0]; expected finite values in ascending order"]),
        ("load = { point = \"flow\", bounds = [nan] }", &["operating.load.bounds: is [NaN]; expected finite"]),
        ("load = { point = \"flow\", bounds = [1.0, 2.0], deadband = 1.0 }", &["operating.load.deadband: is 1; expected 0 up to, not including, 1"]),
        ("load = { point = \"flow\", bounds = [1, 2, 3, 4, 5, 6, 7, 8] }", &["operating.load.bounds: make 9 regimes with the idle one"]),
        ("colour = 1", &["unknown field `colour`"]),
    ] {
        with(&format!("{speed}{keys}\n"), expected);
    }
}

#[test]
fn deadbands_leave_every_state_and_regime_its_room() {
    let asset = |keys: &str| {
        let text = ASSET.replacen("[[waveform]]", &format!("[operating]\npoint = \"speed\"\n{keys}\n[[waveform]]"), 1);
        check_asset_text("asset", &text).unwrap().operating.unwrap()
    };
    let at = |threshold: Threshold| (threshold.reached_at, threshold.left_below);
    let operating = asset("idle = 40.0\nrunning = 600.0\nload = { point = \"flow\", bounds = [0.0, 10.0, 200.0] }");
    assert_eq!((operating.idle.map(at), at(operating.running), operating.regimes()), (Some((40.0, 38.0)), (600.0, 570.0), 4));
    // A twentieth of 200 is as wide as the narrowest regime: half of that has to do.
    assert_eq!(operating.load.unwrap().bounds.into_iter().map(at).collect::<Vec<_>>(), [(0.0, -5.0), (10.0, 5.0), (200.0, 195.0)]);
    let same = asset("running = 600.0\nload = { point = \"flow\", bounds = [10.0] }");
    assert!(asset("running = 600.0\nsettle = \"9s\"\nload = { point = \"flow\", bounds = [10.0] }").has_regimes_of(&same));
    assert!(!asset("running = 500.0\nload = { point = \"flow\", bounds = [10.0] }").has_regimes_of(&same));
}

/// Where nothing says how far a value goes, its alarm may never be over, and may.
#[test]
fn a_deadband_wider_than_its_limit_is_doubted_where_no_range_says_more() {
    let doubts = |keys: &str| {
        let asset = check_asset_text("a", &format!("id = \"a\"\n[[point]]\nid = \"p\"\nunit = \"mm/s\"\n{keys}"));
        asset.map(|asset| super::limits::doubts(&asset).join("; ")).map_err(|error| error.faults.join("; "))
    };
    for keys in [
        "limits = { high = 5.0, deadband = 5.0 }",
        "limits = { low = -5.0, high = 5.0, deadband = 8.0 }",
        "range = [-9.0, 9.0]\nlimits = { high = 5.0, deadband = 6.0 }",
        "severity = \"2-rigid\"\nlimits = { high = 5.0, deadband = 5.0 }",
    ] {
        assert_eq!(doubts(keys), Ok(String::new()), "{keys}");
    }
    for (keys, back) in [("limits = { high = 5.0, deadband = 6.0 }", "-1"), ("limits = { low = 5.0, deadband = 6.0 }", "11")] {
        assert!(doubts(keys).unwrap().contains(&format!("over only at {back};")), "{keys}: {:?}", doubts(keys));
    }
    assert!(
        doubts("severity = \"2-rigid\"\nlimits = { high = 5.0, deadband = 6.0 }").unwrap_err().contains("expected at most 5, the way from high to 0")
    );
}

#[test]
fn a_severity_class_makes_limits_of_a_velocity() {
    let speed = "id = \"speed\"\nunit = \"/min\"\n";
    for (unit, class, expected) in [
        ("mm/s", "2-rigid", &[][..]),
        ("mm/s", "rigid", &["point.severity: `rigid` of `speed` is none of 1-rigid, 1-flexible, 2-rigid, 2-flexible"]),
        ("/min", "2-rigid", &["point.severity: of `speed` judges a velocity RMS in `mm/s`; its unit is `/min`"]),
    ] {
        check_asset_with(speed, &format!("id = \"speed\"\nunit = \"{unit}\"\nseverity = \"{class}\"\n"), expected);
    }
    let asset = |limits: &str| {
        check_asset_text("a", &format!("id = \"a\"\n[[point]]\nid = \"v\"\nunit = \"mm/s\"\nseverity = \"2-rigid\"\n{limits}")).unwrap()
    };
    let limits = |limits: &str| asset(limits).points[0].limits.as_ref().map(|limits| (limits.high, limits.high_high));
    assert_eq!([limits(""), limits("limits = { high = 2.0 }\n")], [Some((Some(2.8), Some(4.5))), Some((Some(2.0), None))]);
    let deadband = asset("").points[0].limits.as_ref().map(|limits| limits.deadband);
    assert!(deadband.is_some_and(|deadband| (deadband - 0.28).abs() < 1e-9), "a tenth of the lower limit: {deadband:?}");
}

/// Zones are of steady running: a start through a resonance is in none.
#[test]
fn limits_of_a_class_are_of_a_running_machine_where_something_tells_that() {
    let limits = |states: bool, keys: &str| {
        let operating = if states { "[operating]\npoint = \"speed\"\nrunning = 600.0\n" } else { "" };
        let speed = "[[point]]\nid = \"speed\"\nunit = \"/min\"\n";
        let text = format!("id = \"a\"\n{operating}{speed}[[point]]\nid = \"v\"\nunit = \"mm/s\"\nseverity = \"2-rigid\"\n{keys}");
        check_asset_text("a", &text).map(|asset| (**asset.points[1].limits.as_ref().unwrap()).clone()).map_err(|error| error.faults.join("; "))
    };
    let only_running = |states: bool, keys: &str| limits(states, keys).map(|limits| (limits.only_running, limits.high)).unwrap();
    assert_eq!([only_running(false, ""), only_running(true, "")], [(false, Some(2.8)), (true, Some(2.8))]);
    let said = [("limits = { high = 2.0 }", (false, Some(2.0))), ("limits = { high = 2.0, only_running = true }", (true, Some(2.0)))];
    said.iter().for_each(|(keys, expected)| assert_eq!(only_running(true, keys), *expected, "who names limits says when they apply: {keys}"));
    // The numbers need not be said again.
    let said = [("limits = { only_running = true }", (true, Some(2.8))), ("limits = { only_running = false }", (false, Some(2.8)))];
    said.iter().for_each(|(keys, expected)| assert_eq!(only_running(true, keys), *expected, "{keys}"));
    assert!(limits(false, "limits = { only_running = true }").unwrap_err().contains("needs to know when the machine runs"));
    let besides = limits(true, "limits = { what = \"it shakes\", deadband = 0.5, check = \"the bolts\" }").unwrap();
    let of_class = limits(true, "").unwrap();
    assert_eq!((besides.what.as_deref(), besides.deadband, besides.check.as_deref()), (Some("it shakes"), 0.5, Some("the bolts")));
    let kept = |limits: &crate::config::Limits| (limits.high_high, limits.otherwise.clone(), limits.failure_mode.clone(), limits.only_running);
    assert_eq!(kept(&besides), kept(&of_class));
}

#[test]
fn rules_for_vibration_need_a_speed_and_name_what_is_known() {
    let with = |key: &str, expected: &[&str]| check_asset_with("unit = \"[g]\"", &format!("unit = \"[g]\"\n{key}"), expected);
    with("speed_rpm = 1480\ndiagnose_every = \"10m\"\nteeth = 31\nvanes = 6", &[]);
    with("speed_rpm = 1480\ndiagnose_every = \"0s\"", &["waveform.diagnose_every"]);
    with("diagnose_every = \"10m\"", &["waveform.diagnose_every: of `de-h` needs a speed"]);
    with("speed_rpm = 1480\nteeth = 0", &["waveform.teeth: of `de-h` must be 1 to 1000"]);
    with("vanes = 6", &["waveform.vanes: of `de-h` tell nothing without a speed"]);
    let asset = |before: &str, keys: &str| {
        check_asset_text("a", &format!("id = \"a\"\n{before}\n[[waveform]]\nid = \"de\"\nunit = \"[g]\"\n{keys}")).unwrap()
    };
    let named = |asset: &Asset| {
        let strengths = asset.points.iter().filter_map(|point| Some((point.id.strip_prefix("de.fault.")?, point)));
        strengths.map(|(name, point)| (name.to_owned(), point.scored, point.limits.as_ref().unwrap().only_running)).collect::<Vec<_>>()
    };
    let all = |names: &[&str], only_running: bool| names.iter().map(|name| ((*name).to_owned(), false, only_running)).collect::<Vec<_>>();
    let velocity = "[[point]]\nid = \"de.v_rms\"\nunit = \"mm/s\"\nseverity = \"2-rigid\"";
    let bearing = "bearing = { elements = 9, element_mm = 7.94, pitch_mm = 39.04 }\n";
    assert_eq!(named(&asset(velocity, bearing)), [], "no speed");
    assert_eq!(named(&asset("", "speed_rpm = 1480")), [], "nothing is known");
    assert_eq!(named(&asset(velocity, "speed_rpm = 1480")), all(&["looseness", "misalignment", "unbalance"], false));
    let running = "[[point]]\nid = \"speed\"\nunit = \"/min\"\n[operating]\npoint = \"speed\"\nrunning = 500.0\n";
    assert_eq!(named(&asset(running, &format!("speed_point = \"speed\"\n{bearing}"))), all(&["outer", "inner", "ball", "cage"], true));
    assert_eq!(named(&asset("", "speed_rpm = 1480\nteeth = 31\nvanes = 6")), all(&["cavitation", "gear"], false));
    let speed = |before: &str, keys: &str| {
        let asset = asset(before, keys);
        asset.points.iter().find(|point| &*point.id == "de.speed_tracked").map(|point| (point.unit.to_string(), point.scored))
    };
    assert_eq!(speed("", "speed_rpm = 1480"), Some(("/min".to_owned(), false)));
    assert_eq!(speed("[[point]]\nid = \"speed\"\nunit = \"Hz\"", "speed_rpm = 1480\nspeed_point = \"speed\""), Some(("Hz".to_owned(), false)));
    assert_eq!([speed("", "speed_rpm = 1480\nspeed_search = 0"), speed("", bearing)], [None, None], "nothing is looked for");
    let own = "[[point]]\nid = \"de.fault.gear\"\nunit = \"1\"\nscored = false\nlimits = { high = 2.0 }\n";
    let limit = asset(own, "speed_rpm = 1480\nteeth = 31").points[0].limits.as_ref().unwrap().high;
    assert_eq!(limit, Some(2.0));
}

#[test]
fn raw_blocks_have_a_limit_in_memory_and_one_a_day() {
    check_hark("[snapshots]\nmemory = \"0 B\"\nper_day = \"1 GiB\"\n", &[]);
    check_hark("[snapshots]\nmemory = \"lots\"\n", &["snapshots.memory"]);
    check_hark("[snapshots]\nper_day = \"-1 MiB\"\n", &["snapshots.per_day"]);
}

/// Asked for a key that there is not, each table names those that there are.
#[test]
fn the_reference_of_a_machine_is_valid_and_names_every_key() {
    let reference = include_str!("../../../../config/machine-reference.toml");
    crate::config::check_asset_text("machine-reference.toml", reference).unwrap();
    let is_table = |line: &str| line.starts_with("id = \"machine\"") || line.starts_with('[');
    let tables: Vec<usize> = reference.lines().enumerate().filter(|(_, line)| is_table(line)).map(|(n, _)| n).collect();
    assert!(tables.len() > 10);
    let mut missing = Vec::new();
    for table in tables {
        let mut lines: Vec<&str> = reference.lines().collect();
        lines.insert(table + 1, "unheard_of = 1");
        let fault = crate::config::check_asset_text("machine-reference.toml", &lines.join("\n")).unwrap_err().to_string();
        let (_, expected) = fault.split_once("expected ").unwrap_or_else(|| panic!("{}: {fault}", lines[table]));
        let is_named = |key: &str| [format!("{key} = "), format!("[{key}]"), format!(".{key}]")].iter().any(|form| reference.contains(form));
        let unnamed = expected.split('`').skip(1).step_by(2).filter(|key| !is_named(key));
        missing.extend(unnamed.map(|key| format!("{key} of {}", lines[table])));
    }
    assert_eq!(missing, Vec::<String>::new());
}

#[test]
fn the_shipped_file_of_a_machine_is_short() {
    for text in [include_str!("../../../../config/assets/fan-7.toml"), include_str!("../../../../config/assets/pump-1.toml")] {
        assert!(text.lines().count() < 30);
    }
}
