//! JSON payloads of any configured shape.
use hark_protocol::topics::Quality;
use serde_json::Value as Json;

use super::{Block, DecodeError, Sample, Value, time};
use crate::{config::Shape, signal::BlockUnit};

/// Largest block that is taken, samples: 4 MiB of floats, far above what fits a message.
const MAX_SAMPLES: usize = 1 << 19;
/// Longest word taken for a text without quotes.
const MAX_WORD_BYTES: usize = 64;
/// Numbers that are none, as Python writes them into documents.
const WORDS: [&str; 3] = ["NaN", "-Infinity", "Infinity"];

/// What a payload says; an element of an array that says nothing leaves its error in its place.
pub type Samples = Vec<Result<Sample, DecodeError>>;

/// Decodes a payload. A payload that is a bare number or word needs no shape.
///
/// # Errors
/// [`DecodeError`] when nothing of the payload can be used; single values that cannot are in the result as missing or as text.
pub fn decode(payload: &[u8], shape: &Shape) -> Result<Samples, DecodeError> {
    let text = std::str::from_utf8(payload).map_err(|_| DecodeError::NotUtf8)?.trim_end_matches('\0').trim();
    // Home-made senders publish what their language prints.
    let document: Json = match serde_json::from_str(text) {
        Ok(document) => document,
        Err(_) => bare_word(text, shape).or_else(|| with_words(text)).ok_or(DecodeError::NotJson)?,
    };
    let mut samples = Vec::new();
    match &shape.array {
        Some(pointer) => {
            let items = document.pointer(pointer).and_then(Json::as_array).ok_or(DecodeError::WrongShape)?;
            for item in items {
                if let Err(error) = one(item, &document, shape, &mut samples) {
                    samples.push(Err(error));
                }
            }
        }
        None => one(&document, &document, shape, &mut samples)?,
    }
    Ok(samples)
}

/// `NaN`, `inf`, a number with a decimal comma and, where the payload is one value, `RUN` are not JSON, but they are what some devices send.
fn bare_word(text: &str, shape: &Shape) -> Option<Json> {
    match text.to_ascii_lowercase().as_str() {
        "nan" | "inf" | "-inf" | "+inf" | "infinity" | "-infinity" => Some(Json::String(text.to_owned())),
        _ => match text.replacen(',', ".", 1).parse::<f64>() {
            Ok(number) => Some(Json::from(number)),
            Err(_) => (is_word(text) && is_one_value(shape)).then(|| Json::String(text.to_owned())),
        },
    }
}

/// The document, where all that keeps `text` from being JSON are numbers that are none, written as bare words, as Python does: they become texts.
fn with_words(text: &str) -> Option<Json> {
    let (mut quoted, mut rest, mut in_text) = (String::new(), text, false);
    while let Some(next) = rest.chars().next() {
        let word = WORDS.into_iter().find(|word| !in_text && rest.starts_with(word));
        let length = match (word, next) {
            (Some(word), _) => {
                quoted.push('"');
                quoted.push_str(word);
                quoted.push('"');
                word.len()
            }
            // What is escaped neither ends a text nor escapes the next one.
            (None, '\\') if in_text => 1 + rest.chars().nth(1).map_or(0, char::len_utf8),
            (None, _) => {
                in_text ^= next == '"';
                next.len_utf8()
            }
        };
        if word.is_none() {
            quoted.push_str(&rest[..length]);
        }
        rest = &rest[length..];
    }
    serde_json::from_str(&quoted).ok()
}

fn is_word(text: &str) -> bool {
    (1..=MAX_WORD_BYTES).contains(&text.len()) && text.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.'))
}

/// The payload is a value and nothing else.
fn is_one_value(shape: &Shape) -> bool {
    let others = [&shape.array, &shape.asset, &shape.point, &shape.values, &shape.time, &shape.quality, &shape.sequence];
    !shape.waveform && shape.value.as_deref().unwrap_or_default().is_empty() && others.into_iter().all(Option::is_none)
}

