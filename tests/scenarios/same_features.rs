//! One meaning for each feature: what a node computes without an operating system (filters, decimation, single precision) is what the gateway makes of the
//! same samples by spectra. In one process, without a broker.
use anyhow::{Context, Result, ensure};
use hark::{
    config::Bearing,
    signal::{BlockUnit, Features, Setting},
};
use hark_firmware_sim::{
    firmware::vibration::{BLOCK_SAMPLES, BearingOrders, Vibration},
    machine::{BEARING_6205, Fault, Law, Machine, MachineConfig},
    sensor::RATE_HZ,
};
use hark_protocol::topics::Name;

/// How far the two may be from each other, as a part. Lines are ratios to noise, which a filter and a spectrum see a little otherwise.
const NAMES: [(&str, f64); 10] = [
    ("v_rms", 0.005),
    ("a_rms", 0.002),
    ("crest", 0.01),
    ("kurtosis", 0.01),
    ("peak_to_peak", 0.01),
    ("env.rms", 0.05),
    ("env.bpfo", 0.2),
    ("env.bpfi", 0.2),
    ("env.bsf", 0.2),
    ("env.ftf", 0.35),
];

/// A machine that has worn for this part of its life.
fn machine(fault: Fault, part: f64, seed: u64) -> Machine {
    let life_s = 86_400.0;
    let config = MachineConfig { fault, law: Law::Linear, healthy_s: 0.0, life_s, ..MachineConfig::default() };
    let mut machine = Machine::new(config, seed);
    machine.advance(part * life_s);
    machine
}

#[test]
fn a_node_and_the_gateway_give_the_same_features() -> Result<()> {
    let mut worst = NAMES.map(|(name, _)| (name, 0.0_f64));
    for (fault, part) in [(Fault::None, 0.0), (Fault::OuterRace, 0.1), (Fault::OuterRace, 0.6), (Fault::Unbalance, 0.7), (Fault::Misalignment, 0.5)] {
        for seed in 1..=5 {
            compare(machine(fault, part, seed), &mut worst).with_context(|| format!("{fault:?} {part}, seed {seed}"))?;
        }
    }
    println!("largest difference of each feature: {worst:?}");
    for ((name, limit), (_, worst)) in NAMES.iter().zip(worst) {
        ensure!(worst <= *limit, "{name} differs by {:.1} %, {:.0} % are allowed", 100.0 * worst, 100.0 * limit);
    }
    Ok(())
}

fn compare(mut machine: Machine, worst: &mut [(&str, f64)]) -> Result<()> {
    let orders = BEARING_6205.orders();
    let shaft_hz = machine.signal().shaft_hz;
    let mut node = Vibration::new(RATE_HZ as f32);
    let mut samples = vec![0.0; 2 * BLOCK_SAMPLES];
    machine.write_block(&mut samples, RATE_HZ);
    // The node's filters settle on the first block.
    let of_node = samples.iter().fold(None, |last, sample| {
        let bearing = BearingOrders { bpfo: orders.bpfo, bpfi: orders.bpfi, bsf: orders.bsf, ftf: orders.ftf };
        if node.push(*sample as f32) { node.features(Some(bearing), Some(shaft_hz as f32)) } else { last }
    });
    let of_node = of_node.context("the node gives nothing")?;
    let bearing = Bearing { elements: 9, element_mm: 7.94, pitch_mm: 39.04, contact_deg: 0.0 };
    let setting =
        Setting { fs_hz: RATE_HZ, unit: BlockUnit::G, speed_hz: Some(shaft_hz), bearing: Some(&bearing), envelope_band_hz: (2_000.0, 5_000.0) };
    let wanted: Vec<Name> = NAMES.iter().map(|(name, _)| (*name).into()).collect();
    let of_gateway = Features::new().block_features(&samples[BLOCK_SAMPLES..], &setting, &wanted);
    for ((name, unit, value), (_, worst)) in of_gateway.iter().zip(worst) {
        let value = value.with_context(|| format!("the gateway has no {name}"))?;
        let same = of_node.iter().find(|of_node| of_node.quantity.name() == &**name).with_context(|| format!("the node has no {name}"))?;
        ensure!(same.quantity.unit() == *unit, "{name} is in {unit} and in {}", same.quantity.unit());
        let difference = (f64::from(same.value) / value - 1.0).abs();
        *worst = worst.max(difference);
    }
    Ok(())
}
