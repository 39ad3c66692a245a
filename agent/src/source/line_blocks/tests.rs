//! Hark's node at one end of a line that does what lines do, the agent at the other, in simulated time: a block comes as the node has it, or its end is told.
use std::{sync::Arc, time::Duration};

use hark_firmware_sim::{
    machine::{Fault, Law, MachineConfig},
    simulation::{NodeSimulation, SimulationConfig},
};
use hark_protocol::{
    node::{Body, TimeSync},
    topics::{Clock as ClockState, Event, Name, Origin, Timestamp, TsSource},
};

use super::*;
use crate::{
    buffer::marks::{SourceMark, SourceMarks},
    clock::Clock,
    config,
    record::Body as EntryBody,
    source::{
        node_block::SAMPLES_MAX,
        node_line::{Durable, NodeLine, Part},
        registry::Registry,
    },
};

const NODE: u32 = 7;
/// As long as the block's samples take.
const BLOCK_MS: u64 = 1_240;
const TURN_MS: u64 = 20;
/// Between storing and acknowledging, as by an agent that commits.
const COMMIT_MS: u64 = 260;
/// 1 January 2026, as the simulation begins.
const BEGIN_US: i64 = 1_767_225_600_000_000;

struct Bench {
    node: NodeSimulation,
    line: NodeLine,
    stored: SourceMarks,
    intake: Intake,
    counters: SourceCounters,
    now_ms: u64,
    unacknowledged: Vec<(u64, Durable)>,
    blocks: Vec<Fetched>,
    events: Vec<Event>,
    features: usize,
}

fn new_line(stored: &SourceMarks) -> NodeLine {
    let node = Node { asset: "fan-7".into(), channels: vec!["de-h".into(), "".into()] };
    NodeLine::new(BTreeMap::from([(NODE, node)]), "line", stored, SAMPLES_MAX)
}

impl Bench {
    /// A node whose line and sensor suffer from `troubles`, listened to for four seconds.
    fn new(troubles: &[&str]) -> Self {
        let shipped = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../config");
        let assets = config::load(&shipped).unwrap().assets;
        let simulation = SimulationConfig {
            machine: MachineConfig::watched(Fault::OuterRace, Law::Linear, Duration::from_secs(2), Duration::from_secs(60)),
            node: NODE,
            boot: 1_000,
            seed: 42,
            resend_after: Duration::from_secs(1),
            disturbances: troubles.iter().map(|text| text.parse().unwrap()).collect(),
        };
        let stored = SourceMarks::default();
        let mut bench = Self {
            node: NodeSimulation::new(simulation),
            line: new_line(&stored),
            stored,
            intake: Intake::new(Arc::new(Registry::new(&assets, Origin::Simulated))),
            counters: SourceCounters::new("line".into(), "serial", "replay", Clock::new()),
            now_ms: 0,
            unacknowledged: Vec::new(),
            blocks: Vec::new(),
            events: Vec::new(),
            features: 0,
        };
        bench.run_until(4_000, |_| false);
        bench
    }

    fn want(&mut self, cause_id: &str, point: Option<&str>) {
        assert!(self.line.want(&Wanted { asset: "fan-7".into(), point: point.map(Into::into), cause_id: cause_id.into() }));
    }

    /// Goes on until `done`, or so many milliseconds have passed; says which.
    fn run_until(&mut self, most_ms: u64, done: impl Fn(&Self) -> bool) -> bool {
        let end_ms = self.now_ms + most_ms;
        while self.now_ms < end_ms && !done(self) {
            self.turn();
        }
        done(self)
    }

