//! `hark replay` on small files.
use std::{fmt::Write as _, path::Path, time::Duration};

use clap::Parser;
use hark_protocol::topics::Origin;
use serde_json::Value;

use super::*;
use crate::config::{AlarmSettings, Buffer, Checks, Commissioning, Forecast, Gateway, Http, InstrumentSettings, Operating, Point, Threshold};

#[derive(Parser)]
struct Parsed {
    #[command(flatten)]
    args: ReplayArgs,
}

fn config() -> Config {
    let point = |id: &str, column: Option<&str>| Point {
        id: id.into(),
        unit: "1".into(),
        column: column.map(Into::into),
        range: Some((-1e6, 1e6)),
        map: BTreeMap::new(),
        scored: true,
        checks: Checks::default(),
        limits: None,
        severity: None,
        ignore_fall: false,
        stale_after: None,
    };
    let asset = Asset {
        id: "pump".into(),
        name: "Pump".into(),
        path: None,
        class: None,
        grid: Duration::from_secs(1),
        stale_after: Duration::from_secs(5),
        predict_every: Duration::from_secs(30),
        commissioning: Commissioning { rows: 1000, starts: 0, adapts: true },
        alarm: AlarmSettings { on_delay: Duration::ZERO, off_delay: Duration::ZERO, latch: false },
        forecast: Forecast::default(),
        instrument: InstrumentSettings::default(),
        operating: None,
        points: vec![point("flow", Some("Flow rate")), point("pressure", None)],
        waveforms: Vec::new(),
        hash: "c0ffee".into(),
    };
    Config {
        gateway: Gateway { id: "gw".into(), origin: Origin::Live, heartbeat_every: Duration::from_secs(10) },
        buffer: Buffer {
            dir: PathBuf::new(),
            quota_bytes: 0,
            commit_max_delay: Duration::ZERO,
            commit_bytes: 0,
            in_flight_bytes: 0,
            max_age: None,
            store_timeout: Duration::ZERO,
        },
        kafka: None,
        http: Http { listen: ([127, 0, 0, 1], 0).into() },
        mqtt: Vec::new(),
        serial: Vec::new(),
        annunciation: None,
        snapshots: crate::config::Snapshots { memory_bytes: 0, bytes_per_day: 0 },
        assets: BTreeMap::from([("pump".into(), asset)]),
        models: Path::new(env!("CARGO_MANIFEST_DIR")).join("../models"),
        checkpoint_every: None,
    }
}

/// A file of `rows` seconds from `start` on; `cells` gives flow and pressure of a row as text.
fn file(rows: usize, start: usize, cells: impl Fn(usize) -> (String, String)) -> String {
    let mut text = "datetime;Flow rate;pressure;comment\n".to_owned();
    for row in 0..rows {
        let second = start + row;
        let (flow, pressure) = cells(row);
        writeln!(text, "2020-03-09 10:{:02}:{:02};{flow};{pressure};x", second / 60, second % 60).unwrap();
    }
    text
}

