//! What a plant asks of its pump over days: how far the valve is open, how fast it turns, what it pumps, how warm the hall is.
//!
//! Each scenario has one thing that changes and is no fault; [`Scenario::All`] has all of them.
use std::f64::consts::TAU;

use hark_firmware_sim::machine::Noise;

use crate::wander::Wander;

/// A day, s.
pub const DAY_S: f64 = 86_400.0;
/// Shaft speed at the mains' frequency, 1/min.
pub const NOMINAL_RPM: f64 = 1_480.0;

/// What changes on a healthy machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scenario {
    /// Nothing but what always wanders.
    Steady,
    /// Demand follows shifts and changes within them, on each day in another way.
    Load,
    /// The converter is given another speed every 20 to 90 minutes.
    Speed,
    /// It stands still some four times a day, for 15 to 60 minutes.
    Starts,
    /// From half of the run on it pumps what is 8 % heavier and more viscous.
    Product,
    /// Outdoors: days, weather and a part of the year.
    Ambient,
    /// At two fifths of the run the sensor is mounted anew, sees 10 % more, and maintenance is reported.
    Remounted,
    /// Velocity falls by 20 % over the first ten days.
    WearIn,
    /// All of them.
    All,
    /// A fault, to see that the others are quiet for a reason: from half of the run on, within a day, the impeller wears to 10 % less head and twice the
    /// velocity.
    Worn,
    /// A fault that vibration alone shows: from half of the run on, within a day, twice the velocity.
    Unbalanced,
}

impl Scenario {
    /// All scenarios of a healthy machine.
    pub const EACH: [Self; 9] =
        [Self::Steady, Self::Load, Self::Speed, Self::Starts, Self::Product, Self::Ambient, Self::Remounted, Self::WearIn, Self::All];

    /// Those with a fault.
    pub const FAULTS: [Self; 2] = [Self::Worn, Self::Unbalanced];

    /// Name for tables and arguments.
    pub fn name(self) -> &'static str {
        match self {
            Self::Steady => "steady",
            Self::Load => "load",
            Self::Speed => "speed",
            Self::Starts => "starts",
            Self::Product => "product",
            Self::Ambient => "ambient",
            Self::Remounted => "remounted",
            Self::WearIn => "wear-in",
            Self::All => "all",
            Self::Worn => "worn",
            Self::Unbalanced => "unbalanced",
        }
    }

    fn has(self, change: Self) -> bool {
        self == change || (self == Self::All && !Self::FAULTS.contains(&change))
    }
}

/// What is asked of the pump, and what surrounds it, in one second.
#[derive(Clone, Copy, Debug)]
pub struct Duty {
    /// Opening of the valve as a share, 0 to 1.
    pub opening: f64,
    /// Set point of the speed, 1/min; 0 to stand still.
    pub speed_rpm: f64,
    /// Density over that of water.
    pub density: f64,
    /// Head that is lost to viscosity or wear, as a share.
    pub lost_head: f64,
    /// Temperature around the pump, degrees Celsius.
    pub ambient_c: f64,
    /// Velocity over that of a machine as new.
    pub wear: f64,
    /// What the sensor shows over what there is.
    pub gain: f64,
}

/// The plant's plans for one machine; moments and levels are drawn from its own randomness.
#[derive(Debug)]
pub struct Schedule {
    scenario: Scenario,
    length_s: f64,
    noise: Noise,
    opening: Wander,
    weather: Wander,
    /// Where the year begins, turns.
    season: f64,
    /// What was drawn last, and until when it holds, s.
    demand: (f64, f64),
    speed: (f64, f64),
    /// Whether it runs.
    running: (bool, f64),
}

