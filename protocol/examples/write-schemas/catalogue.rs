//! What `config/kafka/` holds, made from the Rust types: the topics for operations, and a JSON Schema with an example for each topic.
//!
//! Used by the program that writes the files and by the test that compares them.
use std::collections::BTreeMap;

use hark_protocol::topics::{
    ALARMS, ASSETS, Alarm, Asset, BASELINES, Baseline, CompactedRecord, EVENTS, Event, FEEDBACK, Feedback, GATEWAYS, Gateway, PREDICTIONS,
    Prediction, READINGS, Reading, Record, SNAPSHOTS, Snapshot, TOPICS, Topic,
};
use schemars::{JsonSchema, generate::SchemaSettings, transform::RecursiveTransform};
use serde::{Serialize, Serializer, de::DeserializeOwned};
use serde_json::{Map, Value, json};

use crate::examples;

/// The prefix that schemas name topics by.
pub(crate) const PREFIX: &str = "hark.";

/// The largest integer that a consumer reading numbers as doubles gets right, 2^53 - 1.
pub(crate) const LARGEST_INTEGER: i64 = 9_007_199_254_740_991;

/// A file under `config/kafka/`.
pub(crate) struct File {
    /// Path below that folder.
    pub(crate) path: String,
    /// Its content.
    pub(crate) text: String,
}

/// A topic with what its values look like.
pub(crate) struct Contract {
    /// The topic.
    pub(crate) topic: Topic,
    /// JSON Schema of a value.
    pub(crate) schema: Value,
    /// A value as it could stand in Kafka, over several lines, fields in the order of the type.
    pub(crate) example: String,
    /// Reads a value into the Rust type and writes it back as `example` is written.
    pub(crate) round_trip: fn(&str) -> serde_json::Result<String>,
}

/// All topics, in the order of [`TOPICS`].
pub(crate) fn contracts() -> serde_json::Result<Vec<Contract>> {
    Ok(vec![
        contract::<Record<Reading>>(READINGS, &examples::reading())?,
        contract::<Record<Prediction>>(PREDICTIONS, &examples::prediction())?,
        contract::<Record<Alarm>>(ALARMS, &examples::alarm())?,
        contract::<Record<Event>>(EVENTS, &examples::event())?,
        contract::<Record<Snapshot>>(SNAPSHOTS, &examples::snapshot())?,
        contract::<CompactedRecord<Gateway>>(GATEWAYS, &examples::gateway())?,
        contract::<CompactedRecord<Asset>>(ASSETS, &examples::asset())?,
        contract::<CompactedRecord<Baseline>>(BASELINES, &examples::baseline())?,
        contract::<Feedback>(FEEDBACK, &examples::feedback())?,
    ])
}

/// All files, with their content.
pub(crate) fn files() -> serde_json::Result<Vec<File>> {
    let mut files = vec![
        File { path: "topics.json".to_owned(), text: pretty(&topics_for_programs())? },
        File { path: "topics.txt".to_owned(), text: topics_for_the_shell() },
    ];
    for contract in contracts()? {
        let name = contract.topic.full_name(PREFIX);
        files.push(File { path: format!("schemas/{name}.schema.json"), text: pretty(&contract.schema)? });
        files.push(File { path: format!("schemas/{name}.example.json"), text: (contract.round_trip)(&contract.example)? });
    }
    Ok(files)
}

fn contract<T: JsonSchema + Serialize + DeserializeOwned>(topic: Topic, example: &T) -> serde_json::Result<Contract> {
    fn round_trip<T: Serialize + DeserializeOwned>(text: &str) -> serde_json::Result<String> {
        Ok(serde_json::to_string_pretty(&serde_json::from_str::<T>(text)?)? + "\n")
    }
    Ok(Contract { topic, schema: schema::<T>(topic), example: serde_json::to_string_pretty(example)? + "\n", round_trip: round_trip::<T> })
}

/// One self-contained flat object: the types of fields are written where they are used, since many schema tools do not follow references.
fn schema<T: JsonSchema>(topic: Topic) -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    let mut schema = settings.with_transform(RecursiveTransform(bound_integers)).into_generator().into_root_schema_for::<T>();
    schema.insert("title".to_owned(), topic.full_name(PREFIX).into());
    schema.insert("description".to_owned(), format!("Value of a record: {}. The key is the id of the {}.", topic.holds, topic.key).into());
    schema.to_value()
}

/// The width of an integer in Rust says nothing about what may travel.
fn bound_integers(schema: &mut schemars::Schema) {
    let is_integer = match schema.get("type") {
        Some(Value::String(name)) => name == "integer",
        Some(Value::Array(names)) => names.iter().any(|name| name == "integer"),
        _ => false,
    };
    if is_integer {
        let lower = if schema.get("minimum").is_some() { None } else { Some(json!(-LARGEST_INTEGER)) };
        schema.insert("maximum".to_owned(), schema.get("maximum").cloned().unwrap_or_else(|| json!(LARGEST_INTEGER)));
        if let Some(lower) = lower {
            schema.insert("minimum".to_owned(), lower);
        }
    }
}

fn topics_for_programs() -> Value {
    let topic = |topic: &Topic| {
        let settings: Map<String, Value> = topic.settings().into_iter().map(|(key, value)| (key.to_owned(), value.into())).collect();
        json!({"name": topic.name, "key": topic.key, "holds": topic.holds, "partitions": topic.partitions, "settings": settings})
    };
    TOPICS.iter().map(topic).collect()
}

fn topics_for_the_shell() -> String {
    let mut text = "# Read by create-topics.sh: name without the prefix, partitions, settings. topics.json says the same to programs.\n".to_owned();
    for topic in TOPICS {
        let settings: Vec<String> = topic.settings().into_iter().map(|(key, value)| format!("{key}={value}")).collect();
        text += &format!("{} {} {}\n", topic.name, topic.partitions, settings.join(" "));
    }
    text
}

fn pretty(value: &Value) -> serde_json::Result<String> {
    Ok(serde_json::to_string_pretty(&Sorted(value))? + "\n")
}

/// A value whose keys are written in the order of the alphabet. Without it the order hangs on a feature of `serde_json` that any crate built
/// at the same time may switch on, and the files would differ between one command and another.
struct Sorted<'a>(&'a Value);

impl Serialize for Sorted<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Object(fields) => serializer.collect_map(fields.iter().map(|(key, value)| (key, Sorted(value))).collect::<BTreeMap<_, _>>()),
            Value::Array(values) => serializer.collect_seq(values.iter().map(Sorted)),
            primitive => primitive.serialize(serializer),
        }
    }
}