/// Flow and pressure that wander without a pattern, the same in every run.
fn usual(row: usize) -> (f64, f64) {
    // The finaliser of SplitMix64: neighbouring rows give unrelated numbers.
    let hash = |key: u64| {
        let key = (key ^ (key >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let key = (key ^ (key >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((key ^ (key >> 31)) >> 40) as f64 / (1u64 << 24) as f64
    };
    let row = row as u64 + 1;
    (30.0 + hash(row.wrapping_mul(0x9e37_79b9_7f4a_7c15)), 2.0 + hash(row.wrapping_mul(0xc2b2_ae3d_27d4_eb4f)))
}

fn plain(row: usize) -> (String, String) {
    let (flow, pressure) = usual(row);
    (flow.to_string(), pressure.to_string())
}

/// Runs over `input` (and `commission`) with further arguments; gives the lines.
fn replay(input: &str, commission: Option<&str>, further: &[&str]) -> Result<(Summary, Vec<Value>), ReplayError> {
    replay_with(&config(), input, commission, further)
}

/// The same with another configuration.
fn replay_with(config: &Config, input: &str, commission: Option<&str>, further: &[&str]) -> Result<(Summary, Vec<Value>), ReplayError> {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str, content: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let mut arguments: Vec<String> = ["replay", "--asset", "pump", "--input"].map(str::to_owned).to_vec();
    arguments.push(path("input.csv", input));
    if let Some(content) = commission {
        arguments.extend(["--commission".to_owned(), path("commission.csv", content)]);
    }
    arguments.extend(further.iter().map(|&argument| argument.to_owned()));
    let args = Parsed::parse_from(arguments).args;
    let mut out = Vec::new();
    let summary = run(&args, config, &Stop::default(), &mut out, &mut io::sink())?;
    let lines = String::from_utf8(out).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    Ok((summary, lines))
}

#[test]
fn one_line_per_row_with_commissioning_on_the_first_rows() {
    let (summary, lines) = replay(&file(180, 0, plain), None, &["--commission-rows", "130"]).unwrap();
    assert_eq!((summary.rows, summary.scored, lines.len()), (180, 50, 180));
    for (index, line) in lines.iter().enumerate() {
        assert_eq!(line["row"], index + 1);
        let (phase, reason) = if index < 130 { ("commissioning", Value::from("commissioning")) } else { ("scoring", Value::Null) };
        assert_eq!((&line["phase"], &line["reason"]), (&Value::from(phase), &reason), "row {}", index + 1);
        assert_eq!(line["score"].is_number(), index >= 130);
    }
    assert_eq!(lines[179]["ts"], "2020-03-09T10:02:59.000000Z");
    assert_eq!(lines[179].as_object().unwrap().len(), 32);
}

/// Off, running and off again: what is not steady has a state, a reason and no score, and is not among what commissioning learns.
#[test]
fn lines_tell_the_operating_state() {
    let mut config = config();
    let threshold = |reached_at: f64| Threshold { reached_at, left_below: 0.9 * reached_at };
    config.assets.values_mut().next().unwrap().operating = Some(Operating {
        point: "flow".into(),
        idle: None,
        running: threshold(20.0),
        settle: Duration::from_secs(5),
        steady_rate: None,
        score_idle: false,
        load: None,
    });
    let is_on = |row: usize| (20..200).contains(&row);
    let content = file(220, 0, |row| if is_on(row) { plain(row) } else { ("0".to_owned(), "0".to_owned()) });
    let (summary, lines) = replay_with(&config, &content, None, &["--commission-rows", "160"]).unwrap();
    let at = |row: usize| ["state", "reason", "regime"].map(|key| lines[row][key].as_str().unwrap_or("-").to_owned());
    assert_eq!(at(10), ["off", "operating_state", "-"]);
    assert_eq!(at(22), ["transient", "operating_state", "-"]);
    assert_eq!(at(100), ["running", "commissioning", "running"]);
    assert_eq!(at(160), ["running", "-", "running"]);
    assert_eq!([at(201), at(219)].map(|line| line[0].clone()), ["transient", "off"]);
    assert_eq!((summary.scored, summary.alarms, summary.above), (40, 0, 0));
    let still = file(150, 0, |_| ("0".to_owned(), "0".to_owned()));
    let why = replay_with(&config, &still, None, &[]).unwrap().0.unscored.unwrap();
    assert!(why.contains("not running steadily by `flow`"), "{why}");
    config.assets.values_mut().next().unwrap().commissioning.starts = 2;
    let why = replay_with(&config, &file(220, 0, |row| if row < 20 { ("0".to_owned(), "0".to_owned()) } else { plain(row) }), None, &[]).unwrap();
    let why = why.0.unscored.unwrap();
    assert!(why.contains("needs 1000 complete rows and 1 more start, the file has 220"), "{why}");
    let (summary, _) = replay_with(&config, &content, None, &["--commission-rows", "160"]).unwrap();
    assert_eq!(summary.scored, 40, "who says when it is enough need not wait for starts");
}

/// Half a second apart on a grid of one: 280 rows of the file are 140 of the model.
#[test]
fn commissioning_rows_are_rows_of_the_file() {
    let content = file(330, 0, plain);
    let (_, lines) = replay(&content, None, &["--commission-rows", "280", "--period", "0.5"]).unwrap();
    let scoring = lines.iter().position(|line| line["phase"] == "scoring");
    assert_eq!(scoring, Some(280));
}

#[test]
fn a_file_without_a_score_says_why() {
    let why = |input: &str, further: &[&str]| replay(input, None, further).unwrap().0.unscored.unwrap();
    assert!(why(&file(150, 0, plain), &[]).contains("needs 1000 complete rows, the file has 150"), "{}", why(&file(150, 0, plain), &[]));
    let still = file(150, 0, |_| ("1".to_owned(), "2".to_owned()));
    assert!(why(&still, &["--commission-rows", "140"]).contains("commissioning refused"), "{}", why(&still, &["--commission-rows", "140"]));
    assert!(why(&file(150, 0, plain), &["--commission-rows", "20"]).contains("are needed"));
    let backwards = file(150, 0, plain)
        .lines()
        .rev()
        .fold(String::new(), |text, line| if line.starts_with("datetime") { format!("{line}\n{text}") } else { format!("{text}{line}\n") });
    assert!(why(&backwards, &["--commission-rows", "140"]).contains("newest row stands first"));
    assert!(why("datetime;Flow rate;pressure\n", &[]).contains("no rows"));
}

/// Flow each second and pressure each minute, as lines.
#[test]
fn points_that_most_rows_lack_are_named_and_may_have_a_limit_of_their_own() {
    let row = |at: usize| {
        let (flow, pressure) = usual(at);
        let pressure = if at.is_multiple_of(60) { format!(",\"pressure\":{pressure}") } else { String::new() };
        format!("{{\"ts\":\"2020-03-09T10:{:02}:{:02}Z\",\"values\":{{\"flow\":{flow}{pressure}}}}}\n", at / 60, at % 60)
    };
    // The last row has both.
    let (content, mut config) = ((0..3_001).map(row).collect::<String>(), config());
    let replayed = |config: &Config| replay_with(config, &content, None, &[]).unwrap().0;
    let why = replayed(&config).unscored.unwrap();
    assert!(why.contains("points without a usable value: pressure (") && why.contains("`stale_after` of its own"), "{why}");
    let asset = config.assets.values_mut().next().unwrap();
    asset.operating = Some(Operating {
        point: "speed".into(),
        idle: None,
        running: Threshold { reached_at: 20.0, left_below: 19.0 },
        settle: Duration::from_secs(5),
        steady_rate: None,
        score_idle: false,
        load: None,
    });
    asset.points.push(Point { id: "speed".into(), scored: false, ..asset.points[0].clone() });
    let why = replayed(&config).unscored.unwrap();
    assert!(why.contains("value: pressure, speed ("), "{why}");
    let asset = config.assets.values_mut().next().unwrap();
    asset.operating = None;
    asset.points[1].stale_after = Some(Duration::from_secs(90));
    assert_eq!(replayed(&config).scored, 3_001 - 1_001);
}

#[test]
fn a_request_to_stop_ends_it_after_whole_lines() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("input.csv");
    std::fs::write(&path, file(3_000, 0, plain)).unwrap();
    let args = Parsed::parse_from(["replay", "--asset", "pump", "--input", path.to_str().unwrap(), "--period", "1"]).args;
    let (stop, mut out) = (Stop::default(), Vec::new());
    stop.request();
    let ended = run(&args, &config(), &stop, &mut out, &mut io::sink());
    assert!(matches!(ended, Err(ReplayError::Interrupted)));
    assert!(out.ends_with(b"}\n") && out.len() > 100);
}

#[test]
fn a_decimal_comma_gives_the_very_same_numbers() {
    let comma = file(150, 0, |row| {
        let (flow, pressure) = plain(row);
        (flow.replace('.', ","), pressure.replace('.', ","))
    });
    let arguments = &["--commission-rows", "130"];
    assert_eq!(replay(&comma, None, arguments).unwrap(), replay(&file(150, 0, plain), None, arguments).unwrap());
}

#[test]
fn a_commissioning_file_is_consumed_without_output_even_if_it_is_the_later_one() {
    let (summary, lines) = replay(&file(50, 0, plain), Some(&file(200, 1000, plain)), &[]).unwrap();
    assert_eq!((summary.rows, summary.scored, summary.late, lines.len()), (50, 47, 0, 50));
    assert_eq!(lines[0]["reason"], "window_filling");
}

#[test]
fn a_bad_cell_is_never_zero_and_does_not_shift_the_lines() {
    let content = file(190, 0, |row| {
        let (flow, pressure) = plain(row);
        let flow = match row {
            150 => String::new(),
            152 => "n/a".to_owned(),
            154 => "NaN".to_owned(),
            156 => "9e9".to_owned(),
            160.. => "inf".to_owned(),
            _ => flow,
        };
        (flow, pressure)
    });
    let (summary, lines) = replay(&content, None, &["--commission-rows", "130"]).unwrap();
    assert_eq!((lines.len(), summary.bad), (190, 4 + 30));
    for row in [150, 152, 154, 156] {
        assert_eq!(lines[row]["quality"], "uncertain", "the value before is held in row {row}");
        assert!(lines[row]["score"].is_number());
    }
    // The value of row 159 may be held for five seconds.
    let missing = lines.iter().position(|line| line["reason"] == "missing_point");
    assert_eq!(missing, Some(165));
    assert_eq!((&lines[189]["score"], &lines[189]["quality"]), (&Value::Null, &Value::from("bad")));
}

#[test]
fn a_change_of_the_machine_is_told_and_its_point_is_named() {
    let content = file(200, 0, |row| {
        let (flow, pressure) = usual(row);
        ((if row < 150 { flow } else { flow + 4.0 }).to_string(), pressure.to_string())
    });
    let (summary, lines) = replay(&content, None, &["--commission-rows", "130"]).unwrap();
    assert!(summary.advices >= 1 && summary.alarms == 0 && summary.above >= 1);
    let first = lines.iter().position(|line| line["above"] == true).unwrap();
    assert!((150..160).contains(&first), "{first}");
    assert_eq!((&lines[first]["contrib_1_point"], &lines[first]["advice"]), (&Value::from("flow"), &Value::from(true)));
    assert!(lines[199]["health"].as_f64().unwrap() < 50.0 && lines[199]["alarm"] == false);
    // New as it comes, and not for as long as it lasts.
    let anomaly = |row: usize| lines[row]["anomaly"].as_f64().unwrap();
    assert!(anomaly(149) < 0.5 && anomaly(150) > 0.5, "{} {}", anomaly(149), anomaly(150));
    assert!(anomaly(199) < 0.5 && lines[199]["above"] == true, "{}", anomaly(199));
}

/// A row is known with the message that completes it, or with the first one of a later row.
#[test]
fn messages_are_answered_as_rows_are() {
    let row = |row: usize| {
        let (flow, pressure) = usual(row);
        (if row < 150 { flow } else { flow + 4.0 }, pressure)
    };
    let table = file(200, 0, |at| (row(at).0.to_string(), row(at).1.to_string()));
    let (_, from_table) = replay(&table, None, &["--commission-rows", "130"]).unwrap();
    let time = |row: usize| format!("2020-03-09T10:{:02}:{:02}Z", row / 60, row % 60);
    let of_row = |at: usize| format!("{{\"ts\":\"{}\",\"values\":{{\"Flow rate\":{},\"pressure\":{}}}}}\n", time(at), row(at).0, row(at).1);
    let together: String = (0..200).map(of_row).collect();
    let (summary, lines) = replay(&together, None, &["--commission-rows", "130"]).unwrap();
    assert_eq!((summary.rows, summary.advices), (200, 1));
    for row in 140..200 {
        assert_eq!((&lines[row]["score"], &lines[row]["above"]), (&from_table[row]["score"], &from_table[row]["above"]), "row {row}");
    }
    // A reading a line, and a value that is none.
    let apart = |at: usize| {
        let (flow, pressure) = row(at);
        let flow = if at == 140 { "null".to_owned() } else { flow.to_string() };
        [("flow", flow), ("pressure", pressure.to_string())]
            .map(|(point, value)| format!("{{\"ts\":\"{}\",\"asset\":\"pump\",\"point\":\"{point}\",\"value\":{value}}}\n", time(at)))
            .concat()
    };
    let stranger = format!("{{\"ts\":\"{}\",\"point\":\"depth\",\"value\":1}}\n", time(199));
    let (summary, lines) = replay(&((0..200).map(apart).collect::<String>() + &stranger), None, &["--commission-rows", "260"]).unwrap();
    assert_eq!((summary.rows, summary.bad, summary.left_out), (401, 1, vec![("unknown_point", 1)]));
    assert_eq!(lines[2 * 135 + 1]["score"], from_table[135]["score"]);
    assert_eq!(lines[2 * 140 + 1]["score"], lines[2 * 139 + 1]["score"], "row 140 lacks a value");
}

#[test]
fn a_line_that_is_no_message_is_named() {
    let good = "{\"ts\": 1600000000, \"point\": \"flow\", \"value\": 1}\n";
    let error = |line: &str| replay(&format!("{good}{good}{line}\n"), None, &[]).unwrap_err().to_string();
    for (line, words) in [
        ("{\"ts\": 1600000001", "not JSON"),
        ("{\"ts\": 1600000001, \"point\": \"flow\"}", "another shape"),
        ("{\"point\": \"flow\", \"value\": 1}", "no time in `ts`"),
        ("{\"t0\": 1600000001, \"point\": \"de\", \"samples\": [1]}", "another shape"),
    ] {
        let said = error(line);
        assert!(said.contains("line 3") && said.contains(words), "{line}: {said}");
    }
}

/// What the agent would refuse is learned here, by the word of who asks; so it is said.
#[test]
fn what_is_doubtful_in_the_rows_that_are_learned_is_told() {
    let content = file(200, 0, |row| {
        let (flow, pressure) = usual(row);
        ((flow + 30.0 * row as f64 / 150.0).to_string(), pressure.to_string())
    });
    let (summary, _) = replay(&content, None, &["--commission-rows", "150"]).unwrap();
    assert!(summary.commissioned.len() == 1 && summary.commissioned[0].contains("; `flow` rose all the time, from 3"), "{:?}", summary.commissioned);
    let (summary, _) = replay(&file(200, 0, plain), None, &["--commission-rows", "150"]).unwrap();
    assert!(summary.commissioned[0].ends_with("% of the limit"), "{:?}", summary.commissioned);
}

#[test]
fn errors_teach() {
    let error = |input: &str, further: &[&str]| replay(input, None, further).unwrap_err().to_string();
    assert!(error("datetime;Flow rate\n", &[]).contains("no column for the scored points pressure"));
    assert!(error("Flow rate;pressure\n1;2\n", &[]).contains("--period"));
    let refused = replay(&file(5, 0, plain), Some(&file(15, 0, plain)), &[]).unwrap_err().to_string();
    assert!(refused.contains("cannot commission") && refused.contains("are needed"), "{refused}");
    let args = Parsed::parse_from(["replay", "--asset", "fan", "--input", "x"]).args;
    let unknown = run(&args, &config(), &Stop::default(), &mut io::sink(), &mut io::sink()).unwrap_err().to_string();
    assert!(unknown.contains("configured are: pump"), "{unknown}");
    assert!(Parsed::try_parse_from(["replay", "--asset", "a", "--input", "x", "--commission", "y", "--commission-rows", "5"]).is_err());
}

#[test]
fn a_reader_that_goes_away_ends_it_quietly() {
    struct Closed;
    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("input.csv");
    std::fs::write(&path, file(5, 0, plain)).unwrap();
    let args = Parsed::parse_from(["replay", "--asset", "pump", "--input", path.to_str().unwrap(), "--period", "1"]).args;
    let summary = run(&args, &config(), &Stop::default(), &mut Closed, &mut io::sink()).unwrap();
    assert!(summary.output_closed);
}
