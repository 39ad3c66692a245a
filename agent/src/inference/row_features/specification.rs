//! Which features a forecasting model wants of a row: the file `features.toml` of its bundle.
//!
//! ```toml
//! age = true                       # log1p of the row's number in this life, as the last feature
//! baseline_rows = 15               # `drift` is counted from the mean of so many rows at the start of a life
//! features = { value = true, ewma = [0.3, 0.03], slope = [30], drift = [0.1] }
//!
//! [[point]]
//! name = "T24"
//! unit = "[degR]"
//!
//! [regimes]                        # without it there is one regime, and values are taken as they are
//! settings = [{ name = "mach", unit = "1", scale = 0.1 }]
//! distance_max = 3.0
//! centre = [{ at = [0.84], mean = [549.6], deviation = [0.5] }]
//! ```
//! The rest is the order of the features: by point as listed, in each point by kind as in [`Kinds`], in each kind as listed.
use serde::Deserialize;

/// Most points of a specification.
const POINTS_MAX: usize = 256;
/// Longest window, rows: the state holds so many values of each point.
const WINDOW_ROWS_MAX: usize = 4_096;
/// Most regimes.
const REGIMES_MAX: usize = 64;

/// Why a specification cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SpecificationError {
    /// It is not of the form above.
    #[error("not a specification of features")]
    Form(#[from] Box<toml::de::Error>),
    /// It contradicts itself or is beyond a limit.
    #[error("`{key}`: {what}")]
    Unusable {
        /// Key concerned, from the top.
        key: String,
        /// What is wrong, and what would be right.
        what: String,
    },
}

/// A specification that was found to be usable.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Specification {
    /// Whether the row's number in this life is a feature: for machines of which it is known since when they run.
    #[serde(default)]
    pub age: bool,
    /// Rows at the start of a life whose mean `drift` is counted from; 0 where no point has `drift`.
    #[serde(default)]
    pub baseline_rows: u32,
    /// Features of points that say nothing else.
    #[serde(default)]
    pub features: Kinds,
    /// The points, in the order of their values in a row.
    #[serde(rename = "point")]
    pub points: Vec<Point>,
    /// How values depend on what the machine was told to do.
    pub regimes: Option<Regimes>,
}

/// A measured quantity of a row.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Point {
    /// Its name.
    pub name: String,
    /// Its unit (UCUM). Numbers of another unit give features of nothing.
    pub unit: String,
    /// In place of the features of all points.
    pub features: Option<Kinds>,
}

/// Features of a point, of its z-score where there are regimes. A window that is not yet full holds the rows there are.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Kinds {
    /// The value of the row.
    pub value: bool,
    /// Exponentially weighted means, by weight. They begin as the plain mean of all rows, until one row of it weighs less than the weight.
    pub ewma: Vec<f64>,
    /// Means over so many rows.
    pub mean: Vec<u32>,
    /// Standard deviations over so many rows, of the rows themselves (divisor n).
    pub deviation: Vec<u32>,
    /// Slopes of the straight line through so many rows, per row; 0 for a single one.
    pub slope: Vec<u32>,
    /// By how much the exponentially weighted mean of this weight exceeds the mean of the first `baseline_rows` rows of this life, while these are
    /// not complete of those there are.
    pub drift: Vec<f64>,
}

/// Operating regimes, told apart by settings.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Regimes {
    /// What tells them apart.
    pub settings: Vec<Setting>,
    /// A row farther than this from every centre, in multiples of the scales, belongs to none and has no features.
    pub distance_max: f64,
    /// The regimes.
    #[serde(rename = "centre")]
    pub centres: Vec<Centre>,
}

/// A quantity that the machine was told.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Setting {
    /// Name of its point.
    pub name: String,
    /// Its unit (UCUM).
    pub unit: String,
    /// Distances are measured in multiples of it.
    pub scale: f64,
}

/// One regime.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Centre {
    /// Its settings, in their order.
    pub at: Vec<f64>,
    /// Of each point in this regime; z-scores are counted from it.
    pub mean: Vec<f64>,
    /// Of each point in this regime; z-scores are multiples of it.
    pub deviation: Vec<f64>,
}

impl Specification {
    /// Reads and checks `text`.
    ///
    /// # Errors
    /// Where it is no specification, or one that cannot be computed.
    pub fn parse(text: &str) -> Result<Self, SpecificationError> {
        let specification: Self = toml::from_str(text).map_err(Box::new)?;
        specification.check()?;
        Ok(specification)
    }