/// Adds what `item` says; nothing where it is an error.
fn one(item: &Json, document: &Json, shape: &Shape, samples: &mut Samples) -> Result<(), DecodeError> {
    // A field may stand in the array's element or once for the whole message.
    let find = |pointer: &Option<String>| pointer.as_deref().and_then(|p| item.pointer(p).or_else(|| document.pointer(p)));
    let text = |pointer: &Option<String>| find(pointer).and_then(|v| v.as_str().map(str::to_owned));
    let sample = Sample {
        asset: text(&shape.asset),
        point: text(&shape.point),
        value: Value::Missing,
        time: find(&shape.time).map(|value| time::from_json(value, &shape.time_unit).ok_or(())),
        quality: find(&shape.quality).map_or(Quality::Good, quality),
        sequence: find(&shape.sequence).and_then(Json::as_u64),
    };
    if let Some(pointer) = &shape.values {
        let values = item.pointer(pointer).and_then(Json::as_object).ok_or(DecodeError::WrongShape)?;
        let points = values.iter().filter(|(key, _)| !shape.names(pointer, key));
        samples.extend(points.map(|(point, value)| Ok(Sample { point: Some(point.clone()), value: scalar(value), ..sample.clone() })));
        return Ok(());
    }
    let pointer = shape.value.as_deref().unwrap_or_default();
    let value = item.pointer(pointer).ok_or(DecodeError::WrongShape)?;
    if shape.waveform {
        let block = block(value).ok_or(DecodeError::WrongShape)?;
        // Features say something about the whole block, and are known with its last sample: that is their time.
        let last = |t0| time::from_json(t0, &shape.time_unit).map(|first| block.end(first)).ok_or(());
        let time = value.get("t0").map(last).or(sample.time);
        samples.push(Ok(Sample { value: Value::Block(block), time, ..sample }));
        return Ok(());
    }
    let value = match value {
        Json::Object(_) | Json::Array(_) => return Err(DecodeError::WrongShape),
        other => scalar(other),
    };
    samples.push(Ok(Sample { value, ..sample }));
    Ok(())
}

fn scalar(value: &Json) -> Value {
    match value {
        Json::Number(number) => number.as_f64().map_or(Value::Missing, Value::Number),
        Json::Bool(flag) => Value::Number(f64::from(u8::from(*flag))),
        Json::String(text) => super::lines::number(text, false).map_or_else(|| Value::Text(text.clone()), Value::Number),
        Json::Null | Json::Array(_) | Json::Object(_) => Value::Missing,
    }
}

fn block(value: &Json) -> Option<Block> {
    let fs_hz = value.get("fs")?.as_f64().filter(|fs| fs.is_finite() && *fs > 0.0)?;
    let scale = value.get("scale").map_or(Some(1.0), Json::as_f64)?;
    let unit = match value.get("unit") {
        None | Some(Json::Null) => None,
        Some(name) => Some(BlockUnit::named(name.as_str()?)?),
    };
    let counts = value.get("samples")?.as_array().filter(|s| !s.is_empty() && s.len() <= MAX_SAMPLES)?;
    let samples: Vec<f64> = counts.iter().map(|count| sample(count, scale)).collect::<Option<_>>()?;
    Some(Block { fs_hz, unit, scale, samples })
}

/// A sample of a block: NaN for one that was not measured, or is no finite number; `None` for what was never meant as one.
fn sample(count: &Json, scale: f64) -> Option<f64> {
    let number = match count {
        Json::Number(number) => number.as_f64()?,
        Json::Null => f64::NAN,
        Json::String(text) => super::lines::number(text, false).filter(|number| !number.is_finite())?,
        _ => return None,
    };
    Some(number * scale).map(|sample| if sample.is_finite() { sample } else { f64::NAN })
}

/// `good`/`uncertain`/`bad`, a boolean, an OPC UA status code (severity in the top two bits of 32) or the classic 192/64/0.
fn quality(value: &Json) -> Quality {
    match value {
        Json::Bool(true) => Quality::Good,
        Json::Bool(false) => Quality::Bad,
        Json::String(text) => match text.to_ascii_lowercase().as_str() {
            "good" => Quality::Good,
            "uncertain" => Quality::Uncertain,
            _ => Quality::Bad,
        },
        Json::Number(number) => match number.as_u64() {
            Some(code @ 256..) => match code >> 30 {
                0 => Quality::Good,
                1 => Quality::Uncertain,
                _ => Quality::Bad,
            },
            Some(192..=255) => Quality::Good,
            Some(64..=191) => Quality::Uncertain,
            // Zero is Good as an OPC UA status code and bad in the classic scale, which is the one that sends it as a number.
            _ => Quality::Bad,
        },
        _ => Quality::Bad,
    }
}

#[cfg(test)]
mod tests {
    use hark_protocol::topics::QualityReason;
    use proptest::prelude::*;

    use super::*;
    use crate::config::TimeUnit;

    /// All of a payload, each a sample.
    fn decode(payload: &[u8], shape: &Shape) -> Result<Vec<Sample>, DecodeError> {
        super::decode(payload, shape)?.into_iter().collect()
    }

    fn scalar_shape() -> Shape {
        Shape { value: Some("/value".into()), time: Some("/ts".into()), time_unit: TimeUnit::Ms, ..Shape::default() }
    }