impl Schedule {
    /// For a run of `length_s` seconds.
    pub fn new(scenario: Scenario, length_s: f64, seed: u64) -> Self {
        let mut noise = Noise::new(seed, 1);
        let season = noise.uniform();
        let weather = if scenario.has(Scenario::Ambient) { Wander::new(2.0, DAY_S) } else { Wander::new(0.4, 6.0 * 3_600.0) };
        let first_stop_s = between(&mut noise, 2.0, 8.0) * 3_600.0;
        Self {
            scenario,
            length_s,
            opening: Wander::new(0.01, 1_800.0),
            weather,
            season,
            demand: (0.8, 0.0),
            speed: (NOMINAL_RPM, 0.0),
            running: (true, first_stop_s),
            noise,
        }
    }

    /// When the sensor is mounted anew, s.
    pub fn remounted_s(&self) -> Option<f64> {
        self.scenario.has(Scenario::Remounted).then_some((0.4 * self.length_s).floor())
    }

    /// The duty in the second that begins at `at_s`; to be asked for each second, in order.
    pub fn at(&mut self, at_s: f64) -> Duty {
        let is_running = self.is_running(at_s);
        // A change of product takes some ten minutes until the pipes are full of it.
        let product = if self.scenario.has(Scenario::Product) { ((at_s - 0.5 * self.length_s) / 600.0).clamp(0.0, 1.0) } else { 0.0 };
        let worn_in = if self.scenario.has(Scenario::WearIn) { 0.2 * (at_s / (10.0 * DAY_S)).min(1.0) } else { 0.0 };
        let fault = |of: Scenario| if self.scenario.has(of) { ((at_s - 0.5 * self.length_s) / DAY_S).clamp(0.0, 1.0) } else { 0.0 };
        let (worn_out, unbalanced) = (fault(Scenario::Worn), fault(Scenario::Unbalanced));
        Duty {
            opening: (self.demand(at_s) + self.opening.step(&mut self.noise)).clamp(0.1, 1.0),
            speed_rpm: if is_running { self.speed(at_s) } else { 0.0 },
            density: 1.0 + 0.08 * product,
            lost_head: 0.03 * product + 0.1 * worn_out,
            ambient_c: self.ambient(at_s),
            wear: 1.0 - worn_in + worn_out + unbalanced,
            gain: if self.remounted_s().is_some_and(|from_s| at_s >= from_s) { 1.1 } else { 1.0 },
        }
    }

    fn demand(&mut self, at_s: f64) -> f64 {
        if !self.scenario.has(Scenario::Load) {
            return 0.8;
        }
        if at_s >= self.demand.1 {
            let shift = match (at_s.rem_euclid(DAY_S) / 3_600.0) as u32 {
                6..14 => 0.9,
                14..22 => 0.75,
                _ => 0.55,
            };
            self.demand = (shift + between(&mut self.noise, -0.08, 0.08), at_s + between(&mut self.noise, 20.0, 90.0) * 60.0);
        }
        self.demand.0
    }

    fn speed(&mut self, at_s: f64) -> f64 {
        if self.scenario.has(Scenario::Speed) && at_s >= self.speed.1 {
            self.speed = (between(&mut self.noise, 850.0, NOMINAL_RPM), at_s + between(&mut self.noise, 20.0, 90.0) * 60.0);
        }
        self.speed.0
    }

    fn is_running(&mut self, at_s: f64) -> bool {
        if self.scenario.has(Scenario::Starts) && at_s >= self.running.1 {
            let starts = !self.running.0;
            let hours = if starts { between(&mut self.noise, 2.0, 8.0) } else { between(&mut self.noise, 0.25, 1.0) };
            self.running = (starts, at_s + hours * 3_600.0);
        }
        self.running.0
    }

    fn ambient(&mut self, at_s: f64) -> f64 {
        let weather = self.weather.step(&mut self.noise);
        if !self.scenario.has(Scenario::Ambient) {
            return 20.0 + weather;
        }
        let days = at_s / DAY_S;
        15.0 + 10.0 * (TAU * (days / 365.0 + self.season)).sin() + 6.0 * (TAU * (days - 0.375)).sin() + weather
    }
}

fn between(noise: &mut Noise, low: f64, high: f64) -> f64 {
    low + (high - low) * noise.uniform()
}