    fn turn(&mut self) {
        self.now_ms += TURN_MS;
        let now_us = 1_000 * self.now_ms;
        if self.now_ms.is_multiple_of(BLOCK_MS) {
            self.node.block(now_us);
        }
        let now = Now { ts: Timestamp(BEGIN_US + now_us as i64), log_ms: self.now_ms, boot: "boot".into(), state: ClockState::Synced };
        let mut taken = Taken::default();
        let mut bytes = Vec::new();
        self.node.transmit(now_us, 2_048, &mut bytes);
        self.line.take(&bytes, &now, &mut self.intake, &self.counters, &mut taken);
        if self.now_ms.is_multiple_of(500) {
            for question in self.line.tend(&now, &self.intake, &self.counters, &mut taken).unwrap() {
                self.node.receive(&question, now_us);
            }
        }
        if self.line.session_began() || self.now_ms.is_multiple_of(10_000) {
            let request = Body::TimeSync(TimeSync::Request { t1_us: now.ts.0 as u64 });
            self.node.receive(&self.line.frame_for(NODE, request).unwrap(), now_us);
        }
        self.store(taken);
        let durable: Vec<_> = self.unacknowledged.extract_if(.., |(at_ms, _)| *at_ms <= self.now_ms).map(|(_, durable)| durable).collect();
        for Durable { node, ack } in durable {
            self.node.receive(&self.line.frame_for(node, Body::Ack(ack)).unwrap(), now_us);
        }
    }

    fn store(&mut self, taken: Taken) {
        let Taken { inputs, events, blocks } = taken;
        self.features += inputs.entries.iter().filter(|entry| matches!(&entry.body, EntryBody::Reading(r) if &*r.point == "de-h.v_rms")).count();
        for Part { entries, marks, durable } in [inputs, events] {
            let event = |entry| if let crate::record::Entry { body: EntryBody::Event(event), .. } = entry { Some(*event) } else { None };
            self.events.extend(entries.into_iter().filter_map(event));
            marks.into_iter().for_each(|(node, mark)| self.stored.apply(&SourceMark::Node { source: "line".into(), node, mark }));
            self.unacknowledged.extend(durable.into_iter().map(|durable| (self.now_ms + COMMIT_MS, durable)));
        }
        self.blocks.extend(blocks);
    }

    /// Killed, and started again with what is stored.
    fn restart_agent(&mut self) {
        self.line = new_line(&self.stored);
        self.unacknowledged.clear();
    }

    fn given_up(&self) -> Vec<Name> {
        let given_up = |event: &&Event| event.what.as_deref() == Some("raw_block_given_up");
        let reason = |event: &Event| -> Name {
            let detail: serde_json::Value = serde_json::from_str(event.detail_json.as_deref().unwrap()).unwrap();
            detail["reason"].as_str().unwrap().into()
        };
        self.events.iter().filter(given_up).map(reason).collect()
    }

    fn counted(&self, cause: &str) -> u64 {
        self.counters.causes().iter().filter(|(_, name, _)| *name == cause).map(|(_, _, count)| count).sum()
    }
}

#[test]
fn an_alarm_brings_the_newest_block_of_each_channel_with_samples() {
    let mut bench = Bench::new(&[]);
    let asked_us = BEGIN_US + 1_000 * bench.now_ms as i64;
    bench.want("2/17", None);
    assert!(bench.run_until(20_000, |bench| !bench.blocks.is_empty()), "{:?}", bench.events);
    bench.run_until(5_000, |_| false);
    let [Fetched { point, cause_id, block }] = &bench.blocks[..] else { panic!("{} blocks", bench.blocks.len()) };
    assert_eq!((&**point, &**cause_id, block.counts.len(), &*block.unit, block.fs_hz), ("de-h", "2/17", 8_192, "[g]", 26_667.0));
    assert_eq!((block.stamp.asset.as_deref(), block.stamp.ts_source, block.stamp.origin), (Some("fan-7"), TsSource::Sensor, Origin::Simulated));
    let age_us = asked_us - block.stamp.ts.0;
    assert!((-600_000..=1_300_000).contains(&age_us), "it ends {age_us} us before it was asked for");
    let g = block.counts.iter().map(|count| f64::from(*count)).sum::<f64>() * block.scale / 8_192.0;
    assert!((g - 1.0).abs() < 0.01 && block.speed_hz.is_some_and(|hz| (20.0..40.0).contains(&hz)), "gravity {g}, {:?}", block.speed_hz);
    assert!(bench.given_up().is_empty() && bench.counted("command_done") == 0, "{:?}", bench.events);
}

