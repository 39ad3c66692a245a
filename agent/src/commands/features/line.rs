//! One line of output per block.
use std::{
    collections::BTreeMap,
    io::{self, Write},
};

use serde::Serialize;

use crate::signal::{
    FEATURES, Features, Setting,
    bearing::Orders,
    clipping::is_clipped,
    diagnosis::{Diagnosis, Fault, Machine},
    features::is_flat,
    severity,
    speed::{Origin, Search},
};

/// One line of output. Names are a contract; fields are only added. What cannot be computed is null.
#[derive(Serialize)]
pub(super) struct Line<'a> {
    /// From 1 on.
    block: u64,
    /// Of its first sample, from the file's begin.
    start_s: f64,
    samples: usize,
    fs_hz: f64,
    speed_hz: Option<f64>,
    /// Where a search for it was asked for.
    speed_origin: Option<Origin>,
    bpfo_hz: Option<f64>,
    bpfi_hz: Option<f64>,
    bsf_2x_hz: Option<f64>,
    ftf_hz: Option<f64>,
    /// Features by name; velocities in mm/s, accelerations in g.
    #[serde(flatten)]
    features: BTreeMap<&'a str, Option<f64>>,
    zone_source: Option<&'static str>,
    /// The signal was cut at an end of its range: all of this is uncertain.
    clipped: bool,
    #[serde(flatten)]
    diagnosis: Option<Diagnosis>,
    /// Faults whose rules were not asked, for want of what they look at: `fault` says nothing of them.
    not_asked: Vec<Fault>,
}

/// What is the same for all lines of a file.
pub(super) struct Lines<'a> {
    setting: Setting<'a>,
    machine: Machine,
    orders: Option<Orders>,
    search: Option<Search>,
    features: Features,
    tracked_hz: Option<f64>,
    block: u64,
    start: u64,
}

impl<'a> Lines<'a> {
    pub(super) fn new(setting: Setting<'a>, machine: Machine, orders: Option<Orders>, search: Option<Search>) -> Self {
        Self { setting, machine, orders, search, features: Features::new(), tracked_hz: None, block: 0, start: 0 }
    }

    /// Computes the next block and writes it as JSON with its end of line.
    pub(super) fn write(&mut self, samples: &[f64], out: &mut dyn Write) -> io::Result<()> {
        let wanted = FEATURES.map(Into::into);
        let found = self.search.map(|search| self.features.track_speed(samples, &self.setting, &search, self.tracked_hz).map(|tracked| tracked.hz));
        self.tracked_hz = found.flatten().or(self.tracked_hz);
        let setting = Setting { speed_hz: found.flatten().or(self.setting.speed_hz), ..self.setting };
        let values = self.features.block_features(samples, &setting, &wanted);
        let line_hz = |order: fn(Orders) -> f64| self.orders.zip(setting.speed_hz).map(|(orders, speed_hz)| order(orders) * speed_hz);
        let diagnosis = self.features.diagnose(samples, &setting, &self.machine).or_else(|| is_flat(samples).then(Diagnosis::of_flat_line));
        let was_asked = |fault: &Fault| diagnosis.as_ref().is_some_and(|diagnosis| diagnosis.asked.contains(fault));
        let not_asked = Fault::ALL.into_iter().filter(|fault| !was_asked(fault)).collect();
        self.block += 1;
        let line = Line {
            block: self.block,
            start_s: self.start as f64 / self.setting.fs_hz,
            samples: samples.len(),
            fs_hz: self.setting.fs_hz,
            speed_hz: setting.speed_hz,
            speed_origin: found.map(|found| found.map_or(Origin::Nominal, |_| Origin::Tracked)),
            bpfo_hz: line_hz(|orders| orders.bpfo),
            bpfi_hz: line_hz(|orders| orders.bpfi),
            bsf_2x_hz: line_hz(|orders| 2.0 * orders.bsf),
            ftf_hz: line_hz(|orders| orders.ftf),
            features: values.iter().map(|(name, _, value)| (&**name, *value)).collect(),
            zone_source: self.machine.class.map(|_| severity::SOURCE),
            clipped: is_clipped(samples),
            diagnosis,
            not_asked,
        };
        self.start += samples.len() as u64;
        let mut text = serde_json::to_vec(&line)?;
        text.push(b'\n');
        out.write_all(&text)
    }
}