    #[test]
    fn a_scalar_with_its_time() {
        let samples = decode(br#"{"value": 1.25, "ts": 1650006388943}"#, &scalar_shape()).unwrap();
        assert_eq!(samples.len(), 1);
        assert_eq!(samples[0].value, Value::Number(1.25));
        assert_eq!(samples[0].time.unwrap().unwrap().as_millis(), 1_650_006_388_943);
    }

    #[test]
    fn bare_numbers_and_what_devices_send_instead() {
        let first = |payload: &[u8]| decode(payload, &Shape::default()).map(|mut s| s.remove(0).value);
        assert_eq!(first(b"32.5"), Ok(Value::Number(32.5)));
        assert_eq!(first(b" 32,5\r\n"), Ok(Value::Number(32.5)));
        assert_eq!(first(b"32.5\0"), Ok(Value::Number(32.5)));
        assert!(matches!(first(b"NaN"), Ok(Value::Number(v)) if v.is_nan()));
        assert_eq!(first(b"\"RUN\""), Ok(Value::Text("RUN".into())));
        assert_eq!(first(b"RUN"), Ok(Value::Text("RUN".into())));
        assert_eq!(first(b"speed_1-low.er\r\n"), Ok(Value::Text("speed_1-low.er".into())));
        assert_eq!(first("Geöffnet".as_bytes()), Ok(Value::Text("Geöffnet".into())));
        assert_eq!(first(b"two words"), Err(DecodeError::NotJson));
        assert_eq!(first(b"RUN;STOP"), Err(DecodeError::NotJson));
        assert_eq!(first(b""), Err(DecodeError::NotJson));
        assert_eq!(first(&[b'x'; MAX_WORD_BYTES]), Ok(Value::Text("x".repeat(MAX_WORD_BYTES))));
        assert_eq!(first(&[b'x'; MAX_WORD_BYTES + 1]), Err(DecodeError::NotJson));
        assert_eq!(decode(b"RUN", &scalar_shape()), Err(DecodeError::NotJson), "an object is expected");
        assert_eq!(first(b"true"), Ok(Value::Number(1.0)));
        assert_eq!(first(b"null"), Ok(Value::Missing));
        assert_eq!(first(b"{}"), Err(DecodeError::WrongShape));
        assert_eq!(first(b"{"), Err(DecodeError::NotJson));
        assert_eq!(first(b"\xff\xfe"), Err(DecodeError::NotUtf8));
    }

    #[test]
    fn objects_and_arrays_of_points() {
        let shape = Shape { values: Some("/values".into()), time: Some("/timestamp".into()), ..Shape::default() };
        let samples = decode(br#"{"timestamp":1650006388943,"values":{"a":1,"b":2}}"#, &shape).unwrap();
        assert_eq!(samples.iter().map(|s| s.point.as_deref().unwrap()).collect::<Vec<_>>(), ["a", "b"]);
        let shape = Shape {
            array: Some("/values".into()),
            point: Some("/id".into()),
            value: Some("/v".into()),
            quality: Some("/q".into()),
            time: Some("/t".into()),
            ..Shape::default()
        };
        let samples =
            decode(br#"{"values":[{"id":"Ch.Dev.Tag","v":1.2,"q":true,"t":1650006388900},{"id":"x","v":2,"q":false,"t":"?"}]}"#, &shape).unwrap();
        assert_eq!(samples[0].quality, Quality::Good);
        assert_eq!(samples[1].quality, Quality::Bad);
        assert_eq!(samples[1].time, Some(Err(())));
    }

    #[test]
    fn a_bad_element_costs_the_others_nothing() {
        let shape = Shape { array: Some(String::new()), point: Some("/id".into()), value: Some("/v".into()), ..Shape::default() };
        let samples = super::decode(br#"[{"id":"a","v":1},{"id":"b"},7,{"id":"c","v":[3]},{"id":"d","v":4}]"#, &shape).unwrap();
        let values: Vec<_> = samples.into_iter().map(|sample| sample.map(|s| s.value)).collect();
        let bad = Err(DecodeError::WrongShape);
        assert_eq!(values, [Ok(Value::Number(1.0)), bad.clone(), bad.clone(), bad, Ok(Value::Number(4.0))]);
    }

    #[test]
    fn the_time_beside_the_points_is_no_point() {
        let shape = Shape { values: Some(String::new()), time: Some("/ts".into()), ..Shape::default() };
        let samples = decode(br#"{"ts":1650006388943,"vib":1.5}"#, &shape).unwrap();
        assert_eq!(samples.iter().map(|s| s.point.as_deref().unwrap()).collect::<Vec<_>>(), ["vib"]);
    }

    #[test]
    fn a_waveform_block() {
        let shape = Shape { waveform: true, time_unit: TimeUnit::Ms, ..Shape::default() };
        let samples = decode(br#"{"t0":1650006388943,"fs":1000,"unit":"[g]","scale":0.5,"samples":[1,-2,4]}"#, &shape).unwrap();
        assert_eq!(samples[0].value, Value::Block(Block { fs_hz: 1000.0, unit: Some(BlockUnit::G), scale: 0.5, samples: vec![0.5, -1.0, 2.0] }));
        assert_eq!(samples[0].time.unwrap().unwrap().as_millis(), 1_650_006_388_946, "three samples of a millisecond after the first");
        for bad in [r#"{"fs":0,"samples":[1]}"#, r#"{"fs":1,"samples":[]}"#, r#"{"fs":1,"samples":["x"]}"#, r#"{"samples":[1]}"#, "[]"] {
            assert_eq!(decode(bad.as_bytes(), &shape), Err(DecodeError::WrongShape), "{bad}");
        }
    }

    /// The block stays, so that its features can say why they are none.
    #[test]
    fn a_sample_that_is_no_number_leaves_a_hole_in_its_block() {
        let shape = Shape { waveform: true, ..Shape::default() };
        for (samples, holes) in [("[1,null,3]", 1), ("[NaN,2,-Infinity]", 2), (r#"["NaN",2,"inf"]"#, 2), ("[1e308,2,-1e308]", 2), ("[1,2,3]", 0)] {
            let document = format!(r#"{{"fs":1000,"scale":10,"samples":{samples}}}"#);
            let Value::Block(block) = decode(document.as_bytes(), &shape).unwrap().remove(0).value else { panic!("{samples}") };
            assert_eq!((block.samples.len(), block.samples.iter().filter(|sample| sample.is_nan()).count()), (3, holes), "{samples}");
            assert_eq!(block.fault(), (holes > 0).then_some((Quality::Bad, QualityReason::NotANumber)), "{samples}");
        }
        for never in ["[1,true]", "[1,[2]]", r#"[1,"two"]"#, r#"[1,"2"]"#] {
            let document = format!(r#"{{"fs":1000,"samples":{never}}}"#);
            assert_eq!(decode(document.as_bytes(), &shape), Err(DecodeError::WrongShape), "{never}");
        }
    }

    #[test]
    fn numbers_that_are_none_cost_the_rest_of_a_document_nothing() {
        let shape = Shape { values: Some("/values".into()), ..Shape::default() };
        let samples = decode(r#"{"note":"NaN \"Infinity ö","values":{"NaN":1,"a":NaN,"b":-Infinity,"c":2}}"#.as_bytes(), &shape).unwrap();
        let values: Vec<(&str, Option<f64>)> = samples
            .iter()
            .map(|sample| {
                let Value::Number(number) = sample.value else { panic!("{sample:?}") };
                (sample.point.as_deref().unwrap(), Some(number).filter(|number| number.is_finite()))
            })
            .collect();
        assert_eq!(values, [("NaN", Some(1.0)), ("a", None), ("b", None), ("c", Some(2.0))]);
        for broken in [r#"{"values":{"a":NaN}"#, r#"{"values":{"a":nan}}"#, r#"{"values":{"a":NaNa}}"#, "\"NaN\\"] {
            assert_eq!(decode(broken.as_bytes(), &shape), Err(DecodeError::NotJson), "{broken}");
        }
    }

    #[test]
    fn qualities() {
        for (code, expected) in [
            ("192", Quality::Good),
            ("0", Quality::Bad),
            ("1073741824", Quality::Uncertain),
            ("2147483648", Quality::Bad),
            ("\"Good\"", Quality::Good),
        ] {
            assert_eq!(quality(&serde_json::from_str(code).unwrap()), expected, "{code}");
        }
    }

    proptest! {
        #[test]
        fn no_payload_makes_it_panic(payload in proptest::collection::vec(any::<u8>(), 0..300), waveform: bool) {
            let shape = Shape { waveform, ..scalar_shape() };
            let _ = super::decode(&payload, &shape);
            let _ = super::decode(&payload, &Shape::default());
        }

        #[test]
        fn a_number_arrives_as_it_was_sent(value in any::<f64>().prop_filter("finite", |v| v.is_finite())) {
            let samples = decode(serde_json::json!({"value": value}).to_string().as_bytes(), &scalar_shape()).unwrap();
            prop_assert_eq!(&samples[0].value, &Value::Number(value));
        }
    }
}