    /// Names of the features in their order, such as `T24.ewma_0.03`.
    pub fn names(&self) -> Vec<String> {
        let of_points = self.points.iter().flat_map(|point| {
            let kinds = self.kinds(point);
            let weighed = |kind, weights: &[f64]| weights.iter().map(|weight| format!("{kind}_{weight}")).collect::<Vec<_>>();
            let counted = |kind, rows: &[u32]| rows.iter().map(|rows| format!("{kind}_{rows}")).collect::<Vec<_>>();
            let names = [
                if kinds.value { vec!["value".to_owned()] } else { Vec::new() },
                weighed("ewma", &kinds.ewma),
                counted("mean", &kinds.mean),
                counted("deviation", &kinds.deviation),
                counted("slope", &kinds.slope),
                weighed("drift", &kinds.drift),
            ];
            names.into_iter().flatten().map(|kind| format!("{}.{kind}", point.name))
        });
        of_points.chain(self.age.then(|| "age".to_owned())).collect()
    }

    /// Names and units of the points, then of the settings, in the order of their values in a row.
    pub fn inputs(&self) -> impl Iterator<Item = (&str, &str)> {
        let points = self.points.iter().map(|point| (point.name.as_str(), point.unit.as_str()));
        let settings = self.regimes.iter().flat_map(|regimes| &regimes.settings).map(|setting| (setting.name.as_str(), setting.unit.as_str()));
        points.chain(settings)
    }

    /// Names of the settings, in the order of their values in a row.
    pub fn setting_names(&self) -> impl Iterator<Item = &str> {
        self.regimes.iter().flat_map(|regimes| &regimes.settings).map(|setting| setting.name.as_str())
    }

    pub(super) fn kinds<'a>(&'a self, point: &'a Point) -> &'a Kinds {
        point.features.as_ref().unwrap_or(&self.features)
    }

    fn check(&self) -> Result<(), SpecificationError> {
        if self.points.is_empty() || self.points.len() > POINTS_MAX {
            return refuse("point", format!("{} are listed, 1 to {POINTS_MAX} are possible", self.points.len()));
        }
        let names: Vec<&str> = self.points.iter().map(|point| point.name.as_str()).chain(self.setting_names()).collect();
        if let Some(name) = names.iter().enumerate().find_map(|(index, name)| names[..index].contains(name).then_some(name)) {
            return refuse("point", format!("`{name}` is listed twice"));
        }
        if self.names().is_empty() {
            return refuse("features", "no point has one".to_owned());
        }
        for point in &self.points {
            self.kinds(point).check(&format!("features of point {}", point.name))?;
            if !self.kinds(point).drift.is_empty() && self.baseline_rows == 0 {
                return refuse("baseline_rows", format!("point `{}` has `drift`, which needs at least 1", point.name));
            }
        }
        self.regimes.as_ref().map_or(Ok(()), |regimes| regimes.check(self.points.len()))
    }
}

impl Kinds {
    /// Weights of all exponentially weighted means that are kept, those of `ewma` first.
    pub(super) fn weights(&self) -> impl Iterator<Item = f64> + '_ {
        self.ewma.iter().chain(&self.drift).copied()
    }

    /// Rows that the longest window spans.
    pub(super) fn window_rows(&self) -> usize {
        self.mean.iter().chain(&self.deviation).chain(&self.slope).max().map_or(0, |&rows| rows as usize)
    }

    fn check(&self, key: &str) -> Result<(), SpecificationError> {
        if let Some(weight) = self.weights().find(|weight| !(*weight > 0.0 && *weight <= 1.0)) {
            return refuse(key, format!("{weight} is no weight; expected a number above 0 and up to 1"));
        }
        let mut rows = self.mean.iter().chain(&self.deviation).chain(&self.slope);
        if let Some(rows) = rows.find(|rows| !(2..=WINDOW_ROWS_MAX as u32).contains(rows)) {
            return refuse(key, format!("a window of {rows} rows is not possible; expected 2 to {WINDOW_ROWS_MAX}"));
        }
        Ok(())
    }
}

