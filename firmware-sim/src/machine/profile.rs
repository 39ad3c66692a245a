//! How a machine is driven: speed and load over time.

/// Speed and load over machine time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Profile {
    /// Always the same.
    Constant {
        /// Shaft speed, 1/min.
        speed_rpm: f64,
        /// Share of nominal load.
        load: f64,
    },
    /// A working day over and over: start, full load, half load, reduced speed, idle, full load, stop.
    Changing {
        /// Nominal shaft speed, 1/min.
        speed_rpm: f64,
        /// Length of the day, seconds of machine time.
        period_s: f64,
    },
}

/// One stretch of the working day: it begins at a share of the period, with shares of nominal speed and load.
struct Stretch {
    begin: f64,
    speed: f64,
    load: f64,
}

const DAY: [Stretch; 7] = [
    Stretch { begin: 0.0, speed: 0.5, load: 0.2 },
    Stretch { begin: 0.02, speed: 1.0, load: 1.0 },
    Stretch { begin: 0.3, speed: 1.0, load: 0.5 },
    Stretch { begin: 0.5, speed: 0.8, load: 0.6 },
    Stretch { begin: 0.65, speed: 1.0, load: 0.05 },
    Stretch { begin: 0.75, speed: 1.0, load: 0.9 },
    Stretch { begin: 0.93, speed: 0.0, load: 0.0 },
];

impl Profile {
    /// Speed in 1/min and load as a share of nominal.
    pub fn at(&self, time_s: f64) -> (f64, f64) {
        match *self {
            Self::Constant { speed_rpm, load } => (speed_rpm, load),
            Self::Changing { speed_rpm, period_s } => {
                let share = (time_s / period_s).rem_euclid(1.0);
                let stretch = DAY.iter().rev().find(|stretch| stretch.begin <= share).unwrap_or(&DAY[0]);
                (speed_rpm * stretch.speed, stretch.load)
            }
        }
    }

    /// Seconds from `from_s` on until `life_s` seconds of nominal life are used, when a machine uses `pace` of them per second of turning at a
    /// load; `None` if never.
    pub fn time_to_wear(&self, from_s: f64, life_s: f64, pace: impl Fn(f64) -> f64) -> Option<f64> {
        let wear = |speed: f64, load: f64| if speed > 0.0 { pace(load) } else { 0.0 };
        let Self::Changing { period_s, .. } = *self else {
            let (speed, load) = self.at(from_s);
            let rate = wear(speed, load);
            return (rate > 0.0).then(|| life_s / rate);
        };
        let ends = DAY.iter().skip(1).map(|next| next.begin).chain([1.0]);
        let stretches: Vec<_> = DAY.iter().zip(ends).map(|(stretch, end)| (stretch.begin, end, wear(stretch.speed, stretch.load))).collect();
        let day_s: f64 = period_s * stretches.iter().map(|(begin, end, rate)| rate * (end - begin)).sum::<f64>();
        if day_s <= 0.0 {
            return None;
        }
        // Whole days first, then what is left of this one, and the beginning of one more.
        let days = (life_s / day_s).floor();
        let (mut left_s, mut passed_s) = (life_s - days * day_s, days * period_s);
        let share = (from_s / period_s).rem_euclid(1.0);
        for (begin, end, rate) in stretches.iter().copied().chain(stretches.iter().map(|(begin, end, rate)| (begin + 1.0, end + 1.0, *rate))) {
            let length_s = period_s * (end - begin.max(share)).max(0.0);
            if left_s <= rate * length_s {
                return Some(passed_s + if left_s > 0.0 { left_s / rate } else { 0.0 });
            }
            left_s -= rate * length_s;
            passed_s += length_s;
        }
        Some(passed_s)
    }

    /// Nominal speed, 1/min.
    pub fn nominal_rpm(&self) -> f64 {
        match *self {
            Self::Constant { speed_rpm, .. } | Self::Changing { speed_rpm, .. } => speed_rpm,
        }
    }
}