/// The same samples over a line that loses, damages, doubles and reorders, and no feature less.
#[test]
fn a_bad_line_costs_time_and_no_sample() {
    let fetch = |troubles: &[&str]| {
        let mut bench = Bench::new(troubles);
        bench.want("2/17", Some("de-h"));
        assert!(bench.run_until(120_000, |bench| !bench.blocks.is_empty()), "{troubles:?}: {:?}", bench.events);
        // In order and once: as many as the blocks so far, and none is missing.
        let blocks = bench.now_ms / BLOCK_MS;
        assert!(bench.run_until(60_000, |bench| bench.features as u64 >= blocks), "{troubles:?}: {} of {blocks}", bench.features);
        assert_eq!(bench.node.firmware().dropped(), 0);
        let Kept { stamp, scale, counts, .. } = bench.blocks.remove(0).block;
        ((stamp, scale, counts), bench.counted("early"), bench.counted("repeated"))
    };
    let (clean, ..) = fetch(&[]);
    for troubles in [
        &["bit-flip@4..300:0.2"][..],
        &["duplicate@4..300:0.5", "reorder@4..300:0.3"],
        &["truncation@4..300:0.05", "duplicate@4..300:0.2", "reorder@4..300:0.2", "burst-loss@4..300:0.01"],
    ] {
        let (block, early, repeated) = fetch(troubles);
        assert!(block == clean, "{troubles:?}: {:?} instead of {:?}", block.0, clean.0);
        assert!(early + repeated > 0, "{troubles:?} disturbed nothing");
    }
}

#[test]
fn a_node_that_starts_anew_has_lost_its_block_and_gives_the_next_one() {
    let mut bench = Bench::new(&["brown-out@5..6"]);
    bench.want("2/17", None);
    assert!(bench.run_until(20_000, |bench| !bench.given_up().is_empty()));
    assert_eq!((bench.given_up(), bench.counted("node_restarted"), bench.blocks.len()), (vec!["node_restarted".into()], 1, 0));
    bench.want("2/18", None);
    assert!(bench.run_until(30_000, |bench| !bench.blocks.is_empty()), "{:?}", bench.events);
    assert_eq!((&*bench.blocks[0].cause_id, bench.given_up().len()), ("2/18", 1));
}

#[test]
fn an_agent_that_starts_anew_tells_of_the_block_that_was_on_its_way_and_gets_the_next_one() {
    let mut bench = Bench::new(&[]);
    bench.want("2/17", None);
    bench.run_until(1_600, |_| false);
    bench.restart_agent();
    assert!(bench.run_until(30_000, |bench| !bench.given_up().is_empty()));
    bench.run_until(5_000, |_| false);
    assert_eq!((bench.given_up(), bench.blocks.len()), (vec!["agent_restarted".into()], 0), "once");
    assert!(bench.counted("unasked_chunk") > 1);
    bench.want("2/18", Some("de-h"));
    assert!(bench.run_until(30_000, |bench| !bench.blocks.is_empty()), "{:?}", bench.events);
    assert_eq!((bench.blocks[0].block.counts.len(), bench.given_up().len()), (8_192, 1));
}

/// A cable that is pulled in the middle: shortly, and the block goes on; for long, and its end is told.
#[test]
fn a_line_that_is_silent_for_a_while_resumes_and_one_that_stays_so_is_given_up() {
    let mut short = Bench::new(&["silent-port@5..19"]);
    short.want("2/17", None);
    assert!(short.run_until(60_000, |bench| !bench.blocks.is_empty()) && short.now_ms > 19_000, "{:?}", short.events);
    assert!(short.given_up().is_empty());

    let mut long = Bench::new(&["silent-port@5..300"]);
    long.want("2/17", None);
    assert!(long.run_until(60_000, |bench| !bench.given_up().is_empty()));
    assert_eq!(long.given_up(), ["stalled".into()]);
    long.want("2/18", None);
    assert!(long.run_until(60_000, |bench| bench.given_up().len() == 2));
    assert_eq!((long.given_up()[1].clone(), long.counted("node_silent"), long.blocks.len()), ("node_silent".into(), 1, 0));
}

#[test]
fn a_channel_that_no_node_has_is_asked_of_none() {
    let mut bench = Bench::new(&[]);
    for (asset, point) in [("fan-7", Some("nde-h")), ("fan-7", Some("")), ("pump-1", None)] {
        assert!(bench.line.want(&Wanted { asset: asset.into(), point: point.map(Into::into), cause_id: "2/17".into() }));
    }
    bench.run_until(3_000, |_| false);
    assert!(bench.blocks.is_empty() && bench.given_up().is_empty());
}