impl Regimes {
    fn check(&self, points: usize) -> Result<(), SpecificationError> {
        if self.settings.is_empty() {
            return refuse("regimes.settings", "expected at least one setting that tells regimes apart".to_owned());
        }
        if let Some(setting) = self.settings.iter().find(|setting| !is_above_zero(setting.scale)) {
            return refuse("regimes.settings", format!("the scale of `{}` is {}; expected a number above 0", setting.name, setting.scale));
        }
        if !is_above_zero(self.distance_max) {
            return refuse("regimes.distance_max", format!("it is {}; expected a number above 0", self.distance_max));
        }
        if self.centres.is_empty() || self.centres.len() > REGIMES_MAX {
            return refuse("regimes.centre", format!("{} are listed, 1 to {REGIMES_MAX} are possible", self.centres.len()));
        }
        for (index, centre) in self.centres.iter().enumerate() {
            let key = |of: &str| format!("regimes.centre {}, {of}", index + 1);
            for (of, values, expected) in
                [("at", &centre.at, self.settings.len()), ("mean", &centre.mean, points), ("deviation", &centre.deviation, points)]
            {
                if values.len() != expected || values.iter().any(|value| !value.is_finite()) {
                    return refuse(&key(of), format!("expected {expected} numbers, one for each {}", if of == "at" { "setting" } else { "point" }));
                }
            }
            if let Some(deviation) = centre.deviation.iter().find(|deviation| !is_above_zero(**deviation)) {
                return refuse(&key("deviation"), format!("{deviation} is no deviation; expected numbers above 0"));
            }
        }
        Ok(())
    }
}

fn is_above_zero(number: f64) -> bool {
    number.is_finite() && number > 0.0
}

fn refuse(key: &str, what: String) -> Result<(), SpecificationError> {
    Err(SpecificationError::Unusable { key: key.to_owned(), what })
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = r#"
        age = true
        baseline_rows = 2
        features = { value = true, ewma = [0.5, 0.25], mean = [3], deviation = [4], slope = [5], drift = [0.5] }
        point = [{ name = "a", unit = "1" }, { name = "b", unit = "Cel", features = { ewma = [1] } }]
        [regimes]
        settings = [{ name = "speed", unit = "Hz", scale = 10.0 }]
        distance_max = 1.0
        centre = [{ at = [25.0], mean = [1.0, 2.0], deviation = [0.5, 0.25] }]
    "#;

    #[test]
    fn features_are_named_in_their_order() {
        let names = Specification::parse(WHOLE).unwrap().names();
        let of_a = ["a.value", "a.ewma_0.5", "a.ewma_0.25", "a.mean_3", "a.deviation_4", "a.slope_5", "a.drift_0.5"];
        assert_eq!(names, [&of_a[..], &["b.ewma_1", "age"]].concat());
    }

    #[test]
    fn what_cannot_be_computed_is_refused_with_its_key() {
        for (from, to, expected) in [
            ("age = true", "ages = true", "not a specification"),
            ("baseline_rows = 2", "", "`baseline_rows`: point `a` has `drift`"),
            ("ewma = [0.5, 0.25]", "ewma = [1.5]", "`features of point a`: 1.5 is no weight"),
            ("drift = [0.5]", "drift = [0.0]", "0 is no weight"),
            ("mean = [3]", "mean = [1]", "a window of 1 rows"),
            ("slope = [5]", "slope = [5000]", "expected 2 to 4096"),
            ("name = \"b\"", "name = \"a\"", "`a` is listed twice"),
            ("name = \"speed\"", "name = \"a\"", "`a` is listed twice"),
            ("scale = 10.0", "scale = 0.0", "the scale of `speed` is 0"),
            ("distance_max = 1.0", "distance_max = nan", "`regimes.distance_max`: it is NaN"),
            ("at = [25.0]", "at = []", "`regimes.centre 1, at`: expected 1 numbers, one for each setting"),
            ("mean = [1.0, 2.0]", "mean = [1.0]", "`regimes.centre 1, mean`: expected 2 numbers, one for each point"),
            ("deviation = [0.5, 0.25]", "deviation = [0.5, 0.0]", "0 is no deviation"),
        ] {
            assert!(WHOLE.contains(from), "{from}");
            let refused = Specification::parse(&WHOLE.replacen(from, to, 1)).unwrap_err().to_string();
            assert!(refused.contains(expected), "{to}: {refused}");
        }
        let nothing = "point = [{ name = \"a\", unit = \"1\" }]";
        assert_eq!(Specification::parse(nothing).unwrap_err().to_string(), "`features`: no point has one");
        assert!(Specification::parse("point = []").unwrap_err().to_string().contains("1 to 256"));
    }
}
