//! Machines for tests: shaft harmonics, electrical lines, noise and impacts through a resonance (signal model of P. D'Elia and M. Cocconcelli), the same on
//! every computer.
use std::f64::consts::TAU;

/// Noise of unit variance.
pub struct Noise(pub u64);

impl Noise {
    pub fn next(&mut self) -> f64 {
        let mut uniform = || {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 11) as f64 / (1u64 << 53) as f64
        };
        (0..12).map(|_| uniform()).sum::<f64>() - 6.0
    }
}

/// Impacts of a fault.
#[derive(Clone, Copy, Debug)]
pub struct Strikes {
    pub rate_hz: f64,
    /// Peak, m/s2.
    pub amplitude: f64,
    /// Rate and depth (0 to 1) at which the load on them changes.
    pub load: (f64, f64),
    /// Standard deviation of the time between two, as a part of it.
    pub slip: f64,
}

impl Strikes {
    /// Impacts under an even load, with 1 % of slip.
    pub fn at(rate_hz: f64, amplitude: f64) -> Self {
        Self { rate_hz, amplitude, load: (1.0, 0.0), slip: 0.01 }
    }
}

/// A machine at 29.95 Hz, sampled at 12 kHz.
#[derive(Clone, Copy, Debug)]
pub struct Machine {
    pub fs_hz: f64,
    pub length: usize,
    pub speed_hz: f64,
    /// Velocity RMS in mm/s at half, one, two … times the shaft frequency.
    pub orders_mm_s: [(f64, f64); 12],
    /// Amplitude of the lines of a converter about 4 kHz, m/s2.
    pub electrical: f64,
    pub noise: f64,
    /// Rate and depth at which the noise swells.
    pub swell: (f64, f64),
    pub strikes: Option<Strikes>,
    pub seed: u64,
}

impl Machine {
    /// One with the vibration that all have: 1x of 0.8 mm/s, ever smaller harmonics, a converter's lines, noise.
    pub fn healthy(seed: u64) -> Self {
        let mut orders_mm_s = [(0.0, 0.0); 12];
        for (order, slot) in orders_mm_s.iter_mut().enumerate().skip(1).take(8) {
            *slot = (order as f64, 0.8 / (order * order) as f64);
        }
        Self { fs_hz: 12_000.0, length: 32_768, speed_hz: 29.95, orders_mm_s, electrical: 0.05, noise: 0.2, swell: (1.0, 0.0), strikes: None, seed }
    }

    /// Its block, m/s2.
    pub fn samples(&self) -> Vec<f64> {
        let mut noise = Noise(self.seed);
        let line = |t: f64, f_hz: f64| (TAU * f_hz * t + f_hz).cos();
        let mut samples: Vec<f64> = (0..self.length)
            .map(|i| {
                let t = i as f64 / self.fs_hz;
                let shaft: f64 = self
                    .orders_mm_s
                    .iter()
                    .map(|(order, v_mm_s)| 2f64.sqrt() * v_mm_s / 1_000.0 * TAU * order * self.speed_hz * line(t, order * self.speed_hz))
                    .sum();
                let electrical: f64 = [3_900.0, 4_000.0, 4_100.0].iter().map(|f_hz| self.electrical * line(t, *f_hz)).sum();
                let swell = 1.0 + self.swell.1 * line(t, self.swell.0);
                shaft + electrical + self.noise * swell * noise.next()
            })
            .collect();
        if let Some(strikes) = &self.strikes {
            self.strike(strikes, &mut noise, &mut samples);
        }
        samples
    }

    fn strike(&self, strikes: &Strikes, noise: &mut Noise, samples: &mut [f64]) {
        let (w, damping) = (TAU * 3_200.0, 0.05f64);
        let (load_hz, depth) = strikes.load;
        let mut at_s = 0.003;
        while at_s < self.length as f64 / self.fs_hz {
            let amplitude = strikes.amplitude * (1.0 - depth * (0.5 - 0.5 * (TAU * load_hz * at_s).cos()));
            let first = (at_s * self.fs_hz).ceil() as usize;
            for (i, sample) in samples.iter_mut().enumerate().skip(first).take(400) {
                let t = i as f64 / self.fs_hz - at_s;
                *sample += amplitude * (-damping * w * t).exp() * (w * (1.0 - damping * damping).sqrt() * t).sin();
            }
            at_s += (1.0 + strikes.slip * noise.next()) / strikes.rate_hz;
        }
    }
}
